package guard_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/internal/guard"
)

const (
	window = 2 * time.Second
	pause  = time.Second
)

// A traffic makes calls at an even rate, each on a goroutine of its own.
type traffic struct {
	guard *guard.Guard
	store faulty.Calls

	mu       sync.Mutex
	outcomes map[error]int
	running  sync.WaitGroup
}

func newTraffic(g *guard.Guard) *traffic {
	return &traffic{guard: g, outcomes: make(map[error]int)}
}

var sentinels = []error{nil, guard.ErrOpen, guard.ErrTimeout, guard.ErrBusy, faulty.ErrStore, context.Canceled, errResult, errDeadline}

func (c *traffic) call(ctx context.Context) {
	c.running.Go(func() {
		err := c.guard.Do(ctx, "", c.store.Call)
		for _, s := range sentinels {
			if errors.Is(err, s) {
				err = s
				break
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.outcomes[err]++
	})
}

// run makes calls for d, one each interval, and returns the results of the calls that
// ended meanwhile.
func (c *traffic) run(ctx context.Context, d, interval time.Duration) map[error]int {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(interval) {
		c.call(ctx)
	}
	return c.ended()
}

// ended returns the results of the calls that have ended since it was last called.
func (c *traffic) ended() map[error]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	outcomes := c.outcomes
	c.outcomes = make(map[error]int)
	return outcomes
}

func total(outcomes map[error]int) (n int) {
	for _, k := range outcomes {
		n += k
	}
	return n
}

func TestSporadicFailuresNeverOpen(t *testing.T) {
	for name, fault := range map[string]faulty.Fault{
		"one call in 100 is late":  faulty.Every(100, faulty.Late(3*timeout)),
		"one call in 100 fails":    faulty.Every(100, faulty.Fail),
		"one call in three fails":  faulty.Every(3, faulty.Fail),
		"one call in three panics": faulty.Every(3, func(context.Context, int64) error { panic("store") }),
	} {
		for _, interval := range []time.Duration{time.Millisecond, 20 * time.Millisecond, time.Second} {
			t.Run(name+", each "+interval.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newTraffic(guard.New(timeout, 64))
					c.store.Set(fault)
					outcomes := c.run(t.Context(), 3000*interval, interval)
					if n := outcomes[guard.ErrOpen]; n > 0 {
						t.Errorf("%d calls failed because of others", n)
					}
					if failed, all := total(outcomes)-outcomes[nil], total(outcomes); name[:15] == "one call in 100" && failed*100 > all*2 {
						t.Errorf("%d of %d calls failed", failed, all)
					}
					c.running.Wait()
					time.Sleep(3 * timeout) // until the late calls have ended
				})
			})
		}
	}
}

func TestABurstOfFailuresOnAnIdleStoreDoesNotOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTraffic(guard.New(timeout, 64))
		c.store.Set(faulty.Fail)
		for range 9 {
			c.call(t.Context())
		}
		c.running.Wait()
		c.store.Set(nil)
		c.call(t.Context())
		c.running.Wait()
		if got := c.ended(); got[faulty.ErrStore] != 9 || got[nil] != 1 {
			t.Errorf("calls ended with %v, want 9 failures and a success", got)
		}
		// Calls from before the window do not count.
		c.store.Set(faulty.Fail)
		for range 5 {
			time.Sleep(window)
			c.run(t.Context(), 9*time.Millisecond, time.Millisecond)
		}
		c.running.Wait()
		if n := c.ended()[guard.ErrOpen]; n > 0 {
			t.Errorf("%d calls failed because of others, long before them", n)
		}
	})
}

// X03: requests do not wait for a store that is down.
func TestAnOutageFailsFastAndEnds(t *testing.T) {
	const outage = 10 * time.Second
	for name, c := range map[string]struct {
		fault faulty.Fault
		took  time.Duration // until the first call has failed
		least int64         // probes
	}{
		"of a store that fails":               {faulty.Fail, 0, 6},
		"of a store that panics":              {func(context.Context, int64) error { panic("store") }, 0, 6},
		"of a store that obeys its context":   {func(ctx context.Context, _ int64) error { <-ctx.Done(); return ctx.Err() }, timeout, 3},
		"of a store that responds too late":   {faulty.Late(timeout + time.Millisecond), timeout, 3},
		"of a store that ignores its context": {faulty.Late(outage), timeout, 0}, // as all calls that may run hang
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				traffic := newTraffic(guard.New(timeout, 64))
				const interval = 5 * time.Millisecond
				if got := traffic.run(t.Context(), 2*window, interval); got[nil] != total(got) {
					t.Fatalf("calls of a healthy store ended with %v", got)
				}
				began := time.Now()
				traffic.store.Set(faulty.For(outage, c.fault))
				traffic.run(t.Context(), window+c.took+interval, interval)

				calls := traffic.store.N()
				rest := outage - time.Since(began)
				got := traffic.run(t.Context(), rest, interval)
				if fast, all := got[guard.ErrOpen], total(got); fast*100 < all*95 {
					t.Errorf("%d of %d calls failed at once once the outage was noticed: %v", fast, all, got)
				}
				if probes := traffic.store.N() - calls; probes < c.least || probes > int64(rest/pause)+1 {
					t.Errorf("%d probes in %v, want from %d to one each %v", probes, rest, c.least, pause)
				}

				if name == "of a store that ignores its context" {
					time.Sleep(outage) // until no call hangs any more
				} else {
					traffic.run(t.Context(), pause+timeout+interval, interval)
				}
				traffic.running.Wait()
				traffic.ended()
				if got := traffic.run(t.Context(), window, interval); got[nil] != total(got) {
					t.Errorf("after the outage calls ended with %v, want successes", got)
				}
			})
		})
	}
}

// While the guard is open, all callers together have one call of the store at a time.
func TestProbesComeOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTraffic(guard.New(timeout, 64))
		c.store.Set(faulty.Fail)
		c.run(t.Context(), 10*time.Millisecond, time.Millisecond)
		c.ended()
		c.store.Set(faulty.Late(timeout - time.Millisecond))
		time.Sleep(pause)
		for range 1000 {
			c.call(t.Context())
		}
		synctest.Wait()
		if n := c.store.N(); n != 1 {
			t.Errorf("%d calls, want one probe", n)
		}
		if got := c.ended(); got[guard.ErrOpen] != 999 {
			t.Errorf("calls ended with %v, want all but the probe to fail at once", got)
		}
		// A success closes it for all callers.
		time.Sleep(timeout)
		for range 64 {
			c.call(t.Context())
		}
		c.running.Wait()
		if got := c.ended(); got[nil] != 65 {
			t.Errorf("after the probe calls ended with %v, want successes", got)
		}
	})
}

// Calls from an earlier outage end late, and do not count after it.
func TestCallsOfAnEarlierOutageDoNotOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const long = 5 * time.Second
		c := newTraffic(guard.New(long, 64))
		c.store.Set(faulty.Late(time.Hour))
		for range 32 {
			c.call(t.Context())
		}
		synctest.Wait()
		c.store.Set(faulty.Fail)
		time.Sleep(long - 2*pause)
		for range 10 {
			c.call(t.Context())
		}
		synctest.Wait()
		c.store.Set(nil)
		time.Sleep(pause)
		c.call(t.Context())
		time.Sleep(pause) // the 32 have timed out
		c.call(t.Context())
		synctest.Wait()
		got := c.ended()
		if got[guard.ErrTimeout] != 32 || got[faulty.ErrStore] != 10 || got[nil] != 2 {
			t.Errorf("calls ended with %v, want 32 timeouts, 10 failures and then successes", got)
		}
		time.Sleep(time.Hour)
	})
}

var errResult = errors.New("not found")

func TestWhatIsNoFailureOfTheStoreNeverOpens(t *testing.T) {
	for name, c := range map[string]struct {
		fault faulty.Fault
		ctx   func(context.Context) (context.Context, context.CancelFunc)
		want  error
	}{
		"a result": {
			fault: func(context.Context, int64) error { return errResult }, want: errResult,
		},
		"a client that leaves": {
			fault: func(ctx context.Context, _ int64) error { <-ctx.Done(); return ctx.Err() },
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(time.Millisecond, cancel)
				return ctx, cancel
			},
			want: context.Canceled,
		},
		"a client that had left": {
			fault: faulty.Fail,
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				return ctx, cancel
			},
			want: context.Canceled,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := guard.New(timeout, 64).Results(func(err error) bool { return errors.Is(err, errResult) })
				calls := newTraffic(g)
				calls.store.Set(c.fault)
				for range 100 {
					ctx := t.Context()
					if c.ctx != nil {
						var cancel context.CancelFunc
						ctx, cancel = c.ctx(ctx)
						defer cancel()
					}
					calls.call(ctx)
					time.Sleep(10 * time.Millisecond)
				}
				calls.running.Wait()
				if got := calls.ended(); got[c.want] != 100 {
					t.Errorf("calls ended with %v, want %v from each", got, c.want)
				}
			})
		})
	}
}

func TestAGuardThatNeverOpensCallsDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTraffic(guard.New(timeout, 64).NeverOpen())
		c.store.Set(faulty.Fail)
		if got := c.run(t.Context(), time.Second, time.Millisecond); got[faulty.ErrStore] != 1000 || c.store.N() != 1000 {
			t.Errorf("%d of 1000 calls were made, and ended with %v", c.store.N(), got)
		}
	})
}

func TestAGuardIsSafeForConcurrentUse(t *testing.T) {
	c := newTraffic(guard.New(time.Millisecond, 8))
	c.store.Set(faulty.Every(2, faulty.Fail))
	for range 64 {
		c.running.Go(func() {
			for range 100 {
				c.call(t.Context())
			}
		})
	}
	c.running.Wait()
	if got := c.ended(); total(got) != 6400 {
		t.Errorf("%d of 6400 calls have ended: %v", total(got), got)
	}
}

func BenchmarkCall(b *testing.B) {
	for name, g := range map[string]*guard.Guard{
		"with a breaker": guard.New(time.Second, 64),
		"without":        guard.New(time.Second, 64).NeverOpen(),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = g.Do(b.Context(), "", func(context.Context) error { return nil })
			}
		})
	}
}
