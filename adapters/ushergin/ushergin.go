package ushergin

import (
	"net/http"
	"reflect"
	"sync"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
)

// Middleware returns m for an engine, a group or a route of gin. It panics if m is
// nil: a missing check must not pass unnoticed.
//
// A request that m refuses is aborted: nothing after m in the chain runs. So is a chain
// that has panicked, if m recovers. The chain after m runs with the request and the
// writer that m passes on, and the previous ones are restored when m returns or the chain
// panics. Before m runs, [http.Request.Pattern] is set to the full path of the route, or
// to "" for requests that match no route.
//
// It adds no allocation, or one if m passes on another writer.
func Middleware(m usher.Middleware) gin.HandlerFunc {
	if f, ok := m.(usher.MiddlewareFunc); m == nil || ok && f == nil {
		panic("ushergin: nil Middleware") //nolint:forbidigo // documented
	}
	return func(c *gin.Context) {
		r := rests.Get().(*rest)
		r.run(m, c)
		// Not done after a panic: m may then still use r.
		*r = rest{}
		rests.Put(r)
	}
}

// Adapt is [Middleware] for any other net/http middleware, which it converts with
// [usher.Adapt]. It panics if m is nil.
//
// A middleware that calls next on another goroutine, as [http.TimeoutHandler] does, does
// not work inside gin at all: gin reuses its context for another request as soon as the
// middleware has returned. Use [usher.Deadline].
func Adapt(m func(http.Handler) http.Handler) gin.HandlerFunc {
	adapted := usher.Adapt(m)
	return func(c *gin.Context) {
		// Not from the pool: other middlewares may keep their next handler.
		new(rest).run(adapted, c)
	}
}

// rests are reused, as an usher.Middleware calls next on the goroutine on which it was
// called, and never after it has returned.
var rests = sync.Pool{New: func() any { return new(rest) }}

// A rest is the next handler of a middleware: it runs the rest of the chain.
type rest struct {
	context *gin.Context
	done    bool
}

func (s *rest) run(m usher.Middleware, c *gin.Context) {
	s.context = c
	// Set it even to "": otherwise the pattern of an http.ServeMux around the engine
	// would remain for all routes.
	c.Request.Pattern = c.FullPath()
	m.ServeNext(c.Writer, c.Request, s)
	// If m has recovered from a panic, the chain is not done either: gin would continue
	// with the handlers after the one that panicked.
	if !s.done {
		c.Abort()
	}
}

func (s *rest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, request, outer := s.context, s.context.Request, s.context.Writer
	defer func() {
		// An inner copy of the request has the form whose temporary files the server must
		// remove.
		r.MultipartForm = c.Request.MultipartForm
		c.Request, c.Writer = request, outer
	}()
	c.Request = r
	if same(w, outer) {
		c.Next()
		s.done = true
		if awaits(c) {
			// An outer handler may still replace the error. A middleware that depends on
			// the outcome of the request needs this error.
			usher.NoteFailure(r, 0, failure(c))
		}
		return
	}
	inner := &responseWriter{ResponseWriter: w, outer: outer, status: outer.Status(), size: notWritten}
	c.Writer = inner
	encoding := encodingOf(c)
	c.Next()
	s.done = true
	switch {
	case !awaits(c):
	case usher.PassesThrough(w, outer):
		usher.NoteFailure(r, 0, failure(c))
	default:
		// The middleware must see this response before it returns.
		respond(c, encoding)
	}
	inner.forward()
}

// same reports whether a is b. Writers that are not pointers count as different, as
// comparing them could panic.
func same(a, b http.ResponseWriter) bool {
	return reflect.TypeOf(a).Kind() == reflect.Pointer && a == b
}

// PrincipalFrom returns the principal of the request, and whether there is one. It works
// whether or not gin.Engine.ContextWithFallback is set; [usher.PrincipalFrom] with c as
// the context works only if that is set.
func PrincipalFrom(c *gin.Context) (usher.Principal, bool) {
	return usher.PrincipalFrom(c.Request.Context())
}

// PathValues is a gin middleware that makes the parameters of the path available through
// [http.Request.PathValue], for middlewares and handlers of net/http. It costs two
// allocations.
func PathValues(c *gin.Context) {
	for _, p := range c.Params {
		c.Request.SetPathValue(p.Key, p.Value)
	}
}
