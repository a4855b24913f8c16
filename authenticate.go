package usher

import (
	"errors"
	"net/http"
	"time"

	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/telemetry"
)

// Authenticate returns the middleware that lets a request pass only with a good
// credential, and puts its [Principal] into the request.
//
// A request with credentials for two of a is refused with 401, unless they are
// ranked by [Precedence]; one without any is refused with 401 and the challenges
// of all, unless they are [Optional]; one that cannot be judged is refused with
// 503. Authenticate of nothing refuses everything. It panics on a nil
// authenticator.
//
// Decisions are counted as usher.authentication.requests on the global
// OpenTelemetry meter provider and noted on the current span.
func Authenticate(a ...Authenticator) Middleware {
	s := newSelection(false, a...)
	challenges := s.challenges()
	m := &authentication{
		authenticator: s,
		challenges:    challenges,
		missing:       newMissing(challenges),
		ambiguous: &Error{
			Status:     http.StatusUnauthorized,
			Code:       CodeAmbiguousCredentials,
			Message:    "The request carries more than one credential.",
			Challenges: challenges,
		},
		decisions: telemetry.NewDecisions(telemetry.Config{
			Scope:       "github.com/usher-go/usher",
			Counter:     "usher.authentication.requests",
			Description: "Requests by the outcome of their authentication.",
			Attribute:   "usher.authentication.result",
			Outcomes:    authenticationOutcomes[:],
		}),
	}
	switch len(s.list) {
	case 0:
		m.authenticator = none{}
	case 1:
		// One authenticator needs no selection on the way of every request.
		m.authenticator = s.list[0]
		if p, ok := s.list[0].(prober); ok {
			m.authenticator = p.Authenticator
		}
	}
	if s.records() {
		m.recorder, _ = m.authenticator.(UseRecorder)
	}
	return m
}

// The outcomes of authentication, as indices of authenticationOutcomes.
const (
	accepted = iota
	anonymous
	missing
	ambiguous
	refused
	unavailable
)

var authenticationOutcomes = [...]string{
	accepted: "accepted", anonymous: "anonymous", missing: "missing",
	ambiguous: "ambiguous", refused: "refused", unavailable: "unavailable",
}

type authentication struct {
	authenticator Authenticator
	recorder      UseRecorder
	challenges    []string
	missing       *Error
	ambiguous     *Error
	decisions     *telemetry.Decisions
}

func (a *authentication) Wrap(next http.Handler) http.Handler { return wrap(a, next) }

func (a *authentication) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	p, err := a.authenticator.Authenticate(r)
	if err == nil && p != nil {
		a.decisions.Record(r.Context(), accepted)
		a.serve(w, r, next, p)
		return
	}
	outcome, failure := a.judge(err)
	a.decisions.Record(r.Context(), outcome)
	if outcome == anonymous {
		x, inner := exchange.Enter(r)
		principals.Store(x, nil)
		exchange.Challenges.Store(x, &a.challenges)
		pass(w, r, inner, next)
		return
	}
	Fail(w, r, failure)
}

func (a *authentication) serve(w http.ResponseWriter, r *http.Request, next http.Handler, p *Principal) {
	x, inner := exchange.Enter(r)
	principals.Store(x, p)
	pass(w, r, inner, next)
	if a.recorder == nil {
		return
	}
	switch x.Failure() {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
	default:
		a.recorder.RecordUse(r, p)
	}
}

// pass hands inner, which is r or its copy, to next. What next learned goes back
// into r even if next panics: someone further out may turn that into an answer.
func pass(w http.ResponseWriter, r, inner *http.Request, next http.Handler) {
	defer exchange.Leave(r, inner)
	next.ServeHTTP(w, inner)
}

// judge maps what an authenticator answered instead of a principal. Nothing at
// all is a fault of the authenticator and lets nobody in.
func (a *authentication) judge(err error) (outcome int, failure *Error) {
	switch {
	case errors.Is(err, errAnonymous):
		return anonymous, nil
	case errors.Is(err, ErrNoCredential):
		return missing, a.missing
	case errors.Is(err, errAmbiguous):
		return ambiguous, a.ambiguous
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || e == nil {
		e = &Error{
			Status:     http.StatusServiceUnavailable,
			Code:       CodeAuthenticationUnavailable,
			Message:    "The credential could not be checked. Please try again.",
			RetryAfter: time.Second,
			Cause:      err,
		}
	}
	if e.status() >= 500 {
		return unavailable, e
	}
	if e.status() == http.StatusUnauthorized && len(e.Challenges) == 0 {
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

// none is the authenticator that knows no credential.
type none struct{}

func (none) Authenticate(*http.Request) (*Principal, error) { return nil, ErrNoCredential }
