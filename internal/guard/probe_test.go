package guard_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/internal/guard"
)

// A probe whose client disconnects shows nothing about the store. After an outage the
// guard closes with the first client that stays, however many disconnect.
func TestClientsThatLeaveDoNotKeepAGuardOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTraffic(guard.New(timeout, 64))
		c.store.Set(faulty.Fail)
		c.run(t.Context(), 10*time.Millisecond, time.Millisecond)
		c.store.Set(faulty.Late(5 * time.Millisecond))
		c.ended()
		time.Sleep(pause)
		for range 1000 {
			ctx, cancel := context.WithCancel(t.Context())
			c.call(ctx)
			time.Sleep(time.Millisecond)
			cancel()
			synctest.Wait()
		}
		if got := c.ended(); got[context.Canceled] != 1000 {
			t.Errorf("calls whose clients leave ended with %v", got)
		}
		c.call(t.Context())
		c.running.Wait()
		if got := c.ended(); got[nil] != 1 {
			t.Errorf("the call of a client that stays ended with %v, want a success", got)
		}
	})
}

// If several calls share a timeout, the last of them exhausts the shared timeout and
// never its own.
func TestATimeoutOfSeveralCallsIsAFailureOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTraffic(guard.New(timeout, 64))
		c.store.Set(func(ctx context.Context, _ int64) error { <-ctx.Done(); return ctx.Err() })
		for range 20 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), timeout-time.Millisecond, guard.ErrTimeout)
			defer cancel()
			c.call(ctx)
		}
		c.running.Wait()
		c.ended()
		c.call(t.Context())
		c.running.Wait()
		if got := c.ended(); got[guard.ErrOpen] != 1 {
			t.Errorf("a call ended with %v, want it to fail at once", got)
		}
	})
}

// A store that fails at once for some of its keys is called for the others: a tenant or a
// shard that is down does not take the others with it.
func TestAStoreThatIsDownForSomeWorksForOthers(t *testing.T) {
	for _, interval := range []time.Duration{time.Millisecond, 10 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			c := newTraffic(guard.New(timeout, 64))
			c.store.Set(func(_ context.Context, n int64) error {
				if n%10 < 6 {
					return faulty.ErrStore
				}
				return nil
			})
			outcomes := c.run(t.Context(), 10_000*interval, interval)
			c.running.Wait()
			if n := outcomes[guard.ErrOpen]; n > 0 {
				t.Errorf("%d of %d calls failed because of others", n, total(outcomes))
			}
		})
	}
}
