package contract

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher"
)

// An App is a service as a router sees it.
type App struct {
	// Middlewares stand around every request, also one that matches no route. The
	// first is the outermost.
	Middlewares []usher.Middleware
	Routes      []Route
	// NotFound answers what no route matches, and MethodNotAllowed what only
	// routes with other methods match. The router sets Allow for the latter. Nil
	// means the router's own.
	NotFound, MethodNotAllowed http.Handler
}

// A Route is one route of an App.
type Route struct {
	Method string
	// Pattern is a path with parameters, such as /auth/api-keys/{id}, which the
	// handler reads with [http.Request.PathValue]. "/" matches the root alone. A
	// GET route also takes HEAD.
	Pattern string
	// Middlewares stand around this route alone, inside those of the App.
	Middlewares []usher.Middleware
	Handler     http.Handler
}

// A Mount puts an App on a router.
type Mount func(tb testing.TB, app App) http.Handler

// ServeMux is the [Mount] of net/http.
func ServeMux(_ testing.TB, app App) http.Handler {
	mux := http.NewServeMux()
	methods := make(map[string][]string)
	for _, r := range app.Routes {
		pattern := r.Pattern
		if pattern == "/" {
			pattern = "/{$}"
		}
		mux.Handle(r.Method+" "+pattern, usher.Chain(r.Middlewares...).Wrap(r.Handler))
		methods[pattern] = append(methods[pattern], r.Method)
	}
	if app.MethodNotAllowed != nil {
		for pattern, names := range methods {
			mux.Handle(pattern, withAllow(names, app.MethodNotAllowed))
		}
	}
	if app.NotFound != nil {
		mux.Handle("/", app.NotFound)
	}
	return usher.Chain(app.Middlewares...).Wrap(mux)
}

func withAllow(methods []string, next http.Handler) http.Handler {
	methods = slices.Clone(methods)
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	allow := strings.Join(methods, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Allow"] = []string{allow}
		next.ServeHTTP(w, r)
	})
}
