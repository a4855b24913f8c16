package usherecho

import (
	"net/http"
	"reflect"
	"sync"

	"github.com/labstack/echo/v5"

	"github.com/usher-go/usher"
)

// Middleware returns m for [echo.Echo.Use], a group or a route. It panics if m is
// nil: a missing check must not pass unnoticed.
//
// What is inside m runs with the request and the writer that m passes on, and the
// previous ones are restored when m returns or panics. Before m runs,
// [http.Request.Pattern] is set to the path of the route, or to "" for requests that
// match no route. If m passes on another writer, the central error handler responds to an
// error of the handler before next returns, so that m sees the response. This is not done
// for [usher.Authenticate], which does not depend on the response. The error is still
// returned to outer middlewares.
//
// It adds no allocation, or one if m passes on another writer.
func Middleware(m usher.Middleware) echo.MiddlewareFunc {
	if f, ok := m.(usher.MiddlewareFunc); m == nil || ok && f == nil {
		panic("usherecho: nil Middleware") //nolint:forbidigo // documented
	}
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			s := steps.Get().(*step)
			err := s.run(m, c, next)
			// Not done after a panic: m may then still use s.
			*s = step{}
			steps.Put(s)
			return err
		}
	}
}

// Adapt is [Middleware] for any other net/http middleware, which it converts with
// [usher.Adapt]. Use it in place of [echo.WrapMiddleware]. It panics if m is nil.
//
// A middleware that calls next on another goroutine, as [http.TimeoutHandler] does, does
// not work inside echo at all: echo reuses its context for another request as soon as the
// middleware has returned. Use [usher.Deadline].
func Adapt(m func(http.Handler) http.Handler) echo.MiddlewareFunc {
	adapted := usher.Adapt(m)
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			// Not from the pool: other middlewares may keep their next handler.
			return new(step).run(adapted, c, next)
		}
	}
}

// steps are reused, as an usher.Middleware calls next on the goroutine on which it was
// called, and never after it has returned.
var steps = sync.Pool{New: func() any { return new(step) }}

// A step is the next handler of a middleware: it runs what is inside in echo.
type step struct {
	context *echo.Context
	next    echo.HandlerFunc
	err     error
}

func (s *step) run(m usher.Middleware, c *echo.Context, next echo.HandlerFunc) error {
	s.context, s.next = c, next
	r := c.Request()
	// Set it even to "", which means a path without a route: otherwise the pattern of an
	// http.ServeMux around echo would remain for all routes.
	r.Pattern = c.Path()
	m.ServeNext(c.Response(), r, s)
	return s.err
}

// ServeHTTP runs what is inside with the writer and the request of the middleware, and
// restores the previous ones, even after a panic: otherwise outer handlers would write to
// a writer that is no longer in use.
func (s *step) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := s.context
	if request := c.Request(); r != request {
		c.SetRequest(r)
		defer func() {
			// An inner handler may have copied the request once more, and the server
			// removes the temporary files of a form only for the request that it made.
			r.MultipartForm = c.Request().MultipartForm
			c.SetRequest(request)
		}()
	}
	response := c.Response()
	if same(w, response) {
		if s.err = s.next(c); s.err != nil && !committed(response) {
			// An outer handler may still replace the error. A middleware that depends on
			// the outcome of the request needs this error.
			usher.NoteFailure(r, 0, neutral(s.err, response.Header()))
		}
		return
	}
	inner := echo.NewResponse(flushing(w), c.Logger())
	inner.Status = http.StatusOK // as in a new context
	c.SetResponse(inner)
	defer c.SetResponse(response)
	s.err = s.next(c)
	switch {
	case s.err == nil:
	case usher.PassesThrough(w, response):
		if !inner.Committed {
			usher.NoteFailure(r, 0, neutral(s.err, inner.Header()))
		}
	case !inner.Committed || inner.Status < http.StatusBadRequest:
		// The middleware must see this response, or that what was sent is not a success,
		// before it returns. The error is still returned outwards, as from echo's own
		// BodyDump.
		if inner.Committed { // which another error handler may not check
			usher.NoteFailure(r, inner.Status, s.err)
		}
		c.Echo().HTTPErrorHandler(c, s.err)
	}
}

// same reports whether a is b. Writers that are not pointers count as different, as
// comparing them could panic.
func same(a, b http.ResponseWriter) bool {
	return reflect.TypeOf(a).Kind() == reflect.Pointer && a == b
}

// PathValues is a middleware that makes the parameters of the route available through
// [http.Request.PathValue], for middlewares and handlers of net/http. It costs two
// allocations for each request to a route with parameters.
func PathValues(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c *echo.Context) error {
		r := c.Request()
		for _, v := range c.PathValues() {
			r.SetPathValue(v.Name, v.Value)
		}
		return next(c)
	}
}

// PrincipalFrom returns the principal of the request, and whether there is one.
func PrincipalFrom(c *echo.Context) (usher.Principal, bool) {
	return usher.PrincipalFrom(c.Request().Context())
}
