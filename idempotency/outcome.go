package idempotency

import (
	"net/http"

	"github.com/usher-go/usher"
)

// An Outcome is what becomes of a key once the handler has returned.
type Outcome uint8

// The outcomes. The zero Outcome leaves the choice to others.
const (
	// Keep stores the answer; a retry gets it again.
	Keep Outcome = iota + 1
	// Release forgets the request, as it had no effect; a retry runs.
	Release
	// Unknown keeps the key taken: the request may have had an effect. A retry gets
	// the error [usher.CodeIdempotencyOutcomeUnknown] and does not run.
	Unknown
)

// A Profile says by the status of an answer what becomes of the key. Whatever it
// says, a handler knows better and may say so with [Execution.SetOutcome].
type Profile uint8

// The profiles. A status of 0 stands for a handler that did not return, or that
// wrote nothing as its client had gone or its time was over. An error that would be
// kept is Unknown if it was written after the context of the request had ended.
const (
	// ProfileDefault keeps 200 to 498 except for 401, 403, 408, 409, 425 and 429,
	// which it releases, as it does 501 and 503. Any other error of the server, a
	// panic, and 499, which says that the client has gone, are Unknown.
	ProfileDefault Profile = iota
	// ProfileStripe keeps also errors of the server, as Stripe does. It releases
	// what Stripe answers before it begins: 400, 401, 403, 408, 409, 425, 429 and
	// 503. A panic and 499 are Unknown.
	ProfileStripe
	// ProfileReleaseServerErrors is ProfileDefault, except that it releases every error of
	// the server and panics. It is right where each handler is one transaction that
	// such an error rolls back.
	ProfileReleaseServerErrors
	// ProfileKeepSuccess keeps 200 to 399 and releases everything else, panics included.
	// It is right on the same condition.
	ProfileKeepSuccess
)

// Outcome returns what becomes of the key after an answer of this status.
func (p Profile) Outcome(status int) Outcome {
	switch p {
	case ProfileStripe:
		return stripeOutcome(status)
	case ProfileReleaseServerErrors:
		if status == 0 || status >= 500 {
			return Release
		}
	case ProfileKeepSuccess:
		if status < 200 || status >= 400 {
			return Release
		}
		return Keep
	}
	return defaultOutcome(status)
}

func defaultOutcome(status int) Outcome {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusConflict,
		http.StatusTooEarly, http.StatusTooManyRequests, http.StatusNotImplemented, http.StatusServiceUnavailable:
		return Release
	}
	if status < 200 || status >= usher.StatusClientClosedRequest {
		return Unknown
	}
	return Keep
}

func stripeOutcome(status int) Outcome {
	switch {
	case status == 0, status == usher.StatusClientClosedRequest:
		return Unknown
	case status == http.StatusBadRequest, status < 500 && defaultOutcome(status) == Release,
		status == http.StatusServiceUnavailable:
		return Release
	}
	return Keep
}
