package idempotency

import (
	"errors"
	"net/http"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

// The codes of the failures that this package reports, beside
// [usher.CodePayloadTooLarge] for a body above [Config.MaxBody] and
// [usher.CodeMissingCredential] for a caller without a principal.
const (
	CodeKeyMissing       = "idempotency_key_missing"       // 400: the route requires a key
	CodeKeyInvalid       = "idempotency_key_invalid"       // 400: not one field with 1 to 255 visible ASCII characters
	CodeBodyUnreadable   = "body_unreadable"               // 400: the body did not arrive whole
	CodeBodyTimeout      = "body_timeout"                  // 408: the body did not arrive in time
	CodeInProgress       = "idempotency_in_progress"       // 409: the first request is running; try again
	CodeOutcomeUnknown   = "idempotency_outcome_unknown"   // 409: the first request may have had an effect; do not try again
	CodeAnswerNotKept    = "idempotency_answer_not_kept"   // 409: the first request ran, and its answer cannot be had again
	CodeKeyReused        = "idempotency_key_reused"        // 422: the first request was another
	CodeTooManyKeys      = "idempotency_too_many_keys"     // 429: the caller has as many keys as it may have
	CodeRecordUnreadable = "idempotency_record_unreadable" // 500 or 503: what the store has cannot be read
	CodeUnavailable      = "idempotency_unavailable"       // 503: the store fails
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
			Status: http.StatusBadRequest, Code: CodeKeyMissing, Param: header,
			Message: "This request needs an idempotency key.",
		},
		invalid: &usher.Error{
			Status: http.StatusBadRequest, Code: CodeKeyInvalid, Param: header,
			Message: "The idempotency key must be sent once and have 1 to 255 visible ASCII characters.",
		},
		slowBody: &usher.Error{
			Status: http.StatusRequestTimeout, Code: CodeBodyTimeout,
			Message: "The request body did not arrive in time.",
		},
		inProgress: &usher.Error{
			Status: http.StatusConflict, Code: CodeInProgress, Param: header, RetryAfter: retryAfter,
			Message: "A request with this idempotency key is still in progress.",
		},
		reused: &usher.Error{
			Status: http.StatusUnprocessableEntity, Code: CodeKeyReused, Param: header,
			Message: "This idempotency key was used for another request.",
		},
		tooMany: &usher.Error{
			Status: http.StatusTooManyRequests, Code: CodeTooManyKeys, Param: header,
			Message: "Too many idempotency keys are in use.",
		},
		unknown: usher.Error{
			Status: http.StatusConflict, Code: CodeOutcomeUnknown, Param: header,
			Message: "The first request with this idempotency key failed, and may have had an effect. It is not repeated.",
		},
		notKept: usher.Error{
			Status: http.StatusConflict, Code: CodeAnswerNotKept, Param: header,
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
		Status: http.StatusInternalServerError, Code: CodeRecordUnreadable, Cause: cause,
		Message: "The answer to the first request with this idempotency key could not be read.",
	}
	if errors.Is(cause, errVersion) {
		e.Status, e.RetryAfter = http.StatusServiceUnavailable, retryAfter
	}
	return e
}

func (*failures) unavailable(cause error) *usher.Error {
	return &usher.Error{
		Status: http.StatusServiceUnavailable, Code: CodeUnavailable, RetryAfter: retryAfter, Cause: cause,
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
