// Package guard bounds what the code of others may cost: calls of stores, which
// may hang, fail or panic, and callbacks, which may panic.
package guard

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// A Guard bounds the calls of one store. A call ends within the timeout also if
// the store ignores its context, a panic becomes an error, and at most so many
// calls run and wait at a time that a store that hangs cannot exhaust the process.
// It is safe for concurrent use.
//
// A guarded call costs a goroutine. A store that waits for nothing outside the
// process needs no guard.
type Guard struct {
	timeout    time.Duration
	turns      chan struct{}
	waiting    atomic.Int64
	maxWaiting int64
}

// The errors of calls that the guard has given up.
var (
	// ErrTimeout says that the store has not responded in time. The call may still
	// take effect.
	ErrTimeout = errors.New("the store has not responded in time")
	// ErrBusy says that too many calls run or wait. The store was not called.
	ErrBusy = errors.New("too many calls of the store are running or waiting")
)

// waitersPerCall is how many calls may wait for each that may run.
const waitersPerCall = 16

// New returns a Guard for a store of which each call may take timeout and at most
// maxCalls may run at a time, those that hang included. Both are above 0.
func New(timeout time.Duration, maxCalls int) *Guard {
	return &Guard{
		timeout:    timeout,
		turns:      make(chan struct{}, maxCalls),
		maxWaiting: waitersPerCall * int64(maxCalls),
	}
}

// Do calls f with a context that ends after the timeout, and returns its error.
// See [Call].
func (g *Guard) Do(ctx context.Context, f func(context.Context) error) error {
	_, err := Call(ctx, g, func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) }, nil)
	return err
}

// Call calls f on a goroutine of its own, with a context that ends after the
// timeout of g, and returns what f returns. It does not wait for f any longer than
// its context lasts, and then returns [ErrTimeout], or the cause for which ctx has
// ended. So f must not use memory that its caller uses again.
//
// While as many calls are running as may, Call waits for its turn, but no longer
// than half the timeout: a call that begins too late to succeed would only burden
// a slow store. It then returns [ErrBusy], and does so at once when too many are
// waiting already.
//
// If late is not nil, it is called with the result of f when that comes after Call
// has returned.
func Call[T any](ctx context.Context, g *Guard, f func(context.Context) (T, error), late func(T, error)) (T, error) {
	var none T
	ctx, cancel := context.WithTimeoutCause(ctx, g.timeout, ErrTimeout)
	defer cancel()
	if err := g.enter(ctx); err != nil {
		return none, err
	}
	type result struct {
		value T
		err   error
	}
	results := make(chan result)
	go func() {
		var r result
		r.err = Run(func() (err error) {
			defer g.leave()
			r.value, err = f(ctx)
			return err
		})
		// After the end of ctx nobody may be receiving.
		select {
		case results <- r:
		case <-ctx.Done():
			if late != nil {
				late(r.value, r.err)
			}
		}
	}()
	select {
	case r := <-results:
		return r.value, r.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// enter waits for the turn of a call.
func (g *Guard) enter(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case g.turns <- struct{}{}:
		return nil
	default:
	}
	defer g.waiting.Add(-1)
	if g.waiting.Add(1) > g.maxWaiting {
		return ErrBusy
	}
	patience := time.NewTimer(g.timeout / 2)
	defer patience.Stop()
	select {
	case g.turns <- struct{}{}:
		return nil
	case <-patience.C:
		return ErrBusy
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g *Guard) leave() { <-g.turns }

// A PanicError is a panic of code that is not ours. It unwraps to nothing: a store
// that panics with an error has not returned it.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Run calls f, and returns its error or a [*PanicError].
func Run(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}
