package ratelimittest

import (
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// TestClock sets the clock of a store back by an hour, as may happen to a server.
// [TestDecisions] does not do so. After that no call may fail, no key may get its quota
// more than once again, and none may be refused for longer than the period of its limit. A
// calendar window, which the caller finds by another clock, stays until its end.
func TestClock(t *testing.T, open func(testing.TB) (store ratelimit.Store, setClock func(time.Time))) {
	const quota = 5
	for name, l := range map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(quota, time.Minute, quota),
		"rolling window":  ratelimit.RollingWindow(quota, time.Minute),
		"calendar window": ratelimit.CalendarWindow(quota, ratelimit.Hour),
		"concurrency":     ratelimit.Concurrency(quota),
	} {
		t.Run(name, func(t *testing.T) {
			store, setClock := open(t)
			t.Cleanup(func() { _ = store.Close() })
			s := suite{store}
			now := time.Date(2026, 5, 5, 12, 30, 0, 0, time.UTC)
			c := charge(l)
			c.Windows = windows(l, now)
			setClock(now)
			full := s.fill(t, c)

			// admit returns how many of ten requests are admitted.
			admit := func(at time.Time) (n int) {
				setClock(at)
				for range 2 * quota {
					d := s.take(t, c)
					if d.Admitted {
						n++
					}
					got := d.Charges[0]
					if got.Remaining < 0 || got.Remaining > quota || got.Reset < 0 || got.Wait < 0 {
						t.Errorf("Remaining = %d, Reset = %v, Wait = %v", got.Remaining, got.Reset, got.Wait)
					}
					if l.Per() == time.Minute && max(got.Reset, got.Wait) > time.Minute {
						t.Errorf("Reset = %v, Wait = %v, want at most a minute", got.Reset, got.Wait)
					}
				}
				return n
			}
			back := now.Add(-time.Hour)
			first := admit(back)
			if first > quota {
				t.Errorf("%d more requests of %d are admitted", first, quota)
			}
			second := admit(back.Add(time.Minute))
			if l.Per() == time.Minute && second == 0 {
				t.Error("refused for longer than a minute")
			}
			if first+second > 2*quota {
				t.Errorf("%d more requests of %d are admitted in a minute", first+second, quota)
			}
			full.Cost = -1
			d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{full}}
			if err := s.call(t, store.Adjust, d); err != nil {
				t.Errorf("Adjust: %v", err)
			}

			later := now.Add(2 * time.Hour)
			c.Windows = windows(l, later)
			if n := admit(later); n != quota {
				t.Errorf("two hours later %d requests of %d are admitted", n, quota)
			}
		})
	}
}
