package idempotency

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/report"
)

// remote guards a store that may fail, hang or panic. Its calls return within
// [Config.StoreTimeout], whatever the store does. A call whose result is lost is repeated.
// Calls do not end when the client disconnects, and a claim that succeeds too late is
// released.
type remote struct {
	store    Store
	failures *report.Reporter
	// resolves is set if there is a [Config.Resolve]: a request whose process has died may
	// not be repeated before that was called.
	resolves bool
	claims   *guard.Guard
	// A request with a claim must be able to renew and finish it, however many claims
	// hang.
	ends *guard.Guard
	// Renewals that hang must not keep a request from finishing its claim, nor the other
	// way around.
	renewals *guard.Guard
	// A claim that succeeded too late must be released, even while most claims fail.
	releases *guard.Guard
	// Operators must be able to look at records while requests fail, and their calls must
	// not take the place of those of requests.
	operations *guard.Guard
}

// maxCalls limits the concurrent calls of each kind, including those that
// hang.
const maxCalls = 64

func newRemote(c *Config, failures *report.Reporter) *remote {
	newGuard := func(results func(error) bool) *guard.Guard {
		return guard.New(c.StoreTimeout, maxCalls).Results(results)
	}
	measured := func(g *guard.Guard) *guard.Guard { return g.Measured(c.MeterProvider, guard.Idempotency) }
	lost := func(err error) bool { return errors.Is(err, ErrLost) }
	return &remote{
		store:      c.Store,
		failures:   failures,
		resolves:   c.Resolve != nil,
		claims:     measured(newGuard(func(err error) bool { return !doubtful(err) })),
		ends:       measured(newGuard(lost).NeverOpen()),
		renewals:   measured(newGuard(lost).NeverOpen()),
		releases:   measured(newGuard(lost).NeverOpen()),
		operations: measured(newGuard(func(err error) bool { return lost(err) || errors.Is(err, ErrNotFound) }).NeverOpen()),
	}
}

func (s *remote) Claim(ctx context.Context, c Claim) (Record, error) {
	ctx = context.WithoutCancel(ctx)
	r, err := guard.Call(ctx, s.claims, "claim", func(ctx context.Context) (Record, error) {
		r, err := twice(ctx, func() (Record, error) { return s.store.Claim(ctx, c) })
		if err == nil {
			err = r.check(&c)
		}
		return r, err
	}, func(r Record, err error) {
		switch {
		case doubtful(err):
			s.release(ctx, &c, Record{})
		case r.Won:
			s.release(ctx, &c, r)
		}
	})
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, guard.ErrTimeout), errors.Is(err, guard.ErrBusy), errors.Is(err, guard.ErrOpen):
		// The call returns later, or was never made.
	case errors.Is(err, usher.ErrClosed):
		// Nothing can be released any more.
	case doubtful(err):
		go s.release(ctx, &c, Record{})
	}
	return Record{}, fmt.Errorf("idempotency: claim the key: %w", err)
}

// doubtful reports whether a claim that failed with err may have taken effect. A reply that
// was meant for another call says nothing about this one.
func doubtful(err error) bool {
	for _, refusal := range []error{ErrLost, ErrOwnerFull, usher.ErrFull, usher.ErrCorrupt} {
		if errors.Is(err, refusal) {
			return errors.Is(err, errRecord)
		}
	}
	return err != nil
}

// lastReleasePause is the longest pause between two attempts to release a claim.
const lastReleasePause = time.Second

// release releases a claim whose request was refused; r is its record, or zero if the reply
// was lost. While the store is unavailable it
// tries again: a server that was silent for a moment executes the claim when it continues,
// and the client's retry would find the key taken. If there is no claim it tries once more,
// as that may come later than its release, on a connection that was given up. After the
// lease the key is free anyway.
func (s *remote) release(ctx context.Context, c *Claim, r Record) {
	deadline, again := time.Now().Add(c.Lease), true
	for pause := firstPause; ; pause = min(2*pause, lastReleasePause) {
		err := s.releases.Do(ctx, "release", func(ctx context.Context) error {
			_, err := twice(ctx, func() (State, error) {
				result, err := s.givenUp(ctx, c, r)
				if err != nil {
					return 0, err
				}
				return s.store.Finish(ctx, Completion{c.Key, c.Token, result})
			})
			return err
		})
		switch {
		case err == nil, errors.Is(err, ErrLost) && !again:
			return
		case errors.Is(err, ErrLost):
			again, pause = false, lastReleasePause
		case !errors.Is(err, usher.ErrUnavailable), time.Now().Add(pause).After(deadline):
			s.failures.Error(ctx, fmt.Errorf("idempotency: release a claim of a refused request: %w", err))
			return
		}
		time.Sleep(pause)
	}
}

// givenUp returns the result of a claim whose request has not run. That frees the key,
// unless the outcome of an earlier request has yet to be found out. If the record is not
// known, because the reply was lost, the claim is repeated.
func (s *remote) givenUp(ctx context.Context, c *Claim, r Record) (Result, error) {
	if s.resolves && !r.Won && !c.TakeUnknown {
		var err error
		if r, err = s.store.Claim(ctx, *c); err != nil {
			return Result{}, err
		}
		if !r.Won {
			return Result{}, ErrLost
		}
	}
	if c.TakeUnknown || s.resolves && r.TakenOver {
		return Result{State: StateUnknown, TTL: c.TTL}, nil
	}
	return Result{State: StateReleased, TTL: c.Lease}, nil
}

func (s *remote) Renew(ctx context.Context, claims []ClaimID, lease time.Duration) (lost []ClaimID, err error) {
	return guard.Call(context.WithoutCancel(ctx), s.renewals, "renew", func(ctx context.Context) ([]ClaimID, error) {
		return s.store.Renew(ctx, claims, lease)
	}, nil)
}

func (s *remote) Finish(ctx context.Context, c Completion) (kept State, err error) {
	return guard.Call(context.WithoutCancel(ctx), s.ends, "finish", func(ctx context.Context) (State, error) {
		return twice(ctx, func() (State, error) { return s.store.Finish(ctx, c) })
	}, nil)
}

// Find ends with ctx, as it changes nothing. A record that does not belong to the key is
// returned with the error.
func (s *remote) Find(ctx context.Context, key Key) (Record, error) {
	r, err := guard.Call(ctx, s.operations, "find", func(ctx context.Context) (Record, error) {
		return twice(ctx, func() (Record, error) { return s.store.Find(ctx, key) })
	}, nil)
	if err == nil {
		err = r.checkKey(&key)
	}
	if err != nil {
		return r, fmt.Errorf("idempotency: find the record: %w", err)
	}
	return r, nil
}

// Delete returns nil if a repeated call finds no record, since the first has removed it.
func (s *remote) Delete(ctx context.Context, key Key, generation uint64) error {
	err := s.operations.Do(context.WithoutCancel(ctx), "delete", func(ctx context.Context) error {
		calls := 0
		_, err := twice(ctx, func() (struct{}, error) {
			calls++
			return struct{}{}, s.store.Delete(ctx, key, generation)
		})
		if calls > 1 && errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("idempotency: delete the record: %w", err)
	}
	return nil
}

// twice calls f, and once more if the store was unavailable and time is left: a connection
// that has been reset is no reason to refuse a request. This is safe, because the token
// makes two calls one.
func twice[T any](ctx context.Context, f func() (T, error)) (T, error) {
	v, err := f()
	if errors.Is(err, usher.ErrUnavailable) && ctx.Err() == nil {
		return f()
	}
	return v, err
}

func (s *remote) Close() error { return s.store.Close() }
