package peers_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rs/cors"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// A browser sends a preflight without a key, and reads a refusal only if CORS allows it:
// the CORS middleware stands outside Authenticate.
func TestBrowsersUseAPIKeysAcrossOrigins(t *testing.T) {
	keys, err := apikey.Open(apikey.ManagerConfig{
		Store: apikey.NewMemory(), Format: apikey.Native{Prefix: "shop"},
	}, apikey.Config{Carriers: []apikey.Carrier{{Header: "X-API-Key"}, {Scheme: "Bearer"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = keys.Close() }()
	_, secret, err := keys.Manager.Create(t.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "ann", Name: "browser"})
	if err != nil {
		t.Fatal(err)
	}
	const origin = "https://app.example"
	allow := cors.New(cors.Options{
		AllowedOrigins: []string{origin}, AllowedMethods: []string{http.MethodPut},
		AllowedHeaders: []string{"X-API-Key", "Authorization"}, ExposedHeaders: []string{"WWW-Authenticate"},
	})
	reached := 0
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached++ })
	auth := usher.Authenticate(keys.Authenticator)
	outside := httptest.NewServer(allow.Handler(auth.Wrap(handler)))
	defer outside.Close()
	inside := httptest.NewServer(auth.Wrap(allow.Handler(handler)))
	defer inside.Close()

	preflight := http.Header{
		"Access-Control-Request-Method": {http.MethodPut}, "Access-Control-Request-Headers": {"x-api-key"},
	}
	for name, tt := range map[string]struct {
		server         *httptest.Server
		method         string
		header         http.Header
		status, calls  int
		allowed, whole bool
	}{
		"a preflight":                            {outside, http.MethodOptions, preflight, http.StatusNoContent, 0, true, false},
		"a request with a key":                   {outside, http.MethodPut, http.Header{"X-Api-Key": {secret.Reveal()}}, http.StatusOK, 1, true, false},
		"a request without a key":                {outside, http.MethodPut, nil, http.StatusUnauthorized, 0, true, true},
		"a request with an invalid key":          {outside, http.MethodPut, http.Header{"Authorization": {"Bearer x"}}, http.StatusUnauthorized, 0, true, true},
		"a preflight, with CORS inside":          {inside, http.MethodOptions, preflight, http.StatusUnauthorized, 0, false, false},
		"a refusal, with CORS inside":            {inside, http.MethodPut, nil, http.StatusUnauthorized, 0, false, false},
		"a request with a key, with CORS inside": {inside, http.MethodPut, http.Header{"X-Api-Key": {secret.Reveal()}}, http.StatusOK, 1, true, false},
		"an OPTIONS that is no preflight":        {outside, http.MethodOptions, nil, http.StatusUnauthorized, 0, true, true},
		"a preflight for another method":         {outside, http.MethodOptions, http.Header{"Access-Control-Request-Method": {http.MethodDelete}}, http.StatusNoContent, 0, false, false},
		"a preflight that carries a key":         {outside, http.MethodOptions, http.Header{"Access-Control-Request-Method": {http.MethodPut}, "X-Api-Key": {"x"}}, http.StatusNoContent, 0, true, false},
		"a HEAD with a key, from elsewhere":      {outside, http.MethodHead, http.Header{"X-Api-Key": {secret.Reveal()}, "Origin": {"https://evil.example"}}, http.StatusOK, 1, false, false},
	} {
		reached = 0
		r, err := http.NewRequestWithContext(t.Context(), tt.method, tt.server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", origin)
		maps.Copy(r.Header, tt.header)
		response, err := tt.server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != tt.status || reached != tt.calls {
			t.Errorf("%s: %d and %d calls, want %d and %d", name, response.StatusCode, reached, tt.status, tt.calls)
		}
		if got := response.Header.Get("Access-Control-Allow-Origin") == origin; got != tt.allowed {
			t.Errorf("%s: allowed %t, want %t", name, got, tt.allowed)
		}
		if tt.whole && (response.Header.Get("Access-Control-Expose-Headers") == "" || response.Header.Get("WWW-Authenticate") == "") {
			t.Errorf("%s: the browser does not show the challenge: %v", name, response.Header)
		}
	}
}
