package ratelimittest_test

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

var repeatMistakes = map[string]mistake{
	"charges a repeated call twice": {
		"a call of Take that is repeated charges once",
		forgetful(func(ratelimit.ID, bool) bool { return true }, nil),
	},
	"remembers the last call alone": {"a call of Take that is repeated charges once", remembersLast},
	"does not remember what it has refused": {
		"a call of Take that is repeated returns the same", forgetsRefusals,
	},
	"returns the present state for a repeated call": {
		"a call of Take that is repeated returns the same", returnsPresent,
	},
	"sets no result for a repeated call": {
		"a call of Take that is repeated charges once", returnsNothing,
	},
	"moves a repeated call twice": {
		"a call of Adjust that is repeated moves once",
		forgetful(nil, func(ratelimit.ID, bool) bool { return true }),
	},
	"frees places twice": {
		"a refund of places that is repeated frees once",
		forgetful(nil, func(ratelimit.ID, bool) bool { return true }),
	},
	"remembers a call once it has ended": {"concurrent repetitions charge once", remembersLate},
	"identifies calls by Seq": {
		"calls of other IDs are other calls", cutsIDs(func(id ratelimit.ID) ratelimit.ID { id.Node = 1; return id }),
	},
	"identifies calls by Node": {
		"calls of other IDs are other calls", cutsIDs(func(id ratelimit.ID) ratelimit.ID { id.Seq = 1; return id }),
	},
	"keeps 32 bits of Seq": {
		"calls of other IDs are other calls", cutsIDs(func(id ratelimit.ID) ratelimit.ID { id.Seq &= math.MaxUint32; return id }),
	},
	"keeps Node in a float64": {
		"calls of other IDs are other calls",
		cutsIDs(func(id ratelimit.ID) ratelimit.ID { id.Node = math.Float64bits(float64(id.Node)); return id }),
	},
	"adds Node and Seq": {
		"calls of other IDs are other calls",
		cutsIDs(func(id ratelimit.ID) ratelimit.ID { return ratelimit.ID{Node: id.Node + id.Seq, Seq: 1} }),
	},
	"keeps IDs as signed numbers without the sign": {
		"calls of other IDs are other calls",
		cutsIDs(func(id ratelimit.ID) ratelimit.ID { id.Node &= math.MaxInt64; return id }),
	},
}

var serial atomic.Uint64

// newID returns an ID that no other call has.
func newID() ratelimit.ID { return ratelimit.ID{Node: 1, Seq: serial.Add(1)} }

// under calls a method as a call of another ID, and sets the one of d in the results.
func under(ctx context.Context, id ratelimit.ID, method func(context.Context, *ratelimit.Decision) error, d *ratelimit.Decision) error {
	own := d.ID
	d.ID = id
	err := method(ctx, d)
	d.ID = own
	for i := range d.Charges {
		if d.Charges[i].TakenBy == id {
			d.Charges[i].TakenBy = own
		}
	}
	return err
}

// forgetful decides a call as a new one if the function returns true. The function gets
// whether the ID is known.
func forgetful(take, adjust func(id ratelimit.ID, known bool) bool) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		known := make(map[ratelimit.ID]bool)
		id := func(forgotten func(ratelimit.ID, bool) bool, d *ratelimit.Decision) ratelimit.ID {
			id := d.ID
			if forgotten != nil && forgotten(id, known[id]) && known[id] {
				id = newID()
			}
			known[d.ID] = true
			return id
		}
		return store{
			Store:  m,
			take:   func(ctx context.Context, d *ratelimit.Decision) error { return under(ctx, id(take, d), m.Take, d) },
			adjust: func(ctx context.Context, d *ratelimit.Decision) error { return under(ctx, id(adjust, d), m.Adjust, d) },
		}
	}
}

func remembersLast(m *ratelimit.Memory) ratelimit.Store {
	var last ratelimit.ID
	return forgetful(func(id ratelimit.ID, _ bool) bool {
		forgotten := id != last
		last = id
		return forgotten
	}, nil)(m)
}

func forgetsRefusals(m *ratelimit.Memory) ratelimit.Store {
	refused := make(map[ratelimit.ID]bool)
	s := forgetful(func(id ratelimit.ID, _ bool) bool { return refused[id] }, nil)(m)
	return store{Store: s, take: func(ctx context.Context, d *ratelimit.Decision) error {
		err := s.Take(ctx, d)
		refused[d.ID] = !d.Admitted
		return err
	}}
}

// returnsPresent remembers that it has charged, but not the results at that time.
func returnsPresent(m *ratelimit.Memory) ratelimit.Store {
	known := make(map[ratelimit.ID]bool)
	return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
		if !known[d.ID] {
			known[d.ID] = true
			return m.Take(ctx, d)
		}
		err := under(ctx, newID(), func(ctx context.Context, d *ratelimit.Decision) error {
			return call(ctx, m.Take, d, func(d *ratelimit.Decision) {
				for i := range d.Charges {
					d.Charges[i].Cost = 0
				}
			})
		}, d)
		d.Admitted = true
		return err
	}}
}

func returnsNothing(m *ratelimit.Memory) ratelimit.Store {
	known := make(map[ratelimit.ID]bool)
	return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
		if known[d.ID] {
			d.Admitted = true
			return nil
		}
		known[d.ID] = true
		return m.Take(ctx, d)
	}}
}

func remembersLate(m *ratelimit.Memory) ratelimit.Store {
	var mu sync.Mutex
	ended := make(map[ratelimit.ID]bool)
	return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
		mu.Lock()
		known := ended[d.ID]
		mu.Unlock()
		if known {
			return m.Take(ctx, d)
		}
		time.Sleep(10 * time.Millisecond)
		err := under(ctx, newID(), m.Take, d)
		mu.Lock()
		ended[d.ID] = true
		mu.Unlock()
		return err
	}}
}

func cutsIDs(cut func(ratelimit.ID) ratelimit.ID) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
			return under(ctx, cut(d.ID), m.Take, d)
		}}
	}
}
