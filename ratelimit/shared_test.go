package ratelimit_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// faulty is a shared store that can fail.
type faulty struct {
	*ratelimit.Memory
	calls atomic.Int64
	mu    sync.Mutex
	fault func(context.Context) error
}

func (f *faulty) Take(ctx context.Context, charges []ratelimit.Charge) (bool, error) {
	f.calls.Add(1)
	f.mu.Lock()
	fault := f.fault
	f.mu.Unlock()
	if fault != nil {
		if err := fault(ctx); err != nil {
			return false, err
		}
	}
	return f.Memory.Take(ctx, charges)
}

func (f *faulty) Adjust(ctx context.Context, charges []ratelimit.Charge) error {
	f.calls.Add(1)
	f.mu.Lock()
	fault := f.fault
	f.mu.Unlock()
	if fault != nil {
		if err := fault(ctx); err != nil {
			return err
		}
	}
	return f.Memory.Adjust(ctx, charges)
}

func (f *faulty) set(fault func(context.Context) error) {
	f.mu.Lock()
	f.fault = fault
	f.mu.Unlock()
}

var errStore = errors.New("store: connection refused")

func refuse(context.Context) error { return errStore }

func hang(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestStoreFailure(t *testing.T) {
	for _, c := range []struct {
		name string
		mode ratelimit.FailureMode
		want []int
	}{
		{"falls back to limits of its own", ratelimit.FallBack, []int{200, 200, 429}},
		{"open admits everything", ratelimit.DangerouslyFailOpen, []int{200, 200, 200}},
		{"closed refuses everything", ratelimit.FailClosed, []int{503, 503, 503}},
	} {
		for name, fault := range map[string]func(context.Context) error{"refuses": refuse, "hangs": hang} {
			t.Run(c.name+" when the store "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := &faulty{Memory: ratelimit.NewMemory(0)}
					h := newLimiter(t, ratelimit.Config{
						Policies:       []ratelimit.Policy{everyone("p", ratelimit.RollingWindow(2, time.Hour))},
						Store:          store,
						OnStoreFailure: c.mode,
						StoreTimeout:   50 * time.Millisecond,
					}).Wrap(ok)
					store.set(fault)
					start := time.Now()
					wantCodes(t, codes(3, h), c.want...)
					if d := time.Since(start); d > 50*time.Millisecond {
						t.Errorf("three requests waited %v for the store, want one timeout", d)
					}
					if c.mode == ratelimit.FailClosed {
						if got := do(h).Header().Get("Retry-After"); got != "1" {
							t.Errorf("Retry-After = %q", got)
						}
					}
					store.set(nil)
					time.Sleep(time.Second)
					wantCodes(t, codes(3, h), 200, 200, 429) // the shared counter was not touched
				})
			})
		}
	}
}

func TestAStoreThatIsDownIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &faulty{Memory: ratelimit.NewMemory(0)}
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{everyone("p", ratelimit.RollingWindow(2, time.Hour))},
			Store:    store, OnStoreFailure: ratelimit.DangerouslyFailOpen,
		}).Wrap(ok)
		store.set(hang)
		do(h)
		store.calls.Store(0)
		for range 10 {
			time.Sleep(1001 * time.Millisecond)
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() { do(h) })
			}
			wg.Wait()
		}
		if n := store.calls.Load(); n > 10 {
			t.Errorf("500 requests in ten seconds asked the store %d times, want at most 10", n)
		}
	})
}

func TestPlacesAreReturnedToTheStoreThatGaveThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &faulty{Memory: ratelimit.NewMemory(0)}
		l := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{everyone("p", ratelimit.Concurrency(1))}, Store: store,
		})
		do(l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			store.set(refuse)
			wantCodes(t, codes(1, l.Wrap(ok)), 200) // a local place
			store.set(nil)
		})))
		time.Sleep(2 * time.Second)
		wantCodes(t, codes(2, l.Wrap(ok)), 200, 200)
		store.set(refuse)
		wantCodes(t, codes(2, l.Wrap(ok)), 200, 200)
	})
}

func TestAStoreThatHangsAfterTheHandlerHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &faulty{Memory: ratelimit.NewMemory(0)}
		settled := everyone("units", ratelimit.RollingWindow(100, time.Hour))
		settled.Settle = true
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{everyone("places", ratelimit.Concurrency(9)), settled},
			Store:    store, StoreTimeout: 50 * time.Millisecond,
		}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			store.set(hang)
			if err := ratelimit.Settle(r.Context(), "units", 7); err == nil {
				t.Error("Settle says nothing of the failure")
			}
		}))
		start := time.Now()
		do(h)
		if d := time.Since(start); d > 100*time.Millisecond {
			t.Errorf("the request took %v, want one timeout each for Settle and for the end", d)
		}
	})
}
