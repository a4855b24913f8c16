package idempotency

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/header"
	"github.com/usher-go/usher/internal/unrendered"
)

// replay responds with what is stored in record.
func (m *Middleware) replay(w http.ResponseWriter, r *http.Request, c *Claim, record *Record) {
	switch {
	case record.State != StateDone && len(record.Payload) > 0:
		m.refuseUnreadable(w, r, &c.Key, errCorrupt)
	case record.State == StateTombstone:
		m.refuse(w, r, notReplayable, &c.Key, withStatus(&m.refusals.notKept, record.Status, refusedByStatus(record.Status)))
	case record.State == StateUnknown:
		m.refuse(w, r, notReplayable, &c.Key, withStatus(&m.refusals.unknown, record.Status, false))
	default:
		stored, err := readResponse(record.Payload, &c.Key)
		if err != nil {
			m.refuseUnreadable(w, r, &c.Key, err)
			return
		}
		var form *unrendered.Form
		if len(stored.form) > 0 {
			if form = parseForm(&stored); form == nil {
				m.refuseUnreadable(w, r, &c.Key, errCorrupt)
				return
			}
		}
		m.note(r.Context(), replayed, &c.Key, 0, nil)
		m.send(w, r, &stored, form)
	}
}

// serverCounts is the length up to which the server sets Content-Length itself.
const serverCounts = 2 << 10

// send sends a stored response, whose form is nil if it is sent as it is.
func (m *Middleware) send(w http.ResponseWriter, r *http.Request, stored *storedResponse, form *unrendered.Form) {
	h := w.Header()
	compressed := len(h["Content-Encoding"]) > 0 // by an outer middleware, to another length
	if stored.status >= 400 {
		header.ClearSuccess(h, stored.status) // what an outer middleware has set
	}
	stored.setHeader(h, m.config.ReplayHeader, "true")
	if form != nil && render(w, r, stored.status, form) {
		return
	}
	if len(stored.body) > serverCounts && !compressed {
		h["Content-Length"] = []string{strconv.Itoa(len(stored.body))}
	}
	if stored.rendered {
		if x := exchange.From(r.Context()); x != nil {
			x.Render(stored.status)
		}
	}
	w.WriteHeader(stored.status)
	if len(stored.body) > 0 {
		// If this fails the client has disconnected.
		_, _ = w.Write(stored.body)
	}
}

// refuseUnreadable responds to a request whose record cannot be read. A process that runs
// the version that wrote the record may still read it.
func (m *Middleware) refuseUnreadable(w http.ResponseWriter, r *http.Request, key *Key, cause error) {
	m.failures.Error(r.Context(), cause)
	e := &usher.Error{
		Status: http.StatusInternalServerError, Code: usher.CodeIdempotencyRecordUnreadable, Cause: cause,
		Message: "The response to the first request with this idempotency key could not be read.",
	}
	if errors.Is(cause, errVersion) {
		e.Status, e.RetryAfter = http.StatusServiceUnavailable, retryAfter
	}
	m.refuse(w, r, unreadable, key, e)
}
