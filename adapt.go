package usher

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/usher-go/usher/internal/exchange"
)

// Adapt converts m, any net/http middleware, into a [Middleware]. It panics if m is nil.
//
// It calls m only once, so m can keep state between requests. It finds the next handler
// of a request through the request's context, which costs a copy of the request. A
// request that m passes on must therefore have the context that m received, or one
// derived from it; otherwise the next handler cannot be found, and the response is a 500.
//
// The result behaves as m does. [http.TimeoutHandler], for instance, calls next on
// another goroutine, which may still be running after the middleware has returned. That
// works on a net/http router, but not with adapters for routers that reuse their own
// context, such as gin and echo. [Deadline] does neither.
func Adapt(m func(http.Handler) http.Handler) Middleware {
	if m == nil {
		panic("usher: Adapt of a nil middleware") //nolint:forbidigo // documented
	}
	a := new(adapted)
	a.handler = m(http.HandlerFunc(a.proceed))
	return a
}

type adapted struct{ handler http.Handler }

func (a *adapted) Wrap(next http.Handler) http.Handler { return wrap(a, next) }

func (a *adapted) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	c := &adaptedCall{Context: r.Context(), middleware: a, next: next}
	c.request = r.WithContext(c)
	defer c.leave(r)
	a.handler.ServeHTTP(w, c.request)
}

// proceed is the handler that the middleware wraps: it calls the next of the request.
func (a *adapted) proceed(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(a).(*adaptedCall)
	if !ok {
		Fail(w, r, errContextLost)
		return
	}
	defer c.learn(r)
	c.next.ServeHTTP(w, r)
}

var errContextLost = errors.New("usher: a middleware has replaced the context of its request instead of deriving from it")

// An adaptedCall is one request inside an adapted middleware, and the context of that
// request.
type adaptedCall struct {
	context.Context
	middleware *adapted
	next       http.Handler

	mu      sync.Mutex    // next may be running when the middleware has returned
	request *http.Request // as the middleware received it; nil once it has returned
}

// Value returns the call itself if key is its middleware, else the parent's value.
func (c *adaptedCall) Value(key any) any {
	if key == any(c.middleware) {
		return c
	}
	return c.Context.Value(key)
}

// learn copies to the request what next has stored in inner, which is a copy of the
// request.
func (c *adaptedCall) learn(inner *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.request != nil {
		exchange.Leave(c.request, inner)
	}
}

// leave copies to r what the request, a copy of r, has learned. After that learn does
// nothing.
func (c *adaptedCall) leave(r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	exchange.Leave(r, c.request)
	c.request = nil
}
