package ratelimittest

import (
	"context"
	"fmt"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// A method is a method of a [ratelimit.Store].
type method int

const (
	take method = iota
	adjust
	renew
	reset
)

func (m method) String() string { return []string{"Take", "Adjust", "Renew", "Reset"}[m] }

// of returns this method of a store. It does not apply to Renew and Reset.
func (m method) of(s ratelimit.Store) func(context.Context, *ratelimit.Decision) error {
	if m == adjust {
		return s.Adjust
	}
	return s.Take
}

// request returns d with its arguments alone, and with results that no call sets.
func (m method) request(d *ratelimit.Decision) ratelimit.Decision {
	r := ratelimit.Decision{ID: d.ID, Peek: d.Peek, Charges: make([]ratelimit.Charge, len(d.Charges))}
	for i := range d.Charges {
		c := &d.Charges[i]
		r.Charges[i] = ratelimit.Charge{
			Policy: c.Policy, Key: c.Key, Limit: c.Limit, Windows: c.Windows, Lease: c.Lease,
			Cost: c.Cost, MinRemaining: c.MinRemaining, Shadow: c.Shadow,
			Overdraw: c.Overdraw, Hold: c.Hold, EndHold: c.EndHold,
			Violated: !c.Violated, Remaining: -9, Reset: -9, Wait: -9, TakenAt: -9, Moved: -99,
		}
		if m == adjust {
			r.Charges[i].TakenBy, r.Charges[i].TakenAt = c.TakenBy, c.TakenAt
		}
	}
	return r
}

// result describes what the method has set in a charge.
func (m method) result(c *ratelimit.Charge) string {
	if m == adjust {
		return fmt.Sprintf("moved %d", c.Moved)
	}
	return fmt.Sprintf("violated %v, remaining %d, reset %v, wait %v, taken by %x",
		c.Violated, c.Remaining, micros(c.Reset), micros(c.Wait), c.TakenBy)
}

// micros rounds d up to whole microseconds. All negative times mean never, and become -1.
func micros(d time.Duration) time.Duration {
	if d < 0 {
		return -1
	}
	return (d + time.Microsecond - 1).Truncate(time.Microsecond)
}
