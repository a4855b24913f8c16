package idempotency

import (
	"encoding/json"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/httpwriter"
	"github.com/usher-go/usher/internal/unrendered"
)

// A shaper is a [usher.Responder] that can write a response again, with the metadata of
// another request. The envelope is one.
type shaper interface {
	Watch(x *exchange.Exchange) unrendered.Source
	ReplayReply(w http.ResponseWriter, r *http.Request, status int, late bool, reply usher.Reply)
	ReplayFailure(w http.ResponseWriter, r *http.Request, status int, late bool, failure *usher.Error)
	Announce(r *http.Request, message string)
}

// shaperOf returns a responder as a shaper, or nil if it is none.
func shaperOf(responder *any) shaper {
	if responder == nil {
		return nil
	}
	s, _ := (*responder).(shaper)
	return s
}

// form returns the form of the response that is collected, or nil if it is stored as it is
// sent. A response that an inner compressor has encoded, for instance, has no other form.
func (c *capture) form() *unrendered.Form {
	if c.source == nil || !bodyAllowed(c.status) {
		return nil
	}
	form := c.source.Form(c.status, c.body())
	if form == nil && c.source.Shaped(c.status) {
		c.flags |= flagRendered
	}
	return form
}

// resultWithResponse returns the result that stores the response that is collected. Its
// payload may be read until the capture is closed.
func (e *Execution) resultWithResponse() Result {
	c := &e.response
	form := c.form()
	switch {
	case e.m.config.Sanitize != nil:
		return e.sanitized(form)
	case form == nil:
		return e.resultOf(c.buffer.b)
	}
	c.payload = newBuffer()
	b := append(c.payload.b, c.buffer.b[:len(c.buffer.b)-len(c.body())]...)
	c.payload.b = append(appendForm(b, form), form.Body(c.body())...)
	return e.resultOf(c.payload.b)
}

// resultOf returns the result that stores b, a response that is not sealed yet.
func (e *Execution) resultOf(b []byte) Result {
	seal(b, e.response.flags, &e.key)
	return Result{State: StateDone, Status: e.response.status, Payload: b, TTL: e.m.config.TTL}
}

// parseForm returns the form of a stored response, or nil if it is none.
func parseForm(stored *storedResponse) *unrendered.Form {
	form, ok := unrendered.Parse(stored.form, stored.body)
	if !ok || !bodyAllowed(stored.status) || form.Kind == unrendered.Failure && stored.status < 400 {
		return nil
	}
	return form
}

// render writes a response in the shape of the service, with the metadata of r. It returns
// false if the body must be written as it is stored.
func render(w http.ResponseWriter, r *http.Request, status int, form *unrendered.Form) bool {
	var s shaper
	if x := exchange.From(r.Context()); x != nil {
		s = shaperOf(exchange.Responder.Load(x))
	}
	if s == nil {
		return renderWithoutShaper(w, r, status, form)
	}
	if form.Late {
		// It shows the envelope which status has been sent, whatever w is.
		own := new(httpwriter.Writer)
		own.Init(w, nil)
		w = own
	}
	switch form.Kind {
	case unrendered.Reply:
		s.ReplayReply(w, r, status, form.Late, replyOf(form))
	case unrendered.Failure:
		s.ReplayFailure(w, r, status, form.Late, failureOf(form))
	default:
		s.Announce(r, form.Message)
		return false
	}
	return true
}

// renderWithoutShaper is render for a request without an envelope, as after a deployment
// that has removed it.
func renderWithoutShaper(w http.ResponseWriter, r *http.Request, status int, form *unrendered.Form) bool {
	switch {
	case form.Kind == unrendered.Failure:
		e := failureOf(form)
		e.Status = status
		usher.Fail(w, r, e)
	case form.Kind == unrendered.Reply && json.Valid(form.Data):
		reply := replyOf(form)
		reply.Status = status
		usher.Respond(w, r, reply)
	default:
		return false
	}
	return true
}

func replyOf(form *unrendered.Form) usher.Reply {
	reply := usher.Reply{Status: form.Status, Code: form.Code, Message: form.Message, Page: (*usher.Page)(form.Page)}
	if form.Data != nil {
		reply.Data = unrendered.Raw(form.Data)
	}
	return reply
}

func failureOf(form *unrendered.Form) *usher.Error {
	e := &usher.Error{
		Status: form.Status, Code: form.Code, Type: form.Type, Message: form.Message,
		Param: form.Param, Details: form.Value(),
	}
	for _, f := range form.Fields {
		e.Fields = append(e.Fields, usher.Field(f))
	}
	return e
}
