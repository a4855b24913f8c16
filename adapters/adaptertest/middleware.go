package adaptertest

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
)

// middlewareFunc is a function that serves as an usher.Middleware.
type middlewareFunc func(w http.ResponseWriter, r *http.Request, next http.Handler)

func (f middlewareFunc) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	f(w, r, next)
}

func (f middlewareFunc) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, next) })
}

// authenticate accepts a request whose field Caller names the caller, and copies the
// request.
func authenticate() usher.Middleware { return usher.Authenticate(byName{}) }

type byName struct{}

func (byName) Authenticate(r *http.Request) (*usher.Principal, error) {
	name := r.Header.Get("Caller")
	if name == "" {
		return nil, usher.ErrNoCredential
	}
	return &usher.Principal{ID: name, Kind: "name"}, nil
}

// refuse refuses everything.
func refuse() usher.Middleware {
	return middlewareFunc(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		usher.Fail(w, r, &usher.Error{Status: http.StatusTooManyRequests, Code: "refused"})
	})
}

// A tee is a middleware that records the response, as idempotency does, with a writer
// that has every ability.
type tee struct {
	captures chan capture
	entered  atomic.Int32 // number of requests whose capture has not been taken yet
}

// A capture is what a tee has recorded when next has returned or panicked.
type capture struct {
	status   int
	body     string
	returned bool
}

func newTee() *tee { return &tee{captures: make(chan capture, 100)} }

func (t *tee) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	t.entered.Add(1)
	writer, returned := &Writer{Inner: w, KeepBody: true}, false
	defer func() { t.captures <- capture{writer.Status(), writer.Body(), returned} }()
	next.ServeHTTP(writer, r)
	returned = true
}

func (t *tee) Wrap(next http.Handler) http.Handler { return middlewareFunc(t.ServeNext).Wrap(next) }

// capture returns the next capture, which may come after the response.
func (t *tee) capture() (capture, error) {
	if t.entered.Add(-1) < 0 {
		t.entered.Add(1)
		return capture{}, errors.New("the middleware did not run")
	}
	select {
	case c := <-t.captures:
		return c, nil
	case <-time.After(5 * time.Second):
		return capture{}, errors.New("the middleware did not return")
	}
}

// plainTee is a foreign middleware whose writer has only the methods of
// http.ResponseWriter.
func plainTee(t *tee) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			t.entered.Add(1)
			writer := &plainWriter{inner: w}
			defer func() { t.captures <- capture{writer.status, string(writer.body), writer.returned} }()
			next.ServeHTTP(writer, r)
			writer.returned = true
		})
	}
}

type plainWriter struct {
	inner    http.ResponseWriter
	status   int
	body     []byte
	returned bool
}

func (w *plainWriter) Header() http.Header { return w.inner.Header() }

func (w *plainWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.inner.WriteHeader(status)
}

func (w *plainWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.body = append(w.body, p...)
	return w.inner.Write(p)
}

// rewrite buffers a response, puts its body into angle brackets and adds a header field,
// like a middleware that needs the whole body. Its writer has only the methods of
// http.ResponseWriter.
func rewrite(w http.ResponseWriter, r *http.Request, next http.Handler) {
	b := &buffer{header: w.Header()}
	next.ServeHTTP(b, r)
	b.send(w)
}

// rewriteFlusher is rewrite with a writer that has a Flush, which does nothing.
func rewriteFlusher(w http.ResponseWriter, r *http.Request, next http.Handler) {
	b := &buffer{header: w.Header()}
	next.ServeHTTP(struct {
		*buffer
		http.Flusher
	}{b, noFlush{}}, r)
	b.send(w)
}

type noFlush struct{}

func (noFlush) Flush() {}

type buffer struct {
	header http.Header
	status int
	body   []byte
}

func (b *buffer) Header() http.Header { return b.header }

func (b *buffer) WriteHeader(status int) {
	if b.status == 0 {
		b.status = status
	}
}

func (b *buffer) Write(p []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	b.body = append(b.body, p...)
	return len(p), nil
}

func (b *buffer) send(w http.ResponseWriter) {
	delete(b.header, "Content-Length")
	b.header["Rewritten"] = []string{"yes"}
	if b.status != 0 {
		w.WriteHeader(b.status)
	}
	if b.status >= 200 && b.status != http.StatusNoContent && b.status != http.StatusNotModified {
		_, _ = io.WriteString(w, "<"+string(b.body)+">")
	}
}

// mark returns a middleware that records name in the response.
func mark(name string) middlewareFunc {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Add("Trace", name)
		next.ServeHTTP(w, r)
	}
}
