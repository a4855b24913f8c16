package idempotency

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/httpwriter"
)

// buffers hold requests and responses in transit.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

type buffer struct{ b []byte }

// maxPooled is the capacity of the largest buffer that is reused.
const maxPooled = 64 << 10

func newBuffer() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) release() {
	if cap(b.b) <= maxPooled {
		b.b = b.b[:0]
		buffers.Put(b)
	}
}

// readBody appends the body of r to b. It takes no longer than BodyTimeout if a deadline
// can be set through w.
func (m *Middleware) readBody(b []byte, w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return b, nil
	}
	if r.ContentLength > m.config.MaxBody {
		return b, &http.MaxBytesError{Limit: m.config.MaxBody}
	}
	conn := connection(w)
	if conn == nil {
		return m.readAll(b, r)
	}
	// A timer, unlike a deadline that is set now, leaves the deadlines alone that the server
	// or an outer handler has set, unless the body is late.
	ended := make(chan struct{})
	timer := time.AfterFunc(m.config.BodyTimeout, func() {
		defer close(ended)
		_ = conn.SetReadDeadline(past)
	})
	b, err := m.readAll(b, r)
	if !timer.Stop() {
		<-ended
		err = m.late(err)
	}
	return b, err
}

// late returns the error for a body that was late and could not be read because of err, if
// that is not nil. A chunked body that stalls in its trailer ends as if it had broken off.
func (m *Middleware) late(err error) error {
	e, ok := errors.AsType[*usher.Error](err)
	switch {
	case err == nil:
		return m.refusals.slowBody
	case ok && e.Code == usher.CodeBodyUnreadable:
		return m.slow(err)
	}
	return err
}

// slow returns the error for a body that was late, with its private cause.
func (m *Middleware) slow(cause error) error {
	e := *m.refusals.slowBody
	e.Cause = cause
	return &e
}

// past is a deadline that has passed whatever the clock shows.
var past = time.Unix(1, 0)

// A deadliner is the server's side of a request, whose reads can be ended.
type deadliner interface{ SetReadDeadline(time.Time) error }

// connection returns the connection or the stream below w, or nil if none can be reached.
func connection(w http.ResponseWriter) deadliner {
	for {
		switch v := w.(type) {
		case deadliner:
			return v
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return nil
		}
	}
}

// readAll appends the body of r to b. It allocates for what has arrived, not for what
// Content-Length announces.
func (m *Middleware) readAll(b []byte, r *http.Request) ([]byte, error) {
	start := len(b)
	if n := r.ContentLength; n > 0 && n <= maxPooled {
		b = slices.Grow(b, int(n)+1) // one more byte to see the end
	}
	var deadline time.Time
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, room(int64(len(b)-start), r.ContentLength))
		}
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)-start) > m.config.MaxBody {
			return b, &http.MaxBytesError{Limit: m.config.MaxBody}
		}
		if err != nil {
			return b, m.readError(err)
		}
		// This is for bodies that no deadline ends. Most bodies arrive in one read, so the
		// clock is rarely consulted.
		if int64(len(b)-start) == r.ContentLength {
			continue
		}
		switch now := time.Now(); {
		case deadline.IsZero():
			deadline = now.Add(m.config.BodyTimeout)
		case now.After(deadline):
			return b, m.refusals.slowBody
		}
	}
}

// room returns by how many bytes to grow a buffer that has received have bytes of a body:
// as many again, but at most the rest of the announced length and one byte to see the
// end.
func room(have, announced int64) int {
	more := max(have, 512)
	if announced >= have {
		more = min(more, announced-have+1)
	}
	return int(more)
}

// leaveBody keeps the server from reading the rest of a body that arrives too slowly
// before it responds. usher.Fail does so for a body that is too large.
func (m *Middleware) leaveBody(w http.ResponseWriter, r *http.Request, why error) {
	if e, ok := errors.AsType[*usher.Error](why); !ok || e.Status != http.StatusRequestTimeout {
		return
	}
	httpwriter.LeaveUnread(w, r)
}

// readError returns the error for a body that could not be read, or nil at its end. What
// refuses a body while it is read, such as a limit or a decompressor outside this
// middleware, determines the status.
func (m *Middleware) readError(err error) error {
	if err == io.EOF { //nolint:errorlint // a reader returns it as it is; wrapped, it is a body that broke off
		return nil
	}
	if e, ok := errors.AsType[*usher.Error](err); ok && e != nil {
		return err
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	cause := fmt.Errorf("idempotency: read the body: %w", err)
	switch status := statusOf(err); status {
	case 0, http.StatusBadRequest:
		return &usher.Error{
			Status: http.StatusBadRequest, Code: usher.CodeBodyUnreadable, Cause: cause,
			Message: "The request body could not be read.",
		}
	case http.StatusRequestTimeout:
		return m.slow(cause)
	case http.StatusRequestEntityTooLarge:
		return &usher.Error{
			Status: status, Code: usher.CodePayloadTooLarge, Cause: cause,
			Message: "The request body is too large.",
		}
	default:
		return &usher.Error{Status: status, Cause: cause}
	}
}

// statusOf returns the status of an error that a body returned, or 0 if it has none. Errors
// of echo v5 have a StatusCode; those of connections have a Timeout, for instance after
// http.Server.ReadTimeout.
func statusOf(err error) int {
	if e, ok := errors.AsType[interface {
		error
		StatusCode() int
	}](err); ok {
		if status := e.StatusCode(); status >= 400 && status <= 599 {
			return status
		}
	}
	if e, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && e.Timeout() {
		return http.StatusRequestTimeout
	}
	return 0
}

// body is the request body for the handler: the bytes that were hashed. They are in a
// buffer that later serves another request, so reads fail once the body is closed, even
// those of a goroutine that the handler has left behind.
type body struct {
	mu     sync.Mutex
	rest   []byte
	closed bool
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *body) Close() error {
	b.mu.Lock()
	b.rest, b.closed = nil, true
	b.mu.Unlock()
	return nil
}
