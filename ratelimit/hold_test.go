package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/ratelimit"
)

// A budgetNode is a process with a limiter of 100 units over a store that it shares. Its
// requests reserve 40, settle what a test sets, and run until a test ends them.
type budgetNode struct {
	*process
	settle atomic.Int64 // -1 if the handler does not
}

func newBudgetNode(t *testing.T, m *ratelimit.Memory, l ratelimit.Limit) *budgetNode {
	n := &budgetNode{process: newProcess(t, 1, m)}
	n.settle.Store(-1)
	p := forAll("units", l)
	p.Settle = true
	p.Cost = func(r *http.Request) int {
		if r.Method == http.MethodHead {
			return 0
		}
		return 40
	}
	p.Count = func(status int) bool { return status < 500 }
	n.limiter = newLimiter(t, ratelimit.Config{
		Policies: []ratelimit.Policy{p}, Store: n.store, Lease: lease, OnStoreFailure: ratelimit.FailClosed, OnError: n.reported.add,
	})
	return n
}

// run returns a handler that settles and waits for end.
func (n *budgetNode) run(t *testing.T) http.Handler {
	return n.limiter.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if cost := n.settle.Load(); cost >= 0 {
			if err := ratelimit.Settle(r.Context(), "units", int(cost)); err != nil && !errors.Is(err, ratelimit.ErrExhausted) {
				t.Error(err)
			}
		}
		<-n.release
	}))
}

// begin sends k requests, whose handlers run until end is called.
func (n *budgetNode) begin(t *testing.T, k int) {
	h := n.run(t)
	for range k {
		n.running.Go(func() {
			if code := do(h).Code; code != http.StatusOK {
				t.Errorf("status %d", code)
			}
		})
	}
	synctest.Wait()
}

// left returns the units that are left.
func (n *budgetNode) left(t *testing.T) int {
	w := do(n.limiter.Wrap(ok), func(r *http.Request) { r.Method = http.MethodHead })
	return left(t, w.Header())
}

func TestAReservationOfAProcessThatDiesEndsAfterALease(t *testing.T) {
	for name, l := range budgets {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				dying, living := newBudgetNode(t, m, l), newBudgetNode(t, m, l)
				dying.begin(t, 2)
				for range 100 { // far longer than a lease
					time.Sleep(time.Second)
					if n := living.left(t); n != 20 {
						t.Fatalf("%d left while 80 are reserved", n)
					}
				}
				dying.cut.Store(true)
				died := time.Now()
				for living.left(t) != 100 {
					if time.Since(died) > lease {
						t.Fatal("the reservations have not ended after a lease")
					}
					time.Sleep(100 * time.Millisecond)
				}
				if d := time.Since(died); d < lease/2 {
					t.Errorf("a reservation ended %v after its process had died, want most of a lease of %v", d, lease)
				}
				// If the process was only cut off, what its requests have used is charged late.
				dying.cut.Store(false)
				dying.end()
				shutDown(t, dying.limiter)
				if n := living.left(t); n != 20 {
					t.Errorf("%d left, want 20", n)
				}
			})
		})
	}
}

// What a request has reserved is charged once, when its handler has returned.
func TestAReservationIsChargedWhenTheHandlerReturns(t *testing.T) {
	for name, l := range budgets {
		for settle, running := range map[int64]int{-1: 60, 0: 100, 7: 93, 90: 10, 150: 0} {
			t.Run(fmt.Sprintf("%s, settled %d", name, settle), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newMemory()
					n, other := newBudgetNode(t, m, l), newBudgetNode(t, m, l)
					n.settle.Store(settle)
					n.begin(t, 1)
					time.Sleep(3 * lease)
					if got := other.left(t); got != running {
						t.Errorf("%d left while the handler runs, want %d", got, running)
					}
					n.end()
					shutDown(t, n.limiter)
					time.Sleep(3 * lease)
					if got := other.left(t); got != running {
						t.Errorf("%d left after it has returned, want %d", got, running)
					}
					if errs := n.reported.all(); len(errs) > 0 {
						t.Error(errs[0])
					}
				})
			})
		}
	}
}

// However a request ends, its reservation ends with it, by one call of the store.
func TestAReservationEndsWithItsRequestOverAConnection(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(http.Handler) http.Handler // around what settles 30
		left  int
	}{
		"it returns":         {func(h http.Handler) http.Handler { return h }, 70},
		"it does not settle": {func(http.Handler) http.Handler { return ok }, 60},
		"it fails": {func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(w, r)
				w.WriteHeader(http.StatusInternalServerError)
			})
		}, 100},
		"it panics": {func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(w, r)
				panic(http.ErrAbortHandler)
			})
		}, 100},
		"it ends its goroutine": {func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(w, r)
				runtime.Goexit()
			})
		}, 100},
		"it is hijacked": {func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(w, r)
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					panic(err)
				}
				_ = conn.Close()
			})
		}, 70},
		"it is abandoned": {func(h http.Handler) http.Handler {
			return http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				time.Sleep(time.Second)
				if err := ratelimit.Settle(r.Context(), "units", 1); !errors.Is(err, ratelimit.ErrNotSettled) {
					panic(fmt.Sprint("an abandoned handler settles: ", err))
				}
			}), time.Millisecond, "")
		}, 100}, // as it responds with 503
		"a policy counts nothing":  {func(h http.Handler) http.Handler { return h }, 100},
		"Count panics":             {func(h http.Handler) http.Handler { return h }, 70},
		"Count ends its goroutine": {func(h http.Handler) http.Handler { return h }, 70},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &script{Memory: newMemory()}
				ends := 0
				store.adjust = func(ctx context.Context, d *ratelimit.Decision) error {
					for _, c := range d.Charges {
						if c.EndHold {
							ends++
						}
					}
					return store.Memory.Adjust(ctx, d)
				}
				p := forAll("units", ratelimit.RollingWindow(100, 24*time.Hour))
				p.Settle, p.Cost = true, func(*http.Request) int { return 40 }
				p.Count = func(status int) bool {
					switch name {
					case "a policy counts nothing":
						return false
					case "Count panics":
						panic("Count")
					case "Count ends its goroutine":
						runtime.Goexit()
					}
					return status < 500
				}
				l := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{p, forAll("places", ratelimit.Concurrency(1))},
					Store:    store, Lease: lease, OnError: func(context.Context, error) {},
				})
				h := l.Wrap(c.serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					if err := ratelimit.Settle(r.Context(), "units", 30); err != nil {
						t.Error(err)
					}
				})))
				r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://example.com", nil)
				if res, err := overPipes(t, h).Do(r); err == nil {
					_ = res.Body.Close()
				}
				synctest.Wait()
				shutDown(t, l)
				time.Sleep(3 * lease) // nothing is renewed any more
				charges := []ratelimit.Charge{{Policy: "units", Limit: p.Limit}}
				if _, err := take(t.Context(), store.Memory, charges); err != nil || charges[0].Remaining != int64(c.left) {
					t.Errorf("%d left, want %d (%v)", charges[0].Remaining, c.left, err)
				}
				if n := store.Len("units"); n > 1 {
					t.Errorf("%d entries, want that nothing is reserved", n)
				}
				if n := store.Len("places"); n != 0 {
					t.Error("the place is still taken")
				}
				if ends != 1 {
					t.Errorf("%d calls that end the reservation, want one", ends)
				}
			})
		})
	}
}

// A client that disconnects during the decision is charged as its status says.
func TestAClientThatLeavesReservesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		counts bool
		left   int64
	}{"counted": {true, 60}, "not counted": {false, 100}} {
		t.Run(name, func(t *testing.T) {
			p := forAll("units", ratelimit.RollingWindow(100, time.Hour))
			p.Settle, p.Cost = true, func(*http.Request) int { return 40 }
			p.Count = func(status int) bool { return status != 499 || c.counts }
			l := newCanceledServer(t, ratelimit.FailClosed, p)
			l.leave(t, nil)
			charges := []ratelimit.Charge{{Policy: "units", Limit: p.Limit}}
			for { // until the background has ended it
				if _, err := take(t.Context(), l.store.Memory, charges); err != nil {
					t.Fatal(err)
				}
				if charges[0].Remaining == c.left && l.store.N() == 1 {
					return
				}
				runtime.Gosched()
			}
		})
	}
}

// Calls that fail leave nothing reserved, and charge once.
func TestReservationsOfCallsThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		take, adjust func(n int, execute func() error) error
		status, left int
	}{
		"the result of Take is lost, twice": {take: func(_ int, execute func() error) error {
			_ = execute()
			return usher.ErrUnavailable
		}, status: 503, left: 100},
		"Take responds too late": {take: func(_ int, execute func() error) error {
			time.Sleep(time.Second)
			return execute()
		}, status: 503, left: 100},
		"the result of the end is lost, twice": {adjust: func(n int, execute func() error) error {
			if err := execute(); n > 2 {
				return err
			}
			return usher.ErrUnavailable
		}, status: 200, left: 60},
		"the end is unavailable for two seconds": {adjust: func(n int, execute func() error) error {
			if n < 40 {
				return usher.ErrUnavailable
			}
			return execute()
		}, status: 200, left: 60},
		"the end hangs": {adjust: func(n int, execute func() error) error {
			if n == 1 {
				time.Sleep(time.Second)
			}
			return execute()
		}, status: 200, left: 60},
		"the end fails": {adjust: func(int, func() error) error { return usher.ErrCorrupt }, status: 200, left: 100},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &script{Memory: newMemory()}
				calls := func(f func(int, func() error) error, call func(context.Context, *ratelimit.Decision) error) func(context.Context, *ratelimit.Decision) error {
					var n atomic.Int64
					return func(ctx context.Context, d *ratelimit.Decision) error {
						return f(int(n.Add(1)), func() error { return call(ctx, d) })
					}
				}
				if c.take != nil {
					store.take = calls(c.take, store.Memory.Take)
				}
				if c.adjust != nil {
					store.adjust = calls(c.adjust, store.Memory.Adjust)
				}
				p := forAll("units", ratelimit.CalendarWindow(100, ratelimit.Year))
				p.Settle, p.Cost = true, func(*http.Request) int { return 40 }
				l := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{p}, Store: store, Lease: time.Hour,
					OnStoreFailure: ratelimit.FailClosed, OnError: func(context.Context, error) {},
				})
				wantCodes(t, codes(1, l.Wrap(ok)), c.status)
				shutDown(t, l)
				time.Sleep(5 * time.Second)
				if name == "the end fails" {
					time.Sleep(time.Hour) // the lease
				}
				charges := []ratelimit.Charge{{Policy: "units", Limit: p.Limit}}
				if _, err := take(t.Context(), store.Memory, charges); err != nil || charges[0].Remaining != int64(c.left) {
					t.Errorf("%d left, want %d (%v)", charges[0].Remaining, c.left, err)
				}
			})
		})
	}
}

// While the store fails, requests are charged in this process, and nothing is reserved.
func TestAReservationFallsBackToMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &script{Memory: newMemory(), take: func(context.Context, *ratelimit.Decision) error { return faulty.ErrStore }}
		p := forAll("units", ratelimit.RollingWindow(100, time.Hour))
		s := newSpender(t, store, p)
		for range 3 {
			s.spend(40, 30)
		}
		if res := s.spend(40, 30); res.Code != http.StatusTooManyRequests || left(t, res.Header()) != 10 {
			t.Errorf("after 90 units of 100: %d, %s", res.Code, res.Header().Get("RateLimit"))
		}
		time.Sleep(time.Minute)
		charges := []ratelimit.Charge{{Policy: "units", Limit: p.Limit}}
		if _, err := take(t.Context(), store.Memory, charges); err != nil || charges[0].Remaining != 100 {
			t.Errorf("%d left in the store (%v)", charges[0].Remaining, err)
		}
	})
}

// A request whose reservation is lost is charged nevertheless, and the operator learns it.
func TestALostReservationIsReportedAndCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		n := newBudgetNode(t, m, ratelimit.CalendarWindow(100, ratelimit.Year))
		n.begin(t, 1)
		n.cut.Store(true)
		time.Sleep(2 * lease)
		n.cut.Store(false)
		time.Sleep(lease)
		n.end()
		shutDown(t, n.limiter)
		if got := n.left(t); got != 60 {
			t.Errorf("%d left, want 60", got)
		}
		lost := 0
		for _, err := range n.reported.all() {
			if strings.Contains(err.Error(), `policy "units": the store has lost what a running request has reserved`) {
				lost++
			}
		}
		if lost != 1 {
			t.Errorf("OnError was called with %v", n.reported.all())
		}
	})
}

func TestNestedLimitersEndReservations(t *testing.T) {
	settled := func(name string, l ratelimit.Limit) ratelimit.Policy {
		p := forAll(name, l)
		p.Settle, p.Cost = true, func(*http.Request) int { return 40 }
		return p
	}
	hundred := ratelimit.RollingWindow(100, time.Hour)
	for name, c := range map[string]struct {
		inner func(*testing.T, *ratelimit.Limiter) *ratelimit.Limiter
		use   map[string]int // what the handler settles
		left  int            // of the outer policy
	}{
		"a child": {func(t *testing.T, l *ratelimit.Limiter) *ratelimit.Limiter {
			return must(t)(l.With(settled("inner", hundred)))
		}, map[string]int{"outer": 10, "inner": 20}, 90},
		"itself": {func(_ *testing.T, l *ratelimit.Limiter) *ratelimit.Limiter { return l }, map[string]int{"outer": 10}, 90},
		"a child that refuses": {func(t *testing.T, l *ratelimit.Limiter) *ratelimit.Limiter {
			return must(t)(l.With(settled("inner", ratelimit.Nothing())))
		}, nil, 100},
		"Only, which replaces the policy": {func(t *testing.T, l *ratelimit.Limiter) *ratelimit.Limiter {
			return must(t)(l.Only(settled("inner", hundred)))
		}, map[string]int{"inner": 20}, 100},
	} {
		t.Run(name, func(t *testing.T) {
			store := &script{Memory: newMemory()}
			outer := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{settled("outer", hundred)}, Store: store})
			inner := c.inner(t, outer)
			do(outer.Wrap(inner.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				for policy, n := range c.use {
					if err := ratelimit.Settle(r.Context(), policy, n); err != nil {
						t.Error(err)
					}
				}
			}))))
			shutDown(t, outer)
			for policy, want := range map[string]int{"outer": c.left, "inner": 100 - c.use["inner"]} {
				charges := []ratelimit.Charge{{Policy: policy, Limit: hundred}}
				if _, err := take(t.Context(), store.Memory, charges); err != nil || charges[0].Remaining != int64(want) {
					t.Errorf("%d of %s left, want %d (%v)", charges[0].Remaining, policy, want, err)
				}
			}
		})
	}
}
