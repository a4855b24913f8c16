// Package faulty makes a test's store misbehave as stores in other processes do.
package faulty

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// ErrStore is the error of a call that fails.
var ErrStore = errors.New("faulty: the store has failed")

// A Fault decides what happens to the nth call of a store, counted from 1. A test's store
// calls it before the real one, and returns its error if that is not nil.
type Fault func(ctx context.Context, n int64) error

// Calls counts the calls of a store and lets them misbehave. It is safe for
// concurrent use; the zero value lets all calls pass.
type Calls struct {
	fault atomic.Pointer[Fault]
	n     atomic.Int64
}

// Set sets the fault of later calls, which are counted from 1 again. Nil lets them pass.
func (c *Calls) Set(f Fault) {
	c.n.Store(0)
	c.fault.Store(&f)
}

// N returns how many calls there were since Set.
func (c *Calls) N() int64 { return c.n.Load() }

// Call is one call: it may fail, panic or take its time.
func (c *Calls) Call(ctx context.Context) error {
	n := c.n.Add(1)
	if f := c.fault.Load(); f != nil && *f != nil {
		return (*f)(ctx, n)
	}
	return nil
}

// Fail fails every call.
func Fail(context.Context, int64) error { return ErrStore }

// Panic panics in every call.
func Panic(context.Context, int64) error { panic("faulty: the store panics") }

// Late lets a call pass after d, even if its context ends before: the store ignores the
// context, and the call takes effect when nobody waits any more.
func Late(d time.Duration) Fault {
	return func(context.Context, int64) error {
		time.Sleep(d)
		return nil
	}
}

// Every applies f to each nth call, and lets the others pass.
func Every(n int64, f Fault) Fault {
	return func(ctx context.Context, i int64) error {
		if i%n != 0 {
			return nil
		}
		return f(ctx, i)
	}
}

// For applies f to the calls of the next d, and then lets all pass.
func For(d time.Duration, f Fault) Fault {
	end := time.Now().Add(d)
	return func(ctx context.Context, n int64) error {
		if !time.Now().Before(end) {
			return nil
		}
		return f(ctx, n)
	}
}
