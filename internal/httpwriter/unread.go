package httpwriter

import (
	"bufio"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"
)

// serverReads is how much of an unread body the server reads by itself once the handler
// has returned.
const serverReads = 256 << 10

// Refuse prepares w for an error in response to r, whose body may still be arriving. If a
// connection is closed with data unread, the client's side may drop the response (RFC
// 9112, section 9.6), and a proxy turns it into a 502. The server prevents that by
// itself, but not if the client expects 100-continue or wants the connection closed, as
// nginx does by default.
//
// Refuse does not wait for the body: a slow client would keep what the outer middlewares
// have reserved for it. It does nothing for HTTP/2.
func Refuse(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	beyond := r.ContentLength < 0 || r.ContentLength > serverReads
	if r.Close || beyond && len(r.Header["Expect"]) > 0 {
		LeaveUnread(w, r)
	}
}

// LeaveUnread makes the server close the connection of r after the response without
// reading the rest of the body, but so that the client still receives the response. It
// does nothing for HTTP/2, where each request has a stream of its own.
//
// Only the server's own writer can do that, and only for a body that is too large
// (golang/go#73754).
func LeaveUnread(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 1 {
		return
	}
	// For an inner writer that is not the server's and passes on only this.
	w.Header()["Connection"] = []string{"close"}
	server := innermost(w)
	var one [1]byte
	_, _ = http.MaxBytesReader(server, endless{}, 0).Read(one[:])
	if _, ok := server.(interface{ SetReadDeadline(time.Time) error }); !ok {
		// A writer in between hides the server's, as that of gin-contrib/gzip does.
		drain(r)
	}
}

// serverBody is the type of the bodies that a server makes.
var serverBody = func() reflect.Type {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")))
	if err != nil {
		return nil // then nothing is drained
	}
	return reflect.TypeOf(r.Body)
}()

// patience is how long drain waits, which is as long as the server lingers.
const patience = 500 * time.Millisecond

// drain reads a body of at most serverReads if most of it has arrived, as from a proxy
// that buffers. Only the server's own body may have a second reader: it ends that reader
// at the latest when the handler has returned.
func drain(r *http.Request) {
	if r.ContentLength > serverReads || r.ContentLength < 0 || reflect.TypeOf(r.Body) != serverBody {
		return
	}
	body, done := r.Body, make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.CopyN(io.Discard, body, serverReads)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// innermost returns the writer of the server, unless one in between hides it.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = u.Unwrap()
	}
}

// endless is a body above every limit.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
func (endless) Close() error               { return nil }
