package usher

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// An Error is the one form of failure in this module: a public part, which [Fail]
// writes in the shape of the service, and a private cause.
//
// An Error may be shared between requests and must not change once it has
// been passed to Fail.
type Error struct {
	// Status is the HTTP status; zero means 500.
	Status int
	// Code is stable and for programs. An envelope's catalogue may map it to the
	// service's own status, code and text.
	Code string
	// Type is a URI that identifies the kind of problem, for problem details (RFC 9457,
	// section 3.1.1); empty means about:blank. An envelope's catalogue may replace it.
	Type string
	// Message is for people and is sent to the client; empty means the text of
	// the status.
	Message string
	// Param names the faulty parameter or header field, if there is one.
	Param string
	// Fields lists what is wrong with the fields of a request, for validation.
	Fields []Field
	// Details is further public data, encoded by encoding/json. The entries of a
	// map[string]any become separate members where the shape has room for them. Problem
	// details have.
	Details any
	// RetryAfter is how long a client should wait; it is rounded up to whole
	// seconds. Zero sends no Retry-After.
	RetryAfter time.Duration
	// Challenges are the values of WWW-Authenticate. [Fail] adds one to a 401 that
	// has none, as RFC 9110, section 15.5.2 requires one.
	Challenges []string
	// Cause is private: it is for logs and errors.Is, and never sent.
	Cause error
}

// A Field is a fault in one field of a request.
type Field struct {
	Name    string `json:"field"`
	Message string `json:"message"`
}

// Error describes the failure for operators. The text never holds key material, but it
// includes the cause and so is not for clients.
func (e *Error) Error() string {
	if e == nil {
		return "usher: nil Error"
	}
	text := fmt.Sprintf("%d %s", e.status(), e.Code)
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap returns the private cause. Like Error it may be called on a nil *Error, which
// easily ends up in an error variable by mistake: [Fail] responds to that with 500.
func (e *Error) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.Cause
}

func (e *Error) status() int {
	if e.Status < 400 || e.Status > 999 {
		return http.StatusInternalServerError
	}
	return e.Status
}

// asError returns the *Error for err, with which a handler of ctx has failed: err itself,
// the *Error that err wraps, or a neutral one that hides err.
func asError(ctx context.Context, err error) *Error {
	e, _ := errors.AsType[*Error](err)
	if (e == nil || e.status() >= http.StatusInternalServerError) && isAbandoned(ctx, err) {
		return abandonedBy(err)
	}
	if e != nil {
		noteMissedDeadline(ctx, e)
		return e
	}
	if e := missedDeadline(ctx, err); e != nil {
		return e
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Error{
			Status:  http.StatusRequestEntityTooLarge,
			Code:    CodePayloadTooLarge,
			Message: "The request body is too large.",
			Cause:   err,
		}
	}
	if e := timedOut(ctx, err); e != nil {
		return e
	}
	return &Error{Status: http.StatusInternalServerError, Code: CodeInternal, Cause: err}
}
