package envelope

import (
	"fmt"
	"net/http"
	"reflect"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

// A Writer writes the answer to one request in the shape of the service, thinly
// over [usher.Respond] and [usher.Fail]: without an [Envelope] around it writes
// plain JSON and problem details. Values are encoded before anything is sent, so
// one that cannot be encoded is answered with 500.
type Writer struct {
	w       http.ResponseWriter
	r       *http.Request
	message string
	status  int // of a success, or 0
}

// For returns the writer of the answer to r.
func For(w http.ResponseWriter, r *http.Request) Writer { return Writer{w: w, r: r} }

// Message sets the message of a success, in shapes that have room for one, and
// returns a writer that carries it. It also counts for plain JSON that the
// handler goes on to write itself, if that is wrapped.
func (o Writer) Message(text string) Writer {
	o.message = text
	if t := transactionFrom(exchange.From(o.r.Context())); t != nil {
		t.message.Store(&text)
	}
	return o
}

// Status sets the status of a success, 200 to 299, for [Writer.Value] and
// [Writer.List], and returns a writer that carries it. Any other status is a fault
// of the handler and gets 500.
//
// With [http.ResponseWriter.WriteHeader] instead, the header is sent before the
// media type is known.
func (o Writer) Status(status int) Writer {
	o.status = status
	return o
}

// Untouched lets what the handler goes on to write itself pass as it is, for
// answers whose form someone else has fixed, such as those of an OAuth token
// endpoint. [usher.Fail] and the methods of Writer still use the shape.
func (o Writer) Untouched() {
	if t := transactionFrom(exchange.From(o.r.Context())); t != nil {
		t.untouched.Store(true)
	}
}

// Untouched returns a handler that lets what next writes pass as it is, for those
// whose form someone else has fixed: what is served under /.well-known, an OpenAPI
// document, a gateway to gRPC. It has no effect without an [Envelope] around it.
//
//	mux.Handle("/.well-known/", envelope.Untouched(documents))
//
// [usher.Fail] still uses the shape, so that a request which is refused further in
// gets the usual error.
func Untouched(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		For(w, r).Untouched()
		next.ServeHTTP(w, r)
	})
}

// Value sends v as the data, with 200 unless [Writer.Status] says otherwise. A nil
// v means that there is none.
func (o Writer) Value(v any) {
	o.respond(usher.Reply{Status: o.status, Message: o.message, Data: v})
}

// List sends items, one page of a list, as the data, with 200 unless
// [Writer.Status] says otherwise. A nil slice is an empty list. Shapes with bare
// successes do not show the page.
func (o Writer) List(items any, page usher.Page) {
	if v := reflect.ValueOf(items); !v.IsValid() || v.Kind() == reflect.Slice && v.IsNil() {
		items = []struct{}{}
	}
	o.respond(usher.Reply{Status: o.status, Message: o.message, Data: items, Page: &page})
}

func (o Writer) respond(reply usher.Reply) {
	if reply.Status != 0 && (reply.Status < 200 || reply.Status > 299) {
		usher.Fail(o.w, o.r, fmt.Errorf("envelope: %d is not the status of a success", reply.Status))
		return
	}
	usher.Respond(o.w, o.r, reply)
}

// Created answers 201 with v as the data. The location is the URI reference of
// what was created; empty sends none.
func (o Writer) Created(location string, v any) {
	if location != "" {
		o.w.Header()["Location"] = []string{location}
	}
	usher.Respond(o.w, o.r, usher.Reply{Status: http.StatusCreated, Message: o.message, Data: v})
}

// NoContent answers 204 without a body.
func (o Writer) NoContent() {
	usher.Respond(o.w, o.r, usher.Reply{Status: http.StatusNoContent})
}

// Invalid answers 400 with what is wrong with the fields of the request, under
// [usher.CodeValidationFailed].
func (o Writer) Invalid(fields ...usher.Field) {
	usher.Fail(o.w, o.r, &usher.Error{
		Status:  http.StatusBadRequest,
		Code:    usher.CodeValidationFailed,
		Message: "The request is not valid.",
		Fields:  fields,
	})
}
