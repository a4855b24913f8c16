package ratelimit

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher/internal/guard"
)

// errDown is what a shared store returns while it is left alone.
var errDown = errors.New("ratelimit: store is down")

// errUndecided is a fault of the store.
var errUndecided = errors.New("ratelimit: the store admits what a policy refuses, or refuses what none does")

// sharedStore is a store that may fail. After a failure it is left alone for a
// while, and then one request tries it: an outage costs one request in a while
// its timeout, and not all of them, and recovery meets no stampede.
type sharedStore struct {
	store Store
	guard *guard.Guard
	// retry is when to try again, in nanoseconds since 1970; 0 while all is well.
	retry atomic.Int64
}

const retryInterval = time.Second

// maxCalls is how many calls of a shared store may run at a time.
const maxCalls = 128

func newSharedStore(s Store, timeout time.Duration) *sharedStore {
	return &sharedStore{store: s, guard: guard.New(timeout, maxCalls)}
}

// Take implements Store within the timeout. It does not end with ctx: a client
// that leaves is charged all the same, and says nothing about the store.
func (s *sharedStore) Take(ctx context.Context, charges []Charge) (admitted bool, err error) {
	if at := s.retry.Load(); at != 0 {
		now := time.Now().UnixNano()
		if now < at || !s.retry.CompareAndSwap(at, now+int64(retryInterval)) {
			return false, errDown
		}
	}
	// A call that is given up may go on for a while and has memory of its own.
	own := slices.Clone(charges)
	admitted, err = guard.Call(context.WithoutCancel(ctx), s.guard, func(ctx context.Context) (bool, error) {
		return s.store.Take(ctx, own)
	}, func(admitted bool, err error) {
		if err == nil && admitted {
			s.giveBack(own)
		}
	})
	s.note(err)
	if err != nil {
		return false, err
	}
	violated := false
	for i := range charges {
		c, o := &charges[i], &own[i]
		c.Violated, c.Remaining, c.Reset, c.Wait, c.At = o.Violated, max(o.Remaining, 0), max(o.Reset, 0), o.Wait, o.At
		violated = violated || c.Violated && !c.Shadow
	}
	if admitted == violated {
		return false, errUndecided
	}
	return admitted, nil
}

// giveBack gives back what was charged too late: its request was decided without
// the store.
func (s *sharedStore) giveBack(charges []Charge) {
	charges = slices.DeleteFunc(charges, func(c Charge) bool { return c.Violated || c.Cost == 0 })
	for i := range charges {
		charges[i].Cost = -charges[i].Cost
	}
	if len(charges) > 0 {
		_ = s.Adjust(context.Background(), charges)
	}
}

// Adjust implements Store within the timeout. It tries also while the store is
// left alone: what is not given back now is lost.
func (s *sharedStore) Adjust(ctx context.Context, charges []Charge) error {
	own := slices.Clone(charges)
	err := s.guard.Do(context.WithoutCancel(ctx), func(ctx context.Context) error { return s.store.Adjust(ctx, own) })
	s.note(err)
	if err != nil {
		return err
	}
	for i := range charges {
		c := &charges[i]
		c.Moved = max(min(own[i].Moved, max(c.Cost, 0)), min(c.Cost, 0))
	}
	return nil
}

// note notes how a call has ended.
func (s *sharedStore) note(err error) {
	switch {
	case err == nil:
		s.retry.Store(0)
	case !errors.Is(err, guard.ErrBusy):
		// A store that was not called has not failed: the calls that are running tell.
		s.retry.Store(time.Now().UnixNano() + int64(retryInterval))
	}
}
