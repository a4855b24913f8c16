// Package guard bounds what foreign code can do to a request: calls of stores, which
// may hang, fail or panic, and callbacks, which may panic.
package guard

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher/internal/telemetry"
)

// A Guard bounds the calls of one store:
//
//   - A call ends within the timeout, even if the store ignores its context.
//   - A panic becomes an error.
//   - The number of calls that run or wait is limited, so that a store that hangs
//     cannot exhaust the process.
//   - While most calls fail, the guard is open: calls fail at once, except that one at a
//     time probes whether the store has recovered. One failure in a hundred calls never
//     opens it.
//
// The guard opens when at least 10 calls have ended within 2 seconds, and half of them
// have timed out or four in five have failed: under steady traffic at the latest 2
// seconds and a timeout after the outage has begun. An open guard calls the store once a
// second, and again at once if the client of such a call disconnects. It closes with the
// first success: at the latest with the first call that begins a second and a timeout
// after the store has recovered, unless the client of that call disconnects.
//
// A guarded call costs a goroutine. A store that waits for nothing outside the
// process needs no guard. A Guard is safe for concurrent use.
type Guard struct {
	timeout    time.Duration
	turns      chan struct{}
	waiting    atomic.Int64
	maxWaiting int64
	isResult   func(error) bool
	breaker    *breaker         // nil if the guard never opens
	durations  *telemetry.Timer // nil unless g is measured
}

// The errors of calls that have no result. They match [ErrUnavailable].
var (
	// ErrTimeout is returned if the store has not responded in time. The call may
	// still take effect.
	ErrTimeout error = unavailable("the store has not responded in time")
	// ErrBusy is returned if too many calls run or wait. The store was not called.
	ErrBusy error = unavailable("too many calls of the store are running or waiting")
	// ErrOpen is returned while the guard is open. The store was not called.
	ErrOpen error = unavailable("the store is not called, as most calls have failed")
)

// waitersPerCall is how many calls may wait for each that may run.
const waitersPerCall = 16

// New returns a Guard for a store whose calls may take up to timeout, and of which at
// most maxCalls may run at a time, those that hang included. Both must be above 0.
func New(timeout time.Duration, maxCalls int) *Guard {
	return &Guard{
		timeout:    timeout,
		turns:      make(chan struct{}, maxCalls),
		maxWaiting: waitersPerCall * int64(maxCalls),
		isResult:   func(error) bool { return false },
		breaker:    &breaker{timeout: timeout},
	}
}

// Results sets which errors are results, such as "not found": a store that returns one is
// working. [ErrCorrupt], [ErrFull] and [ErrClosed] always are results: the data of one key
// must not stop the calls for all other keys, and a store that was closed is not down. All
// other errors count as failures, so a client that can cause one at will, and sends four of
// five requests, can open the guard. Results returns g, and must be called before the first
// call.
func (g *Guard) Results(isResult func(error) bool) *Guard {
	g.isResult = isResult
	return g
}

// NeverOpen makes g call the store during an outage too. It is for calls that finish what
// an earlier call has begun: they cannot be made later, and their number is bounded by
// that of the earlier calls. It is also for callbacks whose errors clients may cause.
// NeverOpen returns g, and must be called before the first call.
func (g *Guard) NeverOpen() *Guard {
	g.breaker = nil
	return g
}

// Open reports whether the guard is open: most calls fail at once, and one probes the store.
func (g *Guard) Open() bool { return g.breaker != nil && g.breaker.isOpen() }

// Do calls f with a context that ends after the timeout, and returns its error.
// See [Call].
func (g *Guard) Do(ctx context.Context, operation string, f func(context.Context) error) error {
	_, err := Call(ctx, g, operation, func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) }, nil)
	return err
}

// Call calls f on a goroutine of its own, with a context that ends after the
// timeout of g, and returns what f returns. It waits for f no longer than this context
// lasts, and then returns [ErrTimeout], or the cause of the end of ctx. So f must not use
// memory that its caller reuses.
//
// While the maximum number of calls is running, Call waits for its turn, but no longer
// than half the timeout: a call that begins too late to succeed would only burden a slow
// store. It then returns [ErrBusy], at once if too many calls are waiting already. While
// g is open it returns [ErrOpen] at once.
//
// Timeouts, panics, and errors that are not results count as failures of the store. A
// call whose ctx ends before its timeout does not count, unless the cause is ErrTimeout,
// as several calls may have one timeout, or the deadline of ctx has ended it after a
// tenth of the timeout or more: where requests have less time than a call, nothing else
// shows that the store hangs. ErrBusy does not count: the calls that are running do.
//
// If late is not nil, it is called with the result of f when that comes after Call
// has returned. The name of the operation is used by guards that are [Guard.Measured].
func Call[T any](ctx context.Context, g *Guard, operation string, f func(context.Context) (T, error), late func(T, error)) (T, error) {
	if !g.durations.Enabled(ctx) {
		return admit(ctx, g, f, late)
	}
	began := time.Now()
	v, err := admit(ctx, g, f, late)
	g.durations.Record(ctx, began, operation, g.errorType(ctx, err))
	return v, err
}

// admit calls f if g is not open, and counts the outcome.
func admit[T any](ctx context.Context, g *Guard, f func(context.Context) (T, error), late func(T, error)) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	if g.breaker == nil {
		v, _, err := call(ctx, g, f, late)
		return v, err
	}
	permit, ok := g.breaker.admit()
	if !ok {
		return none, ErrOpen
	}
	v, began, err := call(ctx, g, f, late)
	g.breaker.done(permit, g.outcome(ctx, began, err))
	return v, err
}

// outcome returns what a call for ctx says about the store. Began is zero if the store
// was not called.
func (g *Guard) outcome(ctx context.Context, began time.Time, err error) outcome {
	cause := context.Cause(ctx) // nil if ctx has not ended
	switch {
	case err == nil, working(err), g.isResult(err) && (cause == nil || !errors.Is(err, cause)):
		return succeeded
	case cause != nil && !errors.Is(err, ErrTimeout) && !errors.Is(cause, ErrTimeout):
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && !began.IsZero() && time.Since(began) >= g.timeout/10 {
			return late
		}
		return unknown
	case errors.Is(err, ErrBusy):
		return busy
	case errors.Is(err, ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return late
	default:
		return failed
	}
}

// call calls f within the bounds of g, and returns when f began.
func call[T any](ctx context.Context, g *Guard, f func(context.Context) (T, error), late func(T, error)) (v T, began time.Time, err error) {
	var none T
	ctx, cancel := context.WithTimeoutCause(ctx, g.timeout, ErrTimeout)
	defer cancel()
	if err := g.enter(ctx); err != nil {
		return none, began, err
	}
	began = time.Now()
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
		// After the end of ctx there may be no receiver.
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
		return r.value, began, r.err
	case <-ctx.Done():
		return none, began, context.Cause(ctx)
	}
}

// enter waits for the turn of a call.
func (g *Guard) enter(ctx context.Context) error {
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

// A PanicError is a panic of foreign code. It unwraps to nothing: a store that panics
// with an error has not returned it.
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
