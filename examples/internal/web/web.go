// Package web holds what the services have in common: their routes as data, so that
// every router can serve them, and helpers of handlers.
package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// An App is a service as a router sees it.
type App struct {
	// Middlewares run for every request, also one that matches no route. The first is
	// the outermost.
	Middlewares []usher.Middleware
	Routes      []Route
	// NotFound serves requests that match no route, and MethodNotAllowed those that
	// match only routes with other methods, for which the router sets Allow. Nil means
	// the router's own.
	NotFound, MethodNotAllowed http.Handler
}

// A Route is one route of an App.
type Route struct {
	Method string
	// Pattern is a path with parameters, such as /auth/api-keys/{id}, which the
	// handler reads with [http.Request.PathValue]. "/" matches the root alone. A
	// GET route also takes HEAD.
	Pattern string
	// Middlewares run for this route alone, inside those of the App.
	Middlewares []usher.Middleware
	Handler     http.Handler
}

// Handle returns the route of a handler behind middlewares.
func Handle(method, pattern string, middlewares []usher.Middleware, h http.Handler) Route {
	return Route{method, pattern, middlewares, h}
}

// ServeMux puts an App on net/http.
func ServeMux(app App) http.Handler {
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

// Decode reads the body of a request as JSON, or responds with what is wrong.
func Decode(w http.ResponseWriter, r *http.Request, v any) bool {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10)).Decode(v)
	switch _, tooLarge := errors.AsType[*http.MaxBytesError](err); {
	case tooLarge:
		usher.Fail(w, r, err)
	case err != nil:
		envelope.For(w, r).Invalid(usher.Field{Name: "body", Message: "The body must be a JSON object of the documented form."})
	}
	return err == nil
}

// Now returns the time as the services write it.
func Now() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000Z") }
