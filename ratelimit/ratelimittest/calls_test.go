package ratelimittest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

var callMistakes = map[string]mistake{
	"takes a policy that occurs twice once": {
		"a decision with one policy twice is an error",
		compacts(func(a, b ratelimit.Charge) bool { return a.Policy == b.Policy }),
	},
	"takes a key that occurs twice once": {
		"a decision with one policy twice is an error",
		compacts(func(a, b ratelimit.Charge) bool { return a.Policy == b.Policy && a.Key == b.Key }),
	},
	"charges before it finds a policy twice": {
		"a decision with one policy twice is an error", chargesFirst,
	},
	"takes any number of charges": {
		"a decision has up to 16 charges",
		func(m *ratelimit.Memory) ratelimit.Store {
			return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
				return call(ctx, m.Take, d, func(d *ratelimit.Decision) { d.Charges = d.Charges[:min(len(d.Charges), 16)] })
			}}
		},
	},
	"takes up to 8 charges": {
		"a decision has up to 16 charges",
		func(m *ratelimit.Memory) ratelimit.Store {
			return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
				if len(d.Charges) > 8 {
					return errors.New("too many charges")
				}
				return m.Take(ctx, d)
			}}
		},
	},
	"forgets a call whose context has ended": {
		"a call whose context has ended is charged at most once",
		func(m *ratelimit.Memory) ratelimit.Store {
			return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
				if ctx.Err() == nil {
					return m.Take(ctx, d)
				}
				return errors.Join(under(ctx, newID(), m.Take, d), ctx.Err())
			}}
		},
	},
	"decides nothing if the context has ended": {
		"a call whose context has ended is charged at most once",
		func(m *ratelimit.Memory) ratelimit.Store {
			return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
				if ctx.Err() != nil {
					return nil
				}
				return m.Take(ctx, d)
			}}
		},
	},
	"reads, and writes later": {"concurrent requests take exactly the limit", wrap(peeks).made},
	"locks in the order of the charges": {
		"overlapping decisions in any order do not deadlock", wrap(locksInOrder).made,
	},
	"fails when it is closed again": {
		"a closed store refuses every call",
		func(m *ratelimit.Memory) ratelimit.Store {
			var closed atomic.Bool
			return store{Store: m, close: func() error {
				if closed.Swap(true) {
					return usher.ErrClosed
				}
				return m.Close()
			}}
		},
	},
	"decides when it is closed": {
		"a closed store refuses every call",
		func(m *ratelimit.Memory) ratelimit.Store { return store{Store: m, close: func() error { return nil }} },
	},
	"renews when it is closed": {
		"a closed store refuses every call",
		func(m *ratelimit.Memory) ratelimit.Store {
			return store{Store: m, renew: func(context.Context, []ratelimit.Place, time.Duration) ([]ratelimit.Place, error) {
				return nil, nil
			}}
		},
	},
	"returns an error of its own when it is closed": {
		"calls during Close end",
		func(m *ratelimit.Memory) ratelimit.Store {
			return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
				if err := m.Take(ctx, d); err != nil {
					return errors.New("connection lost")
				}
				return nil
			}}
		},
	},
}

// compacts drops charges that are the same as another.
func compacts(same func(a, b ratelimit.Charge) bool) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		twice := func(of []ratelimit.Charge, c ratelimit.Charge) bool {
			return slices.ContainsFunc(of, func(o ratelimit.Charge) bool { return same(o, c) })
		}
		method := func(f func(context.Context, *ratelimit.Decision) error) func(context.Context, *ratelimit.Decision) error {
			return func(ctx context.Context, d *ratelimit.Decision) error {
				own := &ratelimit.Decision{ID: d.ID, Peek: d.Peek}
				for _, c := range d.Charges {
					if !twice(own.Charges, c) {
						own.Charges = append(own.Charges, c)
					}
				}
				err := f(ctx, own)
				if len(own.Charges) == len(d.Charges) {
					copy(d.Charges, own.Charges)
				}
				d.Admitted = own.Admitted
				return err
			}
		}
		return store{Store: m, take: method(m.Take), adjust: method(m.Adjust)}
	}
}

func chargesFirst(m *ratelimit.Memory) ratelimit.Store {
	return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
		err := m.Take(ctx, d)
		if err != nil {
			_ = m.Take(ctx, &ratelimit.Decision{ID: newID(), Charges: slices.Clone(d.Charges[:1])})
		}
		return err
	}}
}

// peeks looks at what is left, and takes it a little later.
func peeks(m ratelimit.Store) ratelimit.Store {
	return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
		peek := &ratelimit.Decision{ID: newID(), Charges: slices.Clone(d.Charges)}
		for i := range peek.Charges {
			peek.Charges[i].Cost, peek.Charges[i].MinRemaining = 0, 1
		}
		if err := m.Take(ctx, peek); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
		err := m.Take(ctx, d)
		d.Admitted = peek.Admitted
		return err
	}}
}

// locksInOrder gives up a decision that waits too long for another, as a database does.
func locksInOrder(m ratelimit.Store) ratelimit.Store {
	var locks sync.Map
	return store{Store: m, take: func(ctx context.Context, d *ratelimit.Decision) error {
		for i := range d.Charges {
			lock, _ := locks.LoadOrStore(d.Charges[i].Policy, make(chan struct{}, 1))
			select {
			case lock.(chan struct{}) <- struct{}{}:
				defer func() { <-lock.(chan struct{}) }()
				time.Sleep(time.Millisecond)
			case <-time.After(100 * time.Millisecond):
				return fmt.Errorf("deadlock: %w", usher.ErrUnavailable)
			}
		}
		return m.Take(ctx, d)
	}}
}
