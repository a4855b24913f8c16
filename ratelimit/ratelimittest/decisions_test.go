package ratelimittest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
)

// A bubble runs functions in a synctest bubble, for a caller outside it.
type bubble struct {
	run  chan func()
	done chan struct{}
}

func newBubble(t *testing.T) bubble {
	b := bubble{make(chan func()), make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		synctest.Test(t, func(*testing.T) {
			for f := range b.run {
				f()
				b.done <- struct{}{}
			}
		})
	}()
	t.Cleanup(func() {
		close(b.run)
		<-ended
	})
	return b
}

// do runs f in the bubble, whose time it is then.
func (b bubble) do(f func()) {
	b.run <- f
	<-b.done
}

func (b bubble) setClock(to time.Time) { b.do(func() { time.Sleep(time.Until(to)) }) }

func TestAMemoryDecidesAsAMemory(t *testing.T) {
	ratelimittest.TestDecisions(t, func(testing.TB) (ratelimit.Store, func(time.Time)) {
		b := newBubble(t)
		var m ratelimit.Store
		b.do(func() { m = newMemory() })
		return inBubble{b, m}, b.setClock
	})
}

// An inBubble is a store that is called in a bubble.
type inBubble struct {
	bubble
	store ratelimit.Store
}

func (s inBubble) Take(ctx context.Context, d *ratelimit.Decision) (err error) {
	s.do(func() { err = s.store.Take(ctx, d) })
	return err
}

func (s inBubble) Adjust(ctx context.Context, d *ratelimit.Decision) (err error) {
	s.do(func() { err = s.store.Adjust(ctx, d) })
	return err
}

func (s inBubble) Renew(ctx context.Context, places []ratelimit.Place, lease time.Duration) (lost []ratelimit.Place, err error) {
	s.do(func() { lost, err = s.store.Renew(ctx, places, lease) })
	return lost, err
}

func (s inBubble) Close() error { return s.store.Close() }
