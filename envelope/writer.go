package envelope

import (
	"fmt"
	"net/http"
	"reflect"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

// A Writer writes the response to one request in the shape of the service, through
// [usher.Respond] and [usher.Fail]: without an [Envelope] around the request it writes
// plain JSON and problem details. It encodes a value before it sends anything, so a value
// that cannot be encoded becomes a 500.
type Writer struct {
	w       http.ResponseWriter
	r       *http.Request
	message string
	status  int // of a success, or 0
}

// For returns the writer of the response to r.
func For(w http.ResponseWriter, r *http.Request) Writer { return Writer{w: w, r: r} }

// Message returns a writer with a message for a success. Shapes without room for a
// message omit it. The message also applies to plain JSON that the handler then writes
// itself, if that is wrapped.
func (o Writer) Message(text string) Writer {
	o.message = text
	if t := transactionFrom(exchange.From(o.r.Context())); t != nil {
		t.message.Store(&text)
	}
	return o
}

// Status returns a writer with the status of a success, 200 to 299, for [Writer.Value]
// and [Writer.List]. Any other status is a fault of the handler and becomes a 500.
//
// Use it instead of [http.ResponseWriter.WriteHeader], which would send the header before
// the media type is set.
func (o Writer) Status(status int) Writer {
	o.status = status
	return o
}

// Untouched exempts what the handler then writes itself from [Config.Wrap], for
// responses whose form a standard fixes, such as those of an OAuth token endpoint.
// [usher.Fail] and the methods of Writer still use the shape.
func (o Writer) Untouched() {
	transactionFrom(exchange.From(o.r.Context())).leaveUntouched()
}

// Value sends v as the data, with the status of [Writer.Status] or 200. A nil v means
// no data.
func (o Writer) Value(v any) {
	o.respond(usher.Reply{Status: o.status, Message: o.message, Data: v})
}

// List sends items, one page of a list, as the data, with the status of [Writer.Status]
// or 200. A nil slice is an empty list. A shape with bare successes sends only the total of
// page, as the header field X-Total-Count.
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

// Created responds with 201 and v as the data. The location is the URI reference of the
// new resource; an empty location sends no Location.
func (o Writer) Created(location string, v any) {
	if location != "" {
		o.w.Header()["Location"] = []string{location}
	}
	usher.Respond(o.w, o.r, usher.Reply{Status: http.StatusCreated, Message: o.message, Data: v})
}

// NoContent responds with 204, without a body.
func (o Writer) NoContent() {
	usher.Respond(o.w, o.r, usher.Reply{Status: http.StatusNoContent})
}

// Invalid responds with 400, [usher.CodeValidationFailed] and the faults of the request's
// fields.
func (o Writer) Invalid(fields ...usher.Field) {
	usher.Fail(o.w, o.r, &usher.Error{
		Status:  http.StatusBadRequest,
		Code:    usher.CodeValidationFailed,
		Message: "The request is not valid.",
		Fields:  fields,
	})
}
