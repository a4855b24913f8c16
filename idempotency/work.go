package idempotency

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrDisconnected is the cause for which the context of a request with a key ends
// when its client has gone and [Config.DisconnectTimeout] has passed since.
var ErrDisconnected = errors.New("idempotency: the client has gone, and the time for its request is over")

// A workContext is the context of a request that runs with its key. It has the
// values and the deadline of the request's own context, but goes on for a while
// when that is canceled, which is how a server says that the client has gone: the
// retry of that client is to get the response.
//
// Few handlers wait for the end of their context, so what that takes is made when
// somebody first asks for it. It costs no goroutine while the client is there.
type workContext struct {
	outer context.Context // of the request as it came
	grace time.Duration

	// own is the context that ends. It is nil until somebody looks at its end.
	own atomic.Pointer[ownContext]

	mu    sync.Mutex
	bound bool // to the client, as its response passes by
	over  bool // as the handler has returned
}

// An ownContext is a context that a workContext can end.
type ownContext struct {
	context.Context
	cancel context.CancelCauseFunc
	stop   func() bool // stop waiting for the end of the outer one
	timer  *time.Timer // once that has ended
}

func (c *workContext) init(outer context.Context, grace time.Duration) {
	c.outer, c.grace = outer, grace
}

// Deadline returns the deadline of the request's own context: whoever has set one
// still ends the work.
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

// Value returns the outer context's value. Package context also asks it for what
// ends a context, which must not be the outer one's once that has ended.
func (c *workContext) Value(key any) any {
	if own := c.own.Load(); own != nil {
		return own.Value(key)
	}
	value := c.outer.Value(key)
	if c.outer.Err() != nil {
		return c.ending().Value(key)
	}
	return value
}

// ending returns the context that ends, and makes it if there is none yet.
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
		c.left(own)
	default:
		own.stop = context.AfterFunc(c.outer, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.left(own)
		})
	}
	c.own.Store(own)
	return own
}

// left is called when the outer context has ended. It needs c.mu.
func (c *workContext) left(own *ownContext) {
	_, deadline := c.outer.Deadline()
	switch expired := errors.Is(c.outer.Err(), context.DeadlineExceeded); {
	case c.over, expired && deadline:
		// It has ended, or ends by the same deadline.
	case expired, c.bound:
		own.cancel(context.Cause(c.outer))
	case own.timer == nil:
		own.timer = time.AfterFunc(c.grace, func() { own.cancel(ErrDisconnected) })
	}
}

// deserted reports whether nobody waits for a response any more: the client has
// gone, or the time is over.
func (c *workContext) deserted() bool {
	own := c.own.Load()
	return c.outer.Err() != nil || own != nil && own.Err() != nil
}

// bind lets the context end with the client again.
func (c *workContext) bind() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bound = true
	if own := c.own.Load(); own != nil && c.outer.Err() != nil {
		c.left(own)
	}
}

// end ends the context as the handler has returned.
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
