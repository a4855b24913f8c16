package idempotency

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/usher-go/usher/internal/guard"
)

// remote is a store that may fail, hang or panic. Its calls end within
// [Config.StoreTimeout], whatever the store does, and go on when the client has
// gone: a claim that nobody waits for is given back.
type remote struct {
	store  Store
	claims *guard.Guard
	// Those that have a key must be able to renew and finish it, however many ask
	// for another.
	ends *guard.Guard
}

// maxCalls is how many calls of each of the two kinds a store has to bear at a
// time, those that hang included.
const maxCalls = 64

func newRemote(store Store, timeout time.Duration) *remote {
	return &remote{
		store:  store,
		claims: guard.New(timeout, maxCalls).Results(func(err error) bool { return !doubtful(err) }),
		ends:   guard.New(timeout, maxCalls).NeverOpen(),
	}
}

func (s *remote) Claim(ctx context.Context, c Claim) (Record, error) {
	ctx = context.WithoutCancel(ctx)
	r, err := guard.Call(ctx, s.claims, func(ctx context.Context) (Record, error) {
		r, err := s.store.Claim(ctx, c)
		if err == nil {
			err = r.check(&c)
		}
		return r, err
	}, func(r Record, err error) {
		if r.Won || doubtful(err) {
			s.giveBack(ctx, &c)
		}
	})
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, guard.ErrTimeout), errors.Is(err, guard.ErrBusy), errors.Is(err, guard.ErrOpen):
		// The call has a result of its own later, or was never made.
	case doubtful(err):
		go s.giveBack(ctx, &c)
	}
	return Record{}, fmt.Errorf("idempotency: claim the key: %w", err)
}

// doubtful reports whether a claim that failed with err may have been made.
func doubtful(err error) bool {
	return err != nil && !errors.Is(err, ErrLost) && !errors.Is(err, ErrOwnerFull) && !errors.Is(err, ErrFull)
}

// giveBack gives back a claim that nobody waits for. If that fails its lease ends.
func (s *remote) giveBack(ctx context.Context, c *Claim) {
	_ = s.claims.Do(ctx, func(ctx context.Context) error {
		return s.store.Finish(ctx, c.Key, c.Token, Result{State: StateReleased, TTL: c.Lease})
	})
}

func (s *remote) Renew(ctx context.Context, key Key, token Token, lease time.Duration) error {
	return s.ends.Do(context.WithoutCancel(ctx), func(ctx context.Context) error {
		return s.store.Renew(ctx, key, token, lease)
	})
}

func (s *remote) Finish(ctx context.Context, key Key, token Token, r Result) error {
	return s.ends.Do(context.WithoutCancel(ctx), func(ctx context.Context) error {
		return s.store.Finish(ctx, key, token, r)
	})
}
