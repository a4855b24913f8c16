package envelope

import (
	"bytes"
	"encoding/json"
	"hash/maphash"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/unrendered"
)

// A responder is an Envelope as the [usher.Responder] of its requests. From it a
// middleware inside that stores responses learns how each was made, so that a replay has
// the request ID, the time and the address of its own request.
type responder struct{ *Envelope }

// Watch makes the envelope note from now on what it writes for the request of x, whose
// responder it is.
func (responder) Watch(x *exchange.Exchange) unrendered.Source {
	t := transactionFrom(x)
	t.watched = true
	return t
}

// ReplayReply writes a reply again, with the status that was sent. If late is set, the
// handler had sent that status itself.
func (p responder) ReplayReply(w http.ResponseWriter, r *http.Request, status int, late bool, reply usher.Reply) {
	t := p.transaction(w, r)
	if !late {
		t.writeReply(w, r, status, reply)
		return
	}
	w.WriteHeader(status)
	t.replyLate(w, r, reply)
}

// ReplayFailure writes a failure again, as ReplayReply does a reply. It is not reported: it
// is not a new one.
func (p responder) ReplayFailure(w http.ResponseWriter, r *http.Request, status int, late bool, failure *usher.Error) {
	t := p.transaction(w, r)
	if !late {
		t.writeError(w, status, failure)
		return
	}
	w.WriteHeader(status)
	t.failLate(w, failure)
}

// Announce sets the message of the success that is then written to r.
func (responder) Announce(r *http.Request, message string) {
	if t := transactionFrom(exchange.From(r.Context())); t != nil {
		t.message.Store(&message)
	}
}

// A manner is how the envelope has rendered a response.
type manner uint8

const (
	rendered     manner = iota // as a whole
	renderedLate               // as the body, after the handler had sent the status
	wrapsLate                  // not yet: it wraps or replaces the body when that is sent
)

// A note is the form of a response that the envelope has rendered.
type note struct {
	form   unrendered.Form
	status int // that was sent
	manner manner
	// The length and the hash of a rendered body show whether that is what was sent.
	length int
	hash   uint64
	// The data of a reply is body[dataAt:dataEnd], if it has any.
	hasData         bool
	dataAt, dataEnd int
}

// seed is that of all hashes of notes.
var seed = maphash.MakeSeed()

// noteReply notes a reply. The buffer of s has the rendered body, or only the data if the
// body is wrapped when it is sent.
func (t *transaction) noteReply(s *scratch, m manner, status int, reply *usher.Reply) {
	if !t.watched {
		return
	}
	n := &note{hasData: reply.Data != nil, dataAt: s.dataAt, dataEnd: s.dataEnd}
	n.form.Status, n.form.Code, n.form.Message = reply.Status, reply.Code, reply.Message
	if reply.Page != nil {
		page := unrendered.Page(*reply.Page)
		n.form.Page = &page
	}
	t.note(n, m, status, s.b)
}

// noteFailure notes a failure that was rendered as body. Details that cannot be encoded
// are not noted, and neither is their failure.
func (t *transaction) noteFailure(body []byte, m manner, status int, failure *usher.Error) {
	if !t.watched {
		return
	}
	n := &note{form: unrendered.Form{
		Kind: unrendered.Failure, Status: errorStatus(failure), Code: failure.Code, Message: failure.Message,
		Type: failure.Type, Param: failure.Param,
	}}
	for _, f := range failure.Fields {
		n.form.Fields = append(n.form.Fields, unrendered.Field(f))
	}
	if failure.Details != nil {
		s := newScratch()
		defer s.release()
		details, err := t.env.appendValue(s, s.b, failure.Details)
		if err != nil || !json.Valid(details) {
			return
		}
		n.form.Details = bytes.Clone(details)
		_, n.form.Members = failure.Details.(map[string]any)
	}
	t.note(n, m, status, body)
}

func (t *transaction) note(n *note, m manner, status int, body []byte) {
	n.manner, n.status, n.form.Late = m, status, m != rendered
	if m != wrapsLate {
		n.length, n.hash = len(body), maphash.Bytes(seed, body)
	}
	t.noted.Store(n)
}

// Form implements [unrendered.Source].
func (t *transaction) Form(status int, body []byte) *unrendered.Form {
	n := t.noted.Load()
	if n == nil || n.status != status {
		if message := t.successMessage(); message != "" && !t.Shaped(status) {
			return &unrendered.Form{Kind: unrendered.Message, Message: message}
		}
		return nil
	}
	form := n.form
	switch wraps := n.manner == wrapsLate; {
	case wraps && form.Kind == unrendered.Reply && len(body) > 0:
		form.Data = body
	case wraps:
	case n.length != len(body) || n.hash != maphash.Bytes(seed, body):
		return nil
	case n.hasData:
		form.Data = body[n.dataAt:n.dataEnd]
	}
	return &form
}

// Shaped implements [unrendered.Source].
func (t *transaction) Shaped(status int) bool {
	n := t.noted.Load()
	return t.untouched.Load() || n != nil && n.status == status && n.manner != wrapsLate
}
