package usher

import (
	"cmp"
	"encoding"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"sync"

	"github.com/usher-go/usher/internal/delay"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/header"
	"github.com/usher-go/usher/internal/httpwriter"
	"github.com/usher-go/usher/internal/jsontext"
	"github.com/usher-go/usher/internal/problem"
	"github.com/usher-go/usher/internal/telemetry"
)

// A Responder writes responses in the shape of a service. The envelope is a Responder.
type Responder interface {
	// WriteError writes e and must not change it. The header fields that do not depend on
	// the shape are already set.
	WriteError(w http.ResponseWriter, r *http.Request, e *Error)
	// WriteReply writes a success.
	WriteReply(w http.ResponseWriter, r *http.Request, reply Reply)
}

// A Reply is the one form of success in this module. [Respond] writes it in the
// shape of the service.
type Reply struct {
	// Status is the HTTP status; zero means 200.
	Status int
	// Code is stable; an envelope's catalogue may map it to a text.
	Code string
	// Message is for people; shapes without room for it omit it.
	Message string
	// Data is encoded by encoding/json. Nil means that there is none. A nil slice is an
	// empty list, [], unless its type encodes itself or has bytes.
	Data any
	// Page is set if Data is one page of a list.
	Page *Page
}

// A Page is the part of a list that a response holds. A shape whose body has no room for
// it sends Total as the header field X-Total-Count, which a page of another origin can
// read if Access-Control-Expose-Headers names it.
type Page struct {
	Number int // counted from 1
	Limit  int // maximum number of items on a page
	Total  int // items on all pages
}

// Pages returns how many pages there are.
func (p Page) Pages() int {
	if p.Limit <= 0 || p.Total <= 0 {
		return 0
	}
	return (p.Total-1)/p.Limit + 1
}

// WithResponder returns a request for which [Fail] and [Respond] write through p. It
// stores p in r itself if a middleware of this module has already seen r, else in a copy.
func WithResponder(r *http.Request, p Responder) *http.Request {
	x, r := exchange.Enter(r)
	var responder any = p
	exchange.Responder.Store(x, &responder)
	return r
}

// responderOf returns the responder of a request, or nil.
func responderOf(x *exchange.Exchange) Responder {
	if responder := exchange.Responder.Load(x); responder != nil {
		p, _ := (*responder).(Responder)
		return p
	}
	return nil
}

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
// So it is no failure in logs and counters. A server that cancels the contexts of its
// requests itself should give a cause of its own.
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

// Respond responds to r with reply, in the shape of the service: through the [Responder]
// of the request if it has one, else as plain JSON. Without data it sends only the
// status, with 204 in place of 200.
func Respond(w http.ResponseWriter, r *http.Request, reply Reply) {
	if reply.Status == 0 {
		reply.Status = http.StatusOK
	}
	reply.Data = list(reply.Data)
	if x := exchange.From(r.Context()); x != nil {
		if p := responderOf(x); p != nil {
			p.WriteReply(w, r, reply)
			return
		}
	}
	if reply.Data == nil {
		if reply.Status == http.StatusOK {
			reply.Status = http.StatusNoContent
		}
		w.WriteHeader(reply.Status)
		return
	}
	body, err := json.Marshal(reply.Data)
	if err != nil {
		Fail(w, r, err)
		return
	}
	if reply.Page != nil {
		w.Header()["X-Total-Count"] = []string{strconv.Itoa(reply.Page.Total)}
	}
	write(w, reply.Status, "application/json", body, new(fieldValues))
}

// list returns data, or an empty slice of the same type if data is a nil slice: a client
// that reads a list does not expect null.
func list(data any) any {
	v := reflect.ValueOf(data)
	if v.Kind() != reflect.Slice || !v.IsNil() || v.Type().Elem().Kind() == reflect.Uint8 {
		return data
	}
	switch data.(type) {
	case json.Marshaler, encoding.TextMarshaler:
		return data
	}
	return reflect.MakeSlice(v.Type(), 0, 0).Interface()
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

// bodies are buffers for problem details, which are small.
var bodies = sync.Pool{New: func() any { return new([512]byte) }}

// writeProblem writes e as problem details.
func writeProblem(w http.ResponseWriter, e *Error, values *fieldValues) {
	buf := bodies.Get().(*[512]byte)
	write(w, e.status(), "application/problem+json", appendProblem(buf[:0], e), values)
	bodies.Put(buf)
}

func appendProblem(b []byte, e *Error) []byte {
	if head := problemHeads[e.status()%len(problemHeads)]; e.Type == "" && head.status == e.status() {
		b = append(b, head.text...)
	} else {
		b = appendProblemHead(b, cmp.Or(e.Type, untyped), e.status())
	}
	if e.Message != "" {
		b = append(b, `,"detail":`...)
		b = jsontext.AppendString(b, e.Message)
	}
	if e.Code != "" {
		b = append(b, `,"code":`...)
		b = jsontext.AppendString(b, e.Code)
	}
	if e.Param != "" {
		b = append(b, `,"param":`...)
		b = jsontext.AppendString(b, e.Param)
	}
	if len(e.Fields) > 0 {
		b = append(b, `,"errors":`...)
		b = appendValue(b, e.Fields)
	}
	return append(problem.AppendDetails(b, e.Details, appendValue), '}')
}

// untyped is the type of a problem that its status describes (RFC 9457, section 4.2.1).
const untyped = "about:blank"

func appendProblemHead(b []byte, kind string, status int) []byte {
	b = append(b, `{"type":`...)
	b = jsontext.AppendString(b, kind)
	b = append(b, `,"title":`...)
	b = jsontext.AppendString(b, http.StatusText(status))
	b = append(b, `,"status":`...)
	return strconv.AppendInt(b, int64(status), 10)
}

// problemHeads have what appendProblemHead returns for an untyped problem, by the last
// digits of its status. Those who guess credentials cause the same few again and again.
var problemHeads = func() (heads [16]struct {
	status int
	text   string
}) {
	for _, status := range [...]int{
		http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
		http.StatusTooManyRequests, http.StatusServiceUnavailable,
	} {
		head := &heads[status%len(heads)]
		head.status, head.text = status, string(appendProblemHead(nil, untyped, status))
	}
	return heads
}()

// appendValue appends v as JSON, or null if v cannot be encoded.
func appendValue(b []byte, v any) []byte {
	if texts, ok := v.([]string); ok && len(texts) > 0 {
		// The names of violated policies, in the refusals of rate limits, cost no allocation.
		for i, text := range texts {
			b = append(b, "[,"[min(i, 1)])
			b = jsontext.AppendString(b, text)
		}
		return append(b, ']')
	}
	body, err := json.Marshal(v)
	if err != nil {
		return append(b, "null"...)
	}
	return append(b, body...)
}

// write sends a body; the server sets its Content-Length.
func write(w http.ResponseWriter, status int, contentType string, body []byte, values *fieldValues) {
	h := w.Header()
	values.contentType[0], values.noSniff[0] = contentType, "nosniff"
	h["Content-Type"] = values.contentType[:]
	h["X-Content-Type-Options"] = values.noSniff[:]
	w.WriteHeader(status)
	// An error means that the client has gone, so it cannot be reported to the client.
	_, _ = w.Write(body)
}
