package usher

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/vary"
)

// Authenticate returns a middleware that admits a request only if it has a valid
// credential, and stores the credential's [Principal] in the request.
//
// A request that carries credentials for two authenticators is refused with 401,
// unless [Precedence] ranks them. A request without a credential is refused with 401
// and the challenges of all authenticators, unless they are [Optional]. Each challenge is a
// field line of its own; those with resource_metadata (RFC 9728) come first, the others in
// the order of a. If a credential cannot be verified, the response is 503. Without any
// authenticator every request is refused. Authenticate panics on a nil authenticator.
//
// Responses are marked for caches, including responses to anonymous callers: Vary lists
// every header field that may carry a credential for one of a, in addition to what the
// handler lists. A response to a principal has Cache-Control: private, unless the handler
// sets Cache-Control itself.
//
// Decisions are counted as usher.authentication.requests on the global
// OpenTelemetry meter provider and noted on the current span. [Access] has more choices,
// such as Shadow for a server that already has clients.
func Authenticate(a ...Authenticator) Middleware { return Access{}.Authenticate(a...) }

func newAuthentication(n enforcer, list []Authenticator) Middleware {
	s := newSelection(false, list...)
	challenges := s.challenges()
	m := &authentication{
		enforcer:   n,
		selection:  s,
		carriers:   vary.On(s.Carriers()),
		challenges: challenges,
		missing:    newMissing(challenges),
		ambiguous: &Error{
			Status:     http.StatusUnauthorized,
			Code:       CodeAmbiguousCredentials,
			Message:    "The request carries more than one credential.",
			Challenges: challenges,
		},
	}
	// One authenticator needs no selection.
	switch len(list) {
	case 0:
		m.alone = none{}
	case 1:
		switch a := list[0].(type) {
		case selection, optional:
		default:
			m.alone, m.by = a, &s.list[0]
		}
	}
	return m
}

type authentication struct {
	enforcer
	selection  selection
	alone      Authenticator // used instead of the selection, unless nil
	by         *candidate    // alone
	carriers   *vary.Fields
	challenges []string
	missing    *Error
	ambiguous  *Error
}

func (a *authentication) Wrap(next http.Handler) http.Handler { return wrap(a, next) }

func (a *authentication) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	p, by, err := a.verify(r)
	if err == nil && p != nil {
		a.report(r.Context(), accepted, p)
		a.serve(w, r, next, p, by)
		return
	}
	outcome, e := a.failure(r.Context(), err)
	if outcome == anonymous {
		a.report(r.Context(), anonymous, nil)
		a.serveAnonymous(w, r, next)
		return
	}
	a.refuse(w, r, next, outcome, e)
}

// refuse responds with e, or runs next under Shadow.
func (a *authentication) refuse(w http.ResponseWriter, r *http.Request, next http.Handler, outcome int, e *Error) {
	a.reportRefusal(r, outcome, nil, e)
	if !a.access.Shadow {
		Fail(w, r, e)
		return
	}
	inner := exchange.Shadow(r)
	defer exchange.Leave(r, inner)
	a.serveAnonymous(w, inner, next)
}

// verify returns the principal of r and its authenticator.
func (a *authentication) verify(r *http.Request) (p *Principal, by *candidate, err error) {
	if a.alone == nil {
		return a.selection.verify(r)
	}
	p, err = a.alone.Authenticate(r)
	return p, a.by, err
}

func (a *authentication) serve(w http.ResponseWriter, r *http.Request, next http.Handler, p *Principal, by *candidate) {
	x, inner := exchange.Enter(r)
	again := x.Watched() && principalOf(x) == p // and an outer Authenticate calls its OnUse
	setPrincipal(x, p)
	if by.repeated != exchange.Challenges.Load(x) {
		exchange.Challenges.Store(x, by.repeated)
	}
	onUse := p.OnUse
	if onUse != nil {
		x.Watch()
	}
	if again {
		onUse = nil
	}
	a.pass(x, w, r, inner, next, vary.Caller{Private: true, OnUse: onUse})
}

// serveAnonymous runs next without a principal. Shadow takes none away that an outer
// middleware has stored: limits, idempotency and handlers work as without a.
func (a *authentication) serveAnonymous(w http.ResponseWriter, r *http.Request, next http.Handler) {
	x, inner := exchange.Enter(r)
	if !a.access.Shadow || principalOf(x) == nil {
		setPrincipal(x, nil)
		exchange.Challenges.Store(x, &a.challenges)
	}
	a.pass(x, w, r, inner, next, vary.Caller{})
}

// pass runs next with inner, which is r or a copy of r.
func (a *authentication) pass(x *exchange.Exchange, w http.ResponseWriter, r, inner *http.Request, next http.Handler, c vary.Caller) {
	writer := x.Vary()
	status := http.StatusInternalServerError // unless next returns
	defer func() {
		writer.End(status)
		x.Unvary(writer)
		if c.OnUse != nil {
			x.Unwatch()
		}
	}()
	exchange.Serve(next, writer.Start(w, inner, a.carriers, c), r, inner)
	if status = http.StatusOK; c.OnUse != nil {
		status = unwritten(x, inner)
	}
}

// unwritten returns the status that a response gets if nothing was written until now.
func unwritten(x *exchange.Exchange, r *http.Request) int {
	if status := x.Failure(); status != 0 {
		return status
	}
	if d := exchange.DeadlineOf(r.Context()); d != nil {
		if status := d.Missed(); status != 0 {
			return status
		}
	}
	return http.StatusOK
}

// failure returns the outcome and the error of a request without a principal. An
// authenticator that returned neither principal nor error is faulty, and the request is
// refused.
func (a *authentication) failure(ctx context.Context, err error) (outcome int, e *Error) {
	switch {
	case errors.Is(err, errAnonymous):
		return anonymous, nil
	case isMissing(err):
		return missing, a.missing
	case errors.Is(err, errAmbiguous):
		return ambiguous, a.ambiguous
	}
	e, _ = errors.AsType[*Error](err)
	switch {
	case (e == nil || e.status() >= 500) && isAbandoned(ctx, err):
		return abandoned, abandonedBy(err)
	case e == nil:
		e = &Error{
			Status:     http.StatusServiceUnavailable,
			Code:       CodeAuthenticationUnavailable,
			Message:    "The credential could not be checked. Please try again.",
			RetryAfter: time.Second,
			Cause:      err,
		}
	}
	switch status := e.status(); {
	case status >= 500:
		return unavailable, e
	case status == StatusClientClosedRequest:
		return abandoned, e
	case status == http.StatusUnauthorized && len(e.Challenges) == 0:
		challenged := *e
		challenged.Challenges = a.missing.Challenges
		e = &challenged
	}
	return refused, e
}

func newMissing(challenges []string) *Error {
	return &Error{
		Status:     http.StatusUnauthorized,
		Code:       CodeMissingCredential,
		Message:    "The request carries no credential.",
		Challenges: challenges,
	}
}

// none is the authenticator that accepts no credential.
type none struct{}

func (none) Authenticate(*http.Request) (*Principal, error) { return nil, ErrNoCredential }
