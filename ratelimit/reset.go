package ratelimit

import (
	"context"
	"fmt"
	"slices"
)

// Reset forgets what keys have used, so that they are admitted at once: for support, or
// after a successful login. Keys are as for [Limiter.Allow]. Places of a [Concurrency]
// limit stay in use until their requests have ended.
//
// After a login, reset the name only. Anyone with one account could otherwise reset the
// limit of an address between guesses at other accounts. [Limiter.With] says how to have a
// limiter of the names alone.
//
// Reset applies to the store, and to what this process has counted while the store failed.
// It may be repeated. An error is that of the store, or one of the program for a wrong number
// of keys; [usher.Fail] responds to the first with 503.
func (l *Limiter) Reset(ctx context.Context, keys ...Key) error {
	if ctx.Err() != nil {
		return l.canceledError(ctx)
	}
	if err := l.accepts(keys); err != nil {
		return err
	}
	counters := make([]Counter, len(l.policies))
	for i, p := range l.policies {
		counters[i] = Counter{Policy: p.Name, Key: keys[min(i, len(keys)-1)]}
	}
	err := l.memory.Reset(ctx, counters)
	if l.shared != nil {
		err = l.shared.Reset(ctx, counters)
	}
	if err != nil {
		return l.unavailable(fmt.Errorf("ratelimit: reset: %w", err))
	}
	for i, p := range l.policies {
		if p.pacers != nil {
			p.pacers.forget(counters[i].Key)
		}
	}
	return nil
}

// Reset calls Reset of the store within the timeout, during an outage too. A call that has
// failed may have taken effect.
func (s *sharedStore) Reset(ctx context.Context, counters []Counter) error {
	return s.adjusts.Do(ctx, "reset", func(ctx context.Context) error {
		defer s.denials.forget()
		own := slices.Clone(counters)
		return attempt(ctx, func() error { return s.store.Reset(ctx, own) })
	})
}
