package session_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

func managerNamed(tb testing.TB, issuer string) *session.Manager {
	tb.Helper()
	return newManager(tb, func(c *session.Config) {
		c.Issuer = issuer
		c.Keys = []session.SigningKey{
			{Key: signing(tb, "1", jwk.ES256)},
			{Key: signing(tb, "2", jwk.HS256), From: time.Now().Add(time.Hour)},
			{Key: signing(tb, "3", jwk.PS384), From: time.Now().Add(2 * time.Hour)},
			{Key: signing(tb, "4", jwk.ES256), From: time.Now().Add(3 * time.Hour)},
		}
	})
}

func TestServeMetadata(t *testing.T) {
	const rest = `,"response_types_supported":["none"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256","PS384"]}`
	env := must(envelope.New(envelope.Config{Wrap: true}))
	for issuer, keys := range map[string]string{
		"https://shop.example":      "https://shop.example/.well-known/jwks.json",
		"https://shop.example/":     "https://shop.example/.well-known/jwks.json",
		"https://shop.example/auth": "https://shop.example/auth/.well-known/jwks.json",
		"http://localhost:8080":     "http://localhost:8080/.well-known/jwks.json",
	} {
		h := env.Wrap(http.HandlerFunc(managerNamed(t, issuer).ServeMetadata))
		w := serveJWKS(t, h, http.MethodGet)
		if want := `{"issuer":"` + issuer + `","jwks_uri":"` + keys + `"` + rest; w.Code != 200 || w.Body.String() != want {
			t.Errorf("%d %s, want %s", w.Code, w.Body, want)
		}
		if got := w.Header(); got.Get("Content-Type") != "application/json" || got.Get("Cache-Control") != "public, max-age=3600" ||
			got.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("header %v", got)
		}
		for method, status := range map[string]int{http.MethodOptions: 204, http.MethodPost: 405} {
			if w := serveJWKS(t, h, method); w.Code != status {
				t.Errorf("%s: %d", method, w.Code)
			}
		}
	}
}

// A name that is no URL is fine for a Manager, but nobody can find its metadata.
func TestServeMetadataOfAnIssuerWithoutAURL(t *testing.T) {
	for _, issuer := range []string{"shop", "http://shop.example", "https://shop.example?a", "https://shop.example#a", "https://user@shop.example"} {
		var cause error
		env := must(envelope.New(envelope.Config{OnError: func(_ context.Context, err error) { cause = err }}))
		w := serveJWKS(t, env.Wrap(http.HandlerFunc(managerNamed(t, issuer).ServeMetadata)), http.MethodGet)
		if w.Code != 500 || strings.Contains(w.Body.String(), "Issuer") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if cause == nil || !strings.Contains(cause.Error(), "the Issuer") || !strings.Contains(cause.Error(), issuer) {
			t.Errorf("cause %v", cause)
		}
	}
}

// Another service that knows the Issuer accepts the tokens.
func TestMetadataServesTheVerifiersOfOtherServices(t *testing.T) {
	for _, path := range []string{"", "/", "/auth", "/auth/"} {
		mux := http.NewServeMux()
		server := httptest.NewTLSServer(mux)
		defer server.Close()
		m := managerNamed(t, server.URL+path)
		prefix := strings.TrimSuffix(path, "/")
		mux.HandleFunc(prefix+"/.well-known/openid-configuration", m.ServeMetadata)
		mux.HandleFunc(prefix+"/.well-known/jwks.json", m.ServeJWKS)
		keys, err := jwk.NewRemote(jwk.RemoteConfig{Issuer: server.URL + path, Client: server.Client()})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = keys.Close() }()
		v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
			Issuer: server.URL + path, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.ES256}, Keys: keys,
			Profile: jwtauth.ProfileSession,
		}}})
		want(t, v, login(t, m).AccessToken(), jwtauth.Accepted)
	}
}
