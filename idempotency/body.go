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

// buffers are for requests and answers on their way.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

type buffer struct{ b []byte }

// maxPooled is the largest buffer that is kept for another request.
const maxPooled = 64 << 10

func newBuffer() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) release() {
	if cap(b.b) <= maxPooled {
		b.b = b.b[:0]
		buffers.Put(b)
	}
}

// readBody appends the body of r to b. It allocates for what has arrived, not
// for what is announced.
func (m *Middleware) readBody(b []byte, r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return b, nil
	}
	if r.ContentLength > m.config.MaxBody {
		return b, &http.MaxBytesError{Limit: m.config.MaxBody}
	}
	start := len(b)
	if n := r.ContentLength; n > 0 && n <= maxPooled {
		b = slices.Grow(b, int(n)+1) // and room to find the end
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
		// Few bodies need a look at the clock: the most come in one piece.
		if int64(len(b)-start) == r.ContentLength {
			continue
		}
		switch now := time.Now(); {
		case deadline.IsZero():
			deadline = now.Add(m.config.BodyTimeout)
		case now.After(deadline):
			return b, m.errors.slowBody
		}
	}
}

// room returns for how much more to make room once so much of a body has come:
// as much again, but not beyond what is announced and the look for its end.
func room(have, announced int64) int {
	more := max(have, 512)
	if announced >= have {
		more = min(more, announced-have+1)
	}
	return int(more)
}

// leaveBody gives up on a body that comes too slowly. The server would go on to
// read it before it responds. What is too large, usher.Fail leaves unread.
func (m *Middleware) leaveBody(w http.ResponseWriter, r *http.Request, why error) {
	if !errors.Is(why, m.errors.slowBody) {
		return
	}
	httpwriter.LeaveUnread(w, r)
	// Where there are no deadlines there is no slow client either.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now())
}

// readError returns how to answer a body that could not be read, or nil at its
// end.
func (m *Middleware) readError(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err // of a limit further out
	}
	return &usher.Error{
		Status:  http.StatusBadRequest,
		Code:    usher.CodeBodyUnreadable,
		Message: "The request body could not be read.",
		Cause:   fmt.Errorf("idempotency: read the body: %w", err),
	}
}

// body gives a handler the bytes that were hashed. It reads from a buffer that
// serves another request later, so once it is closed it gives nothing, also to a
// goroutine that the handler has left behind.
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
