package ratelimittest_test

import (
	"context"

	"github.com/usher-go/usher/ratelimit"
)

var forgetMistakes = map[string]mistake{
	"resets nothing": {"a key that is reset has used nothing", resets(func([]ratelimit.Counter) []ratelimit.Counter { return nil })},
	"resets one counter of a call": {
		"a key that is reset has used nothing",
		resets(func(c []ratelimit.Counter) []ratelimit.Counter { return c[:min(1, len(c))] }),
	},
	"resets two counters of a call": {
		"a key that is reset has used nothing",
		resets(func(c []ratelimit.Counter) []ratelimit.Counter { return c[:min(2, len(c))] }),
	},
	"resets every key of a policy":                {"a key that is reset has used nothing", resetsPolicy},
	"refunds what was charged before a reset":     {"a key that is reset has used nothing", moved(func(c *ratelimit.Charge) { c.Moved = min(c.Moved, c.Cost) }).made},
	"blocks a key that is reset until it returns": {"a key that is reset has used nothing", resetsTo(5)},
	"leaves a unit used":                          {"a key that is reset has used nothing", resetsTo(1)},
	"resets the present limit alone": {
		"a key that is reset has used nothing under any limit",
		resetsAnd(func(ctx context.Context, m *ratelimit.Memory, _ ratelimit.Counter, charged []ratelimit.Charge) {
			for _, c := range charged {
				if c.Limit != charged[len(charged)-1].Limit {
					_ = m.Take(ctx, &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}})
				}
			}
		}),
	},
	"frees places of a key that is reset": {"places stay in use when their key is reset", resetsPlaces},
	"resets 512 counters of a call": {
		"a call resets up to MaxRenew counters",
		resets(func(c []ratelimit.Counter) []ratelimit.Counter { return c[:min(512, len(c))] }),
	},
	"resets more than MaxRenew counters": {
		"a call resets up to MaxRenew counters",
		resets(func(c []ratelimit.Counter) []ratelimit.Counter { return c[:min(ratelimit.MaxRenew, len(c))] }),
	},
}

func resets(some func([]ratelimit.Counter) []ratelimit.Counter) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		return store{Store: m, reset: func(ctx context.Context, counters []ratelimit.Counter) error {
			return m.Reset(ctx, some(counters))
		}}
	}
}

// resetsAnd does something else after a Reset, with what the key of each counter was charged.
func resetsAnd(also func(ctx context.Context, m *ratelimit.Memory, c ratelimit.Counter, charged []ratelimit.Charge)) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		charged := make(map[ratelimit.Counter][]ratelimit.Charge)
		return store{
			Store: m,
			take: func(ctx context.Context, d *ratelimit.Decision) error {
				err := m.Take(ctx, d)
				for _, c := range d.Charges {
					if of := (ratelimit.Counter{Policy: c.Policy, Key: c.Key}); err == nil && d.Admitted && !d.Peek {
						charged[of] = append(charged[of], c)
					}
				}
				return err
			},
			reset: func(ctx context.Context, counters []ratelimit.Counter) error {
				err := m.Reset(ctx, counters)
				for _, c := range counters {
					also(ctx, m, c, charged[c])
				}
				return err
			},
		}
	}
}

// resetsTo leaves n units used.
func resetsTo(n int64) func(*ratelimit.Memory) ratelimit.Store {
	return resetsAnd(func(ctx context.Context, m *ratelimit.Memory, _ ratelimit.Counter, charged []ratelimit.Charge) {
		for _, c := range charged[max(len(charged)-1, 0):] {
			c.Cost = n
			_ = m.Take(ctx, &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}})
		}
	})
}

// resetsPolicy resets another key of the same policies as well.
func resetsPolicy(m *ratelimit.Memory) ratelimit.Store {
	return resetsAnd(func(ctx context.Context, m *ratelimit.Memory, c ratelimit.Counter, _ []ratelimit.Charge) {
		_ = m.Reset(ctx, []ratelimit.Counter{{Policy: c.Policy, Key: ratelimit.TextKey("other")}})
	})(m)
}

func resetsPlaces(m *ratelimit.Memory) ratelimit.Store {
	return resetsAnd(func(ctx context.Context, m *ratelimit.Memory, _ ratelimit.Counter, charged []ratelimit.Charge) {
		for _, c := range charged {
			c.Cost = -c.Cost
			_ = m.Adjust(ctx, &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}})
		}
	})(m)
}
