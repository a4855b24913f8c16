package nodes

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// three returns policies with the limits of each algorithm, of which one allows the least.
func three(least string, quota int, change func(*ratelimit.Policy)) (policies []ratelimit.Policy) {
	for name, l := range limits(quota) {
		if name != least {
			l = limits(quota + 100)[name]
		}
		p := counts(unique("callers"), l)
		if change != nil {
			change(&p)
		}
		policies = append(policies, p)
	}
	return policies
}

// wantUsed fails the test unless this much is used under each policy of each limiter.
func wantUsed(t testing.TB, want int64, all ...*ratelimit.Limiter) {
	t.Helper()
	for i, l := range all {
		for _, u := range peek(t, l) {
			if used := most(u.Limit) - u.Remaining; used != want {
				t.Errorf("node %d: %d used under %s, want %d", i, used, u.Limit, want)
			}
		}
	}
}

// most returns how much is left of a limit that is not used.
func most(l ratelimit.Limit) int64 {
	if l.Algorithm() == ratelimit.AlgorithmTokenBucket {
		return l.Burst()
	}
	return l.Quota()
}

// Of 64 callers on each node, as many are admitted as fit, and what their requests do not
// charge is refunded, even if replies are lost.
func callers(t *testing.T, s Server) {
	const quota = 300
	for name := range limits(quota) {
		t.Run(name, func(t *testing.T) {
			all := pair(t, s, nil, three(name, quota, nil)...)
			var admitted atomic.Int64
			stop := cut(s, &admitted, quota)
			each(all, 64, func(l *ratelimit.Limiter, _, _ int) {
				for range 4 {
					if allow(t, l, 1) {
						admitted.Add(1)
					}
				}
			})
			stop()
			if n := admitted.Load(); n != quota {
				t.Errorf("%d admitted, want %d", n, quota)
			}
			wantUsed(t, quota, all...)

			all = pair(t, s, nil, three(name, quota, func(p *ratelimit.Policy) {
				p.Count = func(status int) bool { return status == http.StatusOK }
			})...)
			var kept atomic.Int64
			stop = cut(s, &kept, quota/3)
			each(all, 64, func(l *ratelimit.Limiter, _, client int) {
				for range 2 {
					request(l, 1, func(w http.ResponseWriter, _ *http.Request) {
						if client%2 == 0 {
							w.WriteHeader(http.StatusNotFound)
							return
						}
						kept.Add(1)
					})
				}
			})
			stop()
			end(t, all...)
			wantUsed(t, kept.Load(), all...)
		})
	}
}

// While the server fails, callers may be charged without being admitted, but never the other
// way round.
func faults(t *testing.T, s Server) {
	const quota, clients = 3000, 64
	policies := three("rolling window", quota, nil)
	silent := func(c *ratelimit.Config) { c.OnError = func(context.Context, error) {} }
	hasty := node(t, s.Open(t), func(c *ratelimit.Config) {
		silent(c)
		c.StoreTimeout = 100 * time.Millisecond
	}, policies...)
	patient := node(t, s.Open(t), silent, policies...)
	var admitted, failed atomic.Int64
	over := make(chan struct{})
	go func() {
		defer close(over)
		for i := range int64(3) {
			for admitted.Load() < (i+1)*quota/5 {
				time.Sleep(time.Millisecond)
			}
			switch {
			case i == 1:
				resume := s.Pause()
				time.Sleep(300 * time.Millisecond)
				resume()
			case i == 2 && s.Crash != nil:
				s.Crash()
			default:
				s.Reset()
			}
		}
	}()
	each([]*ratelimit.Limiter{hasty, patient}, clients, func(l *ratelimit.Limiter, _, _ int) {
		for stop := false; !stop; {
			_, err := l.Allow(context.Background(), 1, somebody)
			var refused *ratelimit.RefusedError
			switch {
			case err == nil:
				admitted.Add(1)
			case errors.As(err, &refused):
				stop = true
			default:
				failed.Add(1)
				time.Sleep(5 * time.Millisecond)
			}
		}
	})
	<-over
	n := admitted.Load()
	if n > quota || failed.Load() == 0 {
		t.Errorf("%d admitted, %d calls have failed, want at most %d, and some", n, failed.Load(), quota)
	}
	for _, u := range peek(t, patient) {
		if used := most(u.Limit) - u.Remaining; used < n {
			t.Errorf("%d charged under %s for %d that were admitted", used, u.Limit, n)
		}
	}
	t.Logf("%d of %d admitted, %d calls have failed", n, quota, failed.Load())
}
