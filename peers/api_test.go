package peers_test

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

// audience is the name of the API of these tests, as tokens for it have it.
const audience = "https://api.example"

// A caller is who an API has taken a request for.
type caller struct {
	ID     string
	Scopes []string
}

// serveAPI serves an API for callers with a token, and returns its URL.
func serveAPI(t *testing.T, authenticators ...usher.Authenticator) string {
	t.Helper()
	return "http://" + serve(t, usher.Authenticate(authenticators...).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		_ = json.NewEncoder(w).Encode(caller{ID: p.ID, Scopes: p.Scopes})
	})))
}

// get sends a request with a bearer token to an API. The status is 0 if there is no
// response.
func get(t *testing.T, url, token string) (status int, c caller) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Error(err)
		return 0, caller{}
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return 0, caller{}
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
			t.Error(err)
		}
	}
	return resp.StatusCode, c
}

// verifier returns a Verifier whose keys must be available at all times.
func verifier(t *testing.T, issuers ...jwtauth.TrustedIssuer) *jwtauth.Verifier {
	t.Helper()
	v, err := jwtauth.New(jwtauth.Config{Issuers: issuers, OnError: unexpected(t)})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// remote returns a key set without TLS that must be available at all times.
func remote(t *testing.T, c jwk.RemoteConfig) *jwk.Remote {
	t.Helper()
	c.DangerouslyAllowHTTP = true
	if c.OnError == nil {
		c.OnError = unexpected(t)
	}
	r, err := jwk.NewRemote(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// unexpected returns an OnError that fails the test.
func unexpected(t *testing.T) func(context.Context, error) {
	return func(_ context.Context, err error) { t.Error(err) }
}

// sessionIssuer is the issuer of the sessions of these tests.
const sessionIssuer = "https://shop.example"

// sessions returns a Manager of sessions for the API, by default that of sessionIssuer.
func sessions(t *testing.T, c session.Config) *session.Manager {
	t.Helper()
	c.Issuer, c.Audiences = cmp.Or(c.Issuer, sessionIssuer), []string{audience}
	manager, err := session.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return manager
}

// login opens a session of alice.
func login(t *testing.T, m *session.Manager) session.Tokens {
	t.Helper()
	tokens, err := m.Login(t.Context(), session.Session{Subject: "alice", Client: "app", Scopes: []string{"orders:read"}})
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}
