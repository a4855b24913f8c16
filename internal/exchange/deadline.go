package exchange

import "context"

// A Deadline is what a usher.Deadline puts into the context of a request.
type Deadline interface {
	// Missed returns the status with which the Deadline responds to a handler that
	// returns now without a response, or 0 if there is time left.
	Missed() int
}

type deadlineKey struct{}

// DeadlineKey is the key of the innermost Deadline in a context.
var DeadlineKey any = deadlineKey{}

// DeadlineOf returns the innermost Deadline of ctx, or nil.
func DeadlineOf(ctx context.Context) Deadline {
	d, _ := ctx.Value(DeadlineKey).(Deadline)
	return d
}
