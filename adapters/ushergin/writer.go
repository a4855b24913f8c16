package ushergin

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/gin-gonic/gin"
)

const notWritten = -1 // as the Size of gin's writer

// responseWriter makes a gin.ResponseWriter of the writer of a middleware. Like gin's own
// it is lazy: it keeps a status until the body begins, so that an outer handler may still
// change it.
type responseWriter struct {
	http.ResponseWriter // the middleware's

	outer  gin.ResponseWriter // what the middleware writes to in the end
	status int
	set    bool // whether the handler has set status; otherwise it is that of outer
	size   int
}

// Unwrap is for http.ResponseController.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *responseWriter) Status() int { return w.status }

func (w *responseWriter) Size() int { return w.size }

func (w *responseWriter) Written() bool { return w.size != notWritten }

func (w *responseWriter) WriteHeader(status int) {
	switch {
	case status <= 0:
	case w.Written():
		// It is too late for the client. But a middleware that puts a shape around the
		// body must see the status, or what gin.Recovery has caught looks like a success.
		if status >= http.StatusBadRequest {
			w.ResponseWriter.WriteHeader(status)
		}
	case status < 200 && status != http.StatusSwitchingProtocols:
		inform(w.outer, status)
	default:
		w.status, w.set = status, true
	}
}

// inform sends an informational status, such as 103, with the first writer that is not
// gin's: gin would take it for the status of the response, and overwrite it.
func inform(w http.ResponseWriter, status int) {
	for {
		if _, ok := w.(gin.ResponseWriter); !ok {
			w.WriteHeader(status)
			return
		}
		inner, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		w = inner.Unwrap()
	}
}

func (w *responseWriter) WriteHeaderNow() {
	if w.Written() {
		return
	}
	w.size = 0
	w.ResponseWriter.WriteHeader(w.status)
	// The connection is about to be hijacked, and then the status that gin still keeps
	// would not be sent.
	if w.status == http.StatusSwitchingProtocols && w.outer.Status() == w.status {
		w.outer.WriteHeaderNow()
	}
}

// forward passes a status without a body on to the middleware. In gin the status stays
// lazy.
func (w *responseWriter) forward() {
	if !w.Written() && (w.set || w.status != http.StatusOK) {
		w.ResponseWriter.WriteHeader(w.status)
	}
}

func (w *responseWriter) Write(p []byte) (int, error) {
	w.WriteHeaderNow()
	n, err := w.ResponseWriter.Write(p)
	w.size += n
	return n, err
}

func (w *responseWriter) WriteString(s string) (int, error) {
	w.WriteHeaderNow()
	n, err := io.WriteString(w.ResponseWriter, s)
	w.size += n
	return n, err
}

// Flush flushes as far as the middleware's writer can.
func (w *responseWriter) Flush() { _ = w.FlushError() }

// FlushError is for http.ResponseController.
func (w *responseWriter) FlushError() error {
	w.WriteHeaderNow()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

var errWritten = errors.New("ushergin: hijack of a response whose body has begun")

// Hijack takes the connection over from the server. As in gin it is allowed after
// the header is written, which websocket libraries need.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.size > 0 {
		return nil, nil, errWritten
	}
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil && !w.Written() {
		w.size = 0
	}
	return conn, rw, err
}

// CloseNotify is for code older than request contexts. The channel never fires if no
// outer writer can notify.
func (w *responseWriter) CloseNotify() <-chan bool { return w.outer.CloseNotify() }

// Pusher returns the server's Pusher, or nil.
func (w *responseWriter) Pusher() http.Pusher { return w.outer.Pusher() }
