package usherchi

import (
	"net/http"
	"path"
	"strings"
	"sync"

	"github.com/go-chi/chi/v5"

	"github.com/usher-go/usher/ratelimit"
)

// Pattern is a middleware that sets [http.Request.Pattern] to [Route] for those
// after it on the same router. Limits by route, idempotency and logs then know it
// there as they do behind the router. A sub-router that asks needs its own.
func Pattern(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Pattern = Route(r)
		next.ServeHTTP(w, r)
	})
}

// Route returns the whole pattern of the route that r matches, such as
// /api/items/{id}, wherever it is asked: in middlewares of the root and of
// sub-routers, where chi does not know it yet, and further in. It is empty for
// every request that matches none. It can be idempotency.Config.Route.
//
// Where chi does not know the pattern yet, Route looks for it as chi will do, which
// costs about as much as routing. Middlewares that change what chi looks for, such
// as middleware.StripSlashes and middleware.GetHead, stand outside. The patterns of
// a router that is hidden from its parent in another handler, such as that of
// http.StripPrefix, are known in that router alone.
func Route(r *http.Request) string {
	rctx := chi.RouteContext(r.Context())
	if rctx == nil {
		return ""
	}
	// A pattern that ends in a wildcard may be that of a sub-router.
	n := len(rctx.RoutePatterns)
	if rctx.Routes == nil || n > 0 && !strings.HasSuffix(rctx.RoutePatterns[n-1], "*") {
		return rctx.RoutePattern()
	}
	method := rctx.RouteMethod
	if method == "" {
		method = r.Method
	}
	scratch := scratches.Get().(*chi.Context)
	defer scratches.Put(scratch)
	if !matches(scratch, rctx, method, routingPaths(r, rctx)) {
		return ""
	}
	return scratch.RoutePattern()
}

// ByRoute counts each route by its [Route]; requests that match none share one
// key. It is ratelimit.ByRoute where no [Pattern] stands outside.
func ByRoute() ratelimit.KeyFunc {
	return func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(Route(r)), true }
}

// scratches are contexts for looking for routes.
var scratches = sync.Pool{New: func() any { return chi.NewRouteContext() }}

// matches reports whether the router of rctx has a route for one of paths, which
// is then in scratch.
func matches(scratch, rctx *chi.Context, method string, paths []string) bool {
	for _, p := range paths {
		scratch.Reset()
		if rctx.Routes.Match(scratch, method, p) {
			return true
		}
	}
	return false
}

// routingPaths returns what may be the path that the outermost router looks for.
// Middlewares there may have changed it, of which a sub-router sees only what is
// left for it.
func routingPaths(r *http.Request, rctx *chi.Context) []string {
	whole := r.URL.RawPath
	if whole == "" {
		whole = r.URL.Path
	}
	rest := rctx.RoutePath
	if rest == "" {
		return []string{whole}
	}
	if len(rctx.RoutePatterns) == 0 {
		return []string{rest}
	}
	if clean := path.Clean(whole); clean != whole && strings.HasSuffix(clean, rest) {
		return []string{whole, clean}
	}
	return []string{whole}
}
