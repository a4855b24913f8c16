package envelope

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/httpwriter"
)

// WriteError writes failure in the shape of the service, for [usher.Fail]. Once a
// response has begun it writes no second body. If the status of a success has been sent,
// the envelope aborts the connection when the handler has returned, so that the client
// does not mistake part of a response for all of it.
func (e *Envelope) WriteError(w http.ResponseWriter, r *http.Request, failure *usher.Error) {
	t := e.transaction(w, r)
	if t.succeeded() {
		t.x.Break(failure) // finish reports it
		return
	}
	if errorStatus(failure) >= 500 {
		e.report(r, failure)
	}
	deferred, written := t.deferred(w)
	if deferred < 400 {
		deferred = 0
	}
	if t.sent() || deferred != 0 && written > 0 {
		t.failLate(w, failure)
		return
	}
	t.writeError(w, deferred, failure)
}

// failLate writes the body of an error whose status the handler has sent already.
func (t *transaction) failLate(w http.ResponseWriter, failure *usher.Error) {
	status, written := httpwriter.Progress(w)
	if status < 400 || written > 0 || t.isHead() {
		return
	}
	if shaper := t.shaper(replacing); shaper != nil {
		shaper.failure = failure
		shaper.noteFailure(nil, wrapsLate, status, failure)
		return
	}
	s := newScratch()
	defer s.release()
	s.b = t.appendError(s, status, failure)
	t.noteFailure(s.b, renderedLate, status, failure)
	_, _ = w.Write(s.b)
}

// shaper returns the innermost transaction from t outwards that is in the given phase, or
// nil.
func (t *transaction) shaper(in phase) *transaction {
	for ; t != nil; t = t.outer {
		if t.phase == in {
			return t
		}
	}
	return nil
}

// appendError appends failure. A status other than 0 replaces the status of failure.
func (t *transaction) appendError(s *scratch, status int, failure *usher.Error) []byte {
	resp := t.response(s, errorStatus(failure), failure.Code, failure.Message)
	resp.ProblemType, resp.RetryAfter = failure.Type, failure.RetryAfter
	resp.Param, resp.Fields, resp.Details = failure.Param, failure.Fields, failure.Details
	if status != 0 {
		resp.Status = status
	}
	return t.env.shape.Error(s.b, resp)
}

// writeError writes failure to w. A status other than 0 replaces that of failure.
func (t *transaction) writeError(w http.ResponseWriter, status int, failure *usher.Error) {
	s := newScratch()
	defer s.release()
	s.b = t.appendError(s, status, failure)
	status = s.response.Status
	t.noteFailure(s.b, rendered, status, failure)

	h := w.Header()
	challenge(h, status) // the catalogue may have made it a 401
	if t.writesTo(w) {
		t.restoreEncoding(h)
	}
	t.send(w, status, t.env.shape.ErrorType, s.b)
}

// writesTo reports whether w is the writer of t, or reaches it through writers of this
// module alone. A foreign writer in between may belong to a compressor, whose
// Content-Encoding must stay (golang/go#66343).
func (t *transaction) writesTo(w http.ResponseWriter) bool {
	own := httpwriter.Of(w)
	for own != nil && own != &t.writer {
		own = httpwriter.Of(own.Unwrap())
	}
	return own != nil
}

// errorStatus returns the status of e by the rule of usher.Fail.
func errorStatus(e *usher.Error) int {
	if e.Status < 400 || e.Status > 999 {
		return http.StatusInternalServerError
	}
	return e.Status
}

// response prepares the response in s.
func (t *transaction) response(s *scratch, status int, code, message string) *Response {
	resp := &s.response
	*resp = Response{
		Status: status, Code: code, Message: message,
		RequestID: t.id, Start: t.start, t: t, s: s,
	}
	t.env.catalogue.apply(resp)
	return resp
}

// WriteReply writes a success in the shape of the service, for
// [usher.Respond]. Data that cannot be encoded becomes a 500.
//
// If the handler has already sent a status itself, the data becomes the body of that
// response, with the header as it was sent. Data that follows a body, or that belongs to
// a status without a body, is lost and reported to OnError.
//
// Without data, a shape with bare successes sends only the status, with 204 in place of
// 200.
func (e *Envelope) WriteReply(w http.ResponseWriter, r *http.Request, reply usher.Reply) {
	t := e.transaction(w, r)
	if reply.Message == "" {
		reply.Message = t.successMessage()
	}
	deferred, written := t.deferred(w)
	if t.sent() || deferred != 0 && (deferred >= 400 || !bodyAllowed(deferred) || written > 0) {
		t.replyLate(w, r, reply)
		return
	}
	if deferred != 0 {
		reply.Status = deferred
	}
	t.writeReply(w, r, deferred, reply)
}

// writeReply writes a success to w. A status other than 0 replaces that of reply, and what
// the catalogue lists for it.
func (t *transaction) writeReply(w http.ResponseWriter, r *http.Request, status int, reply usher.Reply) {
	if reply.Status < 200 {
		reply.Status = http.StatusOK
	}
	s := newScratch()
	defer s.release()
	resp := t.response(s, reply.Status, reply.Code, reply.Message)
	resp.NoData, resp.Page = reply.Data == nil, reply.Page
	if status != 0 {
		resp.Status = status
	}

	bare := t.env.shape.Before == nil
	if bare && resp.NoData || !bodyAllowed(resp.Status) {
		if bare && resp.Status == http.StatusOK {
			resp.Status = http.StatusNoContent
		}
		dropStale(w.Header())
		t.x.Render(resp.Status)
		w.WriteHeader(resp.Status)
		return
	}
	if err := t.appendReply(s, resp, reply.Data); err != nil {
		usher.Fail(w, r, err)
		return
	}
	t.noteReply(s, rendered, resp.Status, &reply)
	dropStale(w.Header())
	if bare && resp.Page != nil {
		w.Header()["X-Total-Count"] = []string{strconv.Itoa(resp.Page.Total)}
	}
	t.send(w, resp.Status, t.env.shape.Type, s.b)
}

// appendReply appends a success to the buffer of s.
func (t *transaction) appendReply(s *scratch, resp *Response, data any) (err error) {
	bare := t.env.shape.Before == nil
	if !bare {
		s.b = t.env.shape.Before(s.b, resp)
	}
	s.dataAt = len(s.b)
	if !resp.NoData {
		if s.b, err = t.env.appendValue(s, s.b, data); err != nil {
			return fmt.Errorf("encode the data of a response: %w", err)
		}
	}
	s.dataEnd = len(s.b)
	if !bare {
		s.b = t.env.shape.After(s.b, resp)
	}
	return nil
}

// deferred returns the status that the handler has sent through w, and the length of the
// body, if a middleware in between defers both so that they have not reached t.
func (t *transaction) deferred(w http.ResponseWriter) (status int, written int64) {
	if own := httpwriter.Of(w); own == nil || own == &t.writer {
		return 0, 0
	}
	return httpwriter.Progress(w)
}

// replyLate writes the body of a success whose status the handler has sent already.
func (t *transaction) replyLate(w http.ResponseWriter, r *http.Request, reply usher.Reply) {
	status, written := httpwriter.Progress(w)
	switch {
	case t.isHead():
		return
	case status == 0 || status >= 400 || written > 0 || !bodyAllowed(status):
		if reply.Data != nil && r.Context().Err() == nil { // else nobody waits for it
			t.env.report(r, &usher.Error{
				Status: http.StatusInternalServerError, Code: usher.CodeInternal,
				Cause: errors.New("data is lost, as the response had begun without it"),
			})
		}
		return
	}
	s := newScratch()
	defer s.release()
	var err error
	if shaper := t.shaper(wrapping); shaper != nil {
		shaper.reply = &reply
		shaper.noteReply(s, wrapsLate, status, &reply)
		if reply.Data == nil {
			return
		}
		s.b, err = t.env.appendValue(s, s.b, reply.Data)
	} else {
		resp := t.response(s, status, reply.Code, reply.Message)
		resp.Status, resp.NoData, resp.Page = status, reply.Data == nil, reply.Page
		if err = t.appendReply(s, resp, reply.Data); err == nil {
			t.noteReply(s, renderedLate, status, &reply)
		}
	}
	if err != nil {
		usher.Fail(w, r, err)
		return
	}
	_, _ = w.Write(s.b)
}

// bodyAllowed reports whether a response with this final status may have a body.
// RFC 9110, section 15.3.6 forbids one for 205, where net/http would send it.
func bodyAllowed(status int) bool {
	switch status {
	case http.StatusNoContent, http.StatusResetContent, http.StatusNotModified:
		return false
	}
	return true
}

// serverCounts is the maximum length of a body for which the server sets Content-Length.
const serverCounts = 2 << 10

// send writes a whole response.
func (t *transaction) send(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	types, sniffing := t.contentType[:], t.nosniff[:]
	if !t.writesTo(w) {
		// A foreign writer may belong to an abandoned handler, while t responds.
		values := make([]string, 2)
		types, sniffing = values[:1], values[1:]
	}
	types[0], sniffing[0] = contentType, "nosniff"
	h["Content-Type"], h["X-Content-Type-Options"] = types[:1:1], sniffing[:1:1]
	// A compressor that has announced itself changes the length.
	if (len(body) > serverCounts || t.flushes) && len(h["Content-Encoding"]) == 0 {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	t.x.Render(status)
	w.WriteHeader(status)
	// An error means that the client has gone.
	_, _ = w.Write(body)
}
