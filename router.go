package usher

import (
	"net/http"

	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/vary"
)

// NoteFailure is for adapters of routers whose handlers return errors: it notes that
// the handler of r has failed with err. The middlewares around r need it where err
// does not reach them as a response. Sent is the status that has been sent.
//
// If sent is 0, nobody has responded yet, and somebody further out may. Until then
// the request counts as failed with the status that [Fail] would give it: a rate
// limiter that refunds failures, for instance, refunds this one.
//
// If sent is the status of a success, the client is about to take a broken response
// for a whole one: the envelope aborts the connection, and no middleware keeps the
// response. If sent is the status of an error, the client knows already.
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

// PassesThrough is for adapters of routers whose handlers return errors: it reports
// whether w is the writer of a middleware that does not depend on the response, such as
// [Authenticate]. Other middlewares that have replaced the writer must see the response
// to an error before their next returns; for these an adapter may leave it to its
// router, and calls [NoteFailure].
func PassesThrough(w http.ResponseWriter) bool { return vary.Passes(w) }
