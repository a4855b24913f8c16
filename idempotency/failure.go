package idempotency

import (
	"errors"
	"net/http"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

// retryAfter is how long to wait for a request in progress or a store that fails.
const retryAfter = time.Second

// failures are the answers of a Middleware, made once.
type failures struct {
	missing, invalid, slowBody, inProgress, reused, tooMany *usher.Error
	unknown, notKept                                        usher.Error
}

func newFailures(header string) failures {
	return failures{
		missing: &usher.Error{
			Status: http.StatusBadRequest, Code: usher.CodeIdempotencyKeyMissing, Param: header,
			Message: "This request needs an idempotency key.",
		},
		invalid: &usher.Error{
			Status: http.StatusBadRequest, Code: usher.CodeIdempotencyKeyInvalid, Param: header,
			Message: "The idempotency key must be sent once and have 1 to 255 visible ASCII characters.",
		},
		slowBody: &usher.Error{
			Status: http.StatusRequestTimeout, Code: usher.CodeBodyTimeout,
			Message: "The request body did not arrive in time.",
		},
		inProgress: &usher.Error{
			Status: http.StatusConflict, Code: usher.CodeIdempotencyInProgress, Param: header, RetryAfter: retryAfter,
			Message: "A request with this idempotency key is still in progress.",
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
			Message: "The first request with this idempotency key was processed, but its answer is no longer available.",
		},
	}
}

// withStatus returns e with the status that the first request was answered with.
func (*failures) withStatus(e *usher.Error, status int) *usher.Error {
	own := *e
	if status != 0 {
		own.Details = map[string]any{"original_status": status}
	}
	return &own
}

// unreadable returns the answer for a record that cannot be read. Another
// process, of the version that wrote it, may be able to.
func (*failures) unreadable(cause error) *usher.Error {
	e := &usher.Error{
		Status: http.StatusInternalServerError, Code: usher.CodeIdempotencyRecordUnreadable, Cause: cause,
		Message: "The answer to the first request with this idempotency key could not be read.",
	}
	if errors.Is(cause, errVersion) {
		e.Status, e.RetryAfter = http.StatusServiceUnavailable, retryAfter
	}
	return e
}

func (*failures) unavailable(cause error) *usher.Error {
	return &usher.Error{
		Status: http.StatusServiceUnavailable, Code: usher.CodeIdempotencyUnavailable, RetryAfter: retryAfter, Cause: cause,
		Message: "The idempotency key could not be checked. The request was not processed; please try again.",
	}
}

// anonymous returns the answer for a caller that has no scope for keys.
func anonymous(r *http.Request) *usher.Error {
	e := &usher.Error{
		Status: http.StatusUnauthorized, Code: usher.CodeMissingCredential,
		Message: "An idempotency key needs a credential beside it.",
	}
	if x := exchange.From(r.Context()); x != nil {
		if challenges := exchange.Challenges.Load(x); challenges != nil {
			e.Challenges = *challenges
		}
	}
	return e
}
