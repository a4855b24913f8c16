// Package httpwriter has the one response writer of this module: it wraps the server's
// writer, sees what a handler writes, and keeps every ability of the writer that it
// wraps.
package httpwriter

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// A Hook sees, and may change, what a handler writes.
type Hook interface {
	// Head is called once, before the final status is sent (an informational one
	// is not final, 101 is), and may still change the header.
	Head(status int)
	// Body forwards p to the inner writer in whatever form it likes and returns
	// how many bytes of p it took.
	Body(inner http.ResponseWriter, p []byte) (int, error)
	// Release is called before the handler flushes, or hijacks the connection: from then
	// on the response is no longer one piece.
	Release(hijacked bool)
}

// Writer is a http.ResponseWriter that calls a [Hook] and counts what is written. It
// implements http.Flusher, http.Hijacker, http.CloseNotifier, io.ReaderFrom,
// io.StringWriter, http.Pusher and, for http.ResponseController, FlushError and Unwrap;
// what the inner writer cannot do is reported as http.ErrNotSupported.
//
// One ability cannot be kept: http.MaxBytesReader asks the server's own writer, by a
// method that no other package can implement, to close the connection of a body that is
// too large (golang/go#73754). A Writer that has its request makes up for it: see
// [Writer.SetRequest].
//
// The zero value needs Init. Like any http.ResponseWriter it serves one request;
// Status and Hijacked may be called at any time from anywhere.
type Writer struct {
	inner    http.ResponseWriter
	hook     Hook
	request  *http.Request // or nil
	status   atomic.Int32
	late     atomic.Int32
	gone     atomic.Bool // hijacked
	deferred atomic.Bool // until the hook sends it
	bytes    int64
}

// Init prepares w. The hook may be nil.
func (w *Writer) Init(inner http.ResponseWriter, hook Hook) {
	*w = Writer{inner: inner, hook: hook}
}

// SetRequest names the request that w responds to. Errors that a handler writes
// are then preceded by [Refuse], so that none is lost because the handler has not
// read the body.
func (w *Writer) SetRequest(r *http.Request) { w.request = r }

// Request returns the request that was passed to SetRequest, or nil.
func (w *Writer) Request() *http.Request { return w.request }

// Detach removes the hook, which is not called again. A hook that needs nothing more of a
// response calls it in Head, so that the server can use sendfile.
func (w *Writer) Detach() { w.hook = nil }

// ErrDeferred is the error of Flush and Hijack for a deferred response.
var ErrDeferred = errors.New("httpwriter: the response is sent after its handler has returned, so it cannot be streamed")

// Defer defers the response from now on: nothing reaches the inner writer but what the hook
// writes to it, and Flush and Hijack fail. A hook that collects the response calls it before
// the status is sent, and sends the response later, or another one.
func (w *Writer) Defer() { w.deferred.Store(true) }

// Resume ends Defer. The hook has written all that reached w in between.
func (w *Writer) Resume() { w.deferred.Store(false) }

// Status returns the final status that was sent, or 0 if none was. A deferred response
// counts as sent.
func (w *Writer) Status() int { return int(w.status.Load()) }

// LateError returns the status of an error that the handler sent after another status,
// too late for an error response, or 0.
func (w *Writer) LateError() int { return int(w.late.Load()) }

// Bytes returns how many bytes of body the handler has written.
func (w *Writer) Bytes() int64 { return w.bytes }

// Of returns the Writer that w is or embeds, or nil.
func Of(w http.ResponseWriter) *Writer {
	if v, ok := w.(interface{ self() *Writer }); ok {
		return v.self()
	}
	return nil
}

func (w *Writer) self() *Writer { return w }

// Progress returns the status and the number of body bytes that were sent through the
// outermost Writer, from w inwards, that has sent a status. Both are 0 if there is none.
// Only the goroutine that writes to w may call it.
func Progress(w http.ResponseWriter) (status int, bytes int64) {
	for {
		if own := Of(w); own != nil && own.Status() != 0 {
			return own.Status(), own.Bytes()
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return 0, 0
		}
		w = u.Unwrap()
	}
}

// Hijacked reports whether the handler has taken the connection.
func (w *Writer) Hijacked() bool { return w.gone.Load() }

// Unwrap is for http.ResponseController.
func (w *Writer) Unwrap() http.ResponseWriter { return w.inner }

// Header returns the header of the inner writer.
func (w *Writer) Header() http.Header { return w.inner.Header() }

// WriteHeader sends the status. Informational ones go straight through.
func (w *Writer) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		if !w.deferred.Load() {
			w.inner.WriteHeader(status)
		}
		return
	}
	if w.Hijacked() {
		w.complain("response.WriteHeader on hijacked connection")
		return
	}
	if w.Status() != 0 {
		w.complain("superfluous response.WriteHeader call")
		if status >= 400 {
			w.late.CompareAndSwap(0, int32(status))
		}
		return
	}
	if status >= 400 && w.request != nil {
		Refuse(w.inner, w.request)
	}
	if w.hook != nil {
		w.hook.Head(status)
	}
	// For an invalid status the server panics before it sends anything.
	if !w.deferred.Load() {
		w.inner.WriteHeader(status)
	}
	w.status.Store(int32(status))
}

// commit sends the status 200 if none was sent, as the server would.
func (w *Writer) commit() {
	if w.Status() == 0 && !w.Hijacked() {
		w.WriteHeader(http.StatusOK)
	}
}

// Write writes a piece of the body.
func (w *Writer) Write(p []byte) (int, error) {
	w.commit()
	var n int
	var err error
	if w.hook != nil {
		n, err = w.hook.Body(w.inner, p)
	} else {
		n, err = w.inner.Write(p)
	}
	w.bytes += int64(n)
	return n, err
}

// buffers are for copies between writers that have no better way.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// WriteString writes a piece of the body without making a copy of all of it.
func (w *Writer) WriteString(s string) (int, error) {
	w.commit()
	if w.hook == nil {
		if inner, ok := w.inner.(io.StringWriter); ok {
			n, err := inner.WriteString(s)
			w.bytes += int64(n)
			return n, err
		}
	}
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	written := 0
	for written < len(s) {
		n, err := w.Write(buf[:copy(buf[:], s[written:])])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// firstPiece is how much of a body goes the usual way before the server may
// take the rest in one go: enough to send the status and to sniff the type.
const firstPiece = 512

// ReadFrom copies src into the body; without a hook it lets the server use
// sendfile.
func (w *Writer) ReadFrom(src io.Reader) (int64, error) {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	var first int64
	if w.Status() == 0 {
		var err error
		first, err = io.CopyBuffer(onlyWriter{w}, io.LimitReader(src, firstPiece), buf[:])
		if err != nil || first < firstPiece {
			return first, err
		}
	}
	if inner, ok := w.inner.(io.ReaderFrom); ok && w.hook == nil {
		n, err := inner.ReadFrom(src)
		w.bytes += n
		return first + n, err
	}
	n, err := io.CopyBuffer(onlyWriter{w}, src, buf[:])
	return first + n, err
}

// onlyWriter hides ReadFrom from io.CopyBuffer.
type onlyWriter struct{ io.Writer }

// Flush flushes, as far as the inner writer can.
func (w *Writer) Flush() { _ = w.FlushError() }

// FlushError flushes and returns an error if that failed.
func (w *Writer) FlushError() error {
	w.commit()
	if w.hook != nil {
		w.hook.Release(false)
	}
	if w.deferred.Load() {
		return ErrDeferred
	}
	return http.NewResponseController(w.inner).Flush()
}

// Hijack takes the connection over from the server.
func (w *Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.hook != nil {
		w.hook.Release(true)
	}
	if w.deferred.Load() {
		return nil, nil, ErrDeferred
	}
	conn, rw, err := http.NewResponseController(w.inner).Hijack()
	if err == nil {
		w.gone.Store(true)
	}
	return conn, rw, err
}

// Push starts an HTTP/2 server push where the inner writer can.
func (w *Writer) Push(target string, opts *http.PushOptions) error {
	if p, ok := find[http.Pusher](w.inner); ok {
		return p.Push(target, opts)
	}
	return http.ErrNotSupported
}

// CloseNotify is for code older than request contexts, which asserts that its writer
// implements it. The channel never fires where the inner writer cannot notify.
func (w *Writer) CloseNotify() <-chan bool {
	if n, ok := find[interface{ CloseNotify() <-chan bool }](w.inner); ok {
		return n.CloseNotify()
	}
	return make(chan bool, 1)
}

// find returns the outermost writer from w inwards that is a T.
func find[T any](w http.ResponseWriter) (T, bool) {
	for {
		if t, ok := w.(T); ok {
			return t, true
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			var none T
			return none, false
		}
		w = u.Unwrap()
	}
}
