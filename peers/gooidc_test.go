package peers_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

// goOIDC returns a server of go-oidc with one key, whose ID is "1", and a function that
// signs claims with it. The key has an alg if it is named.
func goOIDC(t *testing.T, a jwk.Algorithm, named bool) (issuer string, sign func(object) string) {
	t.Helper()
	private := privateKey(t, a)
	key := oidctest.PublicKey{PublicKey: private.Public(), KeyID: "1"}
	if named {
		key.Algorithm = string(a)
	}
	s := &oidctest.Server{PublicKeys: []oidctest.PublicKey{key}, Algorithms: []string{string(a)}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.SetIssuer(server.URL)
	return server.URL, func(claims object) string {
		text, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		return oidctest.SignIDToken(private, "1", string(a), string(text))
	}
}

// Both libraries accept the same tokens.
func TestTokensOfGoOIDCAreAccepted(t *testing.T) {
	for _, a := range common {
		for _, named := range []bool{true, false} {
			issuer, sign := goOIDC(t, a, named)
			api := serveAPI(t, verifier(t, jwtauth.TrustedIssuer{
				Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{a},
				Keys: remote(t, jwk.RemoteConfig{Issuer: issuer}),
			}))
			provider, err := oidc.NewProvider(t.Context(), issuer)
			if err != nil {
				t.Fatal(err)
			}
			peer := provider.VerifierContext(t.Context(), &oidc.Config{ClientID: audience})
			good := with(claims(), object{"iss": issuer})
			for name, changes := range map[string]object{
				"good":             nil,
				"another issuer":   {"iss": issuer + "/"},
				"another audience": {"aud": audience + "/"},
				"expired":          {"exp": 1},
				"no expiry":        {"exp": nil},
				"before nbf":       {"nbf": 4e9},
			} {
				token := sign(with(good, changes))
				status, _ := get(t, api, token)
				_, err := peer.Verify(t.Context(), token)
				if accepted := name == "good"; accepted != (status == http.StatusOK) || accepted != (err == nil) {
					t.Errorf("%s, %s: %d, and go-oidc: %v", a, name, status, err)
				}
			}
		}
	}
}

func TestGoOIDCAcceptsTokensOfSessions(t *testing.T) {
	for _, a := range common {
		manager := sessions(t, session.Config{Keys: []session.SigningKey{{Key: newKey(t, a)}}})
		keys := oidc.NewRemoteKeySet(t.Context(), "http://"+serve(t, http.HandlerFunc(manager.ServeJWKS)))
		token := login(t, manager).AccessToken()
		verify := func(issuer, audience string) error {
			c := oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{string(a)}}
			_, err := oidc.NewVerifier(issuer, keys, &c).Verify(t.Context(), token)
			return err
		}
		if err := verify(sessionIssuer, audience); err != nil {
			t.Errorf("%s: %v", a, err)
		}
		if verify(sessionIssuer+"/", audience) == nil || verify(sessionIssuer, audience+"/") == nil {
			t.Errorf("%s: accepted for others", a)
		}
	}
}
