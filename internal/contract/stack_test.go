package contract_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/contract"
	"github.com/usher-go/usher/ratelimit"
)

// A bareHandler is what a service has before anything stands around it.
func bareHandler(w http.ResponseWriter, _ *http.Request) {
	w.Header()["Content-Type"] = []string{"application/json"}
	_, _ = io.WriteString(w, `{"id":1,"text":"a note"}`)
}

// stack is a whole one around bareHandler, and a key for it: the envelope, API
// keys from a cache, a limit for everybody and a further one of the route, and a
// level. With nested, the first limit stands around the second, which then counts
// only what the first does not; else the second stands in its place.
func stack(tb testing.TB, nested bool) (h http.Handler, key string) {
	ips := must(clientip.New(clientip.Config{}))
	format := apikey.Native{Prefix: "acme", Environments: []string{"live"}}
	cache := must(apikey.NewCache(apikey.CacheConfig{Store: apikey.NewMemory()}))
	tb.Cleanup(func() { _ = cache.Close() })
	auth := must(apikey.New(apikey.Config{Store: cache, Formats: []apikey.Format{format}, Environment: "live"}))
	tb.Cleanup(func() { _ = auth.Close() })
	manager := must(apikey.NewManager(apikey.ManagerConfig{Store: cache, Format: format}))
	_, secret, err := manager.Create(tb.Context(), apikey.Actor{}, apikey.Key{Owner: "ada", Name: "k", Level: usher.LevelReadOnly})
	if err != nil {
		tb.Fatal(err)
	}
	plenty := ratelimit.TokenBucket(1_000_000_000, time.Second, 1_000_000_000)
	policy := func(name string) ratelimit.Policy {
		return ratelimit.Policy{Name: name, Key: ratelimit.ByPrincipal(ips), Limit: plenty}
	}
	global := must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{policy("global")}}))
	notes := must(global.With(policy("notes")))
	env := must(envelope.New(envelope.Config{Wrap: true, ClientIP: ips.Addr}))
	limits := []usher.Middleware{notes}
	if nested {
		limits = []usher.Middleware{global, notes}
	}
	return contract.ServeMux(tb, contract.App{
		Middlewares: []usher.Middleware{env},
		Routes: []contract.Route{{
			Method: "GET", Pattern: "/notes",
			Middlewares: []usher.Middleware{
				usher.Authenticate(auth), usher.Chain(limits...), usher.Require(usher.Requirement{Level: usher.LevelReadOnly}),
			},
			Handler: http.HandlerFunc(bareHandler),
		}},
		NotFound: http.HandlerFunc(env.NotFound),
	}), secret.Reveal()
}

func bare(tb testing.TB) http.Handler {
	return contract.ServeMux(tb, contract.App{Routes: []contract.Route{{
		Method: "GET", Pattern: "/notes", Handler: http.HandlerFunc(bareHandler),
	}}})
}

// A sink is a writer that keeps nothing but its header, which it empties as a
// server has a new one for each request.
type sink struct {
	h      http.Header
	status int
}

func (s *sink) Header() http.Header                { return s.h }
func (s *sink) WriteHeader(status int)             { s.status = status }
func (*sink) Write(p []byte) (int, error)          { return len(p), nil }
func (*sink) WriteString(text string) (int, error) { return len(text), nil }

// serving returns what sends a request to h again and again.
func serving(tb testing.TB, h http.Handler, key string) func() {
	r := httptest.NewRequest(http.MethodGet, "/notes", nil)
	r.Header["X-Api-Key"] = []string{key}
	w := &sink{h: make(http.Header)}
	serve := func() {
		clear(w.h)
		w.status = http.StatusOK
		h.ServeHTTP(w, r)
	}
	serve()
	if w.status != http.StatusOK {
		tb.Fatalf("status %d", w.status)
	}
	return serve
}

// TestStackAllocs counts what a whole stack allocates beyond the handler: the
// transaction of the envelope, the copy of the request, its ID, and the text and
// the values of the fields about limits. A limit within a limit holds its decision
// and adds to the fields of the first.
func TestStackAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	for name, tt := range map[string]struct {
		nested bool
		most   float64
	}{
		"the limit of the route in place of the general one": {false, 5},
		"the limit of the route within the general one":      {true, 10},
	} {
		t.Run(name, func(t *testing.T) {
			h, key := stack(t, tt.nested)
			without := testing.AllocsPerRun(1000, serving(t, bare(t), key))
			with := testing.AllocsPerRun(1000, serving(t, h, key))
			if added := with - without; added > tt.most {
				t.Errorf("%v allocations added to %v, want at most %v", added, without, tt.most)
			}
		})
	}
}

func BenchmarkStack(b *testing.B) {
	h, key := stack(b, false)
	nested, nestedKey := stack(b, true)
	for _, bb := range []struct {
		name string
		h    http.Handler
		key  string
	}{{"bare", bare(b), key}, {"usher", h, key}, {"usher nested", nested, nestedKey}} {
		b.Run(bb.name, func(b *testing.B) {
			serve := serving(b, bb.h, bb.key)
			b.ReportAllocs()
			for b.Loop() {
				serve()
			}
		})
	}
}
