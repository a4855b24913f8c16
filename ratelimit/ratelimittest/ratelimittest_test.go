package ratelimittest_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
)

func newMemory() *ratelimit.Memory {
	m, err := ratelimit.NewMemory(ratelimit.MemoryConfig{})
	if err != nil {
		panic(err)
	}
	return m
}

func TestAMemoryPasses(t *testing.T) {
	ratelimittest.TestStore(t, func(testing.TB) ratelimit.Store { return newMemory() })
}

// The wrappers that the wrong stores share do not themselves fail the suite.
func TestARightStorePasses(t *testing.T) {
	ratelimittest.TestStore(t, func(testing.TB) ratelimit.Store {
		return asked(func(*ratelimit.Charge) {})(results(func(*ratelimit.Charge) {})(newMemory()))
	})
}

// A mistake makes a store wrong in one way.
type mistake struct {
	row  string // that must fail
	made func(*ratelimit.Memory) ratelimit.Store
}

var mistakes = []map[string]mistake{
	amountMistakes, keyMistakes, windowMistakes, adjustMistakes, changeMistakes, placeMistakes, repeatMistakes, callMistakes,
	peekMistakes, overdrawMistakes, holdMistakes, forgetMistakes,
}

func TestWrongStoresFail(t *testing.T) {
	for _, of := range mistakes {
		storetest.WantFailures(t, "TestWrongStore", of, func(m mistake) string { return m.row })
	}
}

func TestWrongStore(t *testing.T) {
	name := storetest.Wrong(t)
	for _, of := range mistakes {
		if m, ok := of[name]; ok {
			ratelimittest.TestStore(t, func(testing.TB) ratelimit.Store { return m.made(newMemory()) })
			return
		}
	}
}

// A store is another store, some of whose methods are replaced.
type store struct {
	ratelimit.Store
	take, adjust func(context.Context, *ratelimit.Decision) error
	renew        func(context.Context, []ratelimit.Place, time.Duration) ([]ratelimit.Place, error)
	reset        func(context.Context, []ratelimit.Counter) error
	close        func() error
}

func (s store) Take(ctx context.Context, d *ratelimit.Decision) error {
	if s.take != nil {
		return s.take(ctx, d)
	}
	return s.Store.Take(ctx, d)
}

func (s store) Adjust(ctx context.Context, d *ratelimit.Decision) error {
	if s.adjust != nil {
		return s.adjust(ctx, d)
	}
	return s.Store.Adjust(ctx, d)
}

func (s store) Renew(ctx context.Context, places []ratelimit.Place, lease time.Duration) ([]ratelimit.Place, error) {
	if s.renew != nil {
		return s.renew(ctx, places, lease)
	}
	return s.Store.Renew(ctx, places, lease)
}

func (s store) Reset(ctx context.Context, counters []ratelimit.Counter) error {
	if s.reset != nil {
		return s.reset(ctx, counters)
	}
	return s.Store.Reset(ctx, counters)
}

func (s store) Close() error {
	if s.close != nil {
		return s.close()
	}
	return s.Store.Close()
}

// call calls a method with a copy of d that change has changed, and takes the results.
func call(ctx context.Context, method func(context.Context, *ratelimit.Decision) error, d *ratelimit.Decision, change func(*ratelimit.Decision)) error {
	own := ratelimit.Decision{ID: d.ID, Peek: d.Peek, Charges: slices.Clone(d.Charges)}
	change(&own)
	err := method(ctx, &own)
	d.Admitted = own.Admitted
	for i := range own.Charges {
		c, o := &d.Charges[i], &own.Charges[i]
		c.Violated, c.Remaining, c.Reset, c.Wait, c.Moved = o.Violated, o.Remaining, o.Reset, o.Wait, o.Moved
		c.TakenBy, c.TakenAt = o.TakenBy, o.TakenAt
	}
	return err
}

// wrap returns a function that makes a store from a similar one.
type wrap func(ratelimit.Store) ratelimit.Store

func (w wrap) made(m *ratelimit.Memory) ratelimit.Store { return w(m) }

// asked changes the charges that a store is asked to take or to adjust.
func asked(change func(*ratelimit.Charge)) wrap {
	return func(s ratelimit.Store) ratelimit.Store {
		return askedTo(change, change)(s)
	}
}

func askedTo(take, adjust func(*ratelimit.Charge)) wrap {
	all := func(f func(*ratelimit.Charge)) func(*ratelimit.Decision) {
		return func(d *ratelimit.Decision) {
			for i := range d.Charges {
				if f != nil {
					f(&d.Charges[i])
				}
			}
		}
	}
	return func(s ratelimit.Store) ratelimit.Store {
		return store{
			Store:  s,
			take:   func(ctx context.Context, d *ratelimit.Decision) error { return call(ctx, s.Take, d, all(take)) },
			adjust: func(ctx context.Context, d *ratelimit.Decision) error { return call(ctx, s.Adjust, d, all(adjust)) },
		}
	}
}

// results changes the results of Take.
func results(change func(*ratelimit.Charge)) wrap {
	return func(s ratelimit.Store) ratelimit.Store {
		return store{Store: s, take: func(ctx context.Context, d *ratelimit.Decision) error {
			err := s.Take(ctx, d)
			if err != nil {
				return err
			}
			d.Admitted = true
			for i := range d.Charges {
				change(&d.Charges[i])
				if d.Charges[i].Violated && !d.Charges[i].Shadow {
					d.Admitted = false
				}
			}
			return nil
		}}
	}
}

// moved changes the results of Adjust.
func moved(change func(*ratelimit.Charge)) wrap {
	return func(s ratelimit.Store) ratelimit.Store {
		return store{Store: s, adjust: func(ctx context.Context, d *ratelimit.Decision) error {
			err := s.Adjust(ctx, d)
			for i := range d.Charges {
				change(&d.Charges[i])
			}
			return err
		}}
	}
}
