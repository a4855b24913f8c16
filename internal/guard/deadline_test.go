package guard_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/internal/guard"
)

var errDeadline = errors.New("the time of the request is over")

func hang(ctx context.Context, _ int64) error { <-ctx.Done(); return context.Cause(ctx) }

// Requests may have less time than a call of the store. An outage in which it hangs is
// noticed all the same.
func TestDeadlinesOfCallersDoNotHideAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTraffic(guard.New(timeout, 1000))
		c.store.Set(hang)
		for range 500 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), timeout/5, errDeadline)
			defer cancel()
			c.call(ctx)
			time.Sleep(10 * time.Millisecond)
		}
		c.running.Wait()
		if n := c.ended()[guard.ErrOpen]; n < 300 {
			t.Errorf("%d of 500 calls failed at once", n)
		}
	})
}

// A client can use up the time of its request before the store is called.
func TestCallersWithoutTimeDoNotOpenTheGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTraffic(guard.New(timeout, 1000))
		c.store.Set(faulty.Late(timeout / 20))
		for range 500 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errDeadline)
			defer cancel()
			c.call(ctx)
			time.Sleep(10 * time.Millisecond)
		}
		c.running.Wait()
		time.Sleep(timeout) // while the last calls of the store run
		if n := c.ended()[guard.ErrOpen]; n > 0 {
			t.Errorf("%d calls failed because of others", n)
		}
	})
}

// Nor does the time that a call waits behind others say anything of the store.
func TestCallersThatWaitDoNotOpenTheGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTraffic(guard.New(timeout, 4))
		c.store.Set(faulty.Late(timeout / 2))
		for range 20 {
			for range 4 {
				c.call(t.Context())
			}
			synctest.Wait()
			for range 10 {
				ctx, cancel := context.WithTimeoutCause(t.Context(), timeout/4, errDeadline)
				defer cancel()
				c.call(ctx)
			}
			c.running.Wait()
		}
		if got := c.ended(); got[nil] != 80 || got[errDeadline] != 200 {
			t.Errorf("the calls ended with %v", got)
		}
	})
}

// All errors of a callback may be results, but that it has not responded is none.
func TestTheEndOfACallersContextIsNoResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := guard.New(timeout, 64).Results(func(err error) bool { return !errors.Is(err, faulty.ErrStore) })
		for range 20 {
			_ = g.Do(t.Context(), "", func(context.Context) error { return faulty.ErrStore })
		}
		time.Sleep(pause)
		ctx, cancel := context.WithTimeoutCause(t.Context(), timeout/2, errDeadline)
		defer cancel()
		if err := g.Do(ctx, "", func(ctx context.Context) error { return hang(ctx, 0) }); !errors.Is(err, errDeadline) {
			t.Fatalf("the probe ended with %v, want %v", err, errDeadline)
		}
		if err := g.Do(t.Context(), "", func(context.Context) error { return nil }); !errors.Is(err, guard.ErrOpen) {
			t.Errorf("got %v after a probe that hung, want ErrOpen", err)
		}
	})
}
