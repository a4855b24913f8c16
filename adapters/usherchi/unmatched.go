package usherchi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/usher-go/usher"
)

// MethodNotAllowed is [usher.MethodNotAllowed], for chi.Router.MethodNotAllowed, with the
// [AllowedMethods] in Allow: RFC 9110, section 15.5.6 requires the field, and chi sets it
// only in its own response. Chi also calls MethodNotAllowed for methods unknown to chi;
// then the response for a path without any route is 404.
func MethodNotAllowed(w http.ResponseWriter, r *http.Request) {
	if allowed := AllowedMethods(r); allowed != nil {
		w.Header()["Allow"] = []string{strings.Join(allowed, ", ")}
	} else if !slices.Contains(methods[:], r.Method) {
		usher.NotFound(w, r)
		return
	}
	usher.MethodNotAllowed(w, r)
}

var methods = [...]string{
	http.MethodConnect, http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodOptions,
	http.MethodPatch, http.MethodPost, http.MethodPut, "QUERY", http.MethodTrace,
}

// AllowedMethods returns, in alphabetical order, those of the standard methods and QUERY
// that have a route for the path of r. It is for handlers that send their own 405. It
// omits methods added by chi.RegisterMethod, and finds none in a router that is hidden
// from its parent; see [Route].
func AllowedMethods(r *http.Request) []string {
	rctx := chi.RouteContext(r.Context())
	if rctx == nil || rctx.Routes == nil {
		return nil
	}
	paths, scratch := routingPaths(r, rctx), chi.NewRouteContext()
	var allowed []string
	for _, method := range methods {
		if pattern, _ := find(scratch, rctx, method, paths); pattern != "" {
			allowed = append(allowed, method)
		}
	}
	return allowed
}
