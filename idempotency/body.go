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

// readBody appends the body of r to b. It allocates for what has arrived, not for what
// Content-Length announces.
func (m *Middleware) readBody(b []byte, r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return b, nil
	}
	if r.ContentLength > m.config.MaxBody {
		return b, &http.MaxBytesError{Limit: m.config.MaxBody}
	}
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
		// Most bodies arrive in one read, so the clock is rarely consulted.
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
	if !errors.Is(why, m.refusals.slowBody) {
		return
	}
	httpwriter.LeaveUnread(w, r)
	// A connection without deadlines has no slow client either.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now())
}

// readError returns the error for a body that could not be read, or nil at its end.
func (m *Middleware) readError(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err // from an outer limit
	}
	return &usher.Error{
		Status:  http.StatusBadRequest,
		Code:    usher.CodeBodyUnreadable,
		Message: "The request body could not be read.",
		Cause:   fmt.Errorf("idempotency: read the body: %w", err),
	}
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
