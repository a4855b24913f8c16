package ratelimit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

func TestARefusalIsRepeatedWithoutTheStore(t *testing.T) {
	for name, c := range map[string]struct {
		cache time.Duration
		after []time.Duration // of further requests
		calls int64           // for these
	}{
		"for as long as the cache keeps it": {10 * time.Second, []time.Duration{1, 9 * time.Second, 10*time.Second - 1}, 0},
		"not longer":                        {10 * time.Second, []time.Duration{10 * time.Second, 25 * time.Second}, 2},
		"until its wait has passed":         {time.Hour, []time.Duration{59 * time.Second, time.Minute - 1}, 0},
		"never unless that is asked for":    {0, []time.Duration{0, 1, time.Second}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newDistantStore(0)
				h := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Minute)), forAll("q", ratelimit.RollingWindow(9, time.Hour))},
					Store:    store, CacheDenials: c.cache,
				}).Wrap(ok)
				wantCodes(t, codes(2, h), 200, 429)
				began, before := time.Now(), store.n.Load()
				for _, after := range c.after {
					time.Sleep(time.Until(began.Add(after)))
					w := do(h)
					wait := int((time.Minute - after + time.Second - 1) / time.Second)
					if got := w.Header().Get("Retry-After"); w.Code != http.StatusTooManyRequests || got != strconv.Itoa(wait) {
						t.Errorf("after %v: status %d, Retry-After %q, want %d", after, w.Code, got, wait)
					}
					want := fmt.Sprintf(`"p";r=0;t=%d, "q";r=8;t=%d`, wait, 3540+wait)
					if got := w.Header().Get("RateLimit"); got != want {
						t.Errorf("after %v: RateLimit %s, want %s", after, got, want)
					}
				}
				if n := store.n.Load() - before; n != c.calls {
					t.Errorf("%d calls for %d requests, want %d", n, len(c.after), c.calls)
				}
				time.Sleep(time.Until(began.Add(time.Minute)))
				wantCodes(t, codes(2, h), 200, 429)
			})
		})
	}
}

// With a cache or without, the same requests are admitted, whatever the limit. A wait is as
// old as the refusal: others may have been charged since, for which it would be longer.
func TestDenialsChangeNoDecision(t *testing.T) {
	asked, cached := int64(0), int64(0)
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 7))
			limits := []ratelimit.Limit{
				ratelimit.TokenBucket(1+random.IntN(9), time.Second, 1+random.IntN(9)),
				ratelimit.RollingWindow(1+random.IntN(9), time.Second),
				ratelimit.CalendarWindow(1+random.IntN(50), ratelimit.Minute), ratelimit.Nothing(),
			}
			var handlers []http.Handler
			var stores []*distantStore
			for _, cache := range []time.Duration{0, time.Duration(1+random.IntN(2000)) * time.Millisecond} {
				p, q := perPath(limits[0]), forAll("q", ratelimit.TokenBucket(30, time.Second, 10))
				p.LimitFor = func(r *http.Request) ratelimit.Limit {
					n, _ := strconv.Atoi(r.Header.Get("Limit"))
					return limits[n]
				}
				p.Cost = func(r *http.Request) int { return len(r.Method) % 4 }
				store := newDistantStore(0)
				stores = append(stores, store)
				handlers = append(handlers, newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{p, q}, Store: store, CacheDenials: cache, Headers: ratelimit.NoHeaders,
				}).Wrap(ok))
			}
			for range 400 {
				at := fmt.Sprint("/", random.IntN(2))
				limit, method := fmt.Sprint(random.IntN(8)/5), []string{"GET", "PUT", "POST", "PATCH"}[random.IntN(4)]
				if random.IntN(50) == 0 {
					limit = fmt.Sprint(random.IntN(4))
				}
				var reported []string
				var waits []int
				for _, h := range handlers {
					w := do(h, path(at), func(r *http.Request) { r.Method = method; r.Header.Set("Limit", limit) })
					reported = append(reported, fmt.Sprint(w.Code, w.Body))
					wait, _ := strconv.Atoi(w.Header().Get("Retry-After"))
					waits = append(waits, wait)
				}
				if reported[0] != reported[1] || waits[0] < waits[1] || waits[0] > 0 && waits[1] == 0 {
					t.Fatalf("seed %d: with denials %s, Retry-After %d; without %s, %d", seed, reported[1], waits[1], reported[0], waits[0])
				}
				time.Sleep(time.Duration(random.IntN(3)) * time.Duration(random.IntN(100_000)) * time.Microsecond)
			}
			asked, cached = asked+stores[0].n.Load(), cached+stores[1].n.Load()
		})
	}
	t.Logf("%d calls with denials, %d without", cached, asked)
	if cached*10 > asked*9 {
		t.Errorf("%d calls with denials, %d without", cached, asked)
	}
}

// However long a call takes, a denial ends no later than the refusal does in the store, and
// a client that waits as long as it is reported is admitted.
func TestADenialIsNoLongerThanTheRefusal(t *testing.T) {
	const trip = 100 * time.Millisecond
	for name, after := range map[string]time.Duration{
		"for a request that reaches the store in time": time.Minute - trip,
		"for a client that has waited":                 time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newDistantStore(trip)
				h := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{forAll("p", ratelimit.TokenBucket(1, time.Minute, 1))},
					Store:    store, StoreTimeout: time.Second, CacheDenials: time.Hour,
				}).Wrap(ok)
				if code := do(h).Code; code != http.StatusOK {
					t.Fatalf("status %d", code)
				}
				admitted := time.Now()
				if w := do(h); w.Code != http.StatusTooManyRequests {
					t.Fatalf("status %d", w.Code)
				}
				time.Sleep(time.Until(admitted.Add(trip))) // the refusal is reported
				reported := do(h)
				wait, err := strconv.Atoi(reported.Header().Get("Retry-After"))
				if err != nil || time.Duration(wait)*time.Second < time.Minute-trip {
					t.Fatalf("Retry-After %q", reported.Header().Get("Retry-After"))
				}
				if after == time.Minute {
					after = trip + time.Duration(wait)*time.Second
				}
				time.Sleep(time.Until(admitted.Add(after)))
				wantCodes(t, codes(1, h), 200)
			})
		})
	}
}

func TestDenialsAreOnlyOfWhatStaysDenied(t *testing.T) {
	for name, change := range map[string]func(*ratelimit.Policy){
		"under a policy with Count":  func(p *ratelimit.Policy) { p.Count = func(int) bool { return true } },
		"under a policy with Settle": func(p *ratelimit.Policy) { p.Settle = true },
		"of a place":                 func(p *ratelimit.Policy) { p.Limit = ratelimit.Concurrency(0) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newDistantStore(0)
				p := forAll("p", ratelimit.RollingWindow(0, time.Minute))
				change(&p)
				l := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{p}, Store: store, CacheDenials: time.Hour,
				})
				wantCodes(t, codes(3, l.Wrap(ok)), 429, 429, 429)
				if n := store.n.Load(); n != 3 {
					t.Errorf("%d calls for three requests", n)
				}
				for range 2 { // what Allow charges stays charged, but others are refunded
					_, _ = l.Allow(t.Context(), 1, ratelimit.Key{})
				}
				if n := store.n.Load(); n == 4 {
					t.Error("one call for two calls of Allow")
				}
			})
		})
	}
}

// A refusal says nothing about another question.
func TestADenialIsOfOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newDistantStore(0)
		p := forAll("p", ratelimit.RollingWindow(2, time.Hour))
		p.Plans = map[string]ratelimit.Limit{"more": ratelimit.RollingWindow(5, time.Hour)}
		p.Key = ratelimit.ByPrincipal()
		p.Cost = func(r *http.Request) int { return len(r.URL.Path) }
		h := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Store: store, CacheDenials: time.Hour}).Wrap(ok)
		of := func(id, plan string) func(*http.Request) { return as(usher.Principal{ID: id, Plan: plan}) }
		for _, c := range []struct {
			id, plan, path string
			code           int
			calls          int64
		}{
			{"a", "", "/", 200, 1},
			{"a", "", "/x", 429, 1}, // one is left
			{"a", "", "/x", 429, 0},
			{"a", "", "/", 200, 1}, // less
			{"a", "", "/", 429, 1},
			{"b", "", "/", 200, 1},     // another key
			{"a", "more", "/", 200, 1}, // another limit
			{"a", "", "/", 429, 0},     // the first again
			{"a", "more", "/xx", 429, 1},
			{"a", "", "/", 429, 0},
		} {
			before := store.n.Load()
			if code := do(h, path(c.path), of(c.id, c.plan)).Code; code != c.code {
				t.Errorf("%v: status %d", c, code)
			}
			if n := store.n.Load() - before; n != c.calls {
				t.Errorf("%v: %d calls", c, n)
			}
		}
	})
}

// An inner limiter that refuses a request refunds what an outer one has charged.
func TestARefundByThisProcessEndsDenials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newDistantStore(0)
		outer := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("outer", ratelimit.RollingWindow(1, time.Hour))}, Store: store, CacheDenials: time.Minute,
		})
		inner := must(t)(outer.With(forAll("inner", ratelimit.Nothing())))
		release := make(chan struct{})
		h := outer.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/inner" {
				<-release
				inner.Wrap(ok).ServeHTTP(w, r)
			}
		}))
		go do(h, path("/inner"))
		synctest.Wait()
		wantCodes(t, codes(2, h), 429, 429)
		close(release)
		synctest.Wait()
		wantCodes(t, codes(2, h), 200, 429)
	})
}

// A Reset ends the denials of this process, one that is on its way included.
func TestAResetEndsDenials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newDistantStore(10 * time.Millisecond)
		l := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))}, Store: store, CacheDenials: time.Hour,
		})
		h := l.Wrap(ok)
		reset := func() {
			if err := l.Reset(t.Context(), ratelimit.Key{}); err != nil {
				t.Error(err)
			}
		}
		wantCodes(t, codes(3, h), 200, 429, 429)
		reset()
		wantCodes(t, codes(2, h), 200, 429)
		reset()
		wantCodes(t, codes(1, h), 200)
		refused := make(chan int)
		go func() { refused <- do(h).Code }()
		time.Sleep(7 * time.Millisecond) // the store has refused, but not reported
		reset()
		if code := <-refused; code != http.StatusTooManyRequests {
			t.Errorf("status %d", code)
		}
		wantCodes(t, codes(2, h), 200, 429)
	})
}

func TestAGroupLeavesADenial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newDistantStore(time.Millisecond)
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(5, time.Hour))}, Store: store, CacheDenials: time.Minute,
		}).Wrap(ok)
		if n := count(together(64, h), http.StatusOK); n != 5 {
			t.Errorf("%d admitted", n)
		}
		before := store.n.Load()
		if n := count(together(64, h), http.StatusTooManyRequests); n != 64 || store.n.Load() != before {
			t.Errorf("%d refused, with %d calls", n, store.n.Load()-before)
		}
	})
}

// A store that is down is not asked for what it has refused.
func TestADenialNeedsNoStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newDistantStore(0)
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))}, Store: store,
			CacheDenials: time.Minute, OnStoreFailure: ratelimit.DangerouslyFailOpen,
		}).Wrap(ok)
		wantCodes(t, codes(2, h), 200, 429)
		store.Set(func(context.Context, int64) error { return usher.ErrUnavailable })
		wantCodes(t, codes(2, h), 429, 429)
		time.Sleep(time.Minute)
		wantCodes(t, codes(2, h), 200, 200)
	})
}

func TestCacheDenialsMustNotBeNegative(t *testing.T) {
	_, err := ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))}, CacheDenials: -1,
	})
	if err == nil || !strings.Contains(err.Error(), "CacheDenials") {
		t.Errorf("New: %v", err)
	}
}

// What a store says about the time of one policy passes, and never becomes less than none.
func TestTheTimesOfADenialPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{
				forAll("p", ratelimit.RollingWindow(1, time.Minute)), forAll("q", ratelimit.TokenBucket(9, 9*time.Second, 9)),
			},
			Store: newDistantStore(0), CacheDenials: time.Hour,
		})
		wantAllowed(t, l, text("a"), true, false)
		time.Sleep(30 * time.Second)
		usage, err := l.Allow(t.Context(), 1, text("a"))
		if err == nil || usage[0].Wait != 30*time.Second || usage[1].Reset <= 0 || usage[1].Reset > time.Second {
			t.Errorf("%+v, %v", usage, err)
		}
	})
}

// A refusal whose end is not known may end at any time.
func TestADenialNeedsAWait(t *testing.T) {
	calls := 0
	store := &script{Memory: newMemory()}
	store.take = func(_ context.Context, d *ratelimit.Decision) error {
		calls++
		d.Charges[0].Violated = true
		return nil
	}
	h := newLimiter(t, ratelimit.Config{
		Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Minute))}, Store: store, CacheDenials: time.Hour,
	}).Wrap(ok)
	if wantCodes(t, codes(3, h), 429, 429, 429); calls != 3 {
		t.Errorf("%d calls", calls)
	}
}

// A refusal says nothing about another policy, even one of a related limiter for the same
// key and the same limit.
func TestADenialIsOfItsPolicies(t *testing.T) {
	hour := ratelimit.RollingWindow(1, time.Hour)
	l := newLimiter(t, ratelimit.Config{
		Policies: []ratelimit.Policy{forAll("p", hour)}, Store: newDistantStore(0), CacheDenials: time.Hour,
	})
	other := must(t)(l.Only(forAll("q", hour)))
	wantAllowed(t, l, text("a"), true, false)
	wantAllowed(t, other, text("a"), true, false)
	wantAllowed(t, must(t)(l.With(forAll("r", hour))), text("a"), false)
	wantAllowed(t, other, text("b"), true, false)
}
