package ratelimittest_test

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

const (
	rowHolds    = "what a decision holds is not left for others"
	rowNoHold   = "a refused request holds nothing"
	rowHoldGrow = "a hold grows as far as units are left, and shrinks to nothing"
	rowHoldEnd  = "the end of a hold charges what was used"
	rowHoldTime = "a hold ends with its lease unless it is renewed"
)

var holdMistakes = map[string]mistake{
	"charges a hold at once": {rowHolds, asked(func(c *ratelimit.Charge) { c.Hold = false }).made},
	"holds nothing": {rowHolds, askedTo(func(c *ratelimit.Charge) {
		if c.Hold {
			c.MinRemaining, c.Cost = max(c.MinRemaining, c.Cost), 0
		}
	}, nil).made},
	"waits for the end of a lease": {rowHolds, results(func(c *ratelimit.Charge) {
		if c.Hold && c.Violated && c.Wait == 0 {
			c.Wait = c.Lease
		}
	}).made},
	"never waits for what is on hold": {rowHolds, results(func(c *ratelimit.Charge) {
		if c.Violated && c.Wait == 0 {
			c.Wait = -1
		}
	}).made},
	"does not know what never fits": {rowHolds, results(func(c *ratelimit.Charge) {
		if c.Hold {
			c.Wait = 0
		}
	}).made},
	"counts holds under their limit alone": {
		"a hold counts under every limit of the key",
		asked(func(c *ratelimit.Charge) { c.Policy += c.Limit.String() }).made,
	},
	"holds for a refused request": {rowNoHold, holdsRefused(false)},
	"holds for a peek":            {rowNoHold, holdsRefused(true)},
	"holds nothing in shadow": {rowNoHold, asked(func(c *ratelimit.Charge) {
		if c.Shadow {
			c.Cost = min(c.Cost, 5)
		}
	}).made},
	"reports that a hold has grown as asked": {rowHoldGrow, moved(func(c *ratelimit.Charge) {
		if c.Hold && c.Cost > 0 {
			c.Moved = c.Cost
		}
	}).made},
	"adjusts no hold": {rowHoldGrow, askedTo(nil, func(c *ratelimit.Charge) {
		if c.Hold && !c.EndHold {
			c.Cost = 0
		}
	}).made},
	"adjusts a hold as a charge":        {rowHoldGrow, askedTo(nil, func(c *ratelimit.Charge) { c.Hold = c.EndHold }).made},
	"refunds what is on hold":           {rowHoldGrow, refundsHolds},
	"overdraws for a hold":              {rowHoldGrow, askedTo(nil, func(c *ratelimit.Charge) { c.Hold = c.Hold && !c.Overdraw }).made},
	"charges nothing for a hold":        {rowHoldEnd, endsWith(func(_ bool, c *ratelimit.Charge) { c.Cost = 0 })},
	"charges at least what was on hold": {rowHoldEnd, endsWith(func(_ bool, c *ratelimit.Charge) { c.Cost = max(c.Cost, 3) })},
	"keeps a hold that has ended": {rowHoldEnd, endsWith(func(_ bool, c *ratelimit.Charge) {
		c.Hold, c.EndHold = false, false
	})},
	"charges what others hold": {rowHoldEnd, frees(func(c *ratelimit.Charge) bool { return c.EndHold })},
	"charges no more than what was on hold": {rowHoldEnd, endsWith(func(lost bool, c *ratelimit.Charge) {
		if lost {
			c.Cost = 0
		}
	})},
	"refunds at the end of a hold": {rowHoldEnd, endsWith(func(_ bool, c *ratelimit.Charge) {
		if c.Cost < 0 {
			c.Hold, c.EndHold = false, false
		}
	})},
	"overdraws no bucket at the end of a hold": {
		"the end of a hold can overdraw a token bucket",
		endsWith(func(_ bool, c *ratelimit.Charge) { c.Overdraw = false }),
	},
	"charges what is on hold": {
		"charges without a hold take nothing that others hold",
		frees(func(c *ratelimit.Charge) bool { return !c.Hold }),
	},
	"keeps holds whose lease has ended": {rowHoldTime, asked(func(c *ratelimit.Charge) {
		if c.Hold {
			c.Lease += time.Hour
		}
	}).made},
	"charges nothing for a hold that is lost": {rowHoldTime, endsWith(func(lost bool, c *ratelimit.Charge) {
		if lost {
			c.Cost = 0
		}
	})},
	"renews no holds": {rowHoldTime, renewsNoHolds},
	"takes holds for places": {
		"holds count apart from places",
		asked(func(c *ratelimit.Charge) {
			if c.Hold {
				c.Limit = ratelimit.Concurrency(int(c.Limit.Quota()))
			}
		}).made,
	},
	"knows no holds when it renews":       {"holds count apart from places", losesHolds},
	"frees holds when their key is reset": {"a key that is reset keeps its holds", resetsHolds},
	"holds again when a Take is repeated": {
		"a call with a hold that is repeated has one effect",
		forgetful(func(ratelimit.ID, bool) bool { return true }, nil),
	},
	"adjusts a hold again when the call is repeated": {
		"a call with a hold that is repeated has one effect",
		forgetful(nil, func(ratelimit.ID, bool) bool { return true }),
	},
	"looks, and holds later": {
		"concurrent holds take no more than the limit", func(m *ratelimit.Memory) ratelimit.Store { return peeks(m) },
	},
}

// endsWith changes the ends of holds. The function gets whether the hold is lost.
func endsWith(change func(lost bool, c *ratelimit.Charge)) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		return askedTo(nil, func(c *ratelimit.Charge) {
			if !c.Hold || !c.EndHold {
				return
			}
			lost, err := m.Renew(context.Background(), []ratelimit.Place{{Policy: c.Policy, Key: c.Key, TakenBy: c.TakenBy}}, time.Hour)
			change(err == nil && len(lost) > 0, c)
		})(m)
	}
}

// A register has the holds that a store has admitted.
type register struct {
	ratelimit.Store
	mu    sync.Mutex
	holds map[ratelimit.ID]ratelimit.Charge
}

func newRegister(m *ratelimit.Memory) *register {
	return &register{Store: m, holds: make(map[ratelimit.ID]ratelimit.Charge)}
}

func (r *register) Take(ctx context.Context, d *ratelimit.Decision) error {
	err := r.Store.Take(ctx, d)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range d.Charges {
		if err == nil && d.Admitted && !d.Peek && c.Hold && c.Limit.Algorithm() != ratelimit.AlgorithmConcurrency {
			r.holds[d.ID] = c
		}
	}
	return err
}

// free frees what others than c hold for a policy.
func (r *register) free(ctx context.Context, policy string, but ratelimit.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, c := range r.holds {
		if c.Policy == policy && id != but {
			c.Cost, c.EndHold = 0, true
			_ = r.Adjust(ctx, &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}})
		}
	}
}

// frees frees what others hold before a charge.
func frees(before func(*ratelimit.Charge) bool) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		r := newRegister(m)
		return store{Store: r, adjust: func(ctx context.Context, d *ratelimit.Decision) error {
			for i := range d.Charges {
				if c := &d.Charges[i]; before(c) && c.Cost > 0 {
					r.free(ctx, c.Policy, c.TakenBy)
				}
			}
			return m.Adjust(ctx, d)
		}}
	}
}

// refundsHolds takes what is on hold for charged.
func refundsHolds(m *ratelimit.Memory) ratelimit.Store {
	r := newRegister(m)
	return store{Store: r, adjust: func(ctx context.Context, d *ratelimit.Decision) error {
		return call(ctx, m.Adjust, d, func(d *ratelimit.Decision) {
			for i := range d.Charges {
				if c := &d.Charges[i]; c.Cost < 0 {
					_, c.Hold = r.holds[c.TakenBy]
				}
			}
		})
	}}
}

func renewsNoHolds(m *ratelimit.Memory) ratelimit.Store {
	r := newRegister(m)
	return store{Store: r, renew: func(ctx context.Context, places []ratelimit.Place, lease time.Duration) ([]ratelimit.Place, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return m.Renew(ctx, slices.DeleteFunc(slices.Clone(places), func(p ratelimit.Place) bool {
			_, ok := r.holds[p.TakenBy]
			return ok
		}), lease)
	}}
}

// losesHolds reports that holds are lost.
func losesHolds(m *ratelimit.Memory) ratelimit.Store {
	r := newRegister(m)
	return store{Store: r, renew: func(ctx context.Context, places []ratelimit.Place, lease time.Duration) ([]ratelimit.Place, error) {
		lost, err := m.Renew(ctx, places, lease)
		for _, p := range places {
			if _, ok := r.holds[p.TakenBy]; ok {
				lost = append(lost, p)
			}
		}
		return lost, err
	}}
}

func resetsHolds(m *ratelimit.Memory) ratelimit.Store {
	r := newRegister(m)
	return store{Store: r, reset: func(ctx context.Context, counters []ratelimit.Counter) error {
		for _, c := range counters {
			r.free(ctx, c.Policy, ratelimit.ID{})
		}
		return m.Reset(ctx, counters)
	}}
}

// holdsRefused holds for each charge that fits, although the request is refused or peeks.
func holdsRefused(peeks bool) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
			err := m.Take(ctx, d)
			if d.Peek != peeks || !peeks && d.Admitted {
				return err
			}
			for _, c := range d.Charges {
				if c.Hold && !c.Violated {
					_ = m.Take(ctx, &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}})
				}
			}
			return err
		}}
	}
}
