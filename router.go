package usher

import (
	"net/http"

	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/vary"
)

// NoteFailure records that the handler of r has failed with err, if the middlewares
// around the handler do not see the failure as a response. It is for adapters of routers
// whose handlers return errors. Sent is the status that has been sent, or 0.
//
// If sent is 0, there is no response yet, and an outer handler may still write one. Until
// then the request counts as failed with the status that [Fail] would give it: a rate
// limiter that refunds failures, for instance, refunds this one.
//
// If sent is the status of a success, the client would mistake a broken response for a
// complete one, so the envelope aborts the connection, and no middleware stores the
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

// PassesThrough reports whether w unwraps to outer through nothing but the writers of
// middlewares that do not depend on the response, such as [Authenticate]. It is for
// adapters of routers whose handlers return errors: outer is the writer that the adapter
// passed to a middleware or a [Chain], and w is the writer that the adapter's next
// handler received. Any other middleware in between must see the response to an error
// before its next returns. If PassesThrough returns true, the adapter may leave the
// response to the router, and calls [NoteFailure].
func PassesThrough(w, outer http.ResponseWriter) bool { return vary.Passes(w, outer) }
