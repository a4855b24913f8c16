package exchange

import (
	"context"
	"errors"
)

// Left reports whether the client of a request with this context has disconnected. Only
// then does net/http cancel the context of a request without a cause: the errors of
// signal.NotifyContext and others, with which a server that shuts down ends its base context,
// are causes, even if they match [context.Canceled]. Nor does the client leave if a handler
// cancels a context that it has derived from that of the request.
func Left(ctx context.Context) bool {
	if !errors.Is(context.Cause(ctx), context.Canceled) {
		return false
	}
	if x := From(ctx); x != nil {
		ctx = x.Context
	}
	return context.Cause(ctx) == context.Canceled //nolint:errorlint // see above
}
