// Package refusal holds the errors with which an authenticator refuses requests: one
// for each verdict that it may reach about a credential.
package refusal

import (
	"fmt"
	"net/http"
	"time"

	"github.com/usher-go/usher/internal/config"
)

// A Verdict is what an authenticator has found. It is the private cause of the error
// with which it refuses.
type Verdict interface {
	~uint8
	error
}

// An Error is a usher.Error, whose name a package below usher cannot write: a pointer
// to one converts to *Error[usher.Field] and back.
type Error[Field any] struct {
	Status     int
	Code       string
	Message    string
	Param      string
	Fields     []Field
	Details    any
	RetryAfter time.Duration
	Challenges []string
	Cause      error
}

// A Table has the error for each verdict that is a refusal. All requests with one
// verdict get the same error, so that they get the same bytes.
type Table[V Verdict, Field any] struct {
	errors     map[V]*Error[Field]
	challenges []string
}

// New returns a table of these errors. The cause of each becomes its verdict. A 401
// without challenges gets the given ones, whether it is in errors or replaces one of
// them.
func New[V Verdict, Field any](challenges []string, errors map[V]Error[Field]) *Table[V, Field] {
	t := &Table[V, Field]{errors: make(map[V]*Error[Field], len(errors)), challenges: challenges}
	for v, e := range errors {
		t.set(v, e)
	}
	return t
}

// Replace makes e the error for v and returns an empty string, or returns why it cannot.
// A refusal stays a refusal, and a failure of the server stays one: a status must be of
// the same class as before.
func (t *Table[V, Field]) Replace(v V, e *Error[Field]) (reason string) {
	old := t.errors[v]
	switch {
	case old == nil:
		return "cannot be replaced"
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

// Error returns the error for v, which is shared, or a copy that wraps cause too. The
// table must have an error for v.
func (t *Table[V, Field]) Error(v V, cause error) *Error[Field] {
	e := t.errors[v]
	if cause == nil {
		return e
	}
	own := *e
	own.Cause = fmt.Errorf("%w: %w", e.Cause, cause)
	return &own
}
