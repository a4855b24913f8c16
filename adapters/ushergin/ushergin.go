package ushergin

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
)

// Wrap makes a gin middleware of m.
//
// What m refuses is aborted: nothing after it in the chain runs. What m puts into
// the request and around the writer is there for the rest of the chain and gone
// after it, also if that panics. [http.Request.Pattern] is set to the full path of
// the route before m runs, and is empty for a request that matches none.
//
// Wrap adds no allocation, and one if m replaces the writer.
func Wrap(m usher.Middleware) gin.HandlerFunc {
	return func(c *gin.Context) {
		n := rests.Get().(*rest)
		n.c = c
		c.Request.Pattern = c.FullPath()
		m.ServeNext(c.Writer, c.Request, n)
		if !n.called {
			c.Abort()
		}
		// After a panic somebody may still hold n, so it is not used again.
		*n = rest{}
		rests.Put(n)
	}
}

// WrapFunc makes a gin middleware of one that knows nothing of usher. It is called
// once; the handler that it returns serves every request. Everything else is as
// with [Wrap], but costs a copy of the request.
//
// The middleware must call its next handler on the goroutine that called it, as
// contexts of gin are not safe for concurrent use: [http.TimeoutHandler] does not.
// A middleware that passes on a request without the context of the one that it got
// is answered with 500.
func WrapFunc(middleware func(http.Handler) http.Handler) gin.HandlerFunc {
	handler := middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		carrier, ok := r.Context().Value(carrierKey{}).(*carrier)
		if !ok {
			usher.Fail(w, r, errNoCarrier)
			return
		}
		carrier.ServeHTTP(w, r)
	}))
	return func(c *gin.Context) {
		outer := c.Request
		outer.Pattern = c.FullPath()
		carrier := &carrier{Context: outer.Context(), rest: rest{c: c}}
		carrier.request = outer.WithContext(carrier)
		// The server removes the temporary files of a form only from the request that
		// it made (golang/go#58809).
		defer func() { outer.MultipartForm = carrier.request.MultipartForm }()
		handler.ServeHTTP(c.Writer, carrier.request)
		if !carrier.called {
			c.Abort()
		}
	}
}

var errNoCarrier = errors.New("ushergin: a middleware has lost the context of the request")

// rest is the rest of a chain, as the handler that a middleware calls next.
type rest struct {
	c       *gin.Context
	request *http.Request // that it was called with
	called  bool
}

var rests = sync.Pool{New: func() any { return new(rest) }}

func (n *rest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.called, n.request = true, r
	c, request, outer := n.c, n.c.Request, n.c.Writer
	defer func() {
		// The chain may have copied the request once more.
		r.MultipartForm = c.Request.MultipartForm
		c.Request, c.Writer = request, outer
	}()
	c.Request = r
	if w == http.ResponseWriter(outer) {
		c.Next()
		return
	}
	inner := &responseWriter{ResponseWriter: w, outer: outer, status: outer.Status(), size: notWritten}
	c.Writer = inner
	c.Next()
	inner.forward()
}

// A carrier brings the rest of a chain through a middleware that knows only the
// request, in its context.
type carrier struct {
	context.Context
	rest
}

type carrierKey struct{}

func (c *carrier) Value(key any) any {
	if key == (any)(carrierKey{}) {
		return c
	}
	return c.Context.Value(key)
}
