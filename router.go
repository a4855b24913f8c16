package usher

import (
	"net/http"

	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/vary"
)

// NoteFailure records that the handler of r has failed with err, where that does not
// reach the middlewares around it as a response. It is for adapters of routers whose
// handlers return errors. Sent is the status that has been sent, or 0.
//
// If sent is 0, there is no response yet, and a handler further out may still write
// one. Until then the request counts as failed with the status that [Fail] would give
// it: a rate limiter that refunds failures, for instance, refunds this one.
//
// If sent is the status of a success, the client would take a broken response
// for a whole one: the envelope aborts the connection, and no middleware stores the
// response. If sent is the status of an error, nothing needs to be recorded.
func NoteFailure(r *http.Request, sent int, err error) {
	x := exchange.From(r.Context())
	switch {
	case x == nil || err == nil:
	case sent == 0:
		x.Failed(asError(r.Context(), err).status())
	case sent < http.StatusBadRequest:
		x.Break(err)
	}
}

// PassesThrough reports whether between w and outer, which it leads to, are only the
// writers of middlewares that do not depend on the response, such as [Authenticate]. It
// is for adapters of routers whose handlers return errors: outer is the writer that the
// adapter has given to a middleware or a [Chain], and w the one that its next got. Any
// other middleware in between must see the response to an error before its next returns.
// If PassesThrough is true, the adapter may leave the response to the router, and calls
// [NoteFailure].
func PassesThrough(w, outer http.ResponseWriter) bool { return vary.Passes(w, outer) }
