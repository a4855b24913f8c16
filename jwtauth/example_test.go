package jwtauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// An existing route accepts tokens that another service signs with a shared secret.
func Example() {
	secret := []byte("an example: 32 random bytes, say") // from a secret manager
	key, err := jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: secret})
	if err != nil {
		panic(err)
	}
	tokens, err := jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer:     "https://login.example",
			Audiences:  []string{"https://api.example"},
			Algorithms: []jwk.Algorithm{jwk.HS256},
			Keys:       jwk.Static{key},
		}},
	})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	read := usher.Chain(usher.Authenticate(tokens), usher.Require(usher.Requirement{Scopes: []string{"orders:read"}}))
	mux.Handle("GET /orders", read.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := usher.PrincipalFrom(r.Context())
		claims, _ := jwtauth.Claims[struct {
			Email string `json:"email"`
		}](r.Context())
		fmt.Fprintf(w, "orders of %s, <%s>", caller.ID, claims.Email)
	})))

	sign := func(scope string) string {
		t := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"iss": "https://login.example", "aud": "https://api.example", "sub": "ann",
			"exp": time.Now().Add(time.Minute).Unix(), "scope": scope, "email": "ann@example.org",
		})
		return must(t.SignedString(secret))
	}
	for _, token := range []string{sign("orders:read"), sign("other"), "nonsense", ""} {
		r := httptest.NewRequest(http.MethodGet, "/orders", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if w.Code == http.StatusOK {
			fmt.Println(w.Code, w.Body)
		} else {
			fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
		}
	}
	// Output:
	// 200 orders of https://login.example|ann, <ann@example.org>
	// 403 Bearer error="insufficient_scope", scope="orders:read"
	// 401 Bearer error="invalid_token"
	// 401 Bearer
}

// The mistake is to take the name of the user from a claim that the issuer lets people
// choose for themselves. An account belongs to the subject, which the issuer assigns and
// never gives to anybody else.
func ExampleConfig_incorrect() {
	key := must(jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: secret}))
	tokens := must(jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: jwk.Static{key},
		}},
		Principal: func(t *jwtauth.Token, p usher.Principal) usher.Principal {
			var claims struct {
				Username string `json:"preferred_username"`
			}
			_ = t.Claims(&claims)
			p.ID = claims.Username // want p.ID unchanged
			return p
		},
	}))
	for _, subject := range []string{"7c1e", "f00d"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token(claims(map[string]any{"sub": subject, "preferred_username": "ann"})))
		p, err := tokens.Authenticate(r)
		fmt.Println(subject, "is", p.ID, err)
	}
	// Output:
	// 7c1e is ann <nil>
	// f00d is ann <nil>
}

// A page of another origin calls the API. CORS is outside authentication, because browsers
// send a preflight request without a token, and so that the page can read a refusal. Any
// CORS middleware will do; the one here has only what the example needs.
func Example_cORS() {
	cors := usher.Adapt(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Vary", "Origin")
			if r.Header.Get("Origin") == "https://app.example" {
				w.Header().Set("Access-Control-Allow-Origin", "https://app.example")
				w.Header().Set("Access-Control-Expose-Headers", "WWW-Authenticate, Retry-After")
			}
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
				w.Header().Set("Access-Control-Allow-Methods", "GET, POST")
				w.WriteHeader(http.StatusNoContent)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	key := must(jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: secret}))
	tokens := must(jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
		Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: jwk.Static{key},
	}}}))
	api := usher.Chain(cors, usher.Authenticate(tokens)).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "orders")
	}))

	for _, header := range []http.Header{
		{"Access-Control-Request-Method": {"GET"}, "Access-Control-Request-Headers": {"authorization"}},
		{"Authorization": {"Bearer " + good()}},
		{"Authorization": {"Bearer nonsense"}},
	} {
		r := httptest.NewRequest(http.MethodGet, "/orders", nil)
		if header.Get("Authorization") == "" {
			r.Method = http.MethodOptions
		}
		r.Header = header
		r.Header.Set("Origin", "https://app.example")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		fmt.Printf("%s %d %s %q\n", r.Method, w.Code, w.Header().Get("Access-Control-Allow-Origin"), w.Header()["Www-Authenticate"])
	}
	// Output:
	// OPTIONS 204 https://app.example []
	// GET 200 https://app.example []
	// GET 401 https://app.example ["Bearer error=\"invalid_token\""]
}

// A session that is logged out ends at once, although its token is remembered.
func ExampleRevocationList() {
	var list jwtauth.RevocationList
	key := must(jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: secret}))
	tokens := must(jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: jwk.Static{key},
		}},
		Revocations: &list,
	}))
	ctx := context.Background()
	text := token(claims(map[string]any{"sid": "s1"}))
	t, err := tokens.Verify(ctx, text)
	fmt.Println(t.SessionID, err)
	if err := list.RevokeSession(ctx, t.Issuer, t.SessionID, t.ExpiresAt.Add(time.Minute)); err != nil {
		panic(err)
	}
	_, err = tokens.Verify(ctx, text)
	fmt.Println(errors.Is(err, jwtauth.Revoked))
	// Output:
	// s1 <nil>
	// true
}

// Each process follows the list that all of them share, which is a store on a server, and
// decides without a call to it.
func ExampleRevocationMirror() {
	var shared jwtauth.RevocationSource = new(jwtauth.RevocationList)
	one := must(jwtauth.NewRevocationMirror(jwtauth.RevocationMirrorConfig{Source: shared}))
	defer func() { _ = one.Close() }()
	ctx := context.Background()
	if err := one.RevokeSession(ctx, issuer, "s1", time.Now().Add(time.Hour)); err != nil {
		panic(err)
	}
	other := must(jwtauth.NewRevocationMirror(jwtauth.RevocationMirrorConfig{Source: shared}))
	defer func() { _ = other.Close() }()
	for _, m := range []*jwtauth.RevocationMirror{one, other} {
		revoked, err := m.Revoked(ctx, &jwtauth.Token{Issuer: issuer, SessionID: "s1"})
		fmt.Println(revoked, err)
	}
	// Output:
	// true <nil>
	// true <nil>
}

// The authorization server is asked about opaque tokens.
func ExampleNewIntrospection() {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("token") == "opaque" {
			fmt.Fprint(w, `{"active":true,"sub":"ann","aud":"https://api.example","scope":"read","exp":4102444800}`)
			return
		}
		fmt.Fprint(w, `{"active":false}`)
	}))
	defer server.Close()
	tokens, err := jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{
		Endpoint: server.URL, Client: server.Client(), ClientID: "api", ClientSecret: "from a secret manager",
		Issuer: "https://login.example", Audiences: []string{"https://api.example"},
	})
	if err != nil {
		panic(err)
	}
	for _, token := range []string{"opaque", "invented"} {
		t, err := tokens.Verify(context.Background(), token)
		fmt.Println(t != nil, errors.Is(err, jwtauth.Inactive))
	}
	// Output:
	// true false
	// false true
}

// The response does not say why a token was refused, but its private cause does.
func ExampleVerdict() {
	secret := []byte("an example: 32 random bytes, say")
	key, err := jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: secret})
	if err != nil {
		panic(err)
	}
	tokens, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
		Issuer:     "https://login.example",
		Audiences:  []string{"https://api.example"},
		Algorithms: []jwk.Algorithm{jwk.HS256},
		Keys:       jwk.Static{key},
	}}})
	if err != nil {
		panic(err)
	}
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"iss": "https://login.example/"}).SignedString(secret)
	if err != nil {
		panic(err)
	}
	_, err = tokens.Verify(context.Background(), text)
	fmt.Println(errors.Is(err, jwtauth.UnknownIssuer))
	fmt.Println(err)
	// Output:
	// true
	// 401 invalid_token: The token is not valid.: jwtauth: unknown_issuer: iss is "https://login.example/", want "https://login.example"
}

// A verifierThatLogs reports why it refuses a token. It is a Verifier in all other respects.
type verifierThatLogs struct{ *jwtauth.Verifier }

func (v verifierThatLogs) Authenticate(r *http.Request) (*usher.Principal, error) {
	p, err := v.Verifier.Authenticate(r)
	if verdict, ok := errors.AsType[jwtauth.Verdict](err); ok && verdict != jwtauth.Missing {
		fmt.Println("log:", errors.Unwrap(err))
	}
	return p, err
}

// The mistake is a slash at the end of the issuer's name, which Auth0 has and others do not.
// The log shows it, and the client learns nothing.
func ExampleVerifier_Authenticate() {
	key := must(jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: secret}))
	tokens := must(jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
		Issuer:     "https://tenant.auth0.example", // want a slash at the end
		Audiences:  []string{"https://api.example"},
		Algorithms: []jwk.Algorithm{jwk.HS256},
		Keys:       jwk.Static{key},
	}}}))
	api := usher.Authenticate(verifierThatLogs{tokens}).Wrap(http.NotFoundHandler())

	for _, text := range []string{"", token(claims(map[string]any{"iss": "https://tenant.auth0.example/"}))} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if text != "" {
			r.Header.Set("Authorization", "Bearer "+text)
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		var problem struct{ Code string }
		_ = json.Unmarshal(w.Body.Bytes(), &problem)
		fmt.Println(w.Code, problem.Code)
	}
	// Output:
	// 401 missing_credential
	// log: jwtauth: unknown_issuer: iss is "https://tenant.auth0.example/", want "https://tenant.auth0.example"
	// 401 invalid_token
}

// One route takes the JSON Web Tokens of one issuer and the opaque tokens of another. Each
// token is verified by the authenticator that knows its issuer or its form.
func ExampleIntrospection_Detect() {
	key := must(jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: secret}))
	signed := must(jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
		Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: jwk.Static{key},
	}}}))
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"active":true,"sub":"bob","aud":"https://api.example","exp":4102444800}`)
	}))
	defer server.Close()
	opaque := must(jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{
		Endpoint: server.URL, Client: server.Client(), ClientID: "api", ClientSecret: "from a secret manager",
		Issuer: "https://legacy.example", Audiences: []string{"https://api.example"},
	}))
	api := usher.Authenticate(signed, opaque).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := usher.PrincipalFrom(r.Context())
		fmt.Fprint(w, caller.Kind, " ", caller.ID)
	}))
	for _, text := range []string{good(), "opaque"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+text)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		fmt.Println(w.Body)
	}
	// Output:
	// jwt https://issuer.example|ann
	// oauth https://legacy.example|bob
}

// Tokens of some services differ from the standard. What differs is a field here.
func ExampleTrustedIssuer() {
	keys := jwk.Static{must(jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: secret}))} // a jwk.Remote, in a real service
	for _, tt := range []struct {
		service string
		issuer  jwtauth.TrustedIssuer
		claims  map[string]any
	}{
		{
			"Amazon Cognito", jwtauth.TrustedIssuer{AudienceClaim: "client_id"},
			map[string]any{"aud": nil, "client_id": "app"},
		},
		{
			"Google", jwtauth.TrustedIssuer{Aliases: []string{"login.example"}},
			map[string]any{"iss": "login.example", "aud": "app"},
		},
		{
			"Keycloak", jwtauth.TrustedIssuer{ScopeClaims: []string{"/realm_access/roles"}},
			map[string]any{"aud": "app", "realm_access": map[string]any{"roles": []string{"admin"}}},
		},
	} {
		i := tt.issuer
		i.Issuer, i.Audiences, i.Algorithms, i.Keys = issuer, []string{"app"}, []jwk.Algorithm{jwk.HS256}, keys
		tokens := must(jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}}))
		t, err := tokens.Verify(context.Background(), token(claims(tt.claims)))
		if err != nil {
			panic(err)
		}
		fmt.Println(tt.service, t.Issuer, t.Audience, t.Scopes)
	}
	// Output:
	// Amazon Cognito https://issuer.example [app] []
	// Google https://issuer.example [app] []
	// Keycloak https://issuer.example [app] [admin]
}

// A service accepts the users of the tenants of Microsoft Entra that are its customers.
// Each tenant is an issuer of its own, and all have the same keys.
func ExampleConfig_tenants() {
	customers := map[string]bool{"1b8b7f5c-0d4e-4a8e-9d6a-2f1c3b5a7e90": true} // a table, in a real service
	// In a real service, a jwk.Remote of
	// https://login.microsoftonline.com/common/discovery/v2.0/keys.
	secret := []byte("an example: 32 random bytes, say")
	key, err := jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: secret})
	if err != nil {
		panic(err)
	}
	keys := jwk.Static{key}
	tokens, err := jwtauth.New(jwtauth.Config{
		ResolveIssuer: func(_ context.Context, iss string) (jwtauth.TrustedIssuer, error) {
			// Only the ID of a customer, between exactly these two texts, is an issuer.
			rest, isPrefix := strings.CutPrefix(iss, "https://login.microsoftonline.com/")
			tenant, isSuffix := strings.CutSuffix(rest, "/v2.0")
			if !isPrefix || !isSuffix || !customers[tenant] {
				return jwtauth.TrustedIssuer{}, jwtauth.UnknownIssuer
			}
			return jwtauth.TrustedIssuer{
				Issuer:     iss,
				Audiences:  []string{"6f0e4d52-service"},
				Algorithms: []jwk.Algorithm{jwk.HS256}, // RS256 for Entra
				Keys:       keys,
			}, nil
		},
	})
	if err != nil {
		panic(err)
	}
	for _, tenant := range []string{"1b8b7f5c-0d4e-4a8e-9d6a-2f1c3b5a7e90", "of-somebody-else", "1b8b7f5c-0d4e-4a8e-9d6a-2f1c3b5a7e90/../x"} {
		text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"iss": "https://login.microsoftonline.com/" + tenant + "/v2.0", "aud": "6f0e4d52-service",
			"sub": "ann", "exp": time.Now().Add(time.Minute).Unix(),
		}).SignedString(secret)
		if err != nil {
			panic(err)
		}
		_, err = tokens.Verify(context.Background(), text)
		fmt.Println(tenant, err == nil)
	}
	// Output:
	// 1b8b7f5c-0d4e-4a8e-9d6a-2f1c3b5a7e90 true
	// of-somebody-else false
	// 1b8b7f5c-0d4e-4a8e-9d6a-2f1c3b5a7e90/../x false
}
