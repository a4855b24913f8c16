package jwtauth_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
)

func TestOnlyScopesThatWereGrantedOpenARoute(t *testing.T) {
	plain := served(t, verifier(t, nil), "admin")
	named := served(t, verifier(t, func(c *jwtauth.Config) {
		c.Issuers[0].ScopeClaims = []string{"permissions", "roles", "/realm_access/roles", "/https:~1~1x~1~0//r", "https://x/roles"}
	}), "admin")
	for name, tt := range map[string]struct {
		server *httptest.Server
		claims map[string]any
		want   int
	}{
		"a scope":                               {plain, map[string]any{"scope": "read admin"}, 200},
		"scp":                                   {plain, map[string]any{"scp": []string{"read", "admin"}}, 200},
		"what the user may do":                  {plain, map[string]any{"scope": "read", "permissions": []string{"read", "admin"}}, 403},
		"permissions as one string":             {plain, map[string]any{"permissions": "admin"}, 403},
		"roles":                                 {plain, map[string]any{"roles": []string{"admin"}}, 403},
		"after a no-break space":                {plain, map[string]any{"scope": "read\u00a0admin"}, 403},
		"after an em space":                     {plain, map[string]any{"scope": "read\u2003admin"}, 403},
		"after a next line":                     {plain, map[string]any{"scope": "read\u0085admin"}, 403},
		"after a tab":                           {plain, map[string]any{"scope": "read\tadmin"}, 403},
		"after a line feed":                     {plain, map[string]any{"scp": "read\nadmin"}, 403},
		"in an item of a list":                  {plain, map[string]any{"scp": []string{"read admin"}}, 403},
		"a named claim":                         {named, map[string]any{"permissions": []string{"admin"}}, 200},
		"a named claim of one string":           {named, map[string]any{"roles": "user admin"}, 200},
		"a named claim, after a tab":            {named, map[string]any{"roles": "user\tadmin"}, 403},
		"a named claim in another case":         {named, map[string]any{"Roles": "admin"}, 403},
		"a named claim of another type":         {named, map[string]any{"roles": 1}, 403},
		"an object of roles (Zitadel)":          {named, map[string]any{"roles": map[string]any{"admin": map[string]any{"1": "acme"}, "a": 1}}, 200},
		"an object of what is true":             {named, map[string]any{"roles": map[string]any{"a": false, "admin": true}}, 200},
		"an object of what is false":            {named, map[string]any{"roles": map[string]any{"admin": false}}, 403},
		"an object of nulls":                    {named, map[string]any{"roles": json.RawMessage(`{"admin":null}`)}, 403},
		"an object of numbers":                  {named, map[string]any{"roles": map[string]any{"admin": 1}}, 403},
		"an object of arrays":                   {named, map[string]any{"roles": map[string]any{"admin": []string{"1"}}}, 403},
		"a role of no organization":             {named, map[string]any{"roles": map[string]any{"admin": map[string]any{}}}, 403},
		"an object deep inside":                 {named, map[string]any{"roles": map[string]any{"a": map[string]any{"admin": true}}}, 403},
		"an object in the place of scope":       {plain, map[string]any{"scope": map[string]any{"admin": true}}, 403},
		"a path to an array (Keycloak)":         {named, map[string]any{"realm_access": map[string]any{"roles": []string{"user", "admin"}}}, 200},
		"a path to a string":                    {named, map[string]any{"realm_access": map[string]any{"roles": "user admin"}}, 200},
		"a path to an object":                   {named, map[string]any{"realm_access": map[string]any{"roles": map[string]any{"admin": true}}}, 200},
		"a path to nothing":                     {named, map[string]any{"realm_access": map[string]any{"role": []string{"admin"}}}, 403},
		"a path through an array":               {named, map[string]any{"realm_access": []any{map[string]any{"roles": "admin"}}}, 403},
		"a path through a string":               {named, map[string]any{"realm_access": `{"roles":"admin"}`}, 403},
		"a path in another case":                {named, map[string]any{"realm_access": map[string]any{"Roles": "admin"}}, 403},
		"a path with escapes":                   {named, map[string]any{"https://x/~": map[string]any{"": map[string]any{"r": "admin"}}}, 200},
		"a claim named like a path":             {named, map[string]any{"/realm_access/roles": "admin"}, 403},
		"a claim named by a URL":                {named, map[string]any{"https://x/roles": "admin"}, 200},
		"scope beside the named claims":         {named, map[string]any{"scope": "admin"}, 200},
		"a claim that the Config does not name": {named, map[string]any{"groups": []string{"admin"}}, 403},
		"an empty item and a valid one":         {named, map[string]any{"roles": []string{"", "admin"}}, 200},
		"an item that is not a scope-token":     {named, map[string]any{"roles": []string{`admin"`, "é"}}, 403},
	} {
		t.Run(name, func(t *testing.T) {
			if got := status(t, tt.server.Client(), tt.server.URL, token(claims(tt.claims))); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}

// authorizationServer returns a server that responds to each introspection with body.
func authorizationServer(tb testing.TB, body string) *httptest.Server {
	tb.Helper()
	p := new(publisher)
	p.Say(body)
	s := httptest.NewServer(p)
	tb.Cleanup(s.Close)
	return s
}

func introspecting(tb testing.TB, body string, change func(*jwtauth.IntrospectionConfig)) *jwtauth.Introspection {
	tb.Helper()
	c := jwtauth.IntrospectionConfig{
		Endpoint: authorizationServer(tb, body).URL, DangerouslyAllowHTTP: true,
		ClientID: "api", ClientSecret: "s3cret", Issuer: issuer, Audiences: []string{audience},
	}
	if change != nil {
		change(&c)
	}
	return must(jwtauth.NewIntrospection(c))
}

func TestARefreshTokenDoesNotOpenTheAPIByIntrospection(t *testing.T) {
	anyAudience := func(c *jwtauth.IntrospectionConfig) {
		c.Audiences, c.DangerouslyAcceptAnyAudience = nil, true
	}
	requiring := func(name string, also func(*jwtauth.IntrospectionConfig)) func(*jwtauth.IntrospectionConfig) {
		return func(c *jwtauth.IntrospectionConfig) {
			c.RequiredClaims = []string{name}
			if also != nil {
				also(c)
			}
		}
	}
	for name, tt := range map[string]struct {
		response map[string]any
		change   func(*jwtauth.IntrospectionConfig)
		want     int
	}{
		"without exp, with audience and scope":                         {map[string]any{"exp": nil}, nil, 401},
		"without exp, where any audience is accepted":                  {map[string]any{"exp": nil, "aud": nil}, anyAudience, 401},
		"token_use (Ory Hydra)":                                        {map[string]any{"token_use": "refresh_token"}, nil, 401},
		"token_use and token_type Bearer":                              {map[string]any{"token_use": "refresh_token", "token_type": "Bearer"}, nil, 401},
		"token_type":                                                   {map[string]any{"token_type": "refresh_token"}, nil, 401},
		"token_type, where any audience is accepted":                   {map[string]any{"token_type": "refresh_token", "aud": nil}, anyAudience, 401},
		"typ (Keycloak)":                                               {map[string]any{"typ": "Refresh"}, anyAudience, 401},
		"typ of an offline token (Keycloak)":                           {map[string]any{"typ": "Offline"}, nil, 401},
		"token_type Bearer, without a required claim":                  {map[string]any{"token_type": "Bearer"}, requiring("jti", nil), 401},
		"no token_type, where it is required (node-oidc)":              {map[string]any{"aud": nil}, requiring("token_type", anyAudience), 401},
		"an access token":                                              {map[string]any{"token_type": "Bearer"}, nil, 200},
		"an access token with the required claim":                      {map[string]any{"jti": "1"}, requiring("jti", nil), 200},
		"an access token that does not expire, where that is accepted": {map[string]any{"exp": nil}, func(c *jwtauth.IntrospectionConfig) { c.DangerouslyAcceptWithoutExpiry = true }, 200},
	} {
		t.Run(name, func(t *testing.T) {
			api := served(t, introspecting(t, active(tt.response), tt.change), "read")
			if got := status(t, api.Client(), api.URL, opaque); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}

// If the response does not identify a refresh token, the text of the token may.
func TestARefreshTokenIsRecognizedByItsPrefix(t *testing.T) {
	for name, tt := range map[string]struct {
		prefix, token string
		want, calls   int
	}{
		"of Ory Fosite":             {"", "ory_rt_x.y", 401, 0},
		"of Authelia":               {"", "authelia_rt_x.y", 401, 0},
		"an access token of Fosite": {"", "ory_at_x.y", 200, 1},
		"without the prefix":        {"at-", "rt-1", 401, 0},
		"shorter than the prefix":   {"at-", "at", 401, 0},
		"with the prefix":           {"at-", "at-1", 200, 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := new(publisher)
			p.Say(active(nil))
			server := httptest.NewServer(p)
			defer server.Close()
			i := introspecting(t, "", func(c *jwtauth.IntrospectionConfig) { c.Endpoint, c.TokenPrefix = server.URL, tt.prefix })
			api := served(t, i)
			if got := status(t, api.Client(), api.URL, tt.token); got != tt.want || p.Fetches.Load() != int64(tt.calls) {
				t.Errorf("%d after %d calls, want %d after %d", got, p.Fetches.Load(), tt.want, tt.calls)
			}
		})
	}
}

func TestARefreshTokenThatIsAJWTDoesNotOpenTheAPI(t *testing.T) {
	for _, name := range []string{"token_use", "token_type", "typ", "type"} {
		for value, verdict := range map[string]jwtauth.Verdict{
			"refresh": jwtauth.WrongType, "Refresh": jwtauth.WrongType, "refresh_token": jwtauth.WrongType,
			"Offline": jwtauth.WrongType, "urn:ietf:params:oauth:token-type:refresh_token": jwtauth.WrongType,
			"access": jwtauth.Accepted, "Bearer": jwtauth.Accepted, "id": jwtauth.Accepted,
		} {
			t.Run(name+" "+value, func(t *testing.T) {
				want(t, verifier(t, nil), token(claims(map[string]any{name: value})), verdict)
			})
		}
	}
}

func TestABoundTokenIsNoBearerToken(t *testing.T) {
	thumbprint := map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}
	certificate := map[string]any{"x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}
	v := verifier(t, nil)
	for name, tt := range map[string]struct {
		authenticator usher.Authenticator
		claims        map[string]any
		want          int
	}{
		"DPoP":                         {v, map[string]any{"cnf": thumbprint}, 401},
		"a client certificate":         {v, map[string]any{"cnf": certificate}, 401},
		"a cnf of an unknown kind":     {v, map[string]any{"cnf": map[string]any{}}, 401},
		"a cnf that is not an object":  {v, map[string]any{"cnf": ""}, 401},
		"a cnf in another case":        {v, map[string]any{"CNF": thumbprint}, 401},
		"DPoP, introspected":           {nil, map[string]any{"token_type": "DPoP", "cnf": thumbprint}, 401},
		"token_type DPoP, without cnf": {nil, map[string]any{"token_type": "dpop"}, 401},
		"token_type PoP":               {nil, map[string]any{"token_type": "pop"}, 401},
		"cnf, with token_type Bearer":  {nil, map[string]any{"token_type": "Bearer", "cnf": certificate}, 401},
		"not bound":                    {v, nil, 200},
		"not bound, introspected":      {nil, nil, 200},
	} {
		t.Run(name, func(t *testing.T) {
			a, text := tt.authenticator, token(claims(tt.claims))
			if a == nil {
				a, text = introspecting(t, active(tt.claims), nil), opaque
			}
			api := served(t, a)
			for range 2 { // the second is remembered
				if got := status(t, api.Client(), api.URL, text); got != tt.want {
					t.Errorf("%d, want %d", got, tt.want)
				}
			}
		})
	}
	if w := respond(t, v, request(t, token(claims(map[string]any{"cnf": nil})))); w.Code != 200 {
		t.Errorf("%d without cnf", w.Code)
	}
	want(t, v, plain(jwtHeader, payload(`"cnf":null`)), jwtauth.Accepted)
	want(t, v, token(claims(map[string]any{"cnf": thumbprint})), jwtauth.Unconfirmed)
}

// ofCertificate confirms that a token is bound to the certificate of the client
// (RFC 8705, section 3.1).
func ofCertificate(r *http.Request, t *jwtauth.Token) error {
	var c struct {
		CNF struct {
			Certificate string `json:"x5t#S256"`
		} `json:"cnf"`
	}
	if err := t.Claims(&c); err != nil {
		return err
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	if sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw); c.CNF.Certificate != b64(sum[:]) {
		return errors.New("another certificate")
	}
	return nil
}

func TestABoundTokenOpensTheAPIForWhoProvesPossession(t *testing.T) {
	v := verifier(t, func(c *jwtauth.Config) { c.Confirm = ofCertificate })
	api := httptest.NewUnstartedServer(usher.Authenticate(v).Wrap(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") })))
	api.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	api.StartTLS()
	defer api.Close()
	client := func(certificates ...tls.Certificate) *http.Client {
		roots := x509.NewCertPool()
		roots.AddCert(api.Certificate())
		transport := &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs: roots, Certificates: certificates, MinVersion: tls.VersionTLS12,
		}}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	// The client uses the certificate of the server.
	own := api.TLS.Certificates[0]
	sum := sha256.Sum256(own.Certificate[0])
	bound := token(claims(map[string]any{"cnf": map[string]any{"x5t#S256": b64(sum[:])}}))
	other := token(claims(map[string]any{"cnf": map[string]any{"x5t#S256": b64(make([]byte, 32))}}))
	dpop := token(claims(map[string]any{"cnf": map[string]any{"jkt": b64(sum[:])}}))
	for _, tt := range []struct {
		name   string
		client *http.Client
		token  string
		want   int
	}{
		{"its sender", client(own), bound, 200},
		{"somebody who has copied it", client(), bound, 401},
		{"its sender again", client(own), bound, 200},
		{"the holder of another certificate", client(own), other, 401},
		{"a token of another method", client(own), dpop, 401},
		{"a token that is not bound", client(), good(), 200},
	} {
		if got := status(t, tt.client, api.URL, tt.token); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	// Without a request nothing can be confirmed.
	if _, err := v.Verify(t.Context(), bound); !errors.Is(err, jwtauth.Unconfirmed) {
		t.Errorf("Verify: %v", err)
	}
}

func TestWhatConfirmReturnsIsTheResponse(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want int
	}{
		"nil":                       {nil, 200},
		"any error":                 {errors.New("no"), 401},
		"an error of the client":    {&usher.Error{Status: 400, Code: "use_dpop_nonce"}, 400},
		"an error of the server":    {&usher.Error{Status: 500, Code: "replays_unknown"}, 503},
		"a nil pointer to an error": {(*usher.Error)(nil), 401},
	} {
		t.Run(name, func(t *testing.T) {
			confirm := func(*http.Request, *jwtauth.Token) error { return tt.err }
			bound := map[string]any{"cnf": map[string]any{"jkt": strings.Repeat("A", 43)}}
			v := verifier(t, func(c *jwtauth.Config) { c.Confirm = confirm })
			if w := respond(t, v, request(t, token(claims(bound)))); w.Code != tt.want {
				t.Errorf("Verifier: %d, want %d: %s", w.Code, tt.want, w.Body)
			}
			i := introspecting(t, active(map[string]any{"token_type": "DPoP"}), func(c *jwtauth.IntrospectionConfig) { c.Confirm = confirm })
			if w := respond(t, i, request(t, opaque)); w.Code != tt.want {
				t.Errorf("Introspection: %d, want %d: %s", w.Code, tt.want, w.Body)
			}
		})
	}
}

// A refused token is a credential: Optional does not admit its caller as anonymous.
func TestATokenThatACallbackRefusesIsNeverAnonymous(t *testing.T) {
	bound := map[string]any{"cnf": map[string]any{"jkt": strings.Repeat("A", 43)}}
	refuse := func() error { return fmt.Errorf("no proof: %w", usher.ErrNoCredential) }
	for name, c := range map[string]struct {
		set    func(*jwtauth.Config)
		claims map[string]any
	}{
		"Confirm": {func(c *jwtauth.Config) {
			c.Confirm = func(*http.Request, *jwtauth.Token) error { return refuse() }
		}, claims(bound)},
		"Check": {func(c *jwtauth.Config) {
			c.Check = func(context.Context, *jwtauth.Token) error { return refuse() }
		}, claims(nil)},
	} {
		if w := respond(t, usher.Optional(verifier(t, c.set)), request(t, token(c.claims))); w.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", name, w.Code)
		}
	}
}

func TestScopeClaimsMustBeNamesOrPointers(t *testing.T) {
	for _, name := range []string{"", "/a/~2", "/~", " roles", "/roles\n"} {
		i := hs256(t)
		i.ScopeClaims = []string{"roles", name}
		_, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
		wantFaults(t, err, "jwtauth.Config.Issuers[0].ScopeClaims")
	}
}

func TestScopeClaimsOfAnIntrospection(t *testing.T) {
	for name, members := range map[string]map[string]any{
		"a name": {"roles": []string{"admin"}},
		"a path": {"realm_access": map[string]any{"roles": []string{"admin"}}},
	} {
		api := served(t, introspecting(t, active(members), func(c *jwtauth.IntrospectionConfig) {
			c.ScopeClaims = []string{"roles", "/realm_access/roles"}
		}), "admin")
		if got := status(t, api.Client(), api.URL, opaque); got != 200 {
			t.Errorf("%s: %d", name, got)
		}
	}
}
