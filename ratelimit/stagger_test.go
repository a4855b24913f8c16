package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// attempts returns how often each of n clients that come at once, or within a period, must
// send its request until it is served, if it waits as long as Retry-After asks, in order.
func attempts(t *testing.T, h http.Handler, n int, within time.Duration) []int {
	t.Helper()
	tries := make(chan int, n)
	for i := range n {
		go func() {
			time.Sleep(within * time.Duration(i) / time.Duration(n))
			for try := 1; ; try++ {
				w := do(h)
				if w.Code == http.StatusOK {
					tries <- try
					return
				}
				time.Sleep(seconds(w.Header().Get("Retry-After")))
			}
		}()
	}
	var all []int
	for range n {
		all = append(all, <-tries)
	}
	slices.Sort(all)
	return all
}

func staggered(l ratelimit.Limit) ratelimit.Policy {
	p := forAll("p", l)
	p.Stagger = true
	return p
}

func TestClientsOfOneKeyThatObeyAreServedSoon(t *testing.T) {
	for _, c := range []struct {
		name   string
		limit  ratelimit.Limit
		within time.Duration
		median int
	}{
		{"token bucket, all at once", ratelimit.TokenBucket(10, time.Second, 10), 0, 3},
		{"token bucket", ratelimit.TokenBucket(10, time.Second, 10), time.Second, 3},
		{"token bucket with a small burst", ratelimit.TokenBucket(10, time.Second, 3), time.Second, 3},
		// Nothing is left over for a client that comes a little early.
		{"token bucket without a burst", ratelimit.TokenBucket(10, time.Second, 1), time.Second, 5},
		{"rolling window, all at once", ratelimit.RollingWindow(10, time.Second), 0, 3},
		{"rolling window", ratelimit.RollingWindow(10, time.Second), time.Second, 3},
		{"calendar minute, all at once", ratelimit.CalendarWindow(600, ratelimit.Minute), 0, 3},
	} {
		for name, store := range map[string]ratelimit.Store{"memory": nil, "a shared store": &script{}} {
			t.Run(c.name+" in "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					if s, ok := store.(*script); ok {
						s.Memory = newMemory()
					}
					l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{staggered(c.limit)}, Store: store})
					start := time.Now()
					all := attempts(t, l.Wrap(ok), 1000, c.within)
					t.Logf("median %d, 90%% within %d, most %d, in %v", all[500], all[900], all[999], time.Since(start))
					if all[500] > c.median {
						t.Errorf("the median of the attempts is %d, want at most %d", all[500], c.median)
					}
				})
			})
		}
	}
}

// fields returns the waits of a response: Retry-After, t and X-RateLimit-Reset.
func fields(t *testing.T, h http.Header) [3]time.Duration {
	t.Helper()
	_, window := state(t, h)
	return [3]time.Duration{
		seconds(h.Get("Retry-After")), time.Duration(window) * time.Second, seconds(h.Get("X-RateLimit-Reset")),
	}
}

// Every staggered wait is at least the wait of the same request without Stagger, and at
// most the documented time longer.
func TestStaggeredWaitsAreBounded(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit ratelimit.Limit
		most  time.Duration // that is added
	}{
		{"token bucket", ratelimit.TokenBucket(10, time.Second, 10), time.Minute},
		{"slow token bucket", ratelimit.TokenBucket(10, time.Hour, 1), time.Hour},
		{"token bucket of a decade", ratelimit.TokenBucket(1, 3660*24*time.Hour, 1), time.Hour},
		{"rolling window of five minutes", ratelimit.RollingWindow(100, 5*time.Minute), 5 * time.Minute},
		{"calendar month", ratelimit.CalendarWindow(1000, ratelimit.Month), time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				of := func(p ratelimit.Policy) http.Handler {
					return newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Headers: ratelimit.StandardAndDeltaHeaders}).Wrap(ok)
				}
				plain, turns := of(forAll("p", c.limit)), of(staggered(c.limit))
				var longest time.Duration
				waits := make(map[time.Duration]bool)
				for range 3000 {
					a, b := do(plain), do(turns)
					if a.Code != b.Code {
						t.Fatalf("status %d and, with Stagger, %d", a.Code, b.Code)
					}
					if a.Code == http.StatusOK {
						continue
					}
					least, got := fields(t, a.Header()), fields(t, b.Header())
					if got[0] != got[1] || got[1] != got[2] {
						t.Fatalf("the fields do not agree: %v", b.Header())
					}
					if got[0] < least[0] {
						t.Fatalf("a wait of %v is shorter than the true wait of %v", got[0], least[0])
					}
					longest = max(longest, got[0]-least[0])
					waits[got[0]] = true
				}
				if longest > c.most+time.Second || longest < c.most*3/4 {
					t.Errorf("at most %v is added, want %v", longest, c.most)
				}
				if len(waits) < 8 {
					t.Errorf("there are only %d different waits", len(waits))
				}
			})
		})
	}
}

func TestAStaggeredKeyIsItsOwnAndForgetsClientsThatDoNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := staggered(ratelimit.TokenBucket(1, time.Second, 1))
		p.Key = func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(r.Header.Get("Key")), true }
		h := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Headers: ratelimit.StandardAndDeltaHeaders}).Wrap(ok)
		refuse := func(key string) time.Duration {
			for {
				if w := do(h, set("Key", key)); w.Code != http.StatusOK {
					return fields(t, w.Header())[0]
				}
			}
		}
		var got []time.Duration
		for range 4 {
			got = append(got, refuse("a")/time.Second)
		}
		// Twice the time that a token takes, since the bucket holds only one.
		if !slices.Equal(got, []time.Duration{1, 3, 5, 7}) {
			t.Errorf("waits of %v s", got)
		}
		if got := refuse("b"); got != time.Second {
			t.Errorf("the first client of another key waits %v", got)
		}
		time.Sleep(10 * time.Second)
		if got := refuse("a"); got != time.Second {
			t.Errorf("%v after nobody has come back", got)
		}
		for i := range 5000 {
			refuse(fmt.Sprint("invented", i))
		}
		if got := refuse("new"); got != time.Second {
			t.Errorf("a client of a new key waits %v after a flood of keys", got)
		}
	})
}

func TestStaggerOfLimitsWithoutAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := limiterOf(t, staggered(ratelimit.Nothing())).Wrap(ok)
		for range 3 { // the second would have another turn than the first
			if w := do(h); w.Code != 429 || len(w.Header()["Retry-After"]) > 0 {
				t.Errorf("%d %v", w.Code, w.Header())
			}
		}
		shadow := staggered(ratelimit.Nothing())
		shadow.Shadow = true
		wantCodes(t, codes(2, limiterOf(t, shadow).Wrap(ok)), 200, 200)

		// A place is expected to be free after a second.
		l := limiterOf(t, staggered(ratelimit.Concurrency(2)))
		block := make(chan struct{})
		inUse := l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-block }))
		for range 2 {
			go do(inUse)
		}
		synctest.Wait()
		var got []string
		for range 6 {
			w := do(l.Wrap(ok))
			got = append(got, w.Header().Get("Retry-After")+" "+w.Header().Get("RateLimit"))
		}
		want := []string{
			`1 "p";r=0;t=1`, `2 "p";r=0;t=2`, `2 "p";r=0;t=2`, `3 "p";r=0;t=3`, `3 "p";r=0;t=3`, `4 "p";r=0;t=4`,
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		close(block)
	})
}

func TestStaggerWithoutRetryAfter(t *testing.T) {
	h := newLimiter(t, ratelimit.Config{
		Policies: []ratelimit.Policy{staggered(ratelimit.RollingWindow(1, time.Hour))}, OmitRetryAfter: true,
	}).Wrap(ok)
	do(h)
	if w := do(h); w.Code != 429 || len(w.Header()["Retry-After"]) > 0 || w.Header().Get("RateLimit") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

func TestAllowStaggersAndPeekTakesNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var verdicts []time.Duration
		l := newLimiter(t, ratelimit.Config{
			Policies:   []ratelimit.Policy{staggered(ratelimit.TokenBucket(1, time.Second, 1))},
			OnDecision: func(_ context.Context, v ratelimit.Verdict) { verdicts = append(verdicts, v.Wait/time.Second) },
		})
		if _, err := l.Allow(t.Context(), 1, ratelimit.TextKey("k")); err != nil {
			t.Fatal(err)
		}
		for _, want := range []time.Duration{1, 3, 5} {
			_, err := l.Allow(t.Context(), 1, ratelimit.TextKey("k"))
			if refused, ok := errors.AsType[*ratelimit.RefusedError](err); !ok || refused.Wait != want*time.Second {
				t.Errorf("Allow: %v, want a wait of %d s", err, want)
			}
			for range 3 {
				if _, err := l.Peek(t.Context(), ratelimit.TextKey("k")); err != nil {
					t.Error(err)
				}
			}
		}
		if !slices.Equal(verdicts, []time.Duration{0, 1, 3, 5}) {
			t.Errorf("verdicts with waits of %v s", verdicts)
		}
	})
}

// The waits of one key do not depend on other keys, however they alternate.
func TestKeysAreStaggeredApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiterOf(t, staggered(ratelimit.TokenBucket(1, time.Second, 1)))
		const keys = 64
		waits := map[time.Duration]int{}
		for range 3 {
			for i := range keys {
				_, err := l.Allow(t.Context(), 1, ratelimit.TextKey(fmt.Sprint(i)))
				if refused, ok := errors.AsType[*ratelimit.RefusedError](err); ok {
					waits[refused.Wait/time.Second]++
				}
			}
		}
		// Two keys may share a slot by chance.
		if waits[3] < keys/2 {
			t.Errorf("of %d keys that were refused twice, these had waits of so many seconds: %v", keys, waits)
		}
	})
}

// After a crowd has gone, nobody waits for it longer than the documented time.
func TestACrowdThatHasGoneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiterOf(t, staggered(ratelimit.TokenBucket(1, time.Second, 1)))
		for range 5000 {
			_, _ = l.Allow(t.Context(), 1, ratelimit.Key{})
		}
		time.Sleep(2 * time.Minute)
		for _, want := range []time.Duration{0, time.Second} {
			_, err := l.Allow(t.Context(), 1, ratelimit.Key{})
			if refused, ok := errors.AsType[*ratelimit.RefusedError](err); ok != (want > 0) || ok && refused.Wait != want {
				t.Errorf("%v, want a wait of %v", err, want)
			}
		}
	})
}

// A refusal takes a turn only under the policies that refuse.
func TestOnlyPoliciesThatRefuseStagger(t *testing.T) {
	for name, shadow := range map[string]bool{"not one that has enough left": false, "not one in shadow": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shared := staggered(ratelimit.TokenBucket(1, time.Second, 1))
				shared.Shadow = shadow
				var waits []time.Duration
				l := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{shared, forAll("single", ratelimit.RollingWindow(1, time.Hour))},
					OnDecision: func(_ context.Context, v ratelimit.Verdict) {
						if v.Policy == "p" {
							waits = append(waits, v.Wait)
						}
					},
				})
				wantAllowed := func(single string, want bool) {
					t.Helper()
					if _, err := l.Allow(t.Context(), 1, text("shared"), text(single)); (err == nil) != want {
						t.Errorf("%s: %v", single, err)
					}
				}
				wantAllowed("a", true)
				if !shadow {
					time.Sleep(time.Second)
				}
				for range 5 {
					wantAllowed("a", false)
				}
				if !shadow {
					wantAllowed("b", true)
					wantAllowed("c", false)
				}
				if got := slices.Max(waits); got != time.Second {
					t.Errorf("waits of %v, want at most a second", waits)
				}
			})
		})
	}
}

// A store that contradicts itself about a limit of nothing breaks no request.
func TestAStaggeredWaitOfNothing(t *testing.T) {
	store := &script{Memory: newMemory()}
	store.take = func(_ context.Context, d *ratelimit.Decision) error {
		d.Charges[0].Violated, d.Charges[0].Wait = true, time.Second
		return nil
	}
	l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{staggered(ratelimit.Nothing())}, Store: store})
	wantCodes(t, codes(2, l.Wrap(ok)), 429, 429)
}
