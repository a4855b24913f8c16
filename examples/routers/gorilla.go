package routers

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/usher-go/usher"
)

// Gorilla returns the middleware for what wraps router. Middlewares of mux.Router.Use need
// it too: gorilla/mux has the pattern only in the route that mux.CurrentRoute returns.
func Gorilla(router *mux.Router) usher.Middleware {
	return usher.PatternFunc(func(r *http.Request) string {
		var match mux.RouteMatch
		if !router.Match(r, &match) || match.MatchErr != nil || match.Route == nil {
			return "" // 404 or 405, for which the router may have a handler
		}
		pattern, err := match.Route.GetPathTemplate()
		if err != nil {
			return "" // a route that does not match by its path
		}
		return pattern
	})
}
