package idempotency

import (
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/httpwriter"
	"github.com/usher-go/usher/internal/unrendered"
)

// A capture collects the response of an execution until it is stored, or passes on a
// response that cannot be stored. It is the [httpwriter.Hook] of its own writer, so that
// handlers, which have the Execution, cannot call the hook.
type capture struct {
	execution *Execution
	writer    httpwriter.Writer
	// outerEncoding is the Content-Encoding that an outer middleware announced before the
	// handler ran.
	outerEncoding []string
	// The header and the responder of outer middlewares, for an error in place of a response
	// whose transaction is not committed.
	outerHeader    http.Header
	outerResponder *any
	source         unrendered.Source // of the outer envelope, or nil

	mu       sync.Mutex // as a handler may leave a goroutine behind
	phase    phase
	flags    byte // of the stored response
	excess   bool // more was written than declared
	status   int
	buffer   *buffer // in the phase collecting
	payload  *buffer // with the stored response, if that is not in buffer
	declared int64   // the Content-Length of the response, or -1
}

// A phase is what a capture does with the response.
type phase uint8

const (
	awaiting   phase = iota // the status
	collecting              // the body, until the response is stored
	passing                 // a response that cannot be stored
	ended
)

func (c *capture) init(e *Execution, w http.ResponseWriter) {
	c.execution = e
	h := w.Header()
	c.outerEncoding = h["Content-Encoding"]
	if e.m.memory == nil { // whose requests do not wait for a server
		c.outerHeader = maps.Clone(h)
	}
	c.outerResponder = exchange.Responder.Load(e.exchange)
	c.writer.Init(w, c)
	if s := shaperOf(c.outerResponder); s != nil {
		c.source = s.Watch(e.exchange)
	}
}

// Head implements [httpwriter.Hook].
func (c *capture) Head(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != awaiting {
		return
	}
	c.status = status
	if t := c.execution.transaction; t != nil {
		c.collectDeferred(t)
		return
	}
	declared, ok := c.storable()
	if !ok {
		c.pass()
		c.writer.Detach()
		return
	}
	c.collect(declared)
}

// storable reports whether a response with this status and header can be stored, and
// returns its declared length.
func (c *capture) storable() (declared int64, ok bool) {
	h := c.writer.Header()
	declared = declaredLength(h)
	ok = c.status >= 200 && len(h["Trailer"]) == 0 && declared <= int64(c.execution.m.config.MaxResponse)
	return declared, ok
}

// declaredLength returns the Content-Length as the server understands it, or -1.
func declaredLength(h http.Header) int64 {
	values := h["Content-Length"]
	if len(values) == 0 {
		return -1
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// collect begins to collect the response, whose declared length is given.
func (c *capture) collect(declared int64) {
	h := c.writer.Header()
	c.phase = collecting
	c.declared = declared
	c.buffer = newBuffer()
	c.buffer.b = appendHead(c.buffer.b, c.status, h, c.execution.m.keptHeaders, c.outerEncoding)
	// Ask now: an outer envelope records next that it has wrapped the response.
	if c.rendered() {
		c.flags = flagRendered
	}
}

// rendered reports whether the response has the shape of the service.
func (c *capture) rendered() bool { return c.execution.exchange.Rendered(c.status) }

// pass gives up storing the response, which is about to be sent. The claim is
// finished first, so that no retry runs after the client has received a byte, even if
// this process dies now.
func (c *capture) pass() {
	c.phase, c.buffer = passing, nil
	e := c.execution
	if o := e.decide(c.status); o != Release {
		e.tombstone(o, c.status)
	}
	e.work.bind()
}

var errEnded = errors.New("idempotency: written after the handler has returned")

// Body implements [httpwriter.Hook].
func (c *capture) Body(inner http.ResponseWriter, p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.execution.transaction
	switch {
	case c.phase == ended:
		return 0, errEnded
	case t != nil && t.fault != nil:
		return 0, t.fault
	case t != nil && !bodyAllowed(c.status):
		return 0, http.ErrBodyNotAllowed
	case c.phase != collecting || !bodyAllowed(c.status):
		return inner.Write(p)
	case c.declared >= 0 && (c.excess || int64(len(c.body())+len(p)) > c.declared):
		// The server refuses such a write, and all after it.
		c.excess = true
		return 0, http.ErrContentLength
	case len(c.body())+len(p) <= c.execution.m.config.MaxResponse:
		if t != nil && len(c.body()) == 0 && c.flags == 0 && c.rendered() {
			// A responder of this module writes a body for the status of the handler.
			c.buffer.release()
			c.collectDeferred(t)
		}
		c.buffer.b = append(c.buffer.b, p...)
		return len(p), nil
	case t != nil:
		return 0, t.refuse(errTooLong)
	}
	collected := c.buffer
	c.pass()
	c.writer.Detach()
	defer collected.release()
	if err := forward(inner, collected); err != nil {
		return 0, err
	}
	return inner.Write(p)
}

// body returns the body that has been collected.
func (c *capture) body() []byte { return bodyOf(c.buffer.b) }

func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// forward sends a body that was collected.
func forward(inner http.ResponseWriter, collected *buffer) error {
	p := bodyOf(collected.b)
	if len(p) == 0 {
		return nil
	}
	_, err := inner.Write(p)
	return err
}

// Release implements [httpwriter.Hook].
func (c *capture) Release(hijacked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != awaiting && c.phase != collecting {
		return
	}
	if t := c.execution.transaction; t != nil {
		_ = t.refuse(httpwriter.ErrDeferred)
		return
	}
	if hijacked && c.status == 0 {
		c.status = http.StatusSwitchingProtocols
	}
	collected := c.buffer
	c.pass()
	if collected != nil {
		// The next write returns the error again.
		_ = forward(c.writer.Unwrap(), collected)
		collected.release()
	}
	c.writer.Detach()
}

// incomplete reports whether the response is not what the handler meant to send: a
// retry would take a part for the whole.
func (c *capture) incomplete() bool {
	// After a success has begun, an error means that something failed midway.
	if c.status < 400 && c.writer.LateError() != 0 {
		return true
	}
	// A length that does not match Content-Length comes from an upstream that broke off,
	// for instance. The first client notices, because the server closes its connection.
	if c.declared < 0 || !bodyAllowed(c.status) {
		return false
	}
	return c.excess || int64(len(c.body())) != c.declared
}

// hasTrailers reports whether the handler has set trailers without announcing them.
func (c *capture) hasTrailers() bool {
	for name := range c.writer.Header() {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// close ends the capture. Later writes fail.
func (c *capture) close() {
	c.phase = ended
	if c.buffer != nil {
		c.buffer.release()
		c.buffer = nil
	}
	if c.payload != nil {
		c.payload.release()
		c.payload = nil
	}
}
