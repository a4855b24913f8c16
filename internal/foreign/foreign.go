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
// between requests is kept, and finds the next of a request by a value in its
// context, which costs a copy of the request. It panics if wrap is nil.
func New(wrap func(http.Handler) http.Handler) usher.Middleware {
	if wrap == nil {
		panic("usher: nil middleware") //nolint:forbidigo // documented
	}
	m := new(middleware)
	m.handler = wrap(http.HandlerFunc(m.proceed))
	return m
}

type middleware struct{ handler http.Handler }

// A call is one request on its way through a middleware.
type call struct {
	next    http.Handler
	request *http.Request // as the middleware got it
}

func (m *middleware) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.ServeNext(w, r, next) })
}

func (m *middleware) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	c := &call{next: next}
	c.request = r.WithContext(context.WithValue(r.Context(), m, c))
	defer exchange.Leave(r, c.request)
	m.handler.ServeHTTP(w, c.request)
}

var errLost = errors.New("usher: a middleware has replaced the context of the request by one of another origin")

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
