package exchange

import (
	"context"
	"net/http"
)

// shadowed is the key of a context value that marks a request that a middleware in Shadow
// would have refused.
type shadowed struct{}

// Shadow returns a copy of r that is marked as one that would have been refused.
func Shadow(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), shadowed{}, true))
}

// Shadowed reports whether a middleware in Shadow would have refused the request with this
// context. What is inside such a middleware then refuses nothing for lack of a principal,
// and reports nothing that would not have happened.
func Shadowed(ctx context.Context) bool { return ctx.Value(shadowed{}) != nil }
