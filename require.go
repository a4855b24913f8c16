package usher

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/usher-go/usher/internal/exchange"
)

// A Requirement says who may use a route. The zero value asks only that the
// caller is known.
type Requirement struct {
	// Kinds are the kinds of credential that are accepted; none means any.
	Kinds []Kind
	// Scopes must all be granted.
	Scopes []string
	// Level is the least permission level.
	Level Level
	// MethodLevels are the least permission levels of requests with these
	// methods, in place of Level, for instance LevelFull for DELETE.
	MethodLevels map[string]Level
}

// Require returns the middleware that lets only callers pass who meet want. It
// stands inside [Authenticate]: a request without a principal is refused with
// 401, one whose principal falls short with 403.
func Require(want Requirement) Middleware {
	want.Kinds = slices.Clone(want.Kinds)
	want.Scopes = slices.Clone(want.Scopes)
	want.MethodLevels = maps.Clone(want.MethodLevels)
	return &requirement{
		Requirement: want,
		kind: &Error{
			Status:  http.StatusForbidden,
			Code:    CodeWrongCredentialKind,
			Message: "This kind of credential is not accepted here.",
		},
		scope: &Error{
			Status:  http.StatusForbidden,
			Code:    CodeInsufficientScope,
			Message: "The credential lacks a scope that is needed here.",
			// RFC 6750, section 3.1: the challenge may name the scopes.
			Challenges: []string{Challenge("Bearer",
				"error", "insufficient_scope", "scope", strings.Join(want.Scopes, " "))},
		},
		level: &Error{
			Status:  http.StatusForbidden,
			Code:    CodeInsufficientPermission,
			Message: "The credential does not permit this.",
		},
		missing: newMissing(nil),
	}
}

type requirement struct {
	Requirement
	kind, scope, level, missing *Error
}

func (q *requirement) Wrap(next http.Handler) http.Handler { return wrap(q, next) }

func (q *requirement) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if e := q.check(r); e != nil {
		Fail(w, r, e)
		return
	}
	next.ServeHTTP(w, r)
}

// check returns why r may not pass, or nil.
func (q *requirement) check(r *http.Request) *Error {
	x := exchange.From(r.Context())
	if x == nil {
		return q.missing
	}
	p := principals.Load(x)
	if p == nil {
		if challenges := exchange.Challenges.Load(x); challenges != nil && len(*challenges) > 0 {
			return newMissing(*challenges)
		}
		return q.missing
	}
	level := q.Level
	if l, ok := q.MethodLevels[r.Method]; ok {
		level = l
	}
	switch {
	case len(q.Kinds) > 0 && !slices.Contains(q.Kinds, p.Kind):
		return q.kind
	case !p.HasScopes(q.Scopes...):
		return q.scope
	case p.Level < level:
		return q.level
	}
	return nil
}
