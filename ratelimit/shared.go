package ratelimit

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// errDown is what a shared store answers while it is left alone.
var errDown = errors.New("ratelimit: store is down")

// sharedStore is a store that may fail. After a failure it is left alone for a
// while, and then one request tries it: an outage costs one request in a while
// its timeout, and not all of them, and recovery meets no stampede.
type sharedStore struct {
	Store
	timeout time.Duration
	// retry is when to try again, in nanoseconds since 1970; 0 while all is well.
	retry atomic.Int64
}

const retryInterval = time.Second

// Take implements Store within the timeout.
func (s *sharedStore) Take(ctx context.Context, charges []Charge) (admitted bool, err error) {
	if at := s.retry.Load(); at != 0 {
		now := time.Now().UnixNano()
		if now < at || !s.retry.CompareAndSwap(at, now+int64(retryInterval)) {
			return false, errDown
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	admitted, err = s.Store.Take(ctx, charges)
	s.note(err)
	return admitted, err
}

// Adjust implements Store within the timeout. It tries also while the store is
// left alone: what is not given back now is lost.
func (s *sharedStore) Adjust(ctx context.Context, charges []Charge) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := s.Store.Adjust(ctx, charges)
	s.note(err)
	return err
}

// note notes how a call has ended.
func (s *sharedStore) note(err error) {
	switch {
	case err == nil:
		s.retry.Store(0)
	case !errors.Is(err, context.Canceled):
		// A client that has gone says nothing about the store.
		s.retry.Store(time.Now().UnixNano() + int64(retryInterval))
	}
}
