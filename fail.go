package usher

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/usher-go/usher/internal/delay"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/header"
	"github.com/usher-go/usher/internal/httpwriter"
	"github.com/usher-go/usher/internal/telemetry"
)

// Fail responds to r with err, in the shape of the service: through the [Responder]
// of the request if it has one, else as problem details (RFC 9457).
//
// If err's chain has an [*Error], that is what the client sees. The text of any other error
// is not sent, and its status is
//
//   - 413 for an [*http.MaxBytesError]
//   - that of a [Deadline] for the error of a context that the Deadline has ended
//   - 504 for [context.DeadlineExceeded] otherwise, and 503 for [http.ErrHandlerTimeout],
//     both with [CodeDeadlineExceeded]
//   - 500 for all others
//
// If the client of r has disconnected, an error that is caused by [context.Canceled]
// becomes [StatusClientClosedRequest], unless it is an [*Error] with a status below 500.
// So it is no failure in logs and counters. An error that [errors.Join] joins with a failure
// stays one. A server that cancels the contexts of its requests itself must give a cause, as
// signal.NotifyContext does for a base context.
//
// If the current span is being recorded, it gets the attribute usher.error.code, which is
// [Error.Code] before a catalogue replaces it, and from 500 on also error.type.
//
// Fail sets Retry-After, WWW-Authenticate and Cache-Control: no-store, and
// removes the header fields of a success: validators, Expires, Location, ranges, digests,
// Content-Disposition, Content-Language and the like. Content-Encoding stays, as with
// [http.Error], unless the envelope knows that no compressor has set it. The caller
// should return after Fail.
//
// A client that is still sending its body receives the response too. Over HTTP/1 this may
// require closing the connection.
func Fail(w http.ResponseWriter, r *http.Request, err error) {
	ctx := r.Context()
	e := asError(ctx, err)
	telemetry.NoteError(ctx, e.status(), e.Code)
	x := exchange.From(ctx)
	leaveBody(w, r, err)
	values := new(fieldValues)
	setErrorHeader(w.Header(), e, values)
	if x != nil {
		if p := responderOf(x); p != nil {
			p.WriteError(w, r, e)
			return
		}
	}
	writeProblem(w, e, values)
}

// fieldValues has room for the values of header fields that Fail sets, so that all of them
// cost one allocation. Responses never share a value, which an outer handler may change.
type fieldValues struct{ cacheControl, challenge, contentType, noSniff [1]string }

// NotFound responds with 404 and [CodeNotFound], in the shape of the service. It is an
// [http.HandlerFunc], for instance for http.ServeMux.HandleFunc("/", usher.NotFound).
func NotFound(w http.ResponseWriter, r *http.Request) { Fail(w, r, errNotFound) }

// MethodNotAllowed responds with 405 and [CodeMethodNotAllowed], in the shape of the
// service. The caller sets Allow first (RFC 9110, section 15.5.6).
func MethodNotAllowed(w http.ResponseWriter, r *http.Request) { Fail(w, r, errMethodNotAllowed) }

var (
	errNotFound         = &Error{Status: http.StatusNotFound, Code: CodeNotFound}
	errMethodNotAllowed = &Error{Status: http.StatusMethodNotAllowed, Code: CodeMethodNotAllowed}
)

// leaveBody ensures that the client receives the response even if the body of r has not
// been read to its end.
func leaveBody(w http.ResponseWriter, r *http.Request, err error) {
	if r.ContentLength == 0 {
		return
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		httpwriter.LeaveUnread(w, r)
		return
	}
	httpwriter.Refuse(w, r)
}

// setErrorHeader sets the header fields of an error that do not depend on the shape.
func setErrorHeader(h http.Header, e *Error, values *fieldValues) {
	header.MakeError(h, e.status(), &values.cacheControl)
	if e.RetryAfter > 0 {
		var buf [20]byte
		field := strconv.AppendInt(buf[:0], delay.Seconds(e.RetryAfter), 10)
		// The limiter has usually set it already.
		if v := h["Retry-After"]; len(v) != 1 || v[0] != string(field) {
			h["Retry-After"] = []string{string(field)}
		}
	}
	switch {
	case len(e.Challenges) > 1:
		h["Www-Authenticate"] = append([]string(nil), e.Challenges...)
	case len(e.Challenges) == 1:
		values.challenge[0] = e.Challenges[0]
		h["Www-Authenticate"] = values.challenge[:]
	case e.status() == http.StatusUnauthorized:
		values.challenge[0] = "Bearer"
		h["Www-Authenticate"] = values.challenge[:]
	}
}
