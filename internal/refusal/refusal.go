// Package refusal has the errors with which an authenticator refuses requests: one for
// each verdict that refuses a credential.
package refusal

import (
	"fmt"
	"net/http"
	"time"

	"github.com/usher-go/usher/internal/config"
)

// A Verdict is an authenticator's decision about a credential. It is the private cause of
// the error that refuses the request.
type Verdict interface {
	~uint8
	error
}

// An Error is an usher.Error. Internal packages do not import usher, so its fields are
// repeated here; an *usher.Error converts to *Error[usher.Field] and back.
type Error[Field any] struct {
	Status     int
	Code       string
	Type       string
	Message    string
	Param      string
	Fields     []Field
	Details    any
	RetryAfter time.Duration
	Challenges []string
	Cause      error
}

// A Table has the error for each verdict that is a refusal. All requests with one verdict
// get the same error, and so the same bytes.
type Table[V Verdict, Field any] struct {
	errors     [verdicts]*Error[Field]
	challenges []string
}

// verdicts is more than any authenticator has. An array is looked up faster than a map,
// for the requests of those who guess.
const verdicts = 32

// New returns a table of these errors. The cause of each becomes its verdict. A 401
// without challenges gets these challenges, both here and in Replace.
func New[V Verdict, Field any](challenges []string, errors map[V]Error[Field]) *Table[V, Field] {
	t := &Table[V, Field]{challenges: challenges}
	for v, e := range errors {
		t.set(v, e)
	}
	return t
}

// Replace makes e the error for v. It returns the reason if that is not allowed, or an
// empty string. A refusal stays a refusal, and a failure of the server stays a failure:
// the status must be of the same class as before.
func (t *Table[V, Field]) Replace(v V, e *Error[Field]) (reason string) {
	if v >= verdicts || t.errors[v] == nil {
		return "cannot be replaced"
	}
	switch old := t.errors[v]; {
	case e == nil:
		return config.NotNil
	case old.Status >= http.StatusInternalServerError && e.Status < http.StatusInternalServerError:
		return "must have a status of 500 or above"
	case old.Status < http.StatusInternalServerError && (e.Status < 400 || e.Status > 499):
		return "must have a status from 400 to 499"
	}
	t.set(v, *e)
	return ""
}

func (t *Table[V, Field]) set(v V, e Error[Field]) {
	if e.Cause == nil {
		e.Cause = v
	} else {
		e.Cause = fmt.Errorf("%w: %w", v, e.Cause)
	}
	if e.Status == http.StatusUnauthorized && len(e.Challenges) == 0 {
		e.Challenges = t.challenges
	}
	t.errors[v] = &e
}

// Error returns the shared error for v, or, if cause is not nil, a copy that also has
// that cause. The table must have an error for v.
func (t *Table[V, Field]) Error(v V, cause error) *Error[Field] {
	e := t.errors[v]
	if cause == nil {
		return e
	}
	// One allocation. Nothing is formatted, because the text of most refusals is never read.
	own := &struct {
		e     Error[Field]
		cause causes
	}{*e, causes{e.Cause, cause}}
	own.e.Cause = &own.cause
	return &own.e
}

// causes are the cause that all errors of a verdict have, and that of one request.
type causes struct{ shared, own error }

func (c *causes) Error() string   { return c.shared.Error() + ": " + c.own.Error() }
func (c *causes) Unwrap() []error { return []error{c.shared, c.own} }
