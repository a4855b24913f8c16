package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/oteltest"
	"github.com/usher-go/usher/ratelimit"
)

const lease = 6 * time.Second

// A process has a limiter of n places over a store.
type process struct {
	limiter  *ratelimit.Limiter
	store    *script
	reported errorsOf
	running  sync.WaitGroup
	release  chan struct{}
	cut      atomic.Bool // no call reaches the store
}

func newProcess(t *testing.T, n int, m *ratelimit.Memory) *process {
	p := &process{store: &script{Memory: m}, release: make(chan struct{})}
	unlessCut := func(f func(context.Context, *ratelimit.Decision) error) func(context.Context, *ratelimit.Decision) error {
		return func(ctx context.Context, d *ratelimit.Decision) error {
			if p.cut.Load() {
				return usher.ErrUnavailable
			}
			return f(ctx, d)
		}
	}
	p.store.take, p.store.adjust = unlessCut(m.Take), unlessCut(m.Adjust)
	p.store.renew = func(ctx context.Context, places []ratelimit.Place) ([]ratelimit.Place, error) {
		if p.cut.Load() {
			return nil, usher.ErrUnavailable
		}
		return m.Renew(ctx, places, lease)
	}
	p.limiter = newLimiter(t, ratelimit.Config{
		Policies: []ratelimit.Policy{forAll("places", ratelimit.Concurrency(n))},
		Store:    p.store, Lease: lease, OnStoreFailure: ratelimit.FailClosed, OnError: p.reported.add,
	})
	return p
}

// begin sends n requests, whose handlers run until end is called.
func (p *process) begin(t *testing.T, n int) {
	h := p.limiter.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-p.release }))
	for range n {
		p.running.Go(func() {
			if code := do(h).Code; code != http.StatusOK {
				t.Errorf("status %d", code)
			}
		})
	}
	synctest.Wait()
}

func (p *process) end() {
	close(p.release)
	p.running.Wait()
}

// status returns the status of a request that needs one place.
func (p *process) status() int { return do(p.limiter.Wrap(ok)).Code }

func TestAProcessThatDiesFreesItsPlacesAfterALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		dying, living := newProcess(t, 2, m), newProcess(t, 2, m)
		dying.begin(t, 2)
		for range 100 { // far longer than a lease
			time.Sleep(time.Second)
			if code := living.status(); code != http.StatusTooManyRequests {
				t.Fatalf("status %d while both places are taken", code)
			}
		}
		dying.cut.Store(true)
		died := time.Now()
		for living.status() != http.StatusOK {
			if time.Since(died) > lease {
				t.Fatal("the places are not free after a lease")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if d := time.Since(died); d < lease/2 {
			t.Errorf("a place was free %v after its process had died, want most of a lease of %v", d, lease)
		}
		// If the process was only cut off, its late refunds free no places of others.
		living.begin(t, 2)
		dying.cut.Store(false)
		dying.end()
		if code := living.status(); code != http.StatusTooManyRequests {
			t.Errorf("status %d while both places are taken by others", code)
		}
		living.end()
	})
}

// All places of a process are renewed together, at least every third of a lease, for as
// long as their handlers run.
func TestPlacesAreRenewedWhileTheirHandlersRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(t, 10_000, newMemory())
		var mu sync.Mutex
		var sizes []int
		last := make(map[ratelimit.ID]time.Time)
		p.store.renew = func(ctx context.Context, places []ratelimit.Place) ([]ratelimit.Place, error) {
			mu.Lock()
			defer mu.Unlock()
			sizes = append(sizes, len(places))
			for _, place := range places {
				if l, ok := last[place.TakenBy]; ok && time.Since(l) > lease/3 {
					t.Errorf("renewed after %v", time.Since(l))
				}
				last[place.TakenBy] = time.Now()
			}
			return p.store.Memory.Renew(ctx, places, lease)
		}
		calls := func(d time.Duration) []int {
			mu.Lock()
			sizes = nil
			mu.Unlock()
			time.Sleep(d)
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(sizes)
		}
		p.begin(t, 1200)
		time.Sleep(lease / 7)
		p.begin(t, 800)
		most := slices.Max(calls(2 * lease))
		mu.Lock()
		if len(last) != 2000 || most > ratelimit.MaxRenew {
			t.Errorf("%d places were renewed, at most %d at a time, want 2000 and 1000", len(last), most)
		}
		mu.Unlock()
		if n := len(calls(10 * lease)); n > 2*3*10+2 {
			t.Errorf("%d calls in 10 leases, want two every third of a lease", n)
		}
		if errs := p.reported.all(); len(errs) > 0 {
			t.Error(errs[0])
		}
		p.end()
		if n := len(calls(10 * lease)); n > 0 {
			t.Errorf("%d calls after the handlers have returned", n)
		}
		if n := p.store.Len("places"); n != 0 {
			t.Error("places are still taken")
		}
	})
}

func TestARenewalThatFailsIsRetriedBeforeTheLeaseEnds(t *testing.T) {
	for name, fail := range map[string]func(context.Context) error{
		"is unavailable":    func(context.Context) error { return usher.ErrUnavailable },
		"panics":            func(context.Context) error { panic("store") },
		"obeys its context": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"cannot read one":   func(context.Context) error { return usher.ErrCorrupt },
	} {
		t.Run("a store that "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProcess(t, 1, newMemory())
				began := time.Now()
				p.store.renew = func(ctx context.Context, places []ratelimit.Place) ([]ratelimit.Place, error) {
					if time.Since(began) < lease*3/4 {
						return nil, fail(ctx)
					}
					return p.store.Memory.Renew(ctx, places, lease)
				}
				p.begin(t, 1)
				for range 10 {
					time.Sleep(lease / 3)
					if code := p.status(); code != http.StatusTooManyRequests {
						t.Fatalf("status %d while the place is taken", code)
					}
				}
				p.end()
				if errs := p.reported.all(); len(errs) == 0 || len(errs) > 6 || !strings.Contains(errs[0].Error(), "renew the places of 1 request") {
					t.Errorf("OnError was called with %v", errs)
				}
			})
		})
	}
}

func TestARenewalThatHangsDisturbsNoRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(t, 1000, newMemory())
		p.store.renew = func(context.Context, []ratelimit.Place) ([]ratelimit.Place, error) {
			time.Sleep(time.Hour)
			return nil, nil
		}
		p.begin(t, 500)
		for range 100 {
			began := time.Now()
			if code := p.status(); code != http.StatusOK || time.Since(began) > 0 {
				t.Fatalf("status %d after %v", code, time.Since(began))
			}
			time.Sleep(lease / 10)
		}
		began := time.Now()
		p.end()
		if d := time.Since(began); d > 0 {
			t.Errorf("requests took %v longer", d)
		}
		time.Sleep(2 * time.Hour) // until the calls that hang have ended
	})
}

func TestALostPlaceIsReportedOnceAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type name struct{}
		meter := new(oteltest.Meter)
		store := &script{Memory: newMemory()}
		var (
			mu       sync.Mutex
			reports  []string
			renewals int
		)
		store.renew = func(_ context.Context, places []ratelimit.Place) ([]ratelimit.Place, error) {
			mu.Lock()
			defer mu.Unlock()
			renewals++
			return append(places, ratelimit.Place{Policy: "of nobody"}), nil
		}
		l := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("places", ratelimit.Concurrency(1))},
			Store:    store, Lease: lease, MeterProvider: meter,
			OnError: func(ctx context.Context, err error) {
				mu.Lock()
				defer mu.Unlock()
				reports = append(reports, fmt.Sprint(ctx.Value(name{}), ": ", err))
			},
		})
		do(l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(10 * lease) })),
			func(r *http.Request) { *r = *r.WithContext(context.WithValue(r.Context(), name{}, "request 7")) })
		mu.Lock()
		defer mu.Unlock()
		if want := []string{`request 7: ratelimit: policy "places": the store has lost the place of a running request`}; !slices.Equal(reports, want) {
			t.Errorf("OnError was called with %q, want %q", reports, want)
		}
		if renewals != 1 {
			t.Errorf("%d calls of Renew, want one", renewals)
		}
		counts := make(map[string]int64)
		for _, c := range meter.Counts() {
			if c.Name == "usher.rate_limiting.decisions" {
				continue
			}
			result, _ := c.Attributes.Value("usher.rate_limiting.result")
			counts[result.AsString()] = c.Value
		}
		if counts["place_lost"] != 1 || counts["acquired"] != 1 {
			t.Errorf("counted %v", counts)
		}
	})
}

// A renewal that is running when its handler returns reports nothing.
func TestAPlaceThatIsRefundedIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(t, 1, newMemory())
		p.store.renew = func(ctx context.Context, places []ratelimit.Place) ([]ratelimit.Place, error) {
			time.Sleep(50 * time.Millisecond)
			return p.store.Memory.Renew(ctx, places, lease)
		}
		p.begin(t, 1)
		time.Sleep(lease/3 + 10*time.Millisecond)
		p.end()
		time.Sleep(2 * lease)
		if errs := p.reported.all(); len(errs) > 0 {
			t.Error(errs[0])
		}
		wantCodes(t, []int{p.status()}, 200)
	})
}

// A store that is closed fails as one that cannot be reached.
func TestAStoreThatIsClosedHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(t, 2, newMemory())
		p.begin(t, 1)
		if err := p.store.Close(); err != nil {
			t.Fatal(err)
		}
		wantCodes(t, []int{p.status(), p.status()}, 503, 503)
		time.Sleep(lease / 2)
		p.end()
		errs := p.reported.all()
		if len(errs) < 4 {
			t.Errorf("OnError was called with %v, want decisions, a renewal and a refund that have failed", errs)
		}
		for _, err := range errs {
			if !errors.Is(err, usher.ErrClosed) {
				t.Error(err)
			}
		}
		time.Sleep(lease)
	})
}
