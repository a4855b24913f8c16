package ratelimittest_test

import (
	"context"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

var amountMistakes = map[string]mistake{
	"admits one unit more than the quota": {
		"a limit admits its quota and no more",
		asked(func(c *ratelimit.Charge) { c.Limit = larger(c.Limit, 1) }).made,
	},
	"admits one unit less than the quota": {
		"a limit admits its quota and no more",
		asked(func(c *ratelimit.Charge) { c.Limit = larger(c.Limit, -1) }).made,
	},
	"charges what fits of a refused request": {
		"a refused request is charged to no policy", chargesRefused,
	},
	"takes the charges one by one, until one does not fit": {
		"the order of the policies makes no difference", oneByOne,
	},
	"lets a policy in shadow refuse": {
		"a shadow policy never refuses, and counts what fits",
		askedTo(func(c *ratelimit.Charge) { c.Shadow = false }, nil).made,
	},
	"does not count a policy in shadow": {
		"a shadow policy never refuses, and counts what fits",
		askedTo(func(c *ratelimit.Charge) {
			if c.Shadow {
				c.Cost = 0
			}
		}, nil).made,
	},
	"lets every policy beside one in shadow pass": {
		"a shadow policy never refuses, and counts what fits",
		askedTo(func(c *ratelimit.Charge) { c.Shadow = true }, nil).made,
	},
	"takes one unit for every cost": {
		"a cost takes that many units, and one above the limit never fits",
		askedTo(func(c *ratelimit.Charge) { c.Cost = min(c.Cost, 1) }, nil).made,
	},
	"reports a wait for what never fits": {
		"a cost takes that many units, and one above the limit never fits",
		results(func(c *ratelimit.Charge) { c.Wait = max(c.Wait, 0) }).made,
	},
	"refuses a cost of 0 when nothing is left": {
		"a cost of zero fits even if nothing is left",
		results(func(c *ratelimit.Charge) { c.Violated = c.Violated || c.Cost == 0 && c.Remaining == 0 }).made,
	},
	"does not look at MinRemaining": {
		"a charge can require units to be left",
		askedTo(func(c *ratelimit.Charge) { c.MinRemaining = 0 }, nil).made,
	},
	"charges what MinRemaining asks for": {
		"a charge can require units to be left",
		askedTo(func(c *ratelimit.Charge) { c.Cost = max(c.Cost, c.MinRemaining) }, nil).made,
	},
	"takes a quota of 0 for none": {
		"under a quota of zero nothing fits",
		asked(func(c *ratelimit.Charge) {
			if c.Limit.Quota() == 0 {
				c.Limit = ratelimit.Unlimited()
			}
		}).made,
	},
	"reports a wait under a quota of 0": {
		"under a quota of zero nothing fits",
		results(func(c *ratelimit.Charge) { c.Wait = max(c.Wait, 0) }).made,
	},
	"takes no limit for the largest": {
		"an unlimited key is never refused",
		asked(func(c *ratelimit.Charge) {
			if c.Limit.Algorithm() == ratelimit.AlgorithmUnlimited {
				c.Limit = ratelimit.RollingWindow(1_000_000_000, time.Hour)
			}
		}).made,
	},
}

// larger returns a limit that holds n units more.
func larger(l ratelimit.Limit, n int) ratelimit.Limit {
	quota := int(l.Quota()) + n
	switch l.Algorithm() {
	case ratelimit.AlgorithmTokenBucket:
		return ratelimit.TokenBucket(int(l.Quota()), l.Per(), int(l.Burst())+n)
	case ratelimit.AlgorithmRollingWindow:
		return ratelimit.RollingWindow(quota, l.Per())
	case ratelimit.AlgorithmCalendarWindow:
		unit, _ := l.Calendar()
		return ratelimit.CalendarWindow(quota, unit) // the scripts use UTC alone
	case ratelimit.AlgorithmConcurrency:
		return ratelimit.Concurrency(quota)
	default:
		return l
	}
}

func chargesRefused(m *ratelimit.Memory) ratelimit.Store {
	return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
		err := m.Take(ctx, d)
		if err != nil || d.Admitted {
			return err
		}
		for _, c := range d.Charges {
			if err := m.Take(ctx, &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}}); err != nil {
				return err
			}
		}
		return nil
	}}
}

func oneByOne(m *ratelimit.Memory) ratelimit.Store {
	return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
		d.Admitted = true
		for i := range d.Charges {
			one := &ratelimit.Decision{ID: newID(), Charges: d.Charges[i : i+1]}
			if err := m.Take(ctx, one); err != nil {
				return err
			}
			if !one.Admitted {
				d.Admitted = false
				return nil
			}
		}
		return nil
	}}
}
