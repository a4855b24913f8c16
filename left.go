package usher

import (
	"context"
	"errors"
	"reflect"
	"slices"

	"github.com/usher-go/usher/internal/exchange"
)

// StatusClientClosedRequest is the status of a request whose client disconnected before
// there was a response. It distinguishes such requests from faults of the server in logs
// and counters. It is in no RFC; nginx introduced it.
const StatusClientClosedRequest = 499

// isAbandoned reports whether work has failed with err because its client has disconnected.
func isAbandoned(ctx context.Context, err error) bool {
	return exchange.Left(ctx) && isCanceled(err)
}

// joined is the type of the errors of errors.Join.
var joined = reflect.TypeOf(errors.Join(context.Canceled))

// isCanceled reports whether err only means that work was canceled. Errors that are joined
// are failures of their own, while those that fmt.Errorf wraps describe one failure.
func isCanceled(err error) bool {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		if reflect.TypeOf(inner) == joined {
			list := inner.(interface{ Unwrap() []error }).Unwrap()
			return !slices.ContainsFunc(list, func(e error) bool { return !isCanceled(e) })
		}
	}
	return errors.Is(err, context.Canceled) || isInterrupted(err)
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
