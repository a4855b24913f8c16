package usher

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"

	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/method"
)

// Require returns a middleware that admits only callers who meet want. Put it inside
// [Authenticate]: it refuses a request without a principal with 401, and one whose
// principal does not meet want with 403, or with 404 for another owner (see
// Requirement.Owner). A caller must meet every Require of a chain, so a refusal for lack
// of a scope also names the scopes of the outer Requires. Its challenge has the realm, the
// resource_metadata and the scopes of the challenge of the authenticator that accepted the
// caller, so that a client keeps what it has when it asks for more. An anonymous caller
// (see [Optional]) gets the scopes in the first Bearer challenge.
//
// As Require is called where routes are declared, it panics if want is invalid, with an
// error that joins a [*ConfigError] for every fault.
//
// Decisions are counted as usher.authorization.requests on the global OpenTelemetry
// meter provider and noted on the current span. [Access] has more choices.
func Require(want Requirement) Middleware { return Access{}.Require(want) }

func newRequirement(n enforcer, want Requirement) Middleware {
	faults := config.Of[ConfigError]("usher.Requirement")
	want.addFaults(faults)
	if err := faults.Err(); err != nil {
		panic(err) //nolint:forbidigo // documented
	}
	return &requirement{enforcer: n, condition: newCondition(want)}
}

type requirement struct {
	enforcer
	condition *condition
}

func (q *requirement) Wrap(next http.Handler) http.Handler { return wrap(q, next) }

func (q *requirement) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	x := exchange.From(r.Context())
	p := principalOf(x)
	if p == nil {
		q.refuse(w, r, next, noPrincipal, nil, q.condition.missingPrincipal(x))
		return
	}
	outer := neededScopes.Load(x)
	needed, outcome, e := q.condition.check(r, p, outer)
	if e != nil {
		if e == errScope {
			e = insufficient(x, needed.scopes, p.Scopes)
		}
		q.refuse(w, r, next, outcome, p, e)
		return
	}
	q.report(r.Context(), outcome, p)
	if needed == outer {
		next.ServeHTTP(w, r)
		return
	}
	neededScopes.Store(x, needed)
	next.ServeHTTP(w, r)
	neededScopes.Store(x, outer)
}

// refuse responds with e, or runs next under Shadow.
func (q *requirement) refuse(w http.ResponseWriter, r *http.Request, next http.Handler, outcome int, p *Principal, e *Error) {
	q.reportRefusal(r, outcome, p, e)
	if q.access.Shadow {
		exchange.Serve(next, w, r, exchange.Shadow(r))
		return
	}
	Fail(w, r, e)
}

// missingPrincipal returns the error for a request without a principal, which may have
// passed an Optional authenticator.
func (c *condition) missingPrincipal(x *exchange.Exchange) *Error {
	if x == nil {
		return errMissing
	}
	challenges := exchange.Challenges.Load(x)
	if challenges == nil {
		return errMissing
	}
	if wanted := c.wanted(neededScopes.Load(x)); wanted != nil {
		return newMissing(withScopes(*challenges, wanted.scopes))
	}
	return newMissing(*challenges)
}

// insufficient returns errScope with the challenge for a caller with the granted scopes that
// lacks one of scopes.
func insufficient(x *exchange.Exchange, scopes, granted []string) *Error {
	var params []string
	if challenges := exchange.Challenges.Load(x); challenges != nil {
		for _, c := range *challenges {
			if own, ok := bearerParams(c); ok {
				params = own
				break
			}
		}
	}
	e := *errScope
	// RFC 6750, section 3.1: the challenge may name the scopes.
	e.Challenges = []string{bearerChallenge(params, e.Code, scopes)}
	e.Cause = &lackingScopes{scopes, granted}
	return &e
}

// lackingScopes is the cause of a refusal for operators. Its text is made only if it is read.
type lackingScopes struct{ needed, granted []string }

func (l *lackingScopes) Error() string {
	return fmt.Sprintf("usher: the caller has the scopes %q and needs %q", l.granted, l.needed)
}

var (
	errWrongKind = &Error{
		Status:  http.StatusForbidden,
		Code:    CodeWrongCredentialKind,
		Message: "This kind of credential is not accepted here.",
	}
	errScope = &Error{
		Status:  http.StatusForbidden,
		Code:    CodeInsufficientScope,
		Message: "The credential lacks a scope that is needed here.",
	}
	errWrongOwner = &Error{
		Status:  http.StatusForbidden,
		Code:    CodeWrongOwner,
		Message: "This belongs to another account.",
	}
	errHiddenOwner = &Error{
		Status: http.StatusNotFound,
		Code:   CodeNotFound,
		Cause:  errors.New("usher: the route belongs to another owner"),
	}
	errNoOwner = &Error{
		Status: http.StatusNotFound,
		Code:   CodeNotFound,
		Cause:  errors.New("usher: Requirement.Owner returned no owner: a path value is known only inside the router"),
	}
)

// errPermissions has the errors for callers by the level that they have and the one that
// they need.
var errPermissions = func() (all [LevelFull + 1][LevelFull + 1]*Error) {
	for has := range all {
		for needs := range all {
			all[has][needs] = &Error{
				Status:  http.StatusForbidden,
				Code:    CodeInsufficientPermission,
				Message: "The credential does not permit this.",
				Cause:   fmt.Errorf("usher: the caller has the level %v and needs %v", Level(has), Level(needs)),
			}
		}
	}
	return all
}()

// A condition is a Requirement that is ready to be checked.
type condition struct {
	Requirement
	safe, unsafe Level // levels of methods that are not listed
	alternatives []*condition
	scopeSets    atomic.Pointer[scopeSet] // a short list, newest first
}

func newCondition(want Requirement) *condition {
	want.Kinds = slices.Clone(want.Kinds)
	want.Scopes = slices.Clone(want.Scopes)
	want.MethodLevels = maps.Clone(want.MethodLevels)
	c := &condition{Requirement: want}
	c.safe, c.unsafe = want.unlisted()
	for _, alternative := range want.anyOf {
		c.alternatives = append(c.alternatives, newCondition(alternative))
	}
	return c
}

// check returns why p may not make the request r, and the scopes that have been needed so
// far: outer, which those outside c needed, and the scopes of c.
func (c *condition) check(r *http.Request, p *Principal, outer *scopeSet) (needed *scopeSet, outcome int, e *Error) {
	needed = c.within(outer)
	switch {
	case len(c.Kinds) > 0 && !slices.Contains(c.Kinds, p.Kind):
		return needed, wrongKind, errWrongKind
	case !p.HasScopes(c.Scopes...):
		return needed, insufficientScope, errScope
	}
	if needs := c.levelFor(r.Method); p.Level < needs {
		return needed, insufficientPermission, errPermissions[p.Level][needs]
	}
	if c.Owner != nil {
		if o, refusal := c.checkOwner(p, c.Owner(r)); refusal != nil {
			return needed, o, refusal
		}
	}
	if len(c.alternatives) == 0 {
		return needed, allowed, nil
	}
	var nearest *scopeSet
	for _, alternative := range c.alternatives {
		all, o, refusal := alternative.check(r, p, needed)
		if refusal == nil {
			return all, allowed, nil
		}
		if o > outcome {
			nearest, outcome, e = all, o, refusal
		}
	}
	return nearest, outcome, e
}

// wanted returns the scopes that an anonymous caller should request: those of outer and c,
// and of the first alternative with scopes. It returns nil if there are none.
func (c *condition) wanted(outer *scopeSet) *scopeSet {
	needed := c.within(outer)
	for _, alternative := range c.alternatives {
		if all := alternative.wanted(needed); all != needed {
			return all
		}
	}
	return needed
}

// checkOwner returns why p may not use what belongs to owner. A route without an owner
// has a separate outcome, as the reason is usually a faulty set-up, such as a Require
// outside the router, and not an attack.
func (c *condition) checkOwner(p *Principal, owner string) (outcome int, e *Error) {
	switch {
	case owner != "" && p.Owner == owner:
		return allowed, nil
	case owner == "":
		outcome, e = noOwner, errNoOwner
	default:
		outcome, e = wrongOwner, errHiddenOwner
	}
	if c.RevealOwner {
		e = errWrongOwner
	}
	return outcome, e
}

// levelFor returns the lowest level that a request with this method needs.
func (c *condition) levelFor(name string) Level {
	if l, ok := c.MethodLevels[name]; ok {
		return l
	}
	if method.Safe(name) {
		return c.safe
	}
	return c.unsafe
}

// A scopeSet is the scopes of a condition and of the outer conditions that a request has
// met.
type scopeSet struct {
	scopes []string

	outer *scopeSet // the scopes of the outer conditions

	// The list in which the condition keeps its sets, so that a request allocates none.
	older *scopeSet
	count int
}

// neededScopes holds the scopes that outer Requires have needed.
var neededScopes = exchange.NewSlot[scopeSet]()

// maxScopeSets limits how many sets a condition keeps. Each path to the condition through
// the outer Requires of a program has its own set.
const maxScopeSets = 16

// within returns the scopes of outer and c.
func (c *condition) within(outer *scopeSet) *scopeSet {
	if len(c.Scopes) == 0 {
		return outer
	}
	newest := c.scopeSets.Load()
	for s := newest; s != nil; s = s.older {
		if s.outer == outer {
			return s
		}
	}
	s := newScopeSet(outer, c.Scopes)
	if newest != nil && newest.count < maxScopeSets {
		s.older, s.count = newest, newest.count+1
	}
	c.scopeSets.Store(s)
	return s
}

func newScopeSet(outer *scopeSet, own []string) *scopeSet {
	s := &scopeSet{outer: outer}
	if outer != nil {
		s.scopes = slices.Clone(outer.scopes)
	}
	for _, scope := range own {
		if !slices.Contains(s.scopes, scope) {
			s.scopes = append(s.scopes, scope)
		}
	}
	return s
}
