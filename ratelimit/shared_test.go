package ratelimit_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/ratelimit"
)

// A flakyStore is a shared store that can misbehave.
type flakyStore struct {
	*ratelimit.Memory
	faulty.Calls
}

func newFlakyStore() *flakyStore { return &flakyStore{Memory: newMemory()} }

func (s *flakyStore) Take(ctx context.Context, d *ratelimit.Decision) error {
	if err := s.Call(ctx); err != nil {
		return err
	}
	return s.Memory.Take(ctx, d)
}

func (s *flakyStore) Adjust(ctx context.Context, d *ratelimit.Decision) error {
	if err := s.Call(ctx); err != nil {
		return err
	}
	return s.Memory.Adjust(ctx, d)
}

func hang(ctx context.Context, _ int64) error { <-ctx.Done(); return context.Cause(ctx) }

// storeTimeout is the timeout of the limiters below.
const storeTimeout = 50 * time.Millisecond

// outages are the ways in which every call of a store may fail.
var outages = map[string]struct {
	fault faulty.Fault
	cause string // which OnError is called with
	took  time.Duration
}{
	"fails":               {faulty.Fail, faulty.ErrStore.Error(), 0},
	"panics":              {faulty.Panic, "panic: faulty", 0},
	"obeys its context":   {hang, "in time", storeTimeout},
	"ignores its context": {faulty.Late(time.Minute), "in time", storeTimeout},
	"responds too late":   {faulty.Late(2 * storeTimeout), "in time", storeTimeout},
}

func TestAStoreFailureAppliesItsMode(t *testing.T) {
	for _, c := range []struct {
		name string
		mode ratelimit.FailureMode
		want []int
	}{
		{"falls back to limits of its own", ratelimit.FallBackToMemory, []int{200, 200, 429}},
		{"open admits everything", ratelimit.DangerouslyFailOpen, []int{200, 200, 200}},
		{"closed refuses everything", ratelimit.FailClosed, []int{503, 503, 503}},
	} {
		for name, o := range outages {
			t.Run(c.name+" when the store "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newFlakyStore()
					var reported errorsOf
					h := newLimiter(t, ratelimit.Config{
						Policies:       []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(2, time.Hour))},
						Store:          store,
						OnStoreFailure: c.mode,
						StoreTimeout:   storeTimeout,
						OnError:        reported.add,
					}).Wrap(ok)
					store.Set(o.fault)
					start := time.Now()
					wantCodes(t, codes(3, h), c.want...)
					if d := time.Since(start); d != 3*o.took {
						t.Errorf("three requests waited %v for the store, want three times %v", d, o.took)
					}
					if c.mode == ratelimit.FailClosed {
						if got := do(h).Header().Get("Retry-After"); got != "1" {
							t.Errorf("Retry-After = %q", got)
						}
					}
					for _, err := range reported.all() {
						if !strings.Contains(err.Error(), o.cause) {
							t.Errorf("OnError was called with %v, want %q", err, o.cause)
						}
					}
					if n := len(reported.all()); n < 3 {
						t.Errorf("OnError was called %d times, want once for each request", n)
					}
					store.Set(nil)
					time.Sleep(time.Minute)
					wantCodes(t, codes(3, h), 200, 200, 429) // the shared counter was not touched
				})
			})
		}
	}
}

// One slow or failing call in a hundred affects one request in a hundred, and not the
// requests around it.
func TestASporadicFailureDecidesNothingElse(t *testing.T) {
	for name, fault := range map[string]faulty.Fault{
		"fails":             faulty.Fail,
		"panics":            faulty.Panic,
		"obeys its context": hang,
		"is late":           faulty.Late(3 * storeTimeout),
	} {
		t.Run("a call that "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const requests = 5000
				store := newFlakyStore()
				var reported errorsOf
				config := ratelimit.Config{
					Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(10*requests, time.Hour))},
					Store:    store, StoreTimeout: storeTimeout, OnError: reported.add,
				}
				local := newLimiter(t, config).Wrap(ok)
				config.OnStoreFailure = ratelimit.FailClosed
				closed := newLimiter(t, config).Wrap(ok)
				store.Set(faulty.Every(100, fault))
				var mu sync.Mutex
				var running sync.WaitGroup
				refused := 0
				for range requests {
					running.Go(func() { do(local) })
					running.Go(func() {
						if do(closed).Code == http.StatusServiceUnavailable {
							mu.Lock()
							refused++
							mu.Unlock()
						}
					})
					time.Sleep(time.Millisecond)
				}
				running.Wait()
				if undecided := len(reported.all()); undecided*100 > 2*2*requests || undecided == 0 {
					t.Errorf("%d of %d decisions were made without the store, want at most 2 %%", undecided, 2*requests)
				}
				if refused*100 > 2*requests {
					t.Errorf("%d of %d requests were refused, want at most 2 %%", refused, requests)
				}
				time.Sleep(time.Second) // until late calls have ended
			})
		})
	}
}

// X03: requests do not wait for a store that is down.
func TestAnOutageIsNoticedAndEnds(t *testing.T) {
	const outage, interval = 10 * time.Second, 10 * time.Millisecond
	for name, o := range outages {
		if name == "ignores its context" {
			o.fault = faulty.Late(outage)
		}
		t.Run("a store that "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFlakyStore()
				var reported errorsOf
				h := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1_000_000, time.Hour))},
					Store:    store, StoreTimeout: storeTimeout, OnStoreFailure: ratelimit.FailClosed, OnError: reported.add,
				}).Wrap(ok)
				// run sends requests for d, and returns how many were refused and how many
				// of them waited for the store.
				run := func(d time.Duration) (requests, refused, waited int) {
					var mu sync.Mutex
					var running sync.WaitGroup
					for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(interval) {
						requests++
						running.Go(func() {
							began := time.Now()
							code := do(h).Code
							mu.Lock()
							defer mu.Unlock()
							if code == http.StatusServiceUnavailable {
								refused++
							}
							if time.Since(began) > 0 {
								waited++
							}
						})
					}
					running.Wait()
					return requests, refused, waited
				}
				if _, refused, _ := run(2 * time.Second); refused > 0 {
					t.Fatalf("a healthy store refused %d requests", refused)
				}
				began := time.Now()
				store.Set(faulty.For(outage, o.fault))
				run(2*time.Second + storeTimeout)
				before := store.N()
				requests, refused, waited := run(outage - time.Since(began))
				if refused != requests {
					t.Errorf("%d of %d requests were refused during the outage, want all", refused, requests)
				}
				// What was charged too late is refunded with a second call.
				if probes := store.N() - before; probes < 5 || probes > 2*8 || waited > 8 {
					t.Errorf("%d calls of the store and %d requests that waited for it in 8 seconds, want one a second and its refund", probes, waited)
				}
				if name == "ignores its context" {
					time.Sleep(outage) // until no call hangs any more
				}
				run(time.Second + storeTimeout)
				if requests, refused, _ := run(2 * time.Second); refused > 0 {
					t.Errorf("%d of %d requests were refused after the outage", refused, requests)
				}
				if errs := reported.all(); len(errs) == 0 || !strings.Contains(errs[0].Error(), o.cause) {
					t.Errorf("OnError was called %d times, want the cause %q first", len(errs), o.cause)
				}
			})
		})
	}
}

func TestAStoreThatIsDownIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFlakyStore()
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(2, time.Hour))},
			Store:    store, OnStoreFailure: ratelimit.DangerouslyFailOpen,
		}).Wrap(ok)
		store.Set(hang)
		codes(10, h)
		before := store.N()
		for range 10 {
			time.Sleep(1001 * time.Millisecond)
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() { do(h) })
			}
			wg.Wait()
		}
		if n := store.N() - before; n == 0 || n > 10 {
			t.Errorf("500 requests in ten seconds asked the store %d times, want at most 10", n)
		}
	})
}

func TestPlacesAreReturnedToTheStoreThatGaveThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFlakyStore()
		l := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.Concurrency(1))}, Store: store,
		})
		do(l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			store.Set(faulty.Fail)
			wantCodes(t, codes(1, l.Wrap(ok)), 200) // a local place
			store.Set(nil)
		})))
		time.Sleep(2 * time.Second)
		wantCodes(t, codes(2, l.Wrap(ok)), 200, 200)
		store.Set(faulty.Fail)
		wantCodes(t, codes(2, l.Wrap(ok)), 200, 200)
	})
}

// A place that is not freed during an outage would never be freed.
func TestPlacesAreReturnedWhileDecisionsAreLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &script{Memory: newMemory()}
		l := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.Concurrency(1))}, Store: store,
		})
		do(l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			store.take = func(context.Context, *ratelimit.Decision) error { return faulty.ErrStore }
			codes(20, l.Wrap(ok)) // until the store is left alone
		})))
		store.take = nil
		time.Sleep(time.Second)
		wantCodes(t, codes(2, l.Wrap(ok)), 200, 200)
	})
}

// Refunds for which the store fails are lost, which errs on the safe side. No other
// refunds are.
func TestASporadicFailureLosesNoOtherRefund(t *testing.T) {
	for name, fault := range map[string]faulty.Fault{
		"fails":             faulty.Fail,
		"panics":            faulty.Panic,
		"obeys its context": hang,
	} {
		t.Run("a call that "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const requests = 1000
				var calls faulty.Calls
				store := &script{Memory: newMemory()}
				store.adjust = func(ctx context.Context, d *ratelimit.Decision) error {
					if err := calls.Call(ctx); err != nil {
						return err
					}
					return store.Memory.Adjust(ctx, d)
				}
				calls.Set(faulty.Every(100, fault))
				p := forAll("p", ratelimit.RollingWindow(2*requests, time.Hour))
				p.Count = func(status int) bool { return status != http.StatusOK }
				var reported errorsOf
				l := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{p}, Store: store, StoreTimeout: storeTimeout, OnError: reported.add,
				})
				h := l.Wrap(ok)
				for range requests {
					if code := do(h).Code; code != http.StatusOK {
						t.Fatalf("status %d", code)
					}
				}
				shutDown(t, l)
				if n := len(reported.all()); n != requests/100 {
					t.Errorf("OnError was called %d times, want %d", n, requests/100)
				}
				charges := []ratelimit.Charge{{Policy: "p", Limit: p.Limit}}
				if _, err := take(t.Context(), store.Memory, charges); err != nil {
					t.Fatal(err)
				}
				if used := 2*requests - charges[0].Remaining; used != requests/100 {
					t.Errorf("%d units are used, want one for each of %d refunds that failed", used, requests/100)
				}
			})
		})
	}
}

func TestAStoreThatHangsAfterTheHandlerDelaysNoResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFlakyStore()
		settled := forAll("units", ratelimit.RollingWindow(100, time.Hour))
		settled.Settle = true
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("places", ratelimit.Concurrency(9)), settled},
			Store:    store, StoreTimeout: storeTimeout,
		}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			store.Set(hang)
			if err := ratelimit.Settle(r.Context(), "units", 7); err == nil || errors.Is(err, ratelimit.ErrExhausted) {
				t.Errorf("Settle returns %v, want the failure", err)
			}
		}))
		start := time.Now()
		do(h)
		if d := time.Since(start); d > storeTimeout {
			t.Errorf("the request took %v, want one timeout for Settle and nothing for the end", d)
		}
		time.Sleep(time.Minute) // until the place is given up
	})
}
