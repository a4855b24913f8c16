package jwtauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/jwtauth"
)

func TestResponsesOfRFC6750(t *testing.T) {
	change := func(c *jwtauth.Config) {
		c.Realm, c.ResourceMetadata, c.Cookie = "api", "https://api.example/.well-known/oauth-protected-resource", "session"
	}
	const where = `, resource_metadata="https://api.example/.well-known/oauth-protected-resource"`
	one := func(name string, values ...string) http.Header { return http.Header{name: values} }
	for name, tt := range map[string]struct {
		header    http.Header
		status    int
		code      string
		challenge string
	}{
		"no token":       {nil, 401, usher.CodeMissingCredential, `Bearer realm="api"` + where},
		"another scheme": {one("Authorization", "Basic eA=="), 401, usher.CodeMissingCredential, `Bearer realm="api"` + where},
		"a bad token":    {one("Authorization", "Bearer x"), 401, usher.CodeInvalidToken, `Bearer realm="api", error="invalid_token"` + where},
		"a bad cookie":   {one("Cookie", "session=x"), 401, usher.CodeInvalidToken, `Bearer realm="api", error="invalid_token"` + where},
		"two Authorization lines": {one("Authorization", "Bearer "+good(), "Bearer "+good()), 401, usher.CodeInvalidToken,
			`Bearer realm="api", error="invalid_token"` + where},
		"two cookies of the name with tokens of two callers": {
			one("Cookie", "session="+good()+"; session="+token(claims(map[string]any{"sub": "bob"}))), 401, usher.CodeInvalidToken,
			`Bearer realm="api", error="invalid_token"` + where,
		},
		"a field and a cookie": {http.Header{"Authorization": {"Bearer " + good()}, "Cookie": {"session=" + good()}}, 400, usher.CodeInvalidRequest,
			`Bearer realm="api", error="invalid_request"` + where},
		"a list": {one("Authorization", "Bearer "+good()+", Bearer "+good()), 401, usher.CodeInvalidToken,
			`Bearer realm="api", error="invalid_token"` + where},
		"a good token":                      {one("Authorization", "Bearer "+good()), 200, "", ""},
		"a good cookie":                     {one("Cookie", "a=b; session="+good()), 200, "", ""},
		"a good cookie and another scheme":  {http.Header{"Authorization": {"Basic eA=="}, "Cookie": {"session=" + good()}}, 200, "", ""},
		"two cookies with one token":        {one("Cookie", "session="+good()+"; session="+good()), 200, "", ""},
		"an empty cookie beside a good one": {one("Cookie", "session=; session="+good()), 200, "", ""},
		"an empty cookie":                   {one("Cookie", "session="), 401, usher.CodeMissingCredential, `Bearer realm="api"` + where},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, "")
			r.Header = tt.header
			w := respond(t, verifier(t, change), r)
			var body struct{ Code string }
			_ = json.Unmarshal(w.Body.Bytes(), &body)
			if w.Code != tt.status || body.Code != tt.code || w.Header().Get("WWW-Authenticate") != tt.challenge {
				t.Errorf("%d %s %s", w.Code, body.Code, w.Header().Get("WWW-Authenticate"))
			}
		})
	}
}

func TestTooLittleScopeIsInsufficientScope(t *testing.T) {
	h := usher.Chain(
		usher.Authenticate(verifier(t, nil)),
		usher.Require(usher.Requirement{Scopes: []string{"read", "write"}}),
	).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for scope, status := range map[string]int{"read": 403, "read write": 200} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request(t, token(claims(map[string]any{"scope": scope}))))
		if w.Code != status {
			t.Errorf("%q: %d", scope, w.Code)
		}
		if got := w.Header().Get("WWW-Authenticate"); status == 403 && got != `Bearer error="insufficient_scope", scope="read write"` {
			t.Error(got)
		}
	}
}

// Whatever is wrong with a token, the response looks the same to a client.
func TestRefusalsAreTheSameBytes(t *testing.T) {
	var list jwtauth.RevocationList
	if err := list.RevokeToken(t.Context(), issuer, "revoked", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	v := verifier(t, func(c *jwtauth.Config) { c.Revocations = &list })
	dump := func(text string) string {
		w := respond(t, v, request(t, text))
		return w.Result().Status + "\n" + strings.Join(w.Header().Values("WWW-Authenticate"), "|") + "\n" + w.Body.String()
	}
	first := dump("x")
	for name, text := range map[string]string{
		"unknown issuer":  token(claims(map[string]any{"iss": "x"})),
		"wrong algorithm": plain(`{"alg":"HS512"}`, "{}"),
		"wrong type":      plain(`{"alg":"HS256","typ":"x"}`, payload(`"a":1`)),
		"bad signature":   good()[:len(good())-43] + strings.Repeat("A", 43),
		"claims":          token(claims(map[string]any{"exp": nil})),
		"audience":        token(claims(map[string]any{"aud": "x"})),
		"expired":         token(claims(map[string]any{"exp": 1})),
		"not yet valid":   token(claims(map[string]any{"nbf": 4102444800})),
		"revoked":         token(claims(map[string]any{"jti": "revoked"})),
	} {
		if diff := compare.Diff(first, dump(text)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// The rows of a documented service whose sessions are HS256 tokens.
func TestKisaraSessions(t *testing.T) {
	const missing = "Unauthorized: No token provided"
	v := verifier(t, func(c *jwtauth.Config) {
		c.Issuers[0].RequiredClaims = []string{"email"}
		c.Errors = map[jwtauth.Verdict]*usher.Error{
			jwtauth.Expired:       {Status: 401, Code: "token_expired", Message: "Token has expired"},
			jwtauth.InvalidClaims: {Status: 401, Code: "authentication_failed", Message: "Authentication failed"},
			jwtauth.BadSignature:  {Status: 401, Code: "invalid_token", Message: "Invalid token"},
			jwtauth.Malformed:     {Status: 401, Code: "invalid_token", Message: "Invalid token"},
			jwtauth.NotYetValid:   {Status: 401, Code: "invalid_token", Message: "Invalid token"},
		}
		c.Check = func(_ context.Context, t *jwtauth.Token) error {
			if t.Subject == "gone" {
				return &usher.Error{Status: 401, Code: "authentication_failed", Message: "Authentication failed"}
			}
			return nil
		}
	})
	of := func(some map[string]any) string {
		c := claims(some)
		if _, ok := some["email"]; !ok {
			c["email"] = "ann@example.org"
		}
		return token(c)
	}
	signed := of(nil)
	for name, tt := range map[string]struct {
		authorization string
		status        int
		message       string
	}{
		"KS-10 no token":           {"", 401, missing},
		"KS-10 another scheme":     {"Basic eA==", 401, missing},
		"KS-11 expired":            {"Bearer " + of(map[string]any{"exp": time.Now().Unix() - 60}), 401, "Token has expired"},
		"KS-11 expired and forged": {"Bearer " + of(map[string]any{"exp": 1})[:len(of(map[string]any{"exp": 1}))-43] + strings.Repeat("A", 43), 401, "Invalid token"},
		"KS-12 bad signature":      {"Bearer " + signed[:len(signed)-43] + strings.Repeat("A", 43), 401, "Invalid token"},
		"KS-12 malformed":          {"Bearer nonsense", 401, "Invalid token"},
		"KS-12 not yet valid":      {"Bearer " + of(map[string]any{"nbf": time.Now().Unix() + 60}), 401, "Invalid token"},
		"KS-13 without email":      {"Bearer " + good(), 401, "Authentication failed"},
		"KS-13 the user is gone":   {"Bearer " + of(map[string]any{"sub": "gone"}), 401, "Authentication failed"},
		"good":                     {"Bearer " + signed, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, "")
			if tt.authorization != "" {
				r.Header.Set("Authorization", tt.authorization)
			}
			w := respond(t, v, r)
			var body struct{ Detail string }
			_ = json.Unmarshal(w.Body.Bytes(), &body)
			if tt.message == missing {
				body.Detail = missing // that text is the envelope's catalogue's
				if !strings.Contains(w.Body.String(), usher.CodeMissingCredential) {
					t.Errorf("%s", w.Body)
				}
			}
			if w.Code != tt.status || body.Detail != tt.message {
				t.Errorf("%d %q", w.Code, body.Detail)
			}
		})
	}
}

// key is an authenticator for keys in X-API-Key, of which "good" is one.
type key struct{ asked *int }

func (k key) Authenticate(r *http.Request) (*usher.Principal, error) {
	*k.asked++
	switch r.Header.Get("X-Api-Key") {
	case "":
		return nil, usher.ErrNoCredential
	case "good":
		return &usher.Principal{ID: "key", Kind: usher.KindAPIKey}, nil
	}
	return nil, &usher.Error{Status: 401}
}

func (key) Detect(r *http.Request) (string, bool) {
	if r.Header.Get("X-Api-Key") != "" {
		return "X-Api-Key", true
	}
	return "", false
}

func (key) Challenge() string { return "ApiKey" }

func TestTokenAndKeyInOneRequest(t *testing.T) {
	v := verifier(t, func(c *jwtauth.Config) { c.ExactBearer = true })
	for name, tt := range map[string]struct {
		authorization, key string
		status, asked      int
	}{
		"KS-07 a good token decides, and the key is not looked at": {"Bearer " + good(), "bad", 200, 0},
		"KS-08 a bad token never falls back to the key":            {"Bearer x", "good", 401, 0},
		"KS-09 Basic is another scheme":                            {"Basic eA==", "good", 200, 1},
		"KS-09 bearer is not Bearer":                               {"bearer " + good(), "good", 200, 1},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			r := request(t, "")
			r.Header.Set("Authorization", tt.authorization)
			r.Header.Set("X-Api-Key", tt.key)
			if w := respond(t, usher.Precedence(v, key{&asked}), r); w.Code != tt.status || asked != tt.asked {
				t.Errorf("%d, key asked %d times", w.Code, asked)
			}
		})
	}
}

// The rows of a documented service whose partners sign tokens themselves.
func TestServerToServerAssertions(t *testing.T) {
	i := hs256(t)
	i.Profile = jwtauth.ProfileAssertion
	v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
	now := time.Now().Unix()
	for name, tt := range map[string]struct {
		some map[string]any
		want jwtauth.Verdict
	}{
		"KE-15 an hour":              {map[string]any{"exp": now + 3600}, jwtauth.Accepted},
		"KE-15 more than an hour":    {map[string]any{"exp": now + 3601}, jwtauth.InvalidClaims},
		"KE-15 no iat":               {map[string]any{"iat": nil}, jwtauth.InvalidClaims},
		"KE-15 no sub":               {map[string]any{"sub": nil}, jwtauth.InvalidClaims},
		"KE-15 an empty sub":         {map[string]any{"sub": ""}, jwtauth.InvalidClaims},
		"KE-15 no exp":               {map[string]any{"exp": nil}, jwtauth.InvalidClaims},
		"KE-15 no aud":               {map[string]any{"aud": nil}, jwtauth.WrongAudience},
		"KE-15 no iss":               {map[string]any{"iss": nil}, jwtauth.UnknownIssuer},
		"KE-04 expired":              {map[string]any{"iat": now - 3700, "exp": now - 100}, jwtauth.Expired},
		"KE-15 issued in the future": {map[string]any{"iat": now + 3600, "exp": now + 3700}, jwtauth.NotYetValid},
		"KE-15 with a jti":           {map[string]any{"jti": "1"}, jwtauth.Accepted},
	} {
		t.Run(name, func(t *testing.T) { want(t, v, token(claims(tt.some)), tt.want) })
	}
}

func TestRequiredClaimsOfProfiles(t *testing.T) {
	for profile, required := range map[jwtauth.Profile][]string{
		jwtauth.ProfilePlain:       {"iss", "aud", "exp"},
		jwtauth.ProfileAccessToken: {"iss", "exp", "aud", "sub", "client_id", "iat", "jti"},
		jwtauth.ProfileAssertion:   {"iss", "sub", "aud", "exp", "iat"},
		jwtauth.ProfileSession:     {"iss", "sub", "aud", "exp", "iat", "jti", "sid"},
	} {
		typ := map[jwtauth.Profile]string{jwtauth.ProfileAccessToken: "at+jwt", jwtauth.ProfileSession: "session+jwt"}[profile]
		if typ == "" {
			typ = "JWT"
		}
		i := hs256(t)
		i.Profile = profile
		i.RequiredClaims = []string{"tenant"}
		v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
		all := claims(map[string]any{"client_id": "c", "jti": "1", "sid": "s", "tenant": "t"})
		sign := func(c map[string]any) string {
			return plain(`{"alg":"HS256","typ":"`+typ+`"}`, string(must(json.Marshal(c))))
		}
		want(t, v, sign(all), jwtauth.Accepted)
		for _, name := range append(required, "tenant") {
			for _, value := range []any{nil, ""} {
				c := claims(all)
				if c[name] = value; value == nil {
					delete(c, name)
				}
				if verdict(t, v, sign(c)) == jwtauth.Accepted {
					t.Errorf("profile %d accepts a token whose %s is %v", profile, name, value)
				}
			}
		}
	}
}

func TestTokenWithoutExpiryOnlyOnRequest(t *testing.T) {
	i := hs256(t)
	i.DangerouslyAcceptWithoutExpiry = true
	v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
	text := token(claims(map[string]any{"exp": nil}))
	want(t, v, text, jwtauth.Accepted)
	want(t, v, text, jwtauth.Accepted)
	want(t, v, token(claims(map[string]any{"exp": 0})), jwtauth.Expired)
	want(t, verifier(t, nil), text, jwtauth.InvalidClaims)
}

func TestPrincipalAndClaims(t *testing.T) {
	type session struct {
		Email string `json:"email"`
		Plan  string `json:"plan"`
	}
	v := verifier(t, func(c *jwtauth.Config) {
		c.Principal = func(t *jwtauth.Token, p usher.Principal) usher.Principal {
			var s session
			if t.Claims(&s) != nil || s.Email == "" {
				return usher.Principal{}
			}
			p.ID, p.Owner, p.Plan, p.Level, p.Details = s.Email, "team", s.Plan, usher.LevelFull, "replaced"
			return p
		}
	})
	text := token(claims(map[string]any{"email": "ann@example.org", "plan": "pro", "scope": "read"}))
	for range 2 { // verified, then remembered
		h := usher.Authenticate(v).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			p, _ := usher.PrincipalFrom(r.Context())
			got, err := jwtauth.Claims[session](r.Context())
			if err != nil || got != (session{"ann@example.org", "pro"}) {
				t.Errorf("%+v %v", got, err)
			}
			if p.ID != "ann@example.org" || p.Owner != "team" || p.Plan != "pro" || p.Level != usher.LevelFull ||
				p.Kind != usher.KindJWT || !p.HasScopes("read") {
				t.Errorf("%+v", p)
			}
			if tok, ok := p.Details.(*jwtauth.Token); !ok || tok.Subject != "ann" || tok.Issuer != issuer || tok.ExpiresAt.IsZero() {
				t.Errorf("%+v", p.Details)
			}
			if _, err := jwtauth.Claims[struct {
				Email int `json:"email"`
			}](r.Context()); err == nil {
				t.Error("claims that do not fit cause no error")
			}
		}))
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, request(t, text)); w.Code != 200 {
			t.Error(w.Code)
		}
	}
	want(t, v, good(), jwtauth.InvalidClaims) // no ID
	if _, err := jwtauth.Claims[session](t.Context()); !errors.Is(err, jwtauth.ErrNoToken) {
		t.Error(err)
	}
	want(t, verifier(t, nil), token(claims(map[string]any{"sub": nil})), jwtauth.InvalidClaims)
}

func TestVerifyWithoutARequest(t *testing.T) {
	got, err := verifier(t, nil).Verify(t.Context(), good())
	if err != nil || got.Subject != "ann" {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := verifier(t, nil).Verify(t.Context(), "x"); !errors.Is(err, jwtauth.Malformed) || got != nil {
		t.Errorf("%+v %v", got, err)
	}
}

func TestDetectIsCertainOfTheTokensOfItsIssuers(t *testing.T) {
	v := verifier(t, func(c *jwtauth.Config) { c.Cookie, c.Issuers[0].Aliases = "session", []string{"alias"} })
	of := func(iss any) string { return token(claims(map[string]any{"iss": iss})) }
	for name, tt := range map[string]struct {
		header  http.Header
		carrier string
		certain bool
	}{
		"nothing":           {http.Header{}, "", false},
		"a token":           {http.Header{"Authorization": {"Bearer " + good()}}, "Authorization", true},
		"a forged token":    {http.Header{"Authorization": {"Bearer " + good() + "x"}}, "Authorization", true},
		"of an alias":       {http.Header{"Authorization": {"Bearer " + of("alias")}}, "Authorization", true},
		"of another issuer": {http.Header{"Authorization": {"Bearer " + of("https://other.example")}}, "Authorization", false},
		"of nobody":         {http.Header{"Authorization": {"Bearer " + of(nil)}}, "Authorization", false},
		"of a number":       {http.Header{"Authorization": {"Bearer " + of(7)}}, "Authorization", false},
		"no claims":         {http.Header{"Authorization": {"Bearer a.b.c"}}, "Authorization", false},
		"iss twice":         {http.Header{"Authorization": {"Bearer " + plain(jwtHeader, `{"iss":"`+issuer+`","iss":"x"}`)}}, "Authorization", false},
		"too long":          {http.Header{"Authorization": {"Bearer " + token(claims(map[string]any{"x": strings.Repeat("x", 30000)}))}}, "Authorization", false},
		"an API key":        {http.Header{"Authorization": {"Bearer shop_live_x"}}, "Authorization", false},
		"two lines":         {http.Header{"Authorization": {"Bearer " + good(), "Bearer " + good()}}, "Authorization", false},
		"a cookie":          {http.Header{"Cookie": {"session=" + good()}}, "Cookie", true},
		"other cookie":      {http.Header{"Cookie": {"other=" + good()}}, "", false},
		"both":              {http.Header{"Authorization": {"Bearer shop_live_x"}, "Cookie": {"session=" + good()}}, "Cookie", false},
	} {
		t.Run(name, func(t *testing.T) {
			carrier, certain := v.Detect(&http.Request{Header: tt.header})
			if carrier != tt.carrier || certain != tt.certain {
				t.Error(carrier, certain)
			}
		})
	}
}

func TestCarriersAreTheConfiguredHeaderFields(t *testing.T) {
	for name, tt := range map[string]struct {
		lister usher.CarrierLister
		want   []string
	}{
		"of a verifier":                  {verifier(t, nil), []string{"Authorization"}},
		"of a verifier with a cookie":    {verifier(t, func(c *jwtauth.Config) { c.Cookie = "session" }), []string{"Authorization", "Cookie"}},
		"of an introspection":            {introspection(t, new(publisher), nil), []string{"Authorization"}},
		"of an introspection and cookie": {introspection(t, new(publisher), func(c *jwtauth.IntrospectionConfig) { c.Cookie = "session" }), []string{"Authorization", "Cookie"}},
	} {
		if got := tt.lister.Carriers(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestVerdictsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for v := jwtauth.Missing; v <= jwtauth.Accepted; v++ {
		if v.String() == "" || seen[v.String()] || v.Error() != "jwtauth: "+v.String() {
			t.Errorf("%d is %q", v, v)
		}
		seen[v.String()] = true
	}
	if got := (jwtauth.Accepted + 1).String(); got != "Verdict(20)" {
		t.Error(got)
	}
}
