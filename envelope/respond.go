package envelope

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/httpwriter"
)

// RespondError writes e in the shape of the service, for [usher.Fail]. Once a
// status has been sent it writes nothing, so that there are never two bodies. If
// that was the status of a success, the connection is aborted when the handler has
// returned, so that the client does not take what it got for the whole of it.
func (e *Envelope) RespondError(w http.ResponseWriter, r *http.Request, failure *usher.Error) {
	t := e.transaction(w, r)
	if t.succeeded() {
		t.x.Break(failure) // finish reports it
		return
	}
	if errorStatus(failure) >= 500 {
		e.onError(r, failure)
	}
	if t.sent() {
		return
	}
	t.writeError(w, failure)
}

// writeError writes failure to w.
func (t *transaction) writeError(w http.ResponseWriter, failure *usher.Error) {
	s := newScratch()
	defer s.release()
	a := t.answer(s, errorStatus(failure), failure.Code, failure.Message)
	a.Param, a.Fields, a.Details, a.RetryAfter = failure.Param, failure.Fields, failure.Details, failure.RetryAfter
	s.b = t.env.shape.Error(s.b, a)

	h := w.Header()
	if _, ok := h["Www-Authenticate"]; !ok && a.Status == http.StatusUnauthorized {
		h["Www-Authenticate"] = []string{"Bearer"} // RFC 9110, section 15.5.2
	}
	if t.writesTo(w) {
		t.restoreEncoding(h)
	}
	delete(h, "Content-Range")
	delete(h, "Etag")
	delete(h, "Last-Modified")
	dropStale(h)
	t.send(w, a.Status, t.env.shape.ErrorType, s.b)
}

// writesTo reports whether w is the writer of t, or one of this module over it.
// Between t and a writer of others there may be a compressor, whose Content-Encoding
// must stay (golang/go#66343).
func (t *transaction) writesTo(w http.ResponseWriter) bool {
	for w != http.ResponseWriter(&t.writer) {
		own, ok := w.(*httpwriter.Writer)
		if !ok {
			return false
		}
		w = own.Unwrap()
	}
	return true
}

// restoreEncoding takes back what the handler has said of an encoding of its own
// body.
func (t *transaction) restoreEncoding(h http.Header) {
	if t.encoding == nil {
		delete(h, "Content-Encoding")
	} else {
		h["Content-Encoding"] = t.encoding
	}
}

// errorStatus returns the status that e stands for, as usher.Fail takes it.
func errorStatus(e *usher.Error) int {
	if e.Status < 400 || e.Status > 999 {
		return http.StatusInternalServerError
	}
	return e.Status
}

// answer prepares the answer in s.
func (t *transaction) answer(s *scratch, status int, code, message string) *Answer {
	a := &s.answer
	*a = Answer{
		Status: status, Code: code, Message: message,
		RequestID: t.id, Start: t.start, t: t, s: s,
	}
	t.env.catalogue.apply(a)
	return a
}

// RespondReply writes a success in the shape of the service, for
// [usher.Respond]. Data that cannot be encoded is answered with 500. Once a
// status has been sent it writes nothing.
//
// Without data, shapes that leave successes alone send the status alone, as 204
// if it was 200.
func (e *Envelope) RespondReply(w http.ResponseWriter, r *http.Request, reply usher.Reply) {
	t := e.transaction(w, r)
	if t.sent() {
		return
	}
	if reply.Message == "" {
		reply.Message = t.successMessage()
	}
	if reply.Status < 200 {
		reply.Status = http.StatusOK
	}
	s := newScratch()
	defer s.release()
	a := t.answer(s, reply.Status, reply.Code, reply.Message)
	a.NoData, a.Page = reply.Data == nil, reply.Page

	bare := e.shape.Before == nil
	if bare && a.NoData || !bodyAllowed(a.Status) {
		if bare && a.Status == http.StatusOK {
			a.Status = http.StatusNoContent
		}
		dropStale(w.Header())
		t.x.Render(a.Status)
		w.WriteHeader(a.Status)
		return
	}
	if !bare {
		s.b = e.shape.Before(s.b, a)
	}
	if !a.NoData {
		b, err := e.appendValue(s, s.b, reply.Data)
		if err != nil {
			delete(w.Header(), "Location")
			usher.Fail(w, r, fmt.Errorf("envelope: encode the data of an answer: %w", err))
			return
		}
		s.b = b
	}
	if !bare {
		s.b = e.shape.After(s.b, a)
	}
	dropStale(w.Header())
	t.send(w, a.Status, "application/json", s.b)
}

// bodyAllowed reports whether an answer of this final status has a body.
// RFC 9110, section 15.3.6 forbids one for 205, which net/http would send.
func bodyAllowed(status int) bool {
	switch status {
	case http.StatusNoContent, http.StatusResetContent, http.StatusNotModified:
		return false
	}
	return true
}

// serverCounts is the length up to which the server finds out Content-Length by
// itself.
const serverCounts = 2 << 10

// send writes a whole answer.
func (t *transaction) send(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	t.contentType[0] = contentType
	h["Content-Type"] = t.contentType[:1:1]
	t.nosniff[0] = "nosniff"
	h["X-Content-Type-Options"] = t.nosniff[:1:1]
	// A compressor that has announced itself makes another length of it.
	if len(body) > serverCounts && len(h["Content-Encoding"]) == 0 {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	t.x.Render(status)
	w.WriteHeader(status)
	// The client may have gone; there is nobody left to tell.
	_, _ = w.Write(body)
}

// dropStale removes the fields that describe the bytes of another body, or
// promise parts of it.
func dropStale(h http.Header) {
	for name := range h {
		if isStale(name) {
			delete(h, name)
		}
	}
}

func isStale(name string) bool {
	switch name {
	case "Content-Length", "Accept-Ranges", "Digest", "Content-Digest", "Repr-Digest", "Content-Md5":
		return true
	}
	return false
}
