package ratelimit_test

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// What the documentation of the algorithms says about a client that sends at exactly the
// rate, though its requests do not arrive evenly.
func TestABucketWithASmallBurstIsFairToAClientAtItsRate(t *testing.T) {
	for _, c := range []struct {
		name        string
		limit       ratelimit.Limit
		most        int // admitted in any second
		refused, of int // at least refused, if any may be
	}{
		{"a bucket", ratelimit.TokenBucket(10, time.Second, 2), 11, 0, 6000},
		{"a window", ratelimit.RollingWindow(10, time.Second), 10, 100, 6000},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := limiterOf(t, forAll("p", c.limit))
				late := rand.New(rand.NewPCG(1, 2))
				began, refused := time.Now(), 0
				var admitted []time.Time
				for i := range c.of {
					at := began.Add(time.Duration(i)*100*time.Millisecond + time.Duration(late.Int64N(int64(20*time.Millisecond))))
					time.Sleep(time.Until(at))
					if _, err := l.Allow(t.Context(), 1, ratelimit.Key{}); err != nil {
						refused++
					} else {
						admitted = append(admitted, time.Now())
					}
				}
				if refused < c.refused || c.refused == 0 && refused > 0 {
					t.Errorf("%d of %d refused", refused, c.of)
				}
				for i, from := range admitted {
					n, _ := slices.BinarySearchFunc(admitted[i:], from.Add(time.Second), time.Time.Compare)
					if n > c.most {
						t.Fatalf("%d admitted within a second", n)
					}
				}
			})
		})
	}
	// The burst that the documentation names, from a client that hurries.
	synctest.Test(t, func(t *testing.T) {
		l := limiterOf(t, forAll("p", ratelimit.TokenBucket(10, time.Second, 2)))
		n := 0
		for range 1000 {
			if _, err := l.Allow(t.Context(), 1, ratelimit.Key{}); err == nil {
				n++
			}
			time.Sleep(time.Millisecond)
		}
		if n != 11 {
			t.Errorf("%d admitted within a second", n)
		}
	})
}

// A place is that of a handler, and not of what outlives it.
func TestWhatOutlivesItsHandlerTakesNoPlaceOverASocket(t *testing.T) {
	t.Run("a hijacked connection", func(t *testing.T) {
		h := limiterOf(t, forAll("places", ratelimit.Concurrency(1))).Wrap(
			http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { _ = conn.Close() }) // it stays open
				_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
			}))
		const requests = 3
		returned := make(chan struct{}, requests)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			returned <- struct{}{} // the client has had its response before
		}))
		t.Cleanup(s.Close)
		for range requests {
			if res, _ := get(t, s.URL); res.StatusCode != http.StatusOK {
				t.Errorf("status %d, though the handler of the open connection has returned", res.StatusCode)
			}
			<-returned
		}
	})
	for name, inside := range map[string]bool{"a TimeoutHandler inside the limiter": true, "a TimeoutHandler outside": false} {
		t.Run(name, func(t *testing.T) {
			running := make(chan struct{})
			slow := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-running })
			timeout := func(h http.Handler) http.Handler { return http.TimeoutHandler(h, 20*time.Millisecond, "late") }
			limit := limiterOf(t, forAll("places", ratelimit.Concurrency(1)))
			h, second := timeout(limit.Wrap(slow)), http.StatusTooManyRequests
			if inside {
				h, second = limit.Wrap(timeout(slow)), http.StatusServiceUnavailable
			}
			s := httptest.NewServer(h)
			t.Cleanup(s.Close)
			t.Cleanup(func() { close(running) })
			for i, want := range []int{http.StatusServiceUnavailable, second} {
				if res, _ := get(t, s.URL); res.StatusCode != want {
					t.Errorf("request %d: status %d, want %d", i, res.StatusCode, want)
				}
			}
		})
	}
}

// A parent outside authentication counts callers by their address, and a child inside
// counts them again by what they are.
func TestAParentOutsideAuthenticationCountsByAddress(t *testing.T) {
	parent := limiterOf(t, ratelimit.Policy{Name: "caller", Key: ratelimit.ByPrincipal(), Limit: ratelimit.RollingWindow(2, time.Hour)})
	child := must(t)(parent.With(forAll("route", ratelimit.RollingWindow(100, time.Hour))))
	h := parent.Wrap(usher.Chain(usher.Authenticate(planOf{}), child).Wrap(ok))
	call := func(id string) int { return do(h, set("Plan", id)).Code }
	wantCodes(t, []int{call("a"), call("b"), call("c")}, 200, 200, 429)
	usage, err := child.Peek(t.Context(), ratelimit.PrincipalKey(usher.Principal{ID: "a", Kind: usher.KindAPIKey}))
	if err != nil || usage[0].Remaining != 1 {
		t.Errorf("%+v, %v, want the caller to be counted too", usage, err)
	}
}
