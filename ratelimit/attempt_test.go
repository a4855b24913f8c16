package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/ratelimit"
)

// A call whose result is lost is made again with its ID, and charges once.
func TestACallWhoseResultIsLostIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &script{Memory: newMemory()}
		calls := make(map[ratelimit.ID]int)
		// lossy loses the first result of each call.
		lossy := func(f func(context.Context, *ratelimit.Decision) error) func(context.Context, *ratelimit.Decision) error {
			return func(ctx context.Context, d *ratelimit.Decision) error {
				if err := f(ctx, d); err != nil {
					t.Error(err)
				}
				if calls[d.ID]++; calls[d.ID] == 1 {
					d.Admitted = !d.Admitted
					return fmt.Errorf("the connection is closed: %w", usher.ErrUnavailable)
				}
				return nil
			}
		}
		store.take, store.adjust = lossy(store.Memory.Take), lossy(store.Memory.Adjust)
		units := forAll("units", ratelimit.RollingWindow(100, time.Hour))
		units.Settle = true
		var reported errorsOf
		l := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{units, forAll("places", ratelimit.Concurrency(1))},
			Store:    store, OnStoreFailure: ratelimit.FailClosed, OnError: reported.add,
		})
		h := l.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if err := ratelimit.Settle(r.Context(), "units", 3); err != nil {
				t.Error(err)
			}
		}))
		wantCodes(t, codes(10, h), 200, 200, 200, 200, 200, 200, 200, 200, 200, 200)
		shutDown(t, l)
		charges := []ratelimit.Charge{{Policy: "units", Limit: units.Limit}}
		if _, err := take(t.Context(), store.Memory, charges); err != nil || charges[0].Remaining != 70 {
			t.Errorf("%d left of 100 after ten requests of 3 units (%v)", charges[0].Remaining, err)
		}
		if errs := reported.all(); len(errs) > 0 {
			t.Error(errs[0])
		}
		if len(calls) != 30 {
			t.Errorf("%d IDs for ten calls each of Take, Settle and the end", len(calls))
		}
		node := uint64(0)
		for id, n := range calls {
			if node == 0 {
				node = id.Node
			}
			if n != 2 || id == (ratelimit.ID{}) || id.Node != node {
				t.Errorf("%d calls with the ID %v", n, id)
			}
		}
	})
}

func TestACallIsRepeatedOnceAndOnlyIfThatMayHelp(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault faulty.Fault
		calls int64
	}{
		{"unavailable", func(context.Context, int64) error { return usher.ErrUnavailable }, 2},
		{"unavailable at the end of its time", func(ctx context.Context, _ int64) error {
			<-ctx.Done()
			return fmt.Errorf("%w: %w", usher.ErrUnavailable, ctx.Err())
		}, 1},
		{"closed", func(context.Context, int64) error { return usher.ErrClosed }, 1},
		{"corrupt", func(context.Context, int64) error { return usher.ErrCorrupt }, 1},
		{"full", func(context.Context, int64) error { return usher.ErrFull }, 1},
		{"of another schema", func(context.Context, int64) error { return usher.ErrSchema }, 1},
		{"wrong", faulty.Fail, 1},
		{"in a panic", faulty.Panic, 1},
	} {
		for mode, want := range map[ratelimit.FailureMode]int{
			ratelimit.FallBackToMemory: 200, ratelimit.DangerouslyFailOpen: 200, ratelimit.FailClosed: 503,
		} {
			t.Run(fmt.Sprint(c.name, ", mode ", mode), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newFlakyStore()
					store.Set(c.fault)
					var reported errorsOf
					h := newLimiter(t, ratelimit.Config{
						Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(2, time.Hour))},
						Store:    store, OnStoreFailure: mode, OnError: reported.add,
					}).Wrap(ok)
					wantCodes(t, codes(1, h), want)
					if n := store.N(); n != c.calls {
						t.Errorf("%d calls, want %d", n, c.calls)
					}
					if errs := reported.all(); len(errs) != 1 {
						t.Errorf("OnError was called with %v", errs)
					}
				})
			})
		}
	}
}

// A store may have forgotten the ID of a call that has taken long.
func TestACallThatHasTakenLongIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFlakyStore()
		store.Set(func(context.Context, int64) error {
			time.Sleep(5 * time.Second)
			return usher.ErrUnavailable
		})
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(2, time.Hour))},
			Store:    store, StoreTimeout: time.Minute, OnStoreFailure: ratelimit.FailClosed,
		}).Wrap(ok)
		wantCodes(t, codes(1, h), 503)
		if n := store.N(); n != 1 {
			t.Errorf("%d calls, want one", n)
		}
	})
}

// A store gets the windows that contain the time of each call, and the lease, and each
// limiter has a node of its own.
func TestAStoreGetsIDsWindowsAndLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		day := ratelimit.CalendarWindow(100, ratelimit.Day).In(zone(t, "Europe/Berlin"))
		var mu sync.Mutex
		nodes := make(map[uint64]bool)
		store := &script{Memory: newMemory()}
		check := func(f func(context.Context, *ratelimit.Decision) error) func(context.Context, *ratelimit.Decision) error {
			return func(ctx context.Context, d *ratelimit.Decision) error {
				mu.Lock()
				nodes[d.ID.Node] = true
				mu.Unlock()
				for _, c := range d.Charges {
					switch c.Policy {
					case "day":
						var want [2]ratelimit.Window
						want[0].Start, want[0].End = day.Window(time.Now())
						want[1].Start, want[1].End = day.Window(want[0].End)
						if c.Windows != want {
							t.Errorf("windows %v, want %v", c.Windows, want)
						}
					case "places":
						if c.Lease != lease {
							t.Errorf("a lease of %v", c.Lease)
						}
					}
				}
				return f(ctx, d)
			}
		}
		store.take, store.adjust = check(store.Memory.Take), check(store.Memory.Adjust)
		p := forAll("day", day)
		p.Count = func(status int) bool { return status != http.StatusOK }
		for range 2 {
			l := newLimiter(t, ratelimit.Config{
				Policies: []ratelimit.Policy{p, forAll("places", ratelimit.Concurrency(9))}, Store: store, Lease: lease,
			})
			do(l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(50 * time.Hour) })))
		}
		synctest.Wait() // for the calls after the responses
		if len(nodes) != 2 {
			t.Errorf("two limiters have the nodes %v", nodes)
		}
	})
}

// The errors of stores are those of package usher.
func TestErrorsOfStoresReachTheOperator(t *testing.T) {
	for _, want := range []error{usher.ErrUnavailable, usher.ErrCorrupt, usher.ErrFull, usher.ErrClosed, usher.ErrSchema} {
		var reported errorsOf
		store := newFlakyStore()
		store.Set(func(context.Context, int64) error { return fmt.Errorf("store: %w", want) })
		do(newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(2, time.Hour))}, Store: store, OnError: reported.add,
		}).Wrap(ok))
		if errs := reported.all(); len(errs) != 1 || !errors.Is(errs[0], want) {
			t.Errorf("OnError was called with %v, want %v", errs, want)
		}
	}
}
