package ushergin

import (
	"net/http"
	"reflect"
	"sync"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
)

// Middleware returns m for an engine, a group or a route of gin. It panics if m is
// nil, as that is a step that someone believes to be there.
//
// What m refuses is aborted: nothing after it in the chain runs. So is a chain that
// has panicked, if m recovers. The request and the writer that m hands on are those
// of the chain after it, and those of before are back when m returns or the chain
// panics. [http.Request.Pattern] is the full path of the route before m runs, and
// empty for requests that match none.
//
// It adds no allocation, and one if m hands on another writer.
func Middleware(m usher.Middleware) gin.HandlerFunc {
	if m == nil {
		panic("ushergin: nil Middleware") //nolint:forbidigo // documented
	}
	return func(c *gin.Context) {
		r := rests.Get().(*rest)
		r.run(m, c)
		// Not after a panic: then m may still hold r.
		*r = rest{}
		rests.Put(r)
	}
}

// WrapMiddleware returns any other middleware of net/http, as [Middleware] does
// with those of usher. It calls m once, here, and costs a copy of each request. It
// panics if m is nil.
//
// A middleware that calls next on another goroutine, as [http.TimeoutHandler]
// does, cannot be used in gin at all: gin uses its context for another request as
// soon as the middleware has returned. One that hands on a request without the
// context of the one that it got is answered with 500.
func WrapMiddleware(m func(http.Handler) http.Handler) gin.HandlerFunc {
	adapted := usher.Adapt(m)
	return func(c *gin.Context) {
		// Not from the pool: other middlewares may keep their next.
		new(rest).run(adapted, c)
	}
}

// rests are used again, by middlewares that call next on the goroutine that
// called them, and never after they have returned.
var rests = sync.Pool{New: func() any { return new(rest) }}

// A rest is the next of a middleware: what follows in the chain.
type rest struct {
	context *gin.Context
	done    bool
}

func (s *rest) run(m usher.Middleware, c *gin.Context) {
	s.context = c
	// Also if it is empty: the pattern of an http.ServeMux around the engine would
	// be that of all routes.
	c.Request.Pattern = c.FullPath()
	m.ServeNext(c.Writer, c.Request, s)
	// Not done is also a chain that has panicked, if m recovered: gin would go on
	// with what the one that panicked has not let pass.
	if !s.done {
		c.Abort()
	}
}

func (s *rest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, request, outer := s.context, s.context.Request, s.context.Writer
	defer func() {
		// A copy that was made inside has the form, of which the server is to remove
		// the temporary files.
		r.MultipartForm = c.Request.MultipartForm
		c.Request, c.Writer = request, outer
	}()
	c.Request = r
	if same(w, outer) {
		c.Next()
		s.done = true
		if awaits(c) {
			// Somebody further out may still make another error of it. A middleware that
			// asks how the request has ended is to know of this one.
			usher.NoteFailure(r, 0, failure(c))
		}
		return
	}
	inner := &responseWriter{ResponseWriter: w, outer: outer, status: outer.Status(), size: notWritten}
	c.Writer = inner
	c.Next()
	s.done = true
	switch {
	case !awaits(c):
	case usher.PassesThrough(w):
		usher.NoteFailure(r, 0, failure(c))
	default:
		// The middleware wants to see this response, and once it has returned it is too
		// late.
		respond(c)
	}
	inner.forward()
}

// same reports whether a is b. Writers that are no pointers, as somebody's may be,
// are taken for different: to compare them could panic.
func same(a, b http.ResponseWriter) bool {
	return reflect.TypeOf(a).Kind() == reflect.Pointer && a == b
}
