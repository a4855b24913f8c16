package idempotency

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
)

// An Outcome is what becomes of a key once its request has been executed.
type Outcome uint8

// The outcomes. The zero Outcome makes no decision.
const (
	// Keep stores the response; a retry gets it.
	Keep Outcome = iota + 1
	// Release frees the key, as the request had no effect; a retry runs.
	Release
	// Unknown spends the key, as the request may have had an effect. A retry gets the
	// error [usher.CodeIdempotencyOutcomeUnknown] and does not run.
	Unknown
	// KeepStatus stores the status of the response, without its header and body; a retry
	// gets the status alone. It also applies to a response that is too large to be stored,
	// flushed, or has trailers.
	KeepStatus
	// Forget stores that the request was processed and nothing of its response, for
	// responses that must not be kept. A retry gets the error
	// [usher.CodeIdempotencyResponseNotKept] and does not run.
	Forget
)

var outcomeNames = [...]string{Keep: "keep", Release: "release", Unknown: "unknown", KeepStatus: "keep_status", Forget: "forget"}

// String returns the name of the outcome: keep, release, unknown, keep_status or forget. It is
// empty for no outcome.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// A Profile maps the status of a response to an [Outcome]. A handler can override it with
// [Execution.SetOutcome].
//
// The status is 0 if the handler did not return, or wrote nothing before its client
// disconnected or its time ran out, and for the error of a usher.Deadline. Any other error
// that a profile would keep is Unknown if it was written after the context of the request
// had ended. A connection that the handler has taken over has no status, and no profile is
// asked. A 405 that a profile would keep is released, and so is a 404 if no route has matched
// the request, as far as http.Request.Pattern or [Config.Route] shows: after the next
// deployment there may be a route.
//
// The zero Outcome leaves the decision to [ProfileDefault], so a Profile may name only the
// statuses that it treats otherwise. A panic means Unknown and is reported to
// [Config.OnError]. A Profile depends on the status alone and must be safe for concurrent
// use. A route with another rule has a [Middleware] of its own, with the same store.
type Profile func(status int) Outcome

// ProfileDefault releases 401, 403, 405, 408, 409, 425, 429, 501 and 503, and keeps all
// others from 200 to 498. Any other server error, a panic, and 499, which means that the
// client disconnected, are Unknown.
func ProfileDefault(status int) Outcome {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusRequestTimeout,
		http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusNotImplemented,
		http.StatusServiceUnavailable:
		return Release
	}
	if status < 200 || status >= usher.StatusClientClosedRequest {
		return Unknown
	}
	return Keep
}

// ProfileStripe is [ProfileDefault], but keeps server errors, as Stripe does, and releases
// the statuses with which Stripe responds before it executes a request: 400, 401, 403, 405,
// 408, 409, 425, 429 and 503. A panic and 499 are Unknown.
func ProfileStripe(status int) Outcome {
	switch {
	case status == 0, status == usher.StatusClientClosedRequest:
		return Unknown
	case status == http.StatusBadRequest, status < 500 && ProfileDefault(status) == Release,
		status == http.StatusServiceUnavailable:
		return Release
	}
	return Keep
}

// ProfileReleaseServerErrors is [ProfileDefault], but releases all server errors and
// panics. Use it only if each handler is a single transaction that such an error rolls
// back.
func ProfileReleaseServerErrors(status int) Outcome {
	if status == 0 || status >= 500 {
		return Release
	}
	return ProfileDefault(status)
}

// ProfileKeepSuccess keeps 200 to 399 and releases everything else, panics included. Use
// it only if each handler is a single transaction that any error rolls back.
func ProfileKeepSuccess(status int) Outcome {
	if status < 200 || status >= 400 {
		return Release
	}
	return Keep
}

// ProfileDeliveries keeps the status of 200 to 299, without header and body, and releases
// everything else, panics included. It is for routes to which another service delivers
// events, and delivers them again until it gets a success. Use it only if a handler that
// has failed may run again. If deliveries have no principal, [Config.Owner] names the
// service that sends them. If their ID is in the body and in no header field, pass it to
// [Middleware.Execute].
func ProfileDeliveries(status int) Outcome {
	if status < 200 || status >= 300 {
		return Release
	}
	return KeepStatus
}

// decide returns the outcome of e for a response with this status: that of the handler or
// of the profile, in this order.
func (e *Execution) decide(status int) Outcome {
	e.mu.Lock()
	o := e.outcome
	e.mu.Unlock()
	switch {
	case o > Forget:
		return Unknown // no outcome of this package
	case o != 0:
		return o
	case status == http.StatusSwitchingProtocols:
		return Keep
	case status >= 400 && e.exchange.TimedOut():
		status = 0 // whatever status the Deadline gives its error
	}
	o = e.m.profileOutcome(e.request.Context(), status)
	switch {
	case o == Release, o == Unknown:
	case status == http.StatusNotFound && !e.routed():
		o = Release
	case status >= 400 && e.work.Err() != nil:
		o = Unknown // the error may only mean that time ran out
	}
	return o
}

// routed reports whether a route has matched the request. The pattern of a whole subtree
// shows no route: it may belong to a nested router, a reverse proxy, or a handler for
// unknown paths.
func (e *Execution) routed() bool {
	if _, call := e.response.writer.Unwrap().(*callWriter); call {
		return true
	}
	r := &e.request
	pattern := e.m.route(r)
	last := pattern[strings.LastIndexByte(pattern, '/')+1:]
	switch {
	case last == "":
		// Most routers match "/orders/" exactly, but http.ServeMux everything below it.
		return strings.Count(pattern, "/") == strings.Count(r.URL.Path, "/")
	case last[0] == '*', strings.HasSuffix(last, "...}"):
		return false
	}
	return true
}

// resultWithoutResponse returns the result of a claim whose outcome is o. It has nothing
// of the response but its status.
func (e *Execution) resultWithoutResponse(o Outcome, status int) Result {
	r := Result{State: StateTombstone, Status: status, TTL: e.m.config.TTL}
	switch {
	case o == Release:
		// The record stays for another lease, so that repeated calls of the store are
		// recognized.
		return Result{State: StateReleased, TTL: e.m.config.Lease}
	case o == Unknown:
		r.State = StateUnknown
	case o == KeepStatus && status >= 200: // a hijacked connection has no status to replay
		r.State = StateDone
		r.Payload = appendHead(nil, status, nil, nil, nil)
		seal(r.Payload, 0, &e.key)
	}
	return r
}

// profileOutcome returns the outcome for a status by [Config.Profile]. If that panics, the
// outcome is Unknown: the work is done and must not be repeated.
func (m *Middleware) profileOutcome(ctx context.Context, status int) (o Outcome) {
	if m.config.Profile == nil {
		return ProfileDefault(status)
	}
	err := guard.Run(func() error {
		o = m.config.Profile(status)
		return nil
	})
	switch {
	case err != nil:
		m.failures.Error(ctx, fmt.Errorf("idempotency: Config.Profile: %w", err))
		return Unknown
	case o == 0:
		return ProfileDefault(status)
	case o > Forget:
		return Unknown // no outcome of this package
	case status == http.StatusMethodNotAllowed && o != Unknown:
		return Release // whatever pattern the router reports for the path
	}
	return o
}
