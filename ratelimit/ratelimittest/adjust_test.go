package ratelimittest_test

import (
	"context"

	"github.com/usher-go/usher/ratelimit"
)

var adjustMistakes = map[string]mistake{
	"does not report what it has moved": {
		"an adjustment takes what is left, and reports how much",
		moved(func(c *ratelimit.Charge) { c.Moved = 0 }).made,
	},
	"reports that it has moved all it was asked to": {
		"an adjustment takes what is left, and reports how much",
		moved(func(c *ratelimit.Charge) { c.Moved = c.Cost }).made,
	},
	"takes nothing upwards": {
		"an adjustment takes what is left, and reports how much",
		askedTo(nil, func(c *ratelimit.Charge) { c.Cost = min(c.Cost, 0) }).made,
	},
	"takes all or nothing upwards": {
		"an adjustment takes what is left, and reports how much",
		askedTo(nil, func(c *ratelimit.Charge) {
			if c.Cost > 5 {
				c.Cost = 0
			}
		}).made,
	},
	"stamps what it takes later at another instant": {
		"what did not fit is not refunded",
		askedTo(nil, func(c *ratelimit.Charge) {
			if c.Cost > 0 {
				c.TakenAt = 0
			}
		}).made,
	},
	"refunds nothing": {
		"what is refunded can be used again",
		askedTo(nil, func(c *ratelimit.Charge) { c.Cost = max(c.Cost, 0) }).made,
	},
	"reports more refunded than was taken": {
		"no more is refunded than was taken",
		moved(func(c *ratelimit.Charge) { c.Moved = min(c.Moved, c.Cost) }).made,
	},
	"refunds in the present window": {"nothing is refunded once the window has ended", refundsLate},
	"adjusts only the first charge": {
		"every charge of an adjustment is adjusted", adjustsUpTo(1),
	},
	"adjusts only three charges": {
		"every charge of an adjustment is adjusted", adjustsUpTo(3),
	},
}

// refundsLate refunds what was taken last, whatever was to be refunded.
func refundsLate(m *ratelimit.Memory) ratelimit.Store {
	last := make(map[string]int64)
	return store{
		Store: m,
		take: func(ctx context.Context, d *ratelimit.Decision) error {
			err := m.Take(ctx, d)
			for _, c := range d.Charges {
				last[c.Policy] = c.TakenAt
			}
			return err
		},
		adjust: askedTo(nil, func(c *ratelimit.Charge) { c.TakenAt = last[c.Policy] })(m).Adjust,
	}
}

func adjustsUpTo(n int) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		return store{Store: m, adjust: func(ctx context.Context, d *ratelimit.Decision) error {
			return call(ctx, m.Adjust, d, func(d *ratelimit.Decision) { d.Charges = d.Charges[:min(n, len(d.Charges))] })
		}}
	}
}
