package routers

import (
	"net/http"

	"github.com/uptrace/bunrouter"

	"github.com/usher-go/usher"
)

// BunRouter is a [bunrouter.Router] that knows its patterns before it serves a request. As
// bunrouter finds a route only to serve it, there is a second router with the same routes,
// whose handlers record their pattern.
type BunRouter struct {
	// Router serves the requests. It is not embedded, as a route that is added by its own
	// methods would have no pattern.
	Router *bunrouter.Router

	patterns *bunrouter.Router
}

// NewBunRouter returns a router without routes.
func NewBunRouter(options ...bunrouter.Option) *BunRouter {
	none := func(http.ResponseWriter, bunrouter.Request) error { return nil }
	return &BunRouter{bunrouter.New(options...), bunrouter.New(
		bunrouter.WithNotFoundHandler(none), bunrouter.WithMethodNotAllowedHandler(none),
	)}
}

// ServeHTTP serves a request through the Router.
func (router *BunRouter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	router.Router.ServeHTTP(w, r)
}

// Handle adds a route. All routes must be added by it.
func (router *BunRouter) Handle(method, pattern string, h bunrouter.HandlerFunc) {
	router.Router.Handle(method, pattern, h)
	router.patterns.Handle(method, pattern, func(w http.ResponseWriter, _ bunrouter.Request) error {
		record(w, pattern)
		return nil
	})
}

// Pattern is the middleware for what wraps the router.
func (router *BunRouter) Pattern() usher.Middleware {
	return usher.PatternFunc(func(r *http.Request) string {
		var found recorder
		router.patterns.ServeHTTP(&found, r)
		return found.pattern
	})
}
