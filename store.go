package usher

import (
	"context"

	"github.com/usher-go/usher/internal/guard"
)

// The errors of all stores, whatever they keep and wherever they keep it. A store wraps
// them, so test for them with [errors.Is]. The text of such an error is for operators: it
// is never sent to a client.
var (
	// ErrUnavailable means that a store could not be reached, did not respond in time, or
	// could not accept the call now. The call may or may not have taken effect. The same
	// call may succeed later.
	ErrUnavailable = guard.ErrUnavailable
	// ErrCorrupt means that stored data cannot be read, or belongs to something else. The
	// call has changed nothing. It fails again until an operator has removed or repaired
	// the data; calls for other keys are not affected.
	ErrCorrupt = guard.ErrCorrupt
	// ErrFull means that a store has no room for new data. The call has changed nothing.
	// Data that is stored already can still be read.
	ErrFull = guard.ErrFull
	// ErrClosed means that a store was closed before the call ended.
	ErrClosed = guard.ErrClosed
	// ErrSchema means that a store was set up by another version of its package, or not
	// at all. The call has changed nothing.
	ErrSchema = guard.ErrSchema
)

// A Checker reports whether it can do its work. Health checks call it. Stores on a server
// are Checkers.
type Checker interface {
	// Check returns nil, or an error that an operator can act on: its text names the fault
	// and the setting or server to change. Check returns when ctx ends.
	Check(ctx context.Context) error
}
