package ratelimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

func TestAPeekStoresNothing(t *testing.T) {
	limits := map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(5, time.Hour, 5),
		"rolling window":  ratelimit.RollingWindow(5, time.Hour),
		"calendar window": ratelimit.CalendarWindow(5, ratelimit.Hour),
		"concurrency":     ratelimit.Concurrency(5),
	}
	for name, l := range limits {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				key := ratelimit.TextKey("key")
				peek := func(l ratelimit.Limit, cost int64) ratelimit.Charge {
					t.Helper()
					d := ratelimit.Decision{Peek: true, Charges: []ratelimit.Charge{{Policy: "p", Key: key, Limit: l, Cost: cost}}}
					if err := m.Take(t.Context(), &d); err != nil {
						t.Fatal(err)
					}
					return d.Charges[0]
				}
				for range 3 {
					if c := peek(l, 5); c.Violated || c.Remaining != 5 {
						t.Errorf("a new key: violated %v, remaining %d", c.Violated, c.Remaining)
					}
				}
				if n := m.Len("p"); n != 0 {
					t.Errorf("%d keys are kept", n)
				}
				d := ratelimit.Decision{Charges: []ratelimit.Charge{{Policy: "p", Key: key, Limit: l, Cost: 3}}}
				if err := m.Take(t.Context(), &d); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					if c := peek(l, 3); !c.Violated || c.Remaining != 2 || c.Wait < 0 {
						t.Errorf("2 left: violated %v, remaining %d, wait %v", c.Violated, c.Remaining, c.Wait)
					}
				}
				if l.Algorithm() == ratelimit.AlgorithmConcurrency {
					return
				}
				// A limit that the key has not met yet would begin with what was used.
				for name, other := range limits {
					if other.Algorithm() != ratelimit.AlgorithmConcurrency && peek(other, 0).Remaining != 2 {
						t.Errorf("under a %s: remaining %d, want 2", name, peek(other, 0).Remaining)
					}
				}
				// A window whose end has passed begins with a charge.
				time.Sleep(2 * time.Hour)
				if c := peek(l, 0); c.Remaining != 5 {
					t.Errorf("later: remaining %d", c.Remaining)
				}
				refund := ratelimit.Decision{Charges: d.Charges}
				refund.Charges[0].Cost = -3
				if err := m.Adjust(t.Context(), &refund); err != nil || refund.Charges[0].Moved != 0 {
					t.Errorf("later: %d units refunded, error %v", refund.Charges[0].Moved, err)
				}
			})
		})
	}
}
