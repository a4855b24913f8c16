package ratelimit

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/usher-go/usher/internal/guard"
)

// errUndecided is the error of a store that contradicts itself.
var errUndecided = errors.New("ratelimit: the store admits what a policy refuses, or refuses what none does")

// A sharedStore is a store that may hang, fail or panic. During an outage decisions
// fail at once, but what earlier decisions have charged is refunded as far as the store
// permits: it could not be refunded later.
type sharedStore struct {
	store   Store
	takes   *guard.Guard
	adjusts *guard.Guard
}

// maxCalls is how many calls of each of the two kinds may run at a time.
const maxCalls = 128

func newSharedStore(s Store, timeout time.Duration) *sharedStore {
	return &sharedStore{
		store:   s,
		takes:   guard.New(timeout, maxCalls),
		adjusts: guard.New(timeout, maxCalls).NeverOpen(),
	}
}

// Take implements Store within the timeout. It does not end with ctx: a client that
// disconnects is charged all the same.
func (s *sharedStore) Take(ctx context.Context, charges []Charge) (admitted bool, err error) {
	// A call may go on after its timeout, so it works on a copy.
	own := slices.Clone(charges)
	admitted, err = guard.Call(context.WithoutCancel(ctx), s.takes, func(ctx context.Context) (bool, error) {
		admitted, err := s.store.Take(ctx, own)
		if err == nil && admitted == violated(own) {
			err = errUndecided
		}
		return admitted, err
	}, func(admitted bool, err error) {
		if err == nil && admitted {
			s.refund(own)
		}
	})
	if err != nil {
		return false, err
	}
	for i := range charges {
		c, o := &charges[i], &own[i]
		c.Violated, c.Remaining, c.Reset, c.Wait, c.At = o.Violated, max(o.Remaining, 0), max(o.Reset, 0), o.Wait, o.At
	}
	return admitted, nil
}

// violated reports whether a policy refuses the request.
func violated(charges []Charge) bool {
	return slices.ContainsFunc(charges, func(c Charge) bool { return c.Violated && !c.Shadow })
}

// refund refunds what was charged too late: its request was decided without the store.
func (s *sharedStore) refund(charges []Charge) {
	charges = slices.DeleteFunc(charges, func(c Charge) bool { return c.Violated || c.Cost == 0 })
	for i := range charges {
		charges[i].Cost = -charges[i].Cost
	}
	if len(charges) > 0 {
		_ = s.Adjust(context.Background(), charges)
	}
}

// Adjust implements Store within the timeout, during an outage too.
func (s *sharedStore) Adjust(ctx context.Context, charges []Charge) error {
	own := slices.Clone(charges)
	err := s.adjusts.Do(context.WithoutCancel(ctx), func(ctx context.Context) error { return s.store.Adjust(ctx, own) })
	if err != nil {
		return err
	}
	for i := range charges {
		c := &charges[i]
		c.Moved = max(min(own[i].Moved, max(c.Cost, 0)), min(c.Cost, 0))
	}
	return nil
}
