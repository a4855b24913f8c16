package usher

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/method"
)

// A Requirement says who may use a route. The zero value asks only that the
// caller is known.
type Requirement struct {
	// Kinds are the kinds of credential that are accepted; none means any.
	Kinds []Kind
	// Scopes must all be granted. Each is a scope-token (RFC 6749, section 3.3).
	Scopes []string
	// Level is the least permission level.
	Level Level
	// MethodLevels are the least permission levels of requests with these
	// methods, in place of Level, for instance LevelFull for DELETE. Methods are in
	// capitals, as they come in requests.
	//
	// If any are listed, of the others a safe one needs what GET needs, its entry or
	// else Level; so HEAD and QUERY open nothing that GET does not. One that is not
	// registered as safe needs the highest level of all: that of any entry, Level, or
	// LevelReadWrite.
	MethodLevels map[string]Level
}

// faults returns everything that is wrong with want.
func (want *Requirement) faults() error {
	var errs []error
	fault := func(field, reason string) {
		errs = append(errs, &ConfigError{Field: "usher.Requirement." + field, Reason: reason})
	}
	const unknown = "must be one of LevelNone to LevelFull"
	for i, k := range want.Kinds {
		if k == "" {
			fault(fmt.Sprintf("Kinds[%d]", i), "must not be empty")
		}
	}
	for i, s := range want.Scopes {
		if s == "" || strings.ContainsFunc(s, notInScope) {
			fault(fmt.Sprintf("Scopes[%d]", i), "must be one scope: visible ASCII without quotation mark and backslash")
		}
	}
	if want.Level > LevelFull {
		fault("Level", unknown)
	}
	for _, name := range slices.Sorted(maps.Keys(want.MethodLevels)) {
		field := fmt.Sprintf("MethodLevels[%q]", name)
		if reason := method.Fault(name); reason != "" {
			fault(field, reason)
		}
		if want.MethodLevels[name] > LevelFull {
			fault(field, unknown)
		}
	}
	return errors.Join(errs...)
}

// notInScope reports whether r stands in no scope-token.
func notInScope(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }

// Require returns the middleware that lets only callers pass who meet want. It
// stands inside [Authenticate]: a request without a principal is refused with
// 401, one whose principal falls short with 403.
//
// Like Authenticate it is built where routes are declared, and panics if want
// could never mean what it says, with an error that joins a [*ConfigError] for
// every fault.
func Require(want Requirement) Middleware {
	if err := want.faults(); err != nil {
		panic(err) //nolint:forbidigo // documented
	}
	want.Kinds = slices.Clone(want.Kinds)
	want.Scopes = slices.Clone(want.Scopes)
	want.MethodLevels = maps.Clone(want.MethodLevels)
	safe, unsafe := want.unlisted()
	return &requirement{
		Requirement: want,
		safe:        safe,
		unsafe:      unsafe,
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

// unlisted returns the least levels of methods that are not listed: of safe ones
// and of all others.
func (want *Requirement) unlisted() (safe, unsafe Level) {
	safe, unsafe = want.Level, want.Level
	if l, ok := want.MethodLevels[http.MethodGet]; ok {
		safe = l
	}
	for _, l := range want.MethodLevels {
		unsafe = max(unsafe, l, LevelReadWrite)
	}
	return safe, unsafe
}

type requirement struct {
	Requirement
	safe, unsafe Level // of methods that are not listed

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
	switch {
	case len(q.Kinds) > 0 && !slices.Contains(q.Kinds, p.Kind):
		return q.kind
	case !p.HasScopes(q.Scopes...):
		return q.scope
	case p.Level < q.levelFor(r.Method):
		return q.level
	}
	return nil
}

// levelFor returns the least level of a request with this method.
func (q *requirement) levelFor(name string) Level {
	if l, ok := q.MethodLevels[name]; ok {
		return l
	}
	if method.Safe(name) {
		return q.safe
	}
	return q.unsafe
}
