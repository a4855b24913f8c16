package apikey_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// A discard is a ResponseWriter that keeps only its header.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

var sink string

// handler reads who calls, as any handler behind authentication does.
var handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
	p, _ := usher.PrincipalFrom(r.Context())
	sink = p.ID
})

// handWritten is the middleware that people write themselves: the hash of the
// key, a map under a lock, and a context value. It has no cache, no expiry, no
// environments, no checksum, no record of use and no metrics.
type handWritten struct {
	mu   sync.RWMutex
	keys map[string]string // hex of the hash to the ID
}

type handWrittenKey struct{}

func (h *handWritten) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.Sum256([]byte(r.Header.Get("X-API-Key")))
		h.mu.RLock()
		id, ok := h.keys[hex.EncodeToString(sum[:])]
		h.mu.RUnlock()
		if !ok {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("WWW-Authenticate", "ApiKey")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"invalid api key"}`))
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), handWrittenKey{}, id)))
	})
}

var handWrittenHandler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
	sink, _ = r.Context().Value(handWrittenKey{}).(string)
})

func BenchmarkMiddleware(b *testing.B) {
	store := newCache(b, apikey.CacheConfig{Store: silent{apikey.NewMemory()}, TTL: time.Hour})
	m := newManager(b, apikey.ManagerConfig{Store: store})
	k, text := create(b, m, apikey.Key{Scopes: []string{"read"}})
	a := newAuthenticator(b, apikey.ManagerConfig{Store: store}, apikey.Config{Environment: "live"})
	sum := sha256.Sum256([]byte(text))
	own := (&handWritten{keys: map[string]string{hex.EncodeToString(sum[:]): k.ID}}).wrap(handWrittenHandler)
	ours := usher.Authenticate(a).Wrap(handler)
	memory := apikey.NewMemory()
	_, bareText := create(b, newManager(b, apikey.ManagerConfig{Store: memory}), apikey.Key{Scopes: []string{"read"}})
	bare := usher.Authenticate(newAuthenticator(b, apikey.ManagerConfig{Store: memory}, apikey.Config{})).Wrap(handler)
	for _, bench := range []struct {
		name    string
		handler http.Handler
		text    string
	}{
		{"valid key/usher", ours, text},
		{"valid key in a Memory/usher", bare, bareText},
		{"valid key/hand-written", own, text},
		{"garbage with response/usher", ours, text[:len(text)-1] + "!"},
		{"garbage with response/hand-written", own, text[:len(text)-1] + "!"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			r := request("X-API-Key", bench.text)
			w := discard{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				bench.handler.ServeHTTP(w, r)
				clear(w.header)
			}
		})
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	peppers := []apikey.Pepper{{Version: 1, Key: apikey.NewSecret(strings.Repeat("k", 32))}}
	store := newCache(b, apikey.CacheConfig{Store: silent{apikey.NewMemory()}, TTL: time.Hour, NegativeTTL: time.Hour})
	_, text := create(b, newManager(b, apikey.ManagerConfig{Store: store}), apikey.Key{})
	_, peppered := create(b, newManager(b, apikey.ManagerConfig{Store: store, Peppers: peppers}), apikey.Key{})
	plain := newAuthenticator(b, apikey.ManagerConfig{Store: store}, apikey.Config{})
	withPepper := newAuthenticator(b, apikey.ManagerConfig{Store: store, Peppers: peppers}, apikey.Config{})
	for _, bench := range []struct {
		name string
		a    *apikey.Authenticator
		text string
	}{
		{"valid key", plain, text},
		{"valid key with a pepper", withPepper, peppered},
		{"unknown key", plain, generate(b, native, "")},
		{"wrong checksum", plain, text[:len(text)-1] + "!"},
		{"garbage", plain, "garbage"},
		{"900KiB", plain, strings.Repeat("a", 900<<10)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			r := request("X-API-Key", bench.text)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = bench.a.Authenticate(r)
			}
		})
		b.Run(bench.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := httptest.NewRequest(http.MethodGet, "/", nil)
				r.Header.Set("X-API-Key", bench.text)
				for pb.Next() {
					_, _ = bench.a.Authenticate(r)
				}
			})
		})
	}
}

// BenchmarkOnUse measures what records the use of one key that many goroutines share.
func BenchmarkOnUse(b *testing.B) {
	m := newManager(b, apikey.ManagerConfig{})
	_, text := create(b, m, apikey.Key{})
	a, err := apikey.New(apikey.Config{Manager: m})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	p, err := a.Authenticate(request("X-API-Key", text))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := request()
		for pb.Next() {
			p.OnUse(r, http.StatusOK)
		}
	})
}
