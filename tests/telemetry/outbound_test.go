package telemetry_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// Operators see whether the keys of an issuer can be fetched.
func TestFetchesOfKeySetsAreMeasured(t *testing.T) {
	m := newMeter()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	failed := make(chan struct{}, 1)
	r, err := jwk.NewRemote(jwk.RemoteConfig{
		URL: server.URL, Client: server.Client(), MeterProvider: m,
		OnError: func(context.Context, error) {
			select {
			case failed <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	<-failed
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	got := m.calls(t, instrument(t, "usher.jwk.fetch.duration"))
	if len(got) != 1 || got["error.type=_OTHER"] == 0 {
		t.Errorf("measured %v, want failures", got)
	}
}

// Operators see whether the authorization server responds, and how many tokens are
// remembered.
func TestIntrospectionsAreMeasured(t *testing.T) {
	m := newMeter()
	hang := make(chan struct{})
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.PostFormValue("token") {
		case "active":
			_, _ = w.Write([]byte(`{"active":true,"sub":"ann","exp":9999999999,"client_id":"app"}`))
		case "inactive":
			_, _ = w.Write([]byte(`{"active":false}`))
		case "late":
			<-hang
		default:
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer server.Close()
	defer close(hang)
	i, err := jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{
		Endpoint: server.URL, Client: server.Client(), ClientID: "api", ClientSecret: "secret",
		Issuer: "https://issuer.example", DangerouslyAcceptAnyAudience: true,
		Timeout: 200 * time.Millisecond, MeterProvider: m,
		OnError: func(context.Context, error) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"active", "active", "inactive", "late", "broken"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		_, _ = i.Authenticate(r)
	}
	durations := instrument(t, "usher.introspection.request.duration")
	// The request that timed out is abandoned first, and ends a moment later.
	for began := time.Now(); len(m.calls(t, durations)) < 3 && time.Since(began) < 10*time.Second; {
		runtime.Gosched()
	}
	equal(t, map[string]uint64{"": 2, "error.type=timeout": 1, "error.type=_OTHER": 1}, m.calls(t, durations))
	equal(t, map[string]int64{"usher.cache=introspected_tokens": 1, "usher.cache=refused_tokens": 1},
		m.now(t, instrument(t, "usher.cache.entries")))
	runtime.KeepAlive(i)
}

// Caches of one kind are counted together.
func TestEntriesOfCachesAreCounted(t *testing.T) {
	m := newMeter()
	var all []*apikey.Cache
	for range 2 {
		cache, err := apikey.NewCache(apikey.CacheConfig{Store: struct{ apikey.Store }{apikey.NewMemory()}, MeterProvider: m})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cache.Close() }()
		all = append(all, cache)
		_, _ = cache.Lookup(t.Context(), apikey.Hash{1})
	}
	equal(t, map[string]int64{"usher.cache=api_keys": 0, "usher.cache=unknown_api_keys": 2},
		m.now(t, instrument(t, "usher.cache.entries")))
	runtime.KeepAlive(all)
}
