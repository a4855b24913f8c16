package peers_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

// metadataServers start an authorization server that publishes metadata, and return its
// issuer.
var metadataServers = map[string]func(*testing.T) string{
	"oidc-provider": func(t *testing.T) string { return oidcProvider(t, audience, "jwt", jwk.ES256, true).issuer },
	"zitadel":       func(t *testing.T) string { return zitadel(t, true, jwk.ES256).issuer },
	"go-oidc": func(t *testing.T) string {
		issuer, _ := goOIDC(t, jwk.ES256, true)
		return issuer
	},
}

// discoveryError returns the first error of the discovery of an issuer, and makes sure that
// there are no keys.
func discoveryError(t *testing.T, issuer string) error {
	t.Helper()
	failures := make(chan error, 1)
	keys := remote(t, jwk.RemoteConfig{Issuer: issuer, OnError: func(_ context.Context, err error) {
		select {
		case failures <- err:
		default:
		}
	}})
	if found, _, err := keys.Find(t.Context(), "1", jwk.ES256); err == nil || len(found) > 0 {
		t.Errorf("%s: %v, %v", issuer, found, err)
	}
	select {
	case err := <-failures:
		return err
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: no failure was reported", issuer)
		return nil
	}
}

// An issuer whose metadata is that of another one has no keys, and the error names both. So
// nobody can give the keys of one issuer the name of another, and a wrong slash is found.
func TestMetadataOfAnotherIssuerIsRefused(t *testing.T) {
	for name, start := range metadataServers {
		t.Run(name, func(t *testing.T) {
			issuer := start(t)
			mirror := "http://" + serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				resp, err := http.Get(issuer + r.URL.Path) //nolint:noctx // It is a test on the loopback.
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = resp.Body.Close() }()
				w.WriteHeader(resp.StatusCode)
				_, _ = io.Copy(w, resp.Body)
			}))
			for _, asked := range []string{mirror, issuer + "/", strings.Replace(issuer, "127.0.0.1", "localhost", 1)} {
				err := discoveryError(t, asked)
				if text := err.Error(); !strings.Contains(text, `"`+issuer+`"`) || !strings.Contains(text, `"`+asked+`"`) {
					t.Errorf("the error does not name both: %v", err)
				}
				if _, err := oidc.NewProvider(t.Context(), asked); err == nil {
					t.Errorf("go-oidc accepts %s", asked)
				}
			}
		})
	}
}

// What go-oidc reads in metadata, usher reads too; and what go-oidc refuses, usher does not
// accept.
func TestMetadataIsReadAsGoOIDCDoes(t *testing.T) {
	keys, sign := goOIDC(t, jwk.ES256, true)
	tests := map[string]struct {
		document string
		status   int
		accepted bool
	}{
		"complete":            {`{"issuer":"ISSUER","jwks_uri":"KEYS/keys","authorization_endpoint":"KEYS/auth"}`, 200, true},
		"unknown members":     {`{"issuer":"ISSUER","x":{"y":[1,null]},"jwks_uri":"KEYS/keys"}`, 200, true},
		"another issuer":      {`{"issuer":"https://other.example","jwks_uri":"KEYS/keys"}`, 200, false},
		"no issuer":           {`{"jwks_uri":"KEYS/keys"}`, 200, false},
		"a slash at the end":  {`{"issuer":"ISSUER/","jwks_uri":"KEYS/keys"}`, 200, false},
		"issuer not a string": {`{"issuer":["ISSUER"],"jwks_uri":"KEYS/keys"}`, 200, false},
		"an array":            {`[{"issuer":"ISSUER","jwks_uri":"KEYS/keys"}]`, 200, false},
		"not JSON":            {`<html>`, 200, false},
		"cut":                 {`{"issuer":"ISSUER","jwks_uri":"KEYS/ke`, 200, false},
		"404":                 {`{"issuer":"ISSUER","jwks_uri":"KEYS/keys"}`, 404, false},
		"500":                 {`{"issuer":"ISSUER","jwks_uri":"KEYS/keys"}`, 500, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var issuer string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasPrefix(r.URL.Path, "/.well-known/") {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, strings.NewReplacer("ISSUER", issuer, "KEYS", keys).Replace(tt.document))
			}))
			t.Cleanup(server.Close)
			issuer = server.URL
			if _, err := oidc.NewProvider(t.Context(), issuer); (err == nil) != tt.accepted {
				t.Errorf("go-oidc: %v", err)
			}
			if !tt.accepted {
				if err := discoveryError(t, issuer); err == nil {
					t.Error("accepted")
				}
				return
			}
			api := serveAPI(t, verifier(t, jwtauth.TrustedIssuer{
				Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.ES256},
				Keys: remote(t, jwk.RemoteConfig{Issuer: issuer}),
			}))
			if status, _ := get(t, api, sign(with(claims(), object{"iss": issuer}))); status != http.StatusOK {
				t.Error(status)
			}
		})
	}
}

// Other services need only the Issuer of a Manager to verify its access tokens.
func TestMetadataOfSessionsLeadsToTheirKeys(t *testing.T) {
	peer := runScript(t, "client.js")
	for _, path := range []string{"", "/sessions"} {
		mux := http.NewServeMux()
		issuer := "http://" + serve(t, mux) + path
		manager := sessions(t, session.Config{
			Issuer: issuer, Type: "at+jwt", Keys: []session.SigningKey{{Key: newKey(t, jwk.ES256)}},
		})
		mux.HandleFunc(path+"/.well-known/openid-configuration", manager.ServeMetadata)
		mux.HandleFunc(path+"/.well-known/jwks.json", manager.ServeJWKS)
		token := login(t, manager).AccessToken()

		api := serveAPI(t, verifier(t, jwtauth.TrustedIssuer{
			Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.ES256},
			Keys: remote(t, jwk.RemoteConfig{Issuer: issuer}), Profile: jwtauth.ProfileAccessToken,
		}))
		if status, c := get(t, api, token); status != http.StatusOK || c.ID != issuer+"|alice" {
			t.Errorf("%d %+v", status, c)
		}
		provider, err := oidc.NewProvider(t.Context(), issuer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := provider.VerifierContext(t.Context(), &oidc.Config{ClientID: audience}).Verify(t.Context(), token); err != nil {
			t.Errorf("go-oidc: %v", err)
		}
		peer.call(t, "validate", object{"issuer": issuer, "audience": audience, "token": token}, nil)
	}
}
