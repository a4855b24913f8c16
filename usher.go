package usher

import (
	"net/http"
	"slices"
)

// A Middleware is one step between a server and its handler.
//
// A Middleware keeps all of its state itself, and none per handler: Wrap is a thin
// closure over ServeNext. So one Middleware may wrap any number of handlers, and a
// router's adapter calls ServeNext for each request without building anything. A
// Middleware is safe for concurrent use. It calls next at most once, on the goroutine
// that called the Middleware, and never after it has returned.
type Middleware interface {
	// Wrap returns a handler that runs the middleware before next.
	Wrap(next http.Handler) http.Handler
	// ServeNext serves one request: it responds itself or calls next.
	ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler)
}

// A MiddlewareFunc is a function that serves as a [Middleware]. It must obey the rules of
// Middleware, and costs no allocation.
type MiddlewareFunc func(w http.ResponseWriter, r *http.Request, next http.Handler)

// Wrap returns a handler that calls f with next. It panics if f is nil.
func (f MiddlewareFunc) Wrap(next http.Handler) http.Handler {
	if f == nil {
		panic("usher: nil MiddlewareFunc") //nolint:forbidigo // documented
	}
	return wrap(f, next)
}

// ServeNext calls f.
func (f MiddlewareFunc) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	f(w, r, next)
}

// Chain composes middlewares into one. The first is the outermost: it sees a request
// first and its response last. An empty Chain calls next. Chain panics on a nil
// middleware: a missing check must not pass unnoticed.
//
// Wrap costs nothing per request beyond the middlewares themselves; ServeNext
// costs one allocation.
func Chain(m ...Middleware) Middleware {
	c := make(chain, 0, len(m))
	for _, m := range m {
		switch m := m.(type) {
		case chain:
			c = append(c, m...)
		default:
			if isNil(m) {
				panic("usher: Chain of a nil Middleware") //nolint:forbidigo // documented
			}
			c = append(c, m)
		}
	}
	return c
}

// isNil reports whether m is nil, or a nil MiddlewareFunc.
func isNil(m Middleware) bool {
	if f, ok := m.(MiddlewareFunc); ok {
		return f == nil
	}
	return m == nil
}

type chain []Middleware

func (c chain) Wrap(next http.Handler) http.Handler {
	for _, m := range slices.Backward(c) {
		next = m.Wrap(next)
	}
	return next
}

func (c chain) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if len(c) == 0 {
		next.ServeHTTP(w, r)
		return
	}
	// Each step is written only once, so a middleware that breaks the rule and calls next
	// on another goroutine causes no race here.
	steps := make([]step, len(c)-1)
	for i := len(steps) - 1; i >= 0; i-- {
		steps[i] = step{c[i+1], next}
		next = &steps[i]
	}
	c[0].ServeNext(w, r, next)
}

// step is a middleware together with what follows it.
type step struct {
	middleware Middleware
	next       http.Handler
}

func (s *step) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.middleware.ServeNext(w, r, s.next)
}

// wrap implements Wrap for the middlewares of this package.
func wrap(m Middleware, next http.Handler) http.Handler {
	return &step{m, next}
}

// When returns a middleware that runs m for the requests for which cond is true, and
// calls next for all others. It calls cond once for each request; cond must not read the
// request body. When panics if cond or m is nil.
//
// To protect a few routes, wrap those routes in m. A When around a router leaves every
// request unprotected that cond does not recognize: see [Unless].
func When(cond func(*http.Request) bool, m Middleware) Middleware {
	return newConditional("usher: When", cond, m, true)
}

// Unless returns a middleware that runs m, except for the requests for which cond is
// true, such as health checks and static files. It panics if cond or m is nil.
//
// Every request for which cond is true skips m, so cond must be true only for requests
// that the router sends to exempt routes: compare [http.Request.Pattern], inside
// [Pattern]. Comparing the whole path is not enough, as http.Request.URL.Path lacks some
// of what routers decide by: it is "/public/info" for every method and host, and also for
// "/public%2Finfo", which an http.ServeMux matches to "/{name}". A prefix also matches
// "/static/../admin", which some routers resolve to "/admin".
func Unless(cond func(*http.Request) bool, m Middleware) Middleware {
	return newConditional("usher: Unless", cond, m, false)
}

// conditional runs m for the requests for which cond returns want.
type conditional struct {
	cond func(*http.Request) bool
	m    Middleware
	want bool
}

func newConditional(name string, cond func(*http.Request) bool, m Middleware, want bool) *conditional {
	switch {
	case cond == nil:
		panic(name + " with a nil condition") //nolint:forbidigo // documented at When
	case isNil(m):
		panic(name + " with a nil Middleware") //nolint:forbidigo // documented at When
	}
	return &conditional{cond, m, want}
}

func (c *conditional) Wrap(next http.Handler) http.Handler {
	wrapped := c.m.Wrap(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.cond(r) == c.want {
			wrapped.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (c *conditional) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if c.cond(r) == c.want {
		c.m.ServeNext(w, r, next)
		return
	}
	next.ServeHTTP(w, r)
}
