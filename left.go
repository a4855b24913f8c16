package usher

import (
	"context"
	"errors"

	"github.com/usher-go/usher/internal/exchange"
)

// StatusClientClosedRequest is the status of a request whose client disconnected before
// there was a response. It distinguishes such requests from faults of the server in logs
// and counters. It is in no RFC; nginx introduced it.
const StatusClientClosedRequest = 499

// isAbandoned reports whether work has failed with err because its client has disconnected.
func isAbandoned(ctx context.Context, err error) bool {
	return exchange.Left(ctx) && (errors.Is(err, context.Canceled) || isInterrupted(err))
}

// abandonedBy returns the error for a request whose client has disconnected.
func abandonedBy(err error) *Error {
	return &Error{
		Status:  StatusClientClosedRequest,
		Code:    CodeClientClosedRequest,
		Message: "The client has closed the request.",
		Cause:   err,
	}
}
