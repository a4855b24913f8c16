package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/ratelimit"
)

// perPath returns a policy "p" that counts each path.
func perPath(l ratelimit.Limit) ratelimit.Policy {
	p := forAll("p", l)
	p.Key = func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(r.URL.Path), true }
	return p
}

func path(s string) func(*http.Request) { return func(r *http.Request) { r.URL.Path = s } }

// A distantStore is a shared store that decides in the middle of a trip, and counts trips.
type distantStore struct {
	*ratelimit.Memory
	faulty.Calls
	trip time.Duration
	n    atomic.Int64
}

func newDistantStore(trip time.Duration) *distantStore {
	return &distantStore{Memory: newMemory(), trip: trip}
}

func (s *distantStore) Take(ctx context.Context, d *ratelimit.Decision) error {
	s.n.Add(1)
	time.Sleep(s.trip / 2)
	if err := s.Call(ctx); err != nil {
		return err
	}
	err := s.Memory.Take(ctx, d)
	time.Sleep(s.trip - s.trip/2)
	return err
}

// together sends n requests at the same time, in a known order, and returns the responses.
func together(n int, h http.Handler) []*httptest.ResponseRecorder {
	got := make([]*httptest.ResponseRecorder, n)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() { got[i] = do(h) })
		synctest.Wait()
	}
	wg.Wait()
	return got
}

// count returns how many responses have this status.
func count(responses []*httptest.ResponseRecorder, status int) (n int) {
	for _, w := range responses {
		if w.Code == status {
			n++
		}
	}
	return n
}

func TestDecisionsOfOneKeyShareTheirTrips(t *testing.T) {
	const callers, each = 64, 100
	twice := func(p ratelimit.Policy) ratelimit.Policy {
		p.Cost = func(*http.Request) int { return 2 }
		return p
	}
	for name, c := range map[string]struct {
		policies []ratelimit.Policy
		admitted int
	}{
		"all of which fit":     {[]ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1_000_000, time.Hour))}, callers * each},
		"a tenth of which fit": {[]ratelimit.Policy{forAll("p", ratelimit.TokenBucket(1, 10*time.Hour, callers*each/10))}, callers * each / 10},
		"none of which fit":    {[]ratelimit.Policy{forAll("p", ratelimit.Nothing())}, 0},
		"that cost two units":  {[]ratelimit.Policy{twice(forAll("p", ratelimit.RollingWindow(callers*each+1, time.Hour)))}, callers * each / 2},
		"of several policies": {[]ratelimit.Policy{
			forAll("p", ratelimit.RollingWindow(1_000_000, time.Hour)),
			twice(forAll("q", ratelimit.CalendarWindow(1001, ratelimit.Year))),
			forAll("r", ratelimit.TokenBucket(1, 10*time.Hour, 700)),
		}, 500},
		"of a bucket that earns": {[]ratelimit.Policy{forAll("p", ratelimit.TokenBucket(100, time.Second, 100))}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newDistantStore(time.Millisecond)
				h := newLimiter(t, ratelimit.Config{
					Policies: c.policies, Store: store, OnStoreFailure: ratelimit.FailClosed,
				}).Wrap(ok)
				var wg sync.WaitGroup
				var admitted atomic.Int64
				for range callers {
					wg.Go(func() {
						for range each {
							if do(h).Code == http.StatusOK {
								admitted.Add(1)
							}
						}
					})
				}
				wg.Wait()
				if n := admitted.Load(); c.admitted >= 0 && n != int64(c.admitted) {
					t.Errorf("%d admitted, want %d", n, c.admitted)
				}
				if n := store.n.Load(); n*10 > callers*each {
					t.Errorf("%d calls for %d decisions, want at most 0.1 a decision", n, callers*each)
				} else {
					t.Logf("%.3f calls a decision", float64(n)/callers/each)
				}
			})
		})
	}
}

// Each request finds what those before it have left.
func TestEachOfAGroupHasItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newDistantStore(time.Millisecond)
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(10, time.Hour)), forAll("q", ratelimit.RollingWindow(100, time.Minute))},
			Store:    store,
		}).Wrap(ok)
		for i, w := range together(16, h) {
			want := fmt.Sprintf(`"p";r=%d;t=3600, "q";r=%d;t=60`, max(9-i, 0), max(99-i, 90))
			if got := w.Header().Get("RateLimit"); got != want {
				t.Errorf("request %d: RateLimit %s, want %s", i, got, want)
			}
			if code := w.Code; code == http.StatusOK != (i < 10) {
				t.Errorf("request %d: status %d", i, code)
			}
			if got := w.Header().Get("Retry-After"); i >= 10 && got != "3600" {
				t.Errorf("request %d: Retry-After %q", i, got)
			}
		}
		if n := store.n.Load(); n != 3 {
			t.Errorf("%d calls, want one for the first, one that shows that 9 more fit, and one for these", n)
		}
	})
}

func TestALoneDecisionNeverWaitsForOthers(t *testing.T) {
	for name, c := range map[string]struct {
		policy ratelimit.Policy
		first  func(*http.Request)
	}{
		"on another key":        {perPath(ratelimit.RollingWindow(10, time.Hour)), path("/first")},
		"of places":             {forAll("p", ratelimit.Concurrency(10)), nil},
		"under a shadow policy": {ratelimit.Policy{Name: "p", Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(10, time.Hour), Shadow: true}, nil},
		"that costs more": {ratelimit.Policy{Name: "p", Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(10, time.Hour),
			Cost: func(r *http.Request) int { return len(r.URL.Path) }}, path("/first")},
		"that costs nothing": {ratelimit.Policy{Name: "p", Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(10, time.Hour),
			Cost: func(*http.Request) int { return 0 }}, nil},
		"under another limit": {ratelimit.Policy{Name: "p", Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(10, time.Hour),
			LimitFor: func(r *http.Request) ratelimit.Limit { return ratelimit.RollingWindow(5+len(r.URL.Path), time.Hour) }}, path("/first")},
		"under a limit of another time zone": {ratelimit.Policy{Name: "p", Key: ratelimit.Global(), Limit: ratelimit.CalendarWindow(10, ratelimit.Year),
			LimitFor: func(r *http.Request) ratelimit.Limit {
				return ratelimit.CalendarWindow(10, ratelimit.Year).In(time.FixedZone(r.URL.Path, 0))
			}}, path("/first")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const trip = 10 * time.Millisecond
				store := newDistantStore(trip)
				h := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{c.policy}, Store: store}).Wrap(ok)
				if c.first == nil {
					c.first = func(*http.Request) {}
				}
				go do(h, c.first)
				time.Sleep(trip / 2)
				began := time.Now()
				do(h)
				if took := time.Since(began); took != trip {
					t.Errorf("the second request took %v, want one trip of %v", took, trip)
				}
				time.Sleep(time.Second)
			})
		})
	}
}

// 64 goroutines use many keys under many limits, and each key exactly its quota.
func TestGroupsAdmitExactlyTheQuota(t *testing.T) {
	const quota, keys = 50, 40
	for name, limit := range map[string]ratelimit.Limit{
		"a rolling window":  ratelimit.RollingWindow(quota, time.Hour),
		"a bucket":          ratelimit.TokenBucket(1, time.Hour, quota),
		"a calendar window": ratelimit.CalendarWindow(quota, ratelimit.Year),
	} {
		t.Run(name, func(t *testing.T) {
			store := newDistantStore(100 * time.Microsecond)
			// Other nodes take from the same keys.
			var nodes []http.Handler
			for range 3 {
				other := forAll("global", ratelimit.RollingWindow(1_000_000, time.Hour))
				nodes = append(nodes, newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{perPath(limit), other}, Store: store,
					StoreTimeout: time.Minute, OnStoreFailure: ratelimit.FailClosed,
				}).Wrap(ok))
			}
			var wg sync.WaitGroup
			var admitted [keys]atomic.Int64
			var undecided atomic.Int64
			for g := range 64 {
				wg.Go(func() {
					for i := range 4 * quota * keys / 64 {
						key := (i + g) / 2 % keys
						switch do(nodes[(g+i)%3], path(fmt.Sprint("/", key))).Code {
						case http.StatusOK:
							admitted[key].Add(1)
						case http.StatusServiceUnavailable:
							undecided.Add(1)
						}
					}
				})
			}
			wg.Wait()
			total := 0
			for key := range admitted {
				if n := admitted[key].Load(); n != quota {
					t.Errorf("%d admitted of key %d, want %d", n, key, quota)
				} else {
					total += quota
				}
			}
			charges := []ratelimit.Charge{{Policy: "global", Limit: ratelimit.RollingWindow(1_000_000, time.Hour)}}
			if _, err := take(t.Context(), store.Memory, charges); err != nil || charges[0].Remaining != int64(1_000_000-total) {
				t.Errorf("%d left of the other policy, want what %d requests leave (%v)", charges[0].Remaining, total, err)
			}
			if n := undecided.Load(); n > 0 {
				t.Errorf("%d requests were not decided", n)
			}
		})
	}
}

// Other nodes may take what a group was reported is left. The group is decided nevertheless,
// in a bounded number of calls.
func TestAGroupSettlesThoughOthersTakeUnits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newDistantStore(time.Millisecond)
		limit := ratelimit.RollingWindow(100, time.Hour)
		var mu sync.Mutex // calls of the store overlap
		others := 0
		store.Set(func(ctx context.Context, n int64) error {
			mu.Lock()
			defer mu.Unlock()
			if n > 1 && others < 90 {
				admitted, err := take(ctx, store.Memory, []ratelimit.Charge{{Policy: "p", Limit: limit, Cost: 3}})
				if err != nil {
					t.Error(err)
				}
				if admitted {
					others += 3
				}
			}
			return nil
		})
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", limit)}, Store: store, OnStoreFailure: ratelimit.FailClosed,
		}).Wrap(ok)
		got := together(120, h)
		mu.Lock()
		defer mu.Unlock()
		if admitted := count(got, http.StatusOK); admitted+others != 100 {
			t.Errorf("%d admitted, and %d of others, want 100", admitted, others)
		}
		if n := count(got, http.StatusServiceUnavailable); n > 0 {
			t.Errorf("%d requests were not decided", n)
		}
		if n := store.n.Load(); n > 120+8 {
			t.Errorf("%d calls, want at most one for each request and 8 for all", n)
		}
	})
}

// A store that contradicts itself costs a group a bounded number of calls.
func TestAGroupSettlesThoughAStoreContradictsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &script{Memory: newMemory()}
		var calls atomic.Int64
		store.take = func(ctx context.Context, d *ratelimit.Decision) error {
			calls.Add(1)
			time.Sleep(time.Millisecond)
			if d.Charges[0].Cost == 1 {
				return store.Memory.Take(ctx, d)
			}
			d.Charges[0].Violated, d.Charges[0].Remaining = true, 100 // which is more than it was asked for
			return nil
		}
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(100, time.Hour))}, Store: store,
			OnStoreFailure: ratelimit.FailClosed,
		}).Wrap(ok)
		if n := count(together(20, h), http.StatusOK); n != 20 {
			t.Errorf("%d admitted, want all 20", n)
		}
		if n := calls.Load(); n > 20+8 {
			t.Errorf("%d calls, want at most one for each request and 8 for all", n)
		}
	})
}

// Units that others may give back at any time are not waited for until they are earned.
func TestAGroupGetsTheWaitOfOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := forAll("p", ratelimit.RollingWindow(100, time.Hour))
		p.Settle = true
		store := &script{Memory: newMemory()}
		store.take = func(_ context.Context, d *ratelimit.Decision) error {
			time.Sleep(time.Millisecond)
			c := &d.Charges[0]
			c.Violated, c.Reset = true, time.Hour
			if c.Cost > 1 {
				c.Wait = time.Hour
			}
			return nil
		}
		h := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Store: store}).Wrap(ok)
		for i, w := range together(20, h) {
			if got := w.Header().Get("Retry-After"); w.Code != http.StatusTooManyRequests || got != "1" {
				t.Errorf("request %d: status %d, Retry-After %q", i, w.Code, got)
			}
		}
	})
}

func TestAFailureReachesEachOfAGroup(t *testing.T) {
	inconsistent := func(admitted bool, remaining int64) func(context.Context, *ratelimit.Decision) error {
		return func(_ context.Context, d *ratelimit.Decision) error {
			d.Admitted = admitted
			d.Charges[0].Remaining = remaining
			return nil
		}
	}
	for name, c := range map[string]struct {
		take  func(context.Context, *ratelimit.Decision) error
		cause string
		took  time.Duration
	}{
		"fails":              {func(context.Context, *ratelimit.Decision) error { return faulty.ErrStore }, faulty.ErrStore.Error(), 0},
		"panics":             {func(context.Context, *ratelimit.Decision) error { panic("store") }, "panic: store", 0},
		"hangs":              {hangFor(time.Minute), "in time", storeTimeout},
		"is closed":          {func(context.Context, *ratelimit.Decision) error { return usher.ErrClosed }, usher.ErrClosed.Error(), 0},
		"contradicts itself": {inconsistent(false, 7), "the store admits what", 0},
	} {
		for mode, want := range map[ratelimit.FailureMode]int{
			ratelimit.FallBackToMemory: 5, ratelimit.DangerouslyFailOpen: 20, ratelimit.FailClosed: 0,
		} {
			t.Run(fmt.Sprint("a store that ", name, ", mode ", mode), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var reported errorsOf
					store := &script{Memory: newMemory()}
					h := newLimiter(t, ratelimit.Config{
						Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(5, time.Hour))}, Store: store,
						StoreTimeout: storeTimeout, OnStoreFailure: mode, OnError: reported.add,
					}).Wrap(ok)
					const first = storeTimeout / 10
					store.take = func(ctx context.Context, d *ratelimit.Decision) error {
						store.take = c.take
						time.Sleep(first)
						return usher.ErrFull
					}
					began := time.Now()
					got := together(20, h)
					if n := count(got, http.StatusOK); n != want {
						t.Errorf("%d admitted, want %d", n, want)
					}
					if took := time.Since(began); took > max(first, c.took) {
						t.Errorf("took %v, want no decision to take longer than %v", took, max(first, c.took))
					}
					errs := reported.all()
					if n := len(errs); n != 20 {
						t.Errorf("OnError was called %d times, want once for each request", n)
					}
					alone := 0 // the failure of the first request
					for _, err := range errs {
						if errors.Is(err, usher.ErrFull) {
							alone++
						} else if !strings.Contains(err.Error(), c.cause) {
							t.Errorf("OnError was called with %v, want %q", err, c.cause)
						}
					}
					if alone != 1 {
						t.Errorf("the failure of the first request was reported %d times", alone)
					}
					time.Sleep(time.Hour) // until no call hangs
				})
			})
		}
	}
}

// What a group was charged too late is refunded for all of it, and once.
func TestAGroupThatIsChargedTooLateIsRefunded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flakyStore{Memory: newMemory()}
		limit := ratelimit.RollingWindow(100, time.Hour)
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", limit)}, Store: store,
			StoreTimeout: storeTimeout, OnStoreFailure: ratelimit.FailClosed,
		}).Wrap(ok)
		store.Set(func(_ context.Context, n int64) error {
			time.Sleep(map[int64]time.Duration{1: time.Millisecond, 2: 2 * storeTimeout}[n])
			return nil
		})
		if got := together(20, h); count(got, http.StatusOK) != 1 || count(got, http.StatusServiceUnavailable) != 19 {
			t.Errorf("%d admitted, want the first alone", count(got, http.StatusOK))
		}
		time.Sleep(time.Minute)
		charges := []ratelimit.Charge{{Policy: "p", Limit: limit}}
		if _, err := take(t.Context(), store.Memory, charges); err != nil || charges[0].Remaining != 99 {
			t.Errorf("%d left, want 99 (%v)", charges[0].Remaining, err)
		}
	})
}

// A call that hangs keeps no other request waiting for longer than a quarter of the timeout.
func TestOneHangingCallDecidesForNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFlakyStore()
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1000, time.Hour))}, Store: store,
			StoreTimeout: storeTimeout, OnStoreFailure: ratelimit.FailClosed,
		}).Wrap(ok)
		store.Set(func(ctx context.Context, n int64) error {
			if n == 1 {
				return hang(ctx, n)
			}
			return nil
		})
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				began := time.Now()
				code := do(h).Code
				if code == http.StatusOK == (i == 0) {
					t.Errorf("request %d: status %d", i, code)
				}
				if took := time.Since(began); i > 0 && took > storeTimeout/4 {
					t.Errorf("request %d took %v, want at most a quarter of %v", i, took, storeTimeout)
				}
			})
			time.Sleep(storeTimeout / 50)
		}
		wg.Wait()
	})
}

// A hot key cannot make more decisions wait than calls may.
func TestDecisionsThatWaitForOthersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		store := &script{Memory: newMemory()}
		store.take = func(ctx context.Context, d *ratelimit.Decision) error {
			<-release
			return store.Memory.Take(ctx, d)
		}
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(100_000, time.Hour))},
			Store:    store, StoreTimeout: 10 * time.Second, OnStoreFailure: ratelimit.FailClosed,
		}).Wrap(ok)
		var busy, admitted atomic.Int64
		var wg sync.WaitGroup
		for range 5000 {
			wg.Go(func() {
				switch do(h).Code {
				case http.StatusOK:
					admitted.Add(1)
				case http.StatusServiceUnavailable:
					busy.Add(1)
				}
			})
		}
		time.Sleep(time.Second)
		if n := busy.Load(); n != 5000-1-16*128 {
			t.Errorf("%d requests were refused at once, want all but the one that calls and 16 times 128 that wait", n)
		}
		close(release)
		wg.Wait()
		if n := admitted.Load(); n != 1+16*128 {
			t.Errorf("%d requests were admitted, want all that waited", n)
		}
	})
}

// A request that ends while it waits for others is charged nothing. It has not failed.
func TestARequestThatEndsInLineIsNotCharged(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(cancel context.CancelFunc)
		want int
	}{
		"by its client": {func(cancel context.CancelFunc) { cancel() }, usher.StatusClientClosedRequest},
		"by a deadline": {func(context.CancelFunc) { time.Sleep(5 * time.Millisecond) }, http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newDistantStore(10 * time.Millisecond)
				limit := ratelimit.RollingWindow(10, time.Hour)
				var reported errorsOf
				ran := 0
				h := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{forAll("p", limit)}, Store: store, OnError: reported.add,
				}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran++ }))
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
				defer cancel()
				var wg sync.WaitGroup
				wg.Go(func() { do(h) })
				synctest.Wait()
				for range 3 {
					wg.Go(func() {
						began := time.Now()
						if code := do(h, func(r *http.Request) { *r = *r.WithContext(ctx) }).Code; code != c.want {
							t.Errorf("status %d, want %d", code, c.want)
						}
						if took := time.Since(began); took > 5*time.Millisecond {
							t.Errorf("the request went on for %v", took)
						}
					})
				}
				synctest.Wait()
				c.end(cancel)
				wg.Wait()
				charges := []ratelimit.Charge{{Policy: "p", Limit: limit}}
				if _, err := take(t.Context(), store.Memory, charges); err != nil || charges[0].Remaining != 9 {
					t.Errorf("%d left of 10, want only the first to be charged (%v)", charges[0].Remaining, err)
				}
				if ran != 1 || len(reported.all()) > 0 {
					t.Errorf("the handler ran %d times, and OnError was called with %v", ran, reported.all())
				}
			})
		})
	}
}

// So is one that ends while others of its group are charged first.
func TestARequestThatEndsBeforeItsTurnIsNotCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newDistantStore(10 * time.Millisecond)
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(10, time.Hour))}, Store: store,
		}).Wrap(ok)
		ctx, leave := context.WithCancel(t.Context())
		store.Set(func(_ context.Context, n int64) error {
			if n == 2 { // which asks for ten, although nine are left
				leave()
			}
			return nil
		})
		var wg sync.WaitGroup
		var admitted atomic.Int64
		for i := range 16 {
			wg.Go(func() {
				code := do(h, func(r *http.Request) {
					if i > 0 && i <= 5 {
						*r = *r.WithContext(ctx)
					}
				}).Code
				if code == http.StatusOK {
					admitted.Add(1)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if n := admitted.Load(); n != 10 {
			t.Errorf("%d of those who stayed were admitted, want 10", n)
		}
	})
}

// Each request of a group refunds what it was charged, and no more.
func TestEachOfAGroupRefundsItsOwn(t *testing.T) {
	for name, limit := range map[string]ratelimit.Limit{
		"a rolling window":  ratelimit.RollingWindow(100, time.Hour),
		"a bucket":          ratelimit.TokenBucket(1, time.Hour, 100),
		"a calendar window": ratelimit.CalendarWindow(100, ratelimit.Year),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newDistantStore(time.Millisecond)
				settled, counted := forAll("settled", limit), forAll("counted", limit)
				settled.Settle, settled.Cost = true, func(*http.Request) int { return 0 } // what is reserved belongs to one request
				counted.Count = func(status int) bool { return status < 400 }
				var served atomic.Int64
				h := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{settled, counted}, Store: store,
				}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n := served.Add(1)
					if err := ratelimit.Settle(r.Context(), "settled", int(n%3)); err != nil {
						t.Error(err)
					}
					if n%2 == 0 {
						w.WriteHeader(http.StatusTeapot)
					}
				}))
				together(12, h)
				time.Sleep(time.Second) // until all is refunded
				charges := []ratelimit.Charge{{Policy: "settled", Limit: limit}, {Policy: "counted", Limit: limit}}
				if _, err := take(t.Context(), store.Memory, charges); err != nil {
					t.Fatal(err)
				}
				if got := []int64{charges[0].Remaining, charges[1].Remaining}; !slices.Equal(got, []int64{100 - 12, 100 - 6}) {
					t.Errorf("%d left of 100 each, want 88 and 94", got)
				}
				if n := store.n.Load(); n > 4 {
					t.Errorf("%d calls of Take for 12 requests", n)
				}
			})
		})
	}
}

func BenchmarkSharedStore(b *testing.B) {
	for _, trip := range []time.Duration{0, 200 * time.Microsecond} {
		for _, callers := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("trip=%v/callers=%d", trip, callers), func(b *testing.B) {
				store := newDistantStore(trip)
				h := newLimiter(b, ratelimit.Config{
					Policies: []ratelimit.Policy{forAll("p", ratelimit.TokenBucket(1_000_000_000, time.Second, 1_000_000_000))},
					Store:    store, StoreTimeout: 10 * time.Second, Headers: ratelimit.NoHeaders,
				}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
				b.ReportAllocs()
				var left atomic.Int64
				left.Store(int64(b.N))
				var wg sync.WaitGroup
				b.ResetTimer()
				for range callers {
					wg.Go(func() {
						r := httptest.NewRequest(http.MethodGet, "/", nil)
						w := httptest.NewRecorder()
						for left.Add(-1) >= 0 {
							h.ServeHTTP(w, r)
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(store.n.Load())/float64(b.N), "trips/op")
			})
		}
	}
}
