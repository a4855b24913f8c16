package usherchi

import (
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/go-chi/chi/v5"

	"github.com/usher-go/usher/ratelimit"
)

// Pattern is a middleware that sets [http.Request.Pattern] to [Route] for the middlewares
// inside it on the same router, where limits by route, idempotency and logs read it. Chi
// replaces the pattern with "/api/*" when it enters a sub-router: if the Use of a
// sub-router has such middlewares, begin it with another Pattern. Those of Router.With
// need none.
//
// Pattern is usher.PatternFunc(usherchi.Route) in the form that chi.Router.Use takes.
func Pattern(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Pattern = Route(r)
		next.ServeHTTP(w, r)
	})
}

// Route returns the whole pattern of the route that r matches, such as /api/items/{id},
// wherever it is called: in middlewares of the root and of sub-routers, where chi has not
// found the pattern yet, and inside those. Route returns "" for every request that
// matches no route, except at the root of a mounted router without a route there: for
// that it returns the pattern of the mount. Route can serve as idempotency.Config.Route.
//
// Where chi has not found the pattern yet, Route looks for it as chi will do, which costs
// about as much as routing. Put middlewares that change what chi looks for, such as
// middleware.StripSlashes and middleware.GetHead, outside. If another handler, such as
// that of http.StripPrefix, hides a router from its parent, Route returns the pattern of
// that handler until chi has found the whole pattern.
func Route(r *http.Request) string {
	rctx := chi.RouteContext(r.Context())
	if rctx == nil {
		return ""
	}
	if routed(rctx) {
		return rctx.RoutePattern()
	}
	method := rctx.RouteMethod
	if method == "" {
		method = r.Method
	}
	scratch := scratches.Get().(*chi.Context)
	defer scratches.Put(scratch)
	pattern, known := find(scratch, rctx, method, routingPaths(r, rctx))
	if !known {
		return rctx.RoutePattern()
	}
	if pattern != "/" {
		pattern = strings.TrimSuffix(pattern, "/") // as chi.Context.RoutePattern does
	}
	return pattern
}

// ByRoute counts each route by its [Route]; requests that match no route share one key.
// Use it in place of ratelimit.ByRoute where no [Pattern] is outside the limiter.
func ByRoute() ratelimit.KeyFunc {
	return func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(Route(r)), true }
}

// routed reports whether chi has found the whole pattern. A pattern that ends in a
// wildcard may belong to a sub-router.
func routed(rctx *chi.Context) bool {
	if rctx.Routes == nil {
		return true // made by hand, for a test
	}
	n := len(rctx.RoutePatterns)
	return n > 0 && !strings.HasSuffix(rctx.RoutePatterns[n-1], "*")
}

// scratches are contexts for looking for routes.
var scratches = sync.Pool{New: func() any { return chi.NewRouteContext() }}

// find returns the pattern that the first matching path has in the outermost router, or
// "". Known is false if no path leads to the router that chi has reached: then that
// router is hidden from its parent.
func find(scratch, rctx *chi.Context, method string, paths [2]string) (pattern string, known bool) {
	for _, path := range paths {
		if path == "" {
			break
		}
		scratch.Reset()
		pattern := rctx.Routes.Find(scratch, method, path)
		if n := len(rctx.RoutePatterns); len(scratch.RoutePatterns) < n || !slices.Equal(scratch.RoutePatterns[:n], rctx.RoutePatterns) {
			continue
		}
		if pattern != "" {
			root, ok := atRoot(scratch, rctx, method)
			if !ok {
				return pattern, true
			}
			if root != "" {
				return root, true
			}
		}
		known = true
	}
	return "", known
}

// routingPaths returns the paths that the outermost router may look for. Middlewares
// there may have changed the path, and a sub-router sees only the rest of it.
func routingPaths(r *http.Request, rctx *chi.Context) [2]string {
	whole := r.URL.RawPath
	if whole == "" {
		whole = r.URL.Path
	}
	if whole == "" {
		whole = "/" // of CONNECT, for instance
	}
	rest := rctx.RoutePath
	if rest == "" {
		return [2]string{whole}
	}
	if len(rctx.RoutePatterns) == 0 {
		return [2]string{rest}
	}
	if clean := path.Clean(whole); clean != whole && strings.HasSuffix(clean, rest) {
		return [2]string{whole, clean}
	}
	return [2]string{whole}
}
