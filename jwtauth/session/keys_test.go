package session_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

func serveJWKS(tb testing.TB, h http.Handler, method string) *httptest.ResponseRecorder {
	tb.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(tb.Context(), method, "/", nil))
	return w
}

// published returns the kids and algorithms in a response, and fails if the response has
// anything private.
func published(tb testing.TB, w *httptest.ResponseRecorder) []string {
	tb.Helper()
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil || set.Keys == nil {
		tb.Fatalf("%v: %s", err, w.Body)
	}
	kids := []string{}
	for _, k := range set.Keys {
		for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
			if _, ok := k[name]; ok {
				tb.Errorf("%q is published", name)
			}
		}
		if k["use"] != "sig" {
			tb.Errorf("use %q", k["use"])
		}
		kids = append(kids, k["kid"]+" "+k["alg"])
	}
	return kids
}

func TestServeJWKSHasThePublicHalvesAndNoSecret(t *testing.T) {
	m := newManager(t, func(c *session.Config) {
		c.Keys = nil
		for n, a := range algorithms {
			c.Keys = append(c.Keys, session.SigningKey{Key: signing(t, "key "+string(a), a), From: time.Unix(int64(n), 0).AddDate(90, 0, 0)})
		}
		c.Keys[0].From = time.Time{}
	})
	w := serveJWKS(t, http.HandlerFunc(m.ServeJWKS), http.MethodGet)
	var want []string
	for _, a := range algorithms {
		if !strings.HasPrefix(string(a), "HS") {
			want = append(want, "key "+string(a)+" "+string(a))
		}
	}
	if diff := compare.Diff(want, published(t, w)); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	h := w.Header()
	if h.Get("Content-Type") != "application/jwk-set+json" || h.Get("Cache-Control") != "public, max-age=300" {
		t.Errorf("header %v", h)
	}

	secrets := newManager(t, nil)
	if got := serveJWKS(t, http.HandlerFunc(secrets.ServeJWKS), http.MethodGet).Body.String(); got != `{"keys":[]}` {
		t.Errorf("with secrets only: %s", got)
	}
}

func TestJWKSIsReadOnlyAndInNoEnvelope(t *testing.T) {
	m := newManager(t, func(c *session.Config) {
		c.Keys = []session.SigningKey{{Key: signing(t, "k1", jwk.ES256)}}
	})
	env := must(envelope.New(envelope.Config{Wrap: true}))
	w := serveJWKS(t, env.Wrap(http.HandlerFunc(m.ServeJWKS)), http.MethodGet)
	if diff := compare.Diff([]string{"k1 ES256"}, published(t, w)); diff != "" {
		t.Error(diff)
	}
	w = serveJWKS(t, http.HandlerFunc(m.ServeJWKS), http.MethodPost)
	if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("POST: %d %v", w.Code, w.Header())
	}
	w = serveJWKS(t, env.Wrap(http.HandlerFunc(m.ServeJWKS)), http.MethodOptions)
	if w.Code != 204 || w.Header().Get("Access-Control-Allow-Origin") != "*" || w.Body.Len() > 0 {
		t.Errorf("OPTIONS: %d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestJWKSHasAKeyBeforeItSignsAndUntilItsLastTokenHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, func(c *session.Config) {
			c.Keys = []session.SigningKey{
				{Key: signing(t, "old", jwk.ES256)},
				{Key: signing(t, "new", jwk.EdDSA), From: time.Now().Add(time.Hour)},
			}
		})
		for _, step := range []struct {
			wait time.Duration
			want []string
		}{
			{0, []string{"old ES256", "new EdDSA"}},
			{time.Hour + 20*time.Minute - time.Second, []string{"old ES256", "new EdDSA"}},
			{time.Second, []string{"new EdDSA"}},
		} {
			time.Sleep(step.wait)
			if diff := compare.Diff(step.want, published(t, serveJWKS(t, http.HandlerFunc(m.ServeJWKS), http.MethodGet))); diff != "" {
				t.Errorf("after %v: %s", step.wait, diff)
			}
		}
	})
}

// Another service that knows the address of the keys accepts the tokens.
func TestJWKSServesTheVerifiersOfOtherServices(t *testing.T) {
	m := newManager(t, func(c *session.Config) {
		c.Keys = []session.SigningKey{{Key: signing(t, "k1", jwk.PS384)}}
	})
	server := httptest.NewTLSServer(http.HandlerFunc(m.ServeJWKS))
	defer server.Close()
	keys, err := jwk.NewRemote(jwk.RemoteConfig{URL: server.URL, Client: server.Client()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = keys.Close() }()
	v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
		Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.PS384}, Keys: keys,
		Profile: jwtauth.ProfileSession,
	}}})
	want(t, v, login(t, m).AccessToken(), jwtauth.Accepted)
}
