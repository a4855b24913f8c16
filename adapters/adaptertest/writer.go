package adaptertest

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// A Writer is a middleware's response writer that has every ability of the server's own,
// and records what passes through it. It must be used through a pointer, and Inner must
// be set.
type Writer struct {
	Inner http.ResponseWriter
	// KeepBody controls whether Body is recorded.
	KeepBody bool

	status atomic.Int32
	size   int64
	body   []byte
}

// Status returns the final status that was sent, or 0. It may be called from any
// goroutine.
func (w *Writer) Status() int { return int(w.status.Load()) }

// Size returns how many bytes of body were written.
func (w *Writer) Size() int64 { return w.size }

// Body returns the body that was written, if KeepBody is set.
func (w *Writer) Body() string { return string(w.body) }

// Unwrap returns Inner, for [http.ResponseController].
func (w *Writer) Unwrap() http.ResponseWriter { return w.Inner }

// Header returns the header of Inner.
func (w *Writer) Header() http.Header { return w.Inner.Header() }

// WriteHeader sends a status. It does not record an informational status.
func (w *Writer) WriteHeader(status int) {
	w.Inner.WriteHeader(status)
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.status.CompareAndSwap(0, int32(status))
	}
}

// Write writes a piece of the body.
func (w *Writer) Write(p []byte) (int, error) {
	w.commit()
	n, err := w.Inner.Write(p)
	w.size += int64(n)
	if w.KeepBody {
		w.body = append(w.body, p[:n]...)
	}
	return n, err
}

// WriteString writes a piece of the body.
func (w *Writer) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// ReadFrom copies src into the body.
func (w *Writer) ReadFrom(src io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, src)
}

// commit sends the status 200 if none was sent, as the server would.
func (w *Writer) commit() {
	if w.Status() == 0 {
		w.WriteHeader(http.StatusOK)
	}
}

// Flush flushes, as far as Inner can.
func (w *Writer) Flush() { _ = w.FlushError() }

// FlushError flushes and returns the error of Inner.
func (w *Writer) FlushError() error {
	w.commit()
	return http.NewResponseController(w.Inner).Flush()
}

// Hijack takes the connection over from the server.
func (w *Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.Inner).Hijack()
}

// Push starts an HTTP/2 push if Inner supports that.
func (w *Writer) Push(target string, opts *http.PushOptions) error {
	if p, ok := w.Inner.(http.Pusher); ok {
		return p.Push(target, opts)
	}
	return http.ErrNotSupported
}

var _ interface {
	http.Flusher
	http.Hijacker
	http.Pusher
	io.ReaderFrom
	io.StringWriter
} = (*Writer)(nil)
