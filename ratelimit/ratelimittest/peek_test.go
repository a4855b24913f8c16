package ratelimittest_test

import (
	"context"

	"github.com/usher-go/usher/ratelimit"
)

var peekMistakes = map[string]mistake{
	"charges a peek": {
		"a peek reports what a decision would be, and charges nothing",
		looks(func(d *ratelimit.Decision) { d.Peek = false }),
	},
	"reports what a peek would leave": {
		"a peek reports what a decision would be, and charges nothing",
		looked(func(d *ratelimit.Decision) {
			for i := range d.Charges {
				if c := &d.Charges[i]; d.Admitted && !c.Violated {
					c.Remaining -= c.Cost
				}
			}
		}),
	},
	"admits every peek": {
		"a peek reports what a decision would be, and charges nothing",
		looked(func(d *ratelimit.Decision) { d.Admitted = true }),
	},
	"reports no Wait of a peek": {
		"a peek reports what a decision would be, and charges nothing",
		looked(func(d *ratelimit.Decision) { d.Charges[0].Wait = 0 }),
	},
	"keeps a peek for a repetition":   {"a peek is not kept for a repetition", looks(takesNothing)},
	"returns a Take for a later peek": {"a peek is not kept for a repetition", looks(takesNothing)},
	"begins a window for a peek": {
		"a peek begins nothing",
		looks(func(d *ratelimit.Decision) { takesNothing(d); d.ID = newID() }),
	},
}

// takesNothing makes a peek a call of cost 0.
func takesNothing(d *ratelimit.Decision) {
	d.Peek = false
	for i := range d.Charges {
		c := &d.Charges[i]
		c.MinRemaining, c.Cost = max(c.MinRemaining, c.Cost), 0
	}
}

// looks changes peeks.
func looks(change func(*ratelimit.Decision)) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
			if !d.Peek {
				return m.Take(ctx, d)
			}
			return call(ctx, m.Take, d, change)
		}}
	}
}

// looked changes the results of peeks.
func looked(change func(*ratelimit.Decision)) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
			err := m.Take(ctx, d)
			if d.Peek && err == nil {
				change(d)
			}
			return err
		}}
	}
}
