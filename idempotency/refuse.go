package idempotency

import (
	"errors"
	"net/http"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

// refuse responds with err and counts the result.
func (m *Middleware) refuse(w http.ResponseWriter, r *http.Request, result int, key *Key, err error) {
	err = m.documented(w.Header(), err)
	m.note(r.Context(), result, key, 0, err)
	usher.Fail(w, r, err)
}

// refuseUnclaimed refuses a request whose claim failed with err.
func (m *Middleware) refuseUnclaimed(w http.ResponseWriter, r *http.Request, key *Key, err error) {
	switch {
	case errors.Is(err, ErrOwnerFull):
		m.refuse(w, r, refused, key, withRoomIn(m.refusals.tooMany, err))
	case unreadableRecord(err):
		m.refuseUnreadable(w, r, key, err)
	default:
		m.failures.Error(r.Context(), err)
		m.refuse(w, r, storeFailed, key, withRoomIn(unavailable(err), err))
	}
}

// withRoomIn returns refusal with the time after which there is room, if cause is a
// [FullError].
func withRoomIn(refusal *usher.Error, cause error) *usher.Error {
	full, ok := errors.AsType[*FullError](cause)
	if !ok || full.RetryAfter <= 0 {
		return refusal
	}
	later := *refusal
	later.RetryAfter = full.RetryAfter
	return &later
}

// unreadableRecord reports whether a claim failed with err because the record of its key
// cannot be read. After a reply that was meant for another call, the key can be claimed
// again.
func unreadableRecord(err error) bool {
	return errors.Is(err, usher.ErrCorrupt) && !errors.Is(err, errRecord)
}

// retryAfter is the Retry-After for a request in flight and for a failing store.
const retryAfter = time.Second

// refusals are the errors of a Middleware, made once.
type refusals struct {
	missing, invalid, unfit, slowBody, inProgress, reused, tooMany *usher.Error
	unknown, notKept                                               usher.Error
}

func newRefusals(header string) refusals {
	return refusals{
		missing: &usher.Error{
			Status: http.StatusBadRequest, Code: usher.CodeIdempotencyKeyMissing, Param: header,
			Message: "This request needs an idempotency key.",
		},
		invalid: &usher.Error{
			Status: http.StatusBadRequest, Code: usher.CodeIdempotencyKeyInvalid, Param: header,
			Message: "The idempotency key must be sent once and have 1 to 255 visible ASCII characters.",
		},
		unfit: &usher.Error{
			Status: http.StatusBadRequest, Code: usher.CodeIdempotencyKeyInvalid, Param: header,
			Message: "The idempotency key does not have the form that this service requires.",
		},
		slowBody: &usher.Error{
			Status: http.StatusRequestTimeout, Code: usher.CodeBodyTimeout,
			Message: "The request body did not arrive in time.",
		},
		inProgress: &usher.Error{
			Status: http.StatusConflict, Code: usher.CodeIdempotencyInProgress, Param: header, RetryAfter: retryAfter,
			Message: "A request with this idempotency key is still in progress.",
			Details: map[string]any{newKeySafe: false},
		},
		reused: &usher.Error{
			Status: http.StatusUnprocessableEntity, Code: usher.CodeIdempotencyKeyReused, Param: header,
			Message: "This idempotency key was used for another request.",
		},
		tooMany: &usher.Error{
			Status: http.StatusTooManyRequests, Code: usher.CodeIdempotencyTooManyKeys, Param: header,
			Message: "Too many idempotency keys are in use.",
		},
		unknown: usher.Error{
			Status: http.StatusConflict, Code: usher.CodeIdempotencyOutcomeUnknown, Param: header,
			Message: "The first request with this idempotency key failed, and may have had an effect. It is not repeated.",
		},
		notKept: usher.Error{
			Status: http.StatusConflict, Code: usher.CodeIdempotencyResponseNotKept, Param: header,
			Message: "The first request with this idempotency key was processed, but its response is no longer available.",
		},
	}
}

// newKeySafe is the member of each 409 that says whether the client may send its request
// again with a new key.
const newKeySafe = "new_key_safe"

// withStatus returns e for a first request that has ended with this status; 0 means that
// there was no response.
func withStatus(e *usher.Error, status int, safe bool) *usher.Error {
	own, details := *e, map[string]any{newKeySafe: safe}
	if status != 0 {
		details["original_status"] = status
	}
	own.Details = details
	return &own
}

// refusedByStatus reports whether a request with a final response of this status certainly
// had no effect. The statuses 408 and 499 say only that time ran out or that the client
// disconnected.
func refusedByStatus(status int) bool {
	return status >= 400 && status < usher.StatusClientClosedRequest && status != http.StatusRequestTimeout
}

func unavailable(cause error) *usher.Error {
	return &usher.Error{
		Status: http.StatusServiceUnavailable, Code: usher.CodeIdempotencyUnavailable, RetryAfter: retryAfter, Cause: cause,
		Message: "The idempotency key could not be checked. The request was not processed; please try again.",
	}
}

// errAnonymous is the cause of a refusal that OnResult gets: for the author of the service.
var errAnonymous = errors.New("idempotency: no principal, which this middleware needs further out: see Authenticate, or Config.Owner")

// anonymous returns the error for a caller that owns no keys.
func anonymous(r *http.Request) *usher.Error {
	e := &usher.Error{
		Status: http.StatusUnauthorized, Code: usher.CodeMissingCredential, Cause: errAnonymous,
		Message: "A request with an idempotency key needs a credential.",
	}
	if x := exchange.From(r.Context()); x != nil {
		if challenges := exchange.Challenges.Load(x); challenges != nil {
			e.Challenges = *challenges
		}
	}
	return e
}
