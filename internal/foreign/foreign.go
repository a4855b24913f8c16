// Package foreign makes a usher.Middleware of any func(http.Handler) http.Handler,
// for adapters whose frameworks have a next of their own for every request.
package foreign

import (
	"context"
	"errors"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

// New returns wrap as a middleware. It calls wrap once, so that what wrap keeps
// between requests is kept, and finds the next of a request by the context, which
// costs a copy of the request. It panics if wrap is nil.
func New(wrap func(http.Handler) http.Handler) usher.Middleware {
	if wrap == nil {
		panic("usher: nil middleware") //nolint:forbidigo // documented
	}
	m := new(middleware)
	m.handler = wrap(http.HandlerFunc(m.proceed))
	return m
}

type middleware struct{ handler http.Handler }

func (m *middleware) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.ServeNext(w, r, next) })
}

func (m *middleware) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	c := &call{Context: r.Context(), middleware: m, next: next}
	c.request = r.WithContext(c)
	defer exchange.Leave(r, c.request)
	m.handler.ServeHTTP(w, c.request)
}

// A call is one request on its way through a middleware, and its context there.
type call struct {
	context.Context
	middleware *middleware
	next       http.Handler
	request    *http.Request // as the middleware got it
}

// Value returns the call itself for its middleware, else the parent's value.
func (c *call) Value(key any) any {
	if key == any(c.middleware) {
		return c
	}
	return c.Context.Value(key)
}

var errLost = errors.New("usher: a middleware has handed on a request without the context of the one that it got")

// proceed stands where the middleware believes its next.
func (m *middleware) proceed(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(m).(*call)
	if !ok {
		usher.Fail(w, r, errLost)
		return
	}
	defer exchange.Leave(c.request, r)
	c.next.ServeHTTP(w, r)
}
