package ratelimit_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/ratelimit"
)

// sink is a response writer that costs nothing.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(int)             {}

var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// plenty returns a limiter of n policies on n keys that refuses nothing.
func plenty(tb testing.TB, headers ratelimit.Headers, n int) http.Handler {
	var policies []ratelimit.Policy
	for i := range n {
		policies = append(policies, ratelimit.Policy{
			Name: fmt.Sprint("p", i), Key: ratelimit.ByAddress(),
			Limit: ratelimit.TokenBucket(1e9, time.Second, 1e9),
		})
	}
	return newLimiter(tb, ratelimit.Config{Policies: policies, Headers: headers}).Wrap(nothing)
}

func plentyOf(tb testing.TB, c ratelimit.Config) http.Handler { return newLimiter(tb, c).Wrap(nothing) }

// twice returns a limiter that wraps two handlers and so may be inside itself: without an
// outer middleware it must copy a request.
func twice(tb testing.TB) http.Handler {
	l := limiterOf(tb, ratelimit.Policy{
		Name: "p", Key: ratelimit.ByAddress(), Limit: ratelimit.TokenBucket(1e9, time.Second, 1e9),
	})
	l.Wrap(nothing)
	return l.Wrap(nothing)
}

func spent(tb testing.TB) http.Handler {
	return limiterOf(tb, ratelimit.Policy{
		Name: "p", Key: ratelimit.ByAddress(), Limit: ratelimit.TokenBucket(1, 1000*time.Hour, 1),
	}).Wrap(nothing)
}

func serve(h http.Handler, addr string) func() {
	w := &sink{header: http.Header{}}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = addr
	return func() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
}

func TestAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations are not exact under the race detector")
	}
	charges := []ratelimit.Charge{
		{Policy: "a", Key: ratelimit.TextKey("k"), Limit: ratelimit.TokenBucket(1e9, time.Second, 1e9), Cost: 1},
		{Policy: "b", Key: ratelimit.TextKey("k"), Limit: ratelimit.CalendarWindow(1e9, ratelimit.Month), Cost: 1},
		{Policy: "c", Key: ratelimit.TextKey("k"), Limit: ratelimit.Concurrency(1e9), Cost: 1},
	}
	m := newMemory()
	one, three := &ratelimit.Decision{Charges: charges[:1]}, &ratelimit.Decision{Charges: charges}
	own := newLimiter(t, ratelimit.Config{Headers: ratelimit.NoHeaders, Policies: []ratelimit.Policy{{
		Name: "p", Key: ratelimit.ByAddress(), Limit: ratelimit.RollingWindow(1, time.Hour),
		LimitFor: func(*http.Request) ratelimit.Limit { return ratelimit.TokenBucket(1e9, time.Second, 1e9) },
	}}}).Wrap(nothing)
	for _, c := range []struct {
		name string
		most float64
		run  func()
	}{
		{"a decision", 0, func() { _ = m.Take(t.Context(), one) }},
		{"a decision over three policies", 0, func() { _ = m.Take(t.Context(), three) }},
		{"middleware without header fields", 0, serve(plenty(t, ratelimit.NoHeaders, 1), "192.0.2.1:1")},
		{"middleware without header fields, three policies", 0, serve(plenty(t, ratelimit.NoHeaders, 3), "192.0.2.1:1")},
		{"middleware without header fields, IPv6", 0, serve(plenty(t, ratelimit.NoHeaders, 1), "[2001:db8::1]:1")},
		{"middleware with standard header fields", 2, serve(plenty(t, ratelimit.StandardHeaders, 1), "192.0.2.1:1")},
		{"middleware with standard header fields, three policies", 2, serve(plenty(t, ratelimit.StandardHeaders, 3), "192.0.2.1:1")},
		{"middleware with X-RateLimit fields", 2, serve(plenty(t, ratelimit.EpochHeaders, 1), "192.0.2.1:1")},
		{"middleware that wraps two handlers", 4, serve(twice(t), "192.0.2.1:1")},
		{"a limit that is found for each request", 0, serve(own, "192.0.2.1:1")},
		{"near its limit", 0, serve(plentyOf(t, ratelimit.Config{Headers: ratelimit.NoHeaders, Policies: []ratelimit.Policy{
			forAll("p", ratelimit.TokenBucket(1e9, time.Microsecond, 1)),
		}}), "192.0.2.1:1")},
		{"a hook whose log is off", 2, serve(plentyOf(t, ratelimit.Config{
			Headers: ratelimit.NoHeaders, OnDecision: ratelimit.LogDecisions(slog.New(slog.DiscardHandler), []byte("secret")),
			Policies: []ratelimit.Policy{forAll("p", ratelimit.TokenBucket(1e9, time.Second, 1e9))},
		}), "192.0.2.1:1")},
		{"refused, with a body", 4, serve(spent(t), "192.0.2.1:1")},
		{"middleware with both", 2, serve(plenty(t, ratelimit.StandardAndEpochHeaders, 1), "192.0.2.1:1")},
	} {
		c.run()
		if got := testing.AllocsPerRun(200, c.run); got > c.most {
			t.Errorf("%s: %v allocations, want at most %v", c.name, got, c.most)
		}
	}
}

func BenchmarkDecision(b *testing.B) {
	limits := map[string]ratelimit.Limit{
		"bucket":   ratelimit.TokenBucket(1e9, time.Second, 1e9),
		"used":     ratelimit.TokenBucket(1000, time.Second, 1e9),
		"rolling":  ratelimit.RollingWindow(1000, time.Microsecond),
		"calendar": ratelimit.CalendarWindow(1e9, ratelimit.Month),
	}
	for _, name := range []string{"bucket", "used", "rolling", "calendar"} {
		for _, n := range []int{1, 10_000} {
			b.Run(fmt.Sprintf("%s/keys=%d", name, n), func(b *testing.B) {
				m := newMemory()
				keys := make([]ratelimit.Key, n)
				for i := range keys {
					keys[i] = ratelimit.TextKey(fmt.Sprint("192.0.2.", i))
				}
				d := &ratelimit.Decision{Charges: []ratelimit.Charge{{Policy: "p", Limit: limits[name], Cost: 1}}}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					d.Charges[0].Key = keys[i%n]
					_ = m.Take(b.Context(), d)
				}
			})
		}
	}
	for _, n := range []int{3, 8} {
		b.Run(fmt.Sprintf("bucket/policies=%d", n), func(b *testing.B) {
			m := newMemory()
			d := new(ratelimit.Decision)
			for i := range n {
				d.Charges = append(d.Charges, ratelimit.Charge{
					Policy: fmt.Sprint("p", i), Key: ratelimit.TextKey(fmt.Sprint(i)), Limit: limits["bucket"], Cost: 1,
				})
			}
			b.ReportAllocs()
			for b.Loop() {
				_ = m.Take(b.Context(), d)
			}
		})
	}
}

func BenchmarkMiddleware(b *testing.B) {
	for _, c := range []struct {
		name string
		h    http.Handler
	}{
		{"allowed/headers=none", plenty(b, ratelimit.NoHeaders, 1)},
		{"allowed/headers=none/policies=3", plenty(b, ratelimit.NoHeaders, 3)},
		{"allowed/headers=standard", plenty(b, ratelimit.StandardHeaders, 1)},
		{"allowed/headers=standard/policies=3", plenty(b, ratelimit.StandardHeaders, 3)},
		{"allowed/headers=epoch", plenty(b, ratelimit.EpochHeaders, 1)},
		{"refused", spent(b)},
		{"allowed/headers=standard/wraps=2", twice(b)},
	} {
		b.Run(c.name, func(b *testing.B) {
			run := serve(c.h, "192.0.2.1:1")
			run()
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
		})
	}
}

func BenchmarkFlood(b *testing.B) {
	m := newMemory()
	d := &ratelimit.Decision{Charges: []ratelimit.Charge{{Policy: "p", Limit: ratelimit.TokenBucket(5, time.Hour, 5), Cost: 1}}}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		d.Charges[0].Key = ratelimit.TextKey(fmt.Sprint(i))
		_ = m.Take(b.Context(), d)
	}
}
