package usher

import (
	"net/http"
	"slices"
)

// A Middleware is one step between the door of a server and its handler.
//
// All state of a Middleware lives outside next: Wrap is a thin closure over
// ServeNext, so one Middleware may wrap any number of handlers, and an adapter
// for a router calls ServeNext for each request without building anything. A
// Middleware is safe for concurrent use. It calls next at most once, on the
// goroutine that called it, and never after it has returned.
type Middleware interface {
	// Wrap returns a handler that runs the middleware before next.
	Wrap(next http.Handler) http.Handler
	// ServeNext serves one request: it answers the request itself or hands it
	// to next.
	ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler)
}

// Chain composes middlewares into one; the first is the outermost, which sees
// a request first and its answer last. Chain of nothing passes every request
// on. It panics if a middleware is nil, as that is a step that someone believes
// to be there.
//
// Wrap costs nothing per request beyond the middlewares themselves; ServeNext
// costs one allocation.
func Chain(m ...Middleware) Middleware {
	c := make(chain, 0, len(m))
	for _, m := range m {
		switch m := m.(type) {
		case nil:
			panic("usher: Chain of a nil Middleware") //nolint:forbidigo // documented
		case chain:
			c = append(c, m...)
		default:
			c = append(c, m)
		}
	}
	return c
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
	// Each step is written once and never again, so that a middleware which
	// breaks the rule and calls next from another goroutine meets no race here.
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

// wrap is Wrap for every middleware of this package.
func wrap(m Middleware, next http.Handler) http.Handler {
	return &step{m, next}
}
