package ratelimittest_test

import (
	"context"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

var placeMistakes = map[string]mistake{
	"refunds no places": {
		"places of a concurrency limit are free again when refunded",
		askedTo(nil, func(c *ratelimit.Charge) {
			if c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
				c.Cost = max(c.Cost, 0)
			}
		}).made,
	},
	"refunds any place": {"a place that is refunded twice frees no other", refundsAny},
	"takes a place for a decision that has none": {
		"an adjustment of places that are not in use moves nothing", takesLost,
	},
	"refunds a place whose lease has ended": {
		"an adjustment of places that are not in use moves nothing", refundsAny,
	},
	"keeps places whose lease has ended": {
		"a place is free once its lease has ended",
		asked(func(c *ratelimit.Charge) {
			if c.Lease > 0 {
				c.Lease += time.Hour
			}
		}).made,
	},
	"ends the leases of a key together": {
		"a place is free once its lease has ended",
		asked(func(c *ratelimit.Charge) {
			if c.Lease > 0 {
				c.Lease = 100 * time.Millisecond
			}
		}).made,
	},
	"does not renew": {"a renewed place stays in use", renews(func(places []ratelimit.Place) []ratelimit.Place { return nil })},
	"renews one place of a call": {
		"a renewed place stays in use",
		renews(func(places []ratelimit.Place) []ratelimit.Place { return places[:min(1, len(places))] }),
	},
	"renews ten places of a call": {
		"a renewed place stays in use",
		renews(func(places []ratelimit.Place) []ratelimit.Place { return places[:min(10, len(places))] }),
	},
	"renews 512 places of a call": {
		"a call renews up to MaxRenew places",
		renews(func(places []ratelimit.Place) []ratelimit.Place { return places[:min(512, len(places))] }),
	},
	"renews for a fixed time": {
		"a renewed place stays in use",
		func(m *ratelimit.Memory) ratelimit.Store {
			return store{Store: m, renew: func(ctx context.Context, places []ratelimit.Place, _ time.Duration) ([]ratelimit.Place, error) {
				return m.Renew(ctx, places, time.Millisecond)
			}}
		},
	},
	"keeps the longer lease": {
		"a place that is not in use is lost, and is not renewed",
		func(m *ratelimit.Memory) ratelimit.Store {
			return store{Store: m, renew: func(ctx context.Context, places []ratelimit.Place, lease time.Duration) ([]ratelimit.Place, error) {
				return m.Renew(ctx, places, max(lease, time.Hour))
			}}
		},
	},
	"reports no lost place": {
		"a place that is not in use is lost, and is not renewed",
		func(m *ratelimit.Memory) ratelimit.Store {
			return store{Store: m, renew: func(ctx context.Context, places []ratelimit.Place, lease time.Duration) ([]ratelimit.Place, error) {
				_, err := m.Renew(ctx, places, lease)
				return nil, err
			}}
		},
	},
	"reports all places lost if one is": {
		"a place that is not in use is lost, and is not renewed",
		func(m *ratelimit.Memory) ratelimit.Store {
			return store{Store: m, renew: func(ctx context.Context, places []ratelimit.Place, lease time.Duration) ([]ratelimit.Place, error) {
				lost, err := m.Renew(ctx, places, lease)
				if len(lost) > 0 {
					lost = places
				}
				return lost, err
			}}
		},
	},
	"takes a lost place again":              {"a place that is not in use is lost, and is not renewed", revives},
	"renews by the policy and the ID alone": {"a place that is not in use is lost, and is not renewed", anyKey},
	"counts the places of each limit apart": {
		"places count apart from the other limits of their key",
		asked(func(c *ratelimit.Charge) {
			if c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
				c.Policy += c.Limit.String()
			}
		}).made,
	},
	"counts places as what was used": {
		"places count apart from the other limits of their key",
		asked(func(c *ratelimit.Charge) {
			if c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
				c.Limit = ratelimit.RollingWindow(int(c.Limit.Quota()), time.Hour)
			}
		}).made,
	},
}

// refundsAny refunds a place of another decision if the right one has none.
func refundsAny(m *ratelimit.Memory) ratelimit.Store {
	taken := make(map[string][]ratelimit.ID)
	s := store{Store: m}
	s.take = func(ctx context.Context, d *ratelimit.Decision) error {
		err := m.Take(ctx, d)
		for _, c := range d.Charges {
			if d.Admitted && c.Cost > 0 {
				taken[c.Policy] = append(taken[c.Policy], d.ID)
			}
		}
		return err
	}
	s.adjust = func(ctx context.Context, d *ratelimit.Decision) error {
		err := m.Adjust(ctx, d)
		for i := range d.Charges {
			c := &d.Charges[i]
			for _, by := range taken[c.Policy] {
				if c.Moved == 0 && c.Cost < 0 {
					c.TakenBy = by
					_ = m.Adjust(ctx, &ratelimit.Decision{ID: newID(), Charges: d.Charges[i : i+1]})
				}
			}
		}
		return err
	}
	return s
}

func takesLost(m *ratelimit.Memory) ratelimit.Store {
	return store{Store: m, adjust: func(ctx context.Context, d *ratelimit.Decision) error {
		err := m.Adjust(ctx, d)
		for i := range d.Charges {
			if c := d.Charges[i]; c.Moved == 0 && c.Cost > 0 {
				again := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}}
				_ = m.Take(ctx, again)
				d.Charges[i].Moved = c.Cost
			}
		}
		return err
	}}
}

// renews renews some of the places, and reports none as lost.
func renews(some func([]ratelimit.Place) []ratelimit.Place) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		return store{Store: m, renew: func(ctx context.Context, places []ratelimit.Place, lease time.Duration) ([]ratelimit.Place, error) {
			return m.Renew(ctx, some(places), lease)
		}}
	}
}

// revives reports lost places, and takes them again.
func revives(m *ratelimit.Memory) ratelimit.Store {
	charges := make(map[ratelimit.Place]ratelimit.Charge)
	return store{
		Store: m,
		take: func(ctx context.Context, d *ratelimit.Decision) error {
			err := m.Take(ctx, d)
			for _, c := range d.Charges {
				charges[ratelimit.Place{Policy: c.Policy, Key: c.Key, TakenBy: d.ID}] = c
			}
			return err
		},
		renew: func(ctx context.Context, places []ratelimit.Place, lease time.Duration) ([]ratelimit.Place, error) {
			lost, err := m.Renew(ctx, places, lease)
			for _, p := range lost {
				if c, ok := charges[p]; ok {
					_ = m.Take(ctx, &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}})
				}
			}
			return lost, err
		},
	}
}

// anyKey renews a place whatever its key is.
func anyKey(m *ratelimit.Memory) ratelimit.Store {
	return store{Store: m, renew: func(ctx context.Context, places []ratelimit.Place, lease time.Duration) (lost []ratelimit.Place, err error) {
		for _, p := range places {
			p.Key = ratelimit.TextKey("key")
			some, err := m.Renew(ctx, []ratelimit.Place{p}, lease)
			if err != nil {
				return nil, err
			}
			lost = append(lost, some...)
		}
		return lost, nil
	}}
}
