package routers

import (
	"net/http"

	"github.com/julienschmidt/httprouter"

	"github.com/usher-go/usher"
)

// HTTPRouter is a [httprouter.Router] that knows its patterns before it serves a request:
// httprouter's Lookup returns a handler, and not the pattern of the route. So it has a
// second router with the same routes, whose handlers record their pattern.
type HTTPRouter struct {
	// Router serves the requests. It is not embedded, as a route that is added by its own
	// methods would have no pattern.
	Router *httprouter.Router

	patterns *httprouter.Router
}

// NewHTTPRouter returns a router without routes.
func NewHTTPRouter() *HTTPRouter {
	return &HTTPRouter{httprouter.New(), httprouter.New()}
}

// ServeHTTP serves a request through the Router.
func (router *HTTPRouter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	router.Router.ServeHTTP(w, r)
}

// Handle adds a route. All routes must be added by it.
func (router *HTTPRouter) Handle(method, pattern string, h httprouter.Handle) {
	router.Router.Handle(method, pattern, h)
	router.patterns.Handle(method, pattern, func(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
		record(w, pattern)
	})
}

// Pattern is the middleware for what wraps the router.
func (router *HTTPRouter) Pattern() usher.Middleware {
	return usher.PatternFunc(func(r *http.Request) string {
		route, _, _ := router.patterns.Lookup(r.Method, r.URL.Path)
		if route == nil {
			return ""
		}
		var found recorder
		route(&found, r, nil)
		return found.pattern
	})
}
