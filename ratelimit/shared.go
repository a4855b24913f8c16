package ratelimit

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
)

// errUndecided is the error of a store that contradicts itself.
var errUndecided = errors.New("ratelimit: the store admits what a policy refuses, or refuses what none does")

// A sharedStore guards a store that may hang, fail or panic. During an outage decisions
// fail at once, but charges of earlier decisions are still refunded as far as the store
// permits: they could not be refunded later.
type sharedStore struct {
	store   Store
	leases  *leases
	lines   *lines
	denials *denials // nil unless they are kept
	node    uint64
	seq     atomic.Uint64
	takes   *guard.Guard
	adjusts *guard.Guard
	// adjustments are the calls of Adjust that no request waits for.
	adjustments adjustments
	// A failed call may have left places; freeing them must not delay the calls of
	// requests.
	frees *guard.Guard
}

// shares reports whether other processes may use the store of a Limiter.
func shares(s Store) bool {
	_, local := s.(*Memory)
	return s != nil && !local
}

// maxCalls is how many calls of each kind may run at a time.
const maxCalls = 128

func newSharedStore(c *Config, failed, lost func(context.Context, error)) *sharedStore {
	s := &sharedStore{
		store:       c.Store,
		leases:      newLeases(c, failed, lost),
		denials:     newDenials(c.CacheDenials),
		node:        rand.Uint64(),
		takes:       guard.New(c.StoreTimeout, maxCalls).Measured(c.MeterProvider, guard.Limits),
		adjusts:     guard.New(c.StoreTimeout, maxCalls).NeverOpen().Measured(c.MeterProvider, guard.Limits),
		adjustments: adjustments{timeout: c.StoreTimeout},
		frees:       guard.New(repeatable/2, maxCalls).NeverOpen().Measured(c.MeterProvider, guard.Limits),
	}
	s.lines = newLines(s, c.StoreTimeout)
	return s
}

// prepare returns a copy of d for one call of the store, with an ID of its own. A call may
// go on after its timeout, so it works on a copy.
func (s *sharedStore) prepare(d *Decision) *Decision {
	own := &Decision{ID: s.next(), Charges: slices.Clone(d.Charges), Peek: d.Peek}
	s.complete(own.Charges)
	return own
}

func (s *sharedStore) next() ID { return ID{Node: s.node, Seq: s.seq.Add(1)} }

// complete sets the windows and leases, which a store cannot know.
func (s *sharedStore) complete(charges []Charge) {
	var now time.Time
	for i := range charges {
		c := &charges[i]
		if c.Limit.algorithm == AlgorithmCalendarWindow {
			if now.IsZero() {
				now = time.Now()
			}
			c.Windows = c.Limit.windows(now)
		}
		if c.leased() {
			c.Lease = s.leases.lease
		}
	}
}

// attempt makes a call that may be repeated. If the store was unavailable and there is time
// left, it calls once more, with the same ID: the store may have executed the call, and only
// the result was lost. It does not if the store may have forgotten the ID by then.
func attempt(ctx context.Context, call func() error) error {
	began := time.Now()
	err := call()
	if errors.Is(err, usher.ErrUnavailable) && ctx.Err() == nil && time.Since(began) < repeatable/2 {
		err = call()
	}
	return err
}

// Take decides d within the timeout: from what the store has said before, with others that
// ask for the same, or by a call of its own. Once the store is called for d, Take does not
// end with ctx: a client that disconnects is charged nevertheless. Before that, it returns
// errLeft.
func (s *sharedStore) Take(ctx context.Context, d *Decision) error {
	if s.denials.repeat(d) {
		return nil
	}
	deadline := s.adjustments.wait(d.Charges)
	if combines(d) {
		return s.lines.take(ctx, d, deadline)
	}
	return s.takeAlone(ctx, d, deadline)
}

// takeAlone decides d by a call of its own, before the deadline, unless that is zero.
func (s *sharedStore) takeAlone(ctx context.Context, d *Decision, deadline time.Time) error {
	began, asked := time.Now(), s.denials.now()
	own, err := s.call(ctx, d, 1, deadline)
	if err != nil {
		return err
	}
	s.denials.keep(own, asked)
	own.share(d, 0, 1)
	for i := range d.Charges {
		c := &d.Charges[i]
		if d.Admitted && !d.Peek && !c.Violated && c.Cost > 0 && c.leased() {
			s.leases.begin(ctx, c, began)
		}
	}
	return nil
}

// call calls Take for n decisions like d in one, and returns the results.
func (s *sharedStore) call(ctx context.Context, d *Decision, n int, deadline time.Time) (*Decision, error) {
	own := s.prepare(d)
	if n > 1 {
		own.times(n)
	}
	ctx = context.WithoutCancel(ctx)
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, deadline, guard.ErrTimeout)
		defer cancel()
	}
	_, err := guard.Call(ctx, s.takes, "take", func(ctx context.Context) (struct{}, error) {
		err := attempt(ctx, func() error { return s.store.Take(ctx, own) })
		if err == nil && own.Admitted == violated(own.Charges) {
			err = errUndecided
		}
		if err != nil {
			s.undo(own)
		}
		return struct{}{}, err
	}, func(_ struct{}, err error) {
		if err == nil && own.Admitted && !own.Peek {
			s.refund(own)
		}
	})
	if err != nil {
		return nil, err
	}
	for i := range own.Charges {
		c := &own.Charges[i]
		c.Remaining, c.Reset = max(c.Remaining, 0), max(c.Reset, 0)
	}
	return own, nil
}

// violated reports whether a policy refuses the request.
func violated(charges []Charge) bool {
	return slices.ContainsFunc(charges, func(c Charge) bool { return c.Violated && !c.Shadow })
}

// refund refunds what was charged too late: its request was decided without the store.
func (s *sharedStore) refund(late *Decision) {
	for i := range late.Charges {
		c := &late.Charges[i]
		c.TakenBy = late.ID
		c.finish(c.Cost, false)
	}
	if late.compact() {
		_ = s.Adjust(context.Background(), late)
	}
}

// The pauses between attempts to free places: while the store is unavailable, and after an
// attempt that has found none.
const (
	freePause = 50 * time.Millisecond
	freeAgain = time.Second
)

// undo frees the places that a failed call of Take may have left in use, and what it may
// have reserved.
func (s *sharedStore) undo(failed *Decision) {
	var charges []Charge
	for _, c := range failed.Charges {
		if c.leased() && c.Cost > 0 {
			c.TakenBy = failed.ID
			c.finish(c.Cost, false)
			charges = append(charges, c)
		}
	}
	s.free(charges)
}

// redo frees the places that a failed call of Adjust may have left in use.
func (s *sharedStore) redo(failed *Decision) {
	var charges []Charge
	for _, c := range failed.Charges {
		if c.Limit.algorithm == AlgorithmConcurrency && c.Cost != 0 {
			charges = append(charges, c)
		}
	}
	s.free(charges)
}

// free frees places and reservations in the background, after a call has failed: a server
// may execute a call whose caller has given up. Otherwise no request could take them until
// their leases end. This is safe, because they belong to one decision. If there are none,
// free tries once more, because the server may execute the failed call later than the one
// that frees.
func (s *sharedStore) free(charges []Charge) {
	if len(charges) == 0 {
		return
	}
	go func() {
		if s.tryFree(charges) {
			time.Sleep(freeAgain)
			s.tryFree(charges)
		}
	}()
}

// tryFree frees places, and reports whether some were missing.
func (s *sharedStore) tryFree(charges []Charge) (missing bool) {
	d := &Decision{ID: s.next(), Charges: slices.Clone(charges)}
	return s.repeat(d) == nil && slices.ContainsFunc(d.Charges, func(c Charge) bool { return c.Moved == 0 })
}

// repeat calls Adjust until the store is available, or may have forgotten the ID of d.
func (s *sharedStore) repeat(d *Decision) error {
	return s.frees.Do(context.Background(), "free", func(ctx context.Context) error {
		for {
			err := s.store.Adjust(ctx, d)
			if !errors.Is(err, usher.ErrUnavailable) {
				return err
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(freePause):
			}
		}
	})
}

// Adjust changes charges within the timeout, during an outage too.
func (s *sharedStore) Adjust(ctx context.Context, d *Decision) error {
	own := s.prepare(d)
	if err := s.adjust(ctx, own); err != nil {
		return err
	}
	for i := range d.Charges {
		c := &d.Charges[i]
		c.Moved = max(min(own.Charges[i].Moved, max(c.Cost, 0)), min(c.Cost, 0))
	}
	return nil
}

func (s *sharedStore) adjust(ctx context.Context, own *Decision) error {
	return s.adjusts.Do(context.WithoutCancel(ctx), "adjust", func(ctx context.Context) error {
		err := attempt(ctx, func() error { return s.store.Adjust(ctx, own) })
		switch {
		case err != nil:
			s.redo(own)
		case slices.ContainsFunc(own.Charges, func(c Charge) bool { return c.final }):
			// A refund that is an exception, for instance after a timeout.
			s.denials.forget()
		}
		return err
	})
}

// finish changes the charges of a request that has ended, in the background: the response
// does not wait for the store. Later decisions on the same keys do. It first stops the
// renewal of leases. The caller may use d again.
//
// What the request has reserved is charged here for the first time, so that call is repeated
// for as long as that is safe.
func (s *sharedStore) finish(d *Decision, failed func(error)) {
	for i := range d.Charges {
		s.leases.end(&d.Charges[i])
	}
	own := s.prepare(d)
	var again *Decision // with memory of its own, since the first call may go on
	if slices.ContainsFunc(own.Charges, func(c Charge) bool { return c.EndHold && c.Cost > 0 }) {
		again = &Decision{ID: own.ID, Charges: slices.Clone(own.Charges)}
	}
	began := time.Now()
	s.adjustments.run(own.Charges, func() error { return s.adjust(context.Background(), own) }, func(err error) {
		if again != nil && errors.Is(err, usher.ErrUnavailable) && time.Since(began) < repeatable/2 {
			_ = s.repeat(again)
		}
		failed(err)
	})
}
