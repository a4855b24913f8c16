package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

// A script is a store that calls the functions that a test sets, or else those of a
// Memory.
type script struct {
	*ratelimit.Memory
	take, adjust func(context.Context, *ratelimit.Decision) error
	renew        func(context.Context, []ratelimit.Place) (lost []ratelimit.Place, err error)
}

func (s *script) Reset(context.Context, []ratelimit.Counter) error { return nil }

func (s *script) Renew(ctx context.Context, places []ratelimit.Place, lease time.Duration) ([]ratelimit.Place, error) {
	if s.renew != nil {
		return s.renew(ctx, places)
	}
	return s.Memory.Renew(ctx, places, lease)
}

func (s *script) Take(ctx context.Context, d *ratelimit.Decision) error {
	if s.take != nil {
		return s.take(ctx, d)
	}
	return s.Memory.Take(ctx, d)
}

func (s *script) Adjust(ctx context.Context, d *ratelimit.Decision) error {
	if s.adjust != nil {
		return s.adjust(ctx, d)
	}
	return s.Memory.Adjust(ctx, d)
}

// overPipes returns a client of a server of h. Their connections are pipes, which obey
// the clock of a bubble.
func overPipes(t *testing.T, h http.Handler) *http.Client {
	l := pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }() // returns when s is closed
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		l.conns <- theirs
		return ours, nil
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = s.Close()
	})
	return &http.Client{Transport: transport}
}

type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l pipes) Close() error   { close(l.closed); return nil }
func (l pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestAStoreThatMisbehavesIsBoundedOverAConnection(t *testing.T) {
	const timeout = 200 * time.Millisecond
	for name, c := range map[string]struct {
		take  func(release <-chan struct{}) error
		cause string
	}{
		"a store that ignores its context": {func(release <-chan struct{}) error { <-release; return nil }, "in time: StoreTimeout is 200ms"},
		"a store that panics":              {func(<-chan struct{}) error { panic("store") }, "panic: store"},
		"a store that fails":               {func(<-chan struct{}) error { return faulty.ErrStore }, faulty.ErrStore.Error()},
	} {
		for mode, want := range map[ratelimit.FailureMode][]int{
			ratelimit.FallBackToMemory:    {200, 200, 429},
			ratelimit.DangerouslyFailOpen: {200, 200, 200},
			ratelimit.FailClosed:          {503, 503, 503},
		} {
			t.Run(fmt.Sprint(name, ", mode ", mode), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					release := make(chan struct{})
					defer close(release)
					var reported errorsOf
					store := &script{Memory: newMemory()}
					store.take = func(ctx context.Context, d *ratelimit.Decision) error {
						if err := c.take(release); err != nil {
							return err
						}
						return store.Memory.Take(ctx, d)
					}
					client := overPipes(t, newLimiter(t, ratelimit.Config{
						Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(2, time.Hour))},
						Store:    store, StoreTimeout: timeout, OnStoreFailure: mode, OnError: reported.add,
					}).Wrap(ok))
					began := time.Now()
					var got []int
					for range 3 {
						r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://example.com", nil)
						res, err := client.Do(r)
						if err != nil {
							t.Fatal(err)
						}
						body, err := io.ReadAll(res.Body)
						_ = res.Body.Close()
						got = append(got, res.StatusCode)
						if err != nil || strings.Contains(string(body), "store") {
							t.Errorf("the client reads %s (%v)", body, err)
						}
					}
					if took := time.Since(began); took > 3*timeout {
						t.Errorf("three requests took %v, with a timeout of %v", took, timeout)
					}
					wantCodes(t, got, want...)
					if errs := reported.all(); len(errs) == 0 || !strings.Contains(errs[0].Error(), c.cause) {
						t.Errorf("OnError was called with %v", errs)
					}
				})
			})
		}
	}
}

func TestCallsOfAStoreThatHangsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var running, most, refused atomic.Int64
		store := &script{Memory: newMemory()}
		store.take = func(ctx context.Context, d *ratelimit.Decision) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			<-release
			return store.Memory.Take(ctx, d)
		}
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{perPath(ratelimit.RollingWindow(100_000, time.Hour))},
			Store:    store, StoreTimeout: 10 * time.Second, OnStoreFailure: ratelimit.FailClosed,
			OnError: func(context.Context, error) { refused.Add(1) },
		}).Wrap(ok)
		var wg sync.WaitGroup
		for i := range 5000 {
			wg.Go(func() { do(h, path(fmt.Sprint("/", i))) })
		}
		time.Sleep(6 * time.Second)
		if n := most.Load(); n != 128 {
			t.Errorf("%d calls ran at a time, want 128", n)
		}
		if n := refused.Load(); n != 5000-128 {
			t.Errorf("%d requests have ended, want all that had no turn", n)
		}
		// A store that was too busy for others has not failed.
		close(release)
		wg.Wait()
		wantCodes(t, codes(1, h), 200)
	})
}

// A call may go on for any time after its timeout.
func TestALateCallSharesNoMemoryWithLaterRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan []ratelimit.Charge, 100)
		release := make(chan struct{})
		store := &script{Memory: newMemory()}
		store.take = func(_ context.Context, d *ratelimit.Decision) error {
			asked <- d.Charges
			<-release
			for i := range d.Charges {
				d.Charges[i].Violated, d.Charges[i].Remaining = true, -7
			}
			return nil
		}
		p := perPath(ratelimit.RollingWindow(1000, time.Hour))
		h := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Store: store, StoreTimeout: time.Millisecond}).Wrap(ok)
		do(h, path("/first"))
		first := <-asked
		for range 100 {
			do(h, path("/later")) // by local limits, in memory that is used again
		}
		if got := first[0].Key; got != ratelimit.TextKey("/first") {
			t.Errorf("the charge that the store still has is now one of %v", got)
		}
		close(release)
		synctest.Wait()
		if got := do(h, path("/later")).Header().Get("RateLimit"); !strings.HasPrefix(got, `"p";r=899;`) {
			t.Errorf("RateLimit %s", got)
		}
	})
}

func TestWhatIsChargedTooLateIsRefunded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fast atomic.Bool
		store := &script{Memory: newMemory()}
		store.take = func(ctx context.Context, d *ratelimit.Decision) error {
			if !fast.Load() {
				time.Sleep(200 * time.Millisecond)
			}
			return store.Memory.Take(ctx, d)
		}
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{
				forAll("places", ratelimit.Concurrency(1)), forAll("p", ratelimit.RollingWindow(2, time.Hour)),
			},
			Store: store, StoreTimeout: 50 * time.Millisecond, OnStoreFailure: ratelimit.FailClosed,
		}).Wrap(ok)
		wantCodes(t, codes(1, h), 503)
		fast.Store(true)
		time.Sleep(2 * time.Second)
		wantCodes(t, codes(3, h), 200, 200, 429)
	})
}

// A server executes a call although its client has given up, and so does one whose reply is
// lost. What such a call has charged cannot be refunded safely, except for places.
func TestPlacesOfCallsThatFailAreFree(t *testing.T) {
	const timeout = 50 * time.Millisecond
	for name, fail := range map[string]func(ctx context.Context, execute func() error) error{
		"the reply is lost, twice": func(_ context.Context, execute func() error) error {
			_ = execute()
			return usher.ErrUnavailable
		},
		"the server executes the call later than others": func(ctx context.Context, execute func() error) error {
			go func() {
				time.Sleep(800 * time.Millisecond)
				_ = execute()
			}()
			<-ctx.Done()
			return fmt.Errorf("%w: %w", usher.ErrUnavailable, ctx.Err())
		},
		"the server executes the call after its end": func(ctx context.Context, execute func() error) error {
			<-ctx.Done()
			_ = execute()
			return fmt.Errorf("%w: %w", usher.ErrUnavailable, ctx.Err())
		},
	} {
		for _, call := range []string{"Take", "Adjust"} {
			t.Run(call+": "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var outage atomic.Bool
					store := &script{Memory: newMemory()}
					h := newLimiter(t, ratelimit.Config{
						Policies: []ratelimit.Policy{forAll("places", ratelimit.Concurrency(1))},
						Store:    store, StoreTimeout: timeout, OnStoreFailure: ratelimit.FailClosed,
					}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { outage.Store(call == "Adjust") }))
					unless := func(name string, f func(context.Context, *ratelimit.Decision) error) func(context.Context, *ratelimit.Decision) error {
						return func(ctx context.Context, d *ratelimit.Decision) error {
							if !outage.Load() {
								return f(ctx, d)
							}
							if call != name {
								return usher.ErrUnavailable
							}
							own := *d // a server has its own
							own.Charges = slices.Clone(d.Charges)
							return fail(ctx, func() error { return f(ctx, &own) })
						}
					}
					store.take, store.adjust = unless("Take", store.Memory.Take), unless("Adjust", store.Memory.Adjust)
					outage.Store(call == "Take")
					wantCodes(t, codes(1, h), map[string]int{"Take": 503, "Adjust": 200}[call])
					time.Sleep(timeout)
					outage.Store(false)
					time.Sleep(2 * time.Second) // much less than a lease
					wantCodes(t, codes(1, h), 200)
					time.Sleep(time.Minute)
				})
			})
		}
	}
}

func hangFor(d time.Duration) func(context.Context, *ratelimit.Decision) error {
	return func(context.Context, *ratelimit.Decision) error {
		time.Sleep(d)
		return nil
	}
}

func TestAdjustIsGuardedToo(t *testing.T) {
	for name, adjust := range map[string]func(context.Context, *ratelimit.Decision) error{
		"hangs":  hangFor(time.Hour),
		"panics": func(context.Context, *ratelimit.Decision) error { panic("store") },
		"fails":  func(context.Context, *ratelimit.Decision) error { return faulty.ErrStore },
	} {
		t.Run("a store that "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reported errorsOf
				settled := forAll("units", ratelimit.RollingWindow(100, time.Hour))
				settled.Settle = true
				l := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{forAll("places", ratelimit.Concurrency(9)), settled},
					Store:    &script{Memory: newMemory(), adjust: adjust},
					OnError:  reported.add,
				})
				h := l.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if err := ratelimit.Settle(r.Context(), "units", 7); err == nil || errors.Is(err, ratelimit.ErrExhausted) {
						t.Errorf("Settle: %v", err)
					}
				}))
				began := time.Now()
				if w := do(h); w.Code != http.StatusOK {
					t.Errorf("status %d", w.Code)
				}
				if took := time.Since(began); took > 100*time.Millisecond {
					t.Errorf("the request took %v, want one timeout for Settle and nothing for the end", took)
				}
				shutDown(t, l)
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("the end took %v, want it to be repeated for 2.5 seconds at most", took)
				}
				if errs := reported.all(); len(errs) != 1 || !strings.Contains(errs[0].Error(), "refund") {
					t.Errorf("OnError was called with %v, want that places were not refunded", errs)
				}
				time.Sleep(2 * time.Hour) // until the calls that hang have ended
			})
		})
	}
}

// A refund that may have been made is not made again.
func TestAnUnknownRefundIsNotRepeated(t *testing.T) {
	p := forAll("units", ratelimit.CalendarWindow(100, ratelimit.Year))
	p.Settle, p.Cost = true, func(*http.Request) int { return 10 }
	p.Count = func(status int) bool { return status < 500 }
	store := &script{Memory: newMemory()}
	store.adjust = func(ctx context.Context, d *ratelimit.Decision) error {
		return errors.Join(store.Memory.Adjust(ctx, d), faulty.ErrStore) // done, but not confirmed
	}
	l := newLimiter(t, ratelimit.Config{
		Policies: []ratelimit.Policy{p}, Store: store, OnError: func(context.Context, error) {},
	})
	h := l.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := ratelimit.Settle(r.Context(), "units", 4); err == nil {
			t.Error("Settle does not return that the store has failed")
		}
		w.WriteHeader(http.StatusInternalServerError)
	}))
	charges := []ratelimit.Charge{{Policy: "units", Limit: p.Limit, Cost: 20}} // of others
	if _, err := take(t.Context(), store.Memory, charges); err != nil {
		t.Fatal(err)
	}
	do(h)
	shutDown(t, l)
	charges[0].Cost = 0
	if _, err := take(t.Context(), store.Memory, charges); err != nil || charges[0].Remaining != 80 {
		t.Errorf("%d left of 100, of which others have used 20 (%v)", charges[0].Remaining, err)
	}
}

// A store that claims to have moved more than it was asked to is not believed.
func TestAStoreCannotMoveMoreThanItWasAskedTo(t *testing.T) {
	for _, c := range []struct {
		name           string
		reserved, last int64 // the last adjustment
	}{
		{"what is charged", 0, -15},
		{"what is reserved", 10, 15},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := forAll("units", ratelimit.CalendarWindow(100, ratelimit.Year))
			p.Settle, p.Cost = true, func(*http.Request) int { return int(c.reserved) }
			p.Count = func(int) bool { return c.reserved > 0 }
			store := &script{Memory: newMemory()}
			var last int64
			store.adjust = func(_ context.Context, d *ratelimit.Decision) error {
				last = d.Charges[0].Cost
				d.Charges[0].Moved = 1000
				return nil
			}
			l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Store: store})
			do(l.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if err := ratelimit.Settle(r.Context(), "units", 15); err != nil {
					t.Error(err)
				}
			})))
			shutDown(t, l)
			if last != c.last {
				t.Errorf("%d moved at the end, want %d", last, c.last)
			}
		})
	}
}

func TestAStoreThatContradictsItselfHasFailed(t *testing.T) {
	for name, c := range map[string]struct{ admitted, violated bool }{
		"it refuses, but no policy does":   {false, false},
		"it admits what a policy does not": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			var reported errorsOf
			store := &script{Memory: newMemory()}
			store.take = func(_ context.Context, d *ratelimit.Decision) error {
				d.Charges[0].Violated, d.Admitted = c.violated, c.admitted
				return nil
			}
			h := newLimiter(t, ratelimit.Config{
				Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(2, time.Hour))},
				Store:    store, OnStoreFailure: ratelimit.FailClosed, OnError: reported.add,
			}).Wrap(ok)
			wantCodes(t, codes(1, h), 503)
			if len(reported.all()) != 1 {
				t.Errorf("OnError was called with %v", reported.all())
			}
		})
	}
}
