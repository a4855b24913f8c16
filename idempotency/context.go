package idempotency

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// ErrDisconnected is the cause if the context of a request with a key ends because
// [Config.DisconnectTimeout] has passed since its client disconnected.
var ErrDisconnected = fmt.Errorf("idempotency: the client has disconnected, and the time for its request is over: %w", context.Canceled)

// A workContext is the context of a request that is executed with its key. It has the
// values and the deadline of the request's own context. The server cancels that context
// when the client disconnects; the workContext outlives it for a while, so that the
// client's retry gets the response.
//
// Few handlers wait for the end of their context, so waiting is set up on demand. It
// costs no goroutine while the client is connected.
type workContext struct {
	outer context.Context // of the request as it arrived
	grace time.Duration

	// execution is that whose handler has the context. It is nil before the handler runs.
	execution atomic.Pointer[Execution]

	// own is the context that ends. It is nil until it is needed.
	own atomic.Pointer[ownContext]

	mu    sync.Mutex
	bound bool // to the client, as its response is not stored
	over  bool // the handler has returned
}

// An ownContext is a context that a workContext can end.
type ownContext struct {
	context.Context
	cancel context.CancelCauseFunc
	stop   func() bool // waiting for the end of the outer context
	timer  *time.Timer // runs once that has ended
}

func (c *workContext) init(outer context.Context, grace time.Duration) {
	c.outer, c.grace = outer, grace
}

// executionKey is the key of the Execution in a workContext.
type executionKey struct{}

// Deadline returns the deadline of the request's own context, which still ends the
// work.
func (c *workContext) Deadline() (time.Time, bool) { return c.outer.Deadline() }

func (c *workContext) Done() <-chan struct{} { return c.ending().Done() }

func (c *workContext) Err() error {
	if own := c.own.Load(); own != nil {
		return own.Err()
	}
	c.mu.Lock()
	running := !c.over && c.outer.Err() == nil
	c.mu.Unlock()
	if running {
		return nil
	}
	return c.ending().Err()
}

// Value returns the value of the outer context. Package context also calls it to find
// the context that cancels this one, which must not be the outer one once that has
// ended.
func (c *workContext) Value(key any) any {
	if key == (any)(executionKey{}) {
		return c.execution.Load()
	}
	if own := c.own.Load(); own != nil {
		return own.Value(key)
	}
	value := c.outer.Value(key)
	if c.outer.Err() != nil {
		return c.ending().Value(key)
	}
	return value
}

// ending returns the own context of c. The first call makes it.
func (c *workContext) ending() *ownContext {
	if own := c.own.Load(); own != nil {
		return own
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if own := c.own.Load(); own != nil {
		return own
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(c.outer))
	own := &ownContext{Context: ctx, cancel: cancel}
	if deadline, ok := c.outer.Deadline(); ok {
		var stop context.CancelFunc
		own.Context, stop = context.WithDeadline(ctx, deadline)
		own.cancel = func(cause error) {
			cancel(cause)
			stop()
		}
	}
	switch {
	case c.over:
		own.cancel(nil)
	case c.outer.Err() != nil:
		c.disconnect(own)
	default:
		own.stop = context.AfterFunc(c.outer, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.disconnect(own)
		})
	}
	c.own.Store(own)
	return own
}

// disconnect is called when the outer context has ended. The caller holds c.mu.
func (c *workContext) disconnect(own *ownContext) {
	_, deadline := c.outer.Deadline()
	switch expired := errors.Is(c.outer.Err(), context.DeadlineExceeded); {
	case c.over, expired && deadline:
		// The handler has returned, or the own context ends at the same deadline.
	case expired, c.bound:
		own.cancel(context.Cause(c.outer))
	case own.timer == nil:
		own.timer = time.AfterFunc(c.grace, func() { own.cancel(ErrDisconnected) })
	}
}

// deserted reports whether the client has disconnected or time has run out.
func (c *workContext) deserted() bool {
	own := c.own.Load()
	return c.outer.Err() != nil || own != nil && own.Err() != nil
}

// bind makes the context end when the client disconnects.
func (c *workContext) bind() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bound = true
	if own := c.own.Load(); own != nil && c.outer.Err() != nil {
		c.disconnect(own)
	}
}

// end ends the context after the handler has returned.
func (c *workContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	own := c.own.Load()
	if own == nil {
		return
	}
	if own.stop != nil {
		own.stop()
	}
	if own.timer != nil {
		own.timer.Stop()
	}
	own.cancel(nil)
}
