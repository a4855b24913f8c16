package usher

import (
	"encoding"
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"

	"github.com/usher-go/usher/internal/exchange"
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
