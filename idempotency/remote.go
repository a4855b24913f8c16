package idempotency

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// remote is a store that may fail, hang or panic. Its calls end within the
// timeout, whatever the store does, and go on when the client has gone: a claim
// that nobody waits for is given back.
type remote struct {
	store   Store
	timeout time.Duration
	stuck   atomic.Int32 // calls that go on beyond their time
}

// maxStuck bounds how many goroutines a store that hangs can keep. Once as many
// are stuck, calls fail at once until some return.
const maxStuck = 64

var (
	errSlow  = errors.New("idempotency: the store has not answered in time")
	errStuck = errors.New("idempotency: too many calls of the store hang")
)

func (s *remote) Claim(ctx context.Context, c Claim) (Record, error) {
	r, err := call(ctx, s, func(ctx context.Context) (Record, error) {
		r, err := s.store.Claim(ctx, c)
		if err == nil {
			err = r.check(&c)
		}
		return r, err
	},
		func(r Record, err error) {
			if r.Won || doubtful(err) {
				s.release(ctx, &c)
			}
		})
	if doubtful(err) && !errors.Is(err, errSlow) && !errors.Is(err, errStuck) {
		go s.release(ctx, &c)
	}
	return r, err
}

// doubtful reports whether a claim that failed with err may have been made.
func doubtful(err error) bool {
	return err != nil && !errors.Is(err, ErrLost) && !errors.Is(err, ErrOwnerFull) && !errors.Is(err, ErrFull)
}

// release gives back a claim that nobody waits for. If that fails its lease ends.
func (s *remote) release(ctx context.Context, c *Claim) {
	_ = s.Finish(ctx, c.Key, c.Token, Result{State: Released, Life: c.Lease})
}

func (s *remote) Renew(ctx context.Context, key Key, token Token, lease time.Duration) error {
	_, err := call(ctx, s, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.store.Renew(ctx, key, token, lease)
	}, nil)
	return err
}

func (s *remote) Finish(ctx context.Context, key Key, token Token, r Result) error {
	_, err := call(ctx, s, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.store.Finish(ctx, key, token, r)
	}, nil)
	return err
}

// call runs f for at most the timeout. If f goes on for longer, late, if not
// nil, is called with its result.
func call[T any](ctx context.Context, s *remote, f func(context.Context) (T, error), late func(T, error)) (T, error) {
	var none T
	if s.stuck.Load() >= maxStuck {
		return none, errStuck
	}
	type reply struct {
		value T
		err   error
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
	defer cancel()
	replies := make(chan reply, 1)
	var decided atomic.Bool // who comes first decides: the reply or the time
	go func() {
		var r reply
		defer func() {
			if v := recover(); v != nil {
				r.err = fmt.Errorf("idempotency: the store panicked: %v", v)
			}
			if decided.CompareAndSwap(false, true) {
				replies <- r
				return
			}
			s.stuck.Add(-1)
			if late != nil {
				late(r.value, r.err)
			}
		}()
		r.value, r.err = f(ctx)
	}()
	select {
	case r := <-replies:
		return r.value, r.err
	case <-ctx.Done():
	}
	s.stuck.Add(1)
	if decided.CompareAndSwap(false, true) {
		return none, errSlow
	}
	s.stuck.Add(-1)
	r := <-replies
	return r.value, r.err
}
