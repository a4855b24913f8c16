package usher

import "net/http"

// Pattern returns a middleware that sets [http.Request.Pattern] to the pattern that mux
// will match, so that limits by route, idempotency and [Unless] can use it outside mux:
//
//	h := usher.Chain(usher.Pattern(mux), limits, once).Wrap(mux)
//
// The pattern is the one that mux itself sets later, for redirects and HEAD requests too,
// and is empty if mux responds with 404 or 405. Put middlewares that change the method,
// host or path of requests outside Pattern. The middleware costs about as much as
// routing. Pattern panics if mux is nil.
func Pattern(mux *http.ServeMux) Middleware {
	if mux == nil {
		panic("usher: Pattern of a nil ServeMux") //nolint:forbidigo // documented
	}
	return PatternFunc(func(r *http.Request) string {
		if r.RequestURI == "*" { // which ServeMux refuses before it looks for a route
			return ""
		}
		_, pattern := mux.Handler(r)
		return pattern
	})
}

// PatternFunc is [Pattern] for other routers: find returns the pattern of the route that
// r will match, or "" if there is none. Find must not return the path of r, as clients
// choose paths and may choose many. PatternFunc panics if find is nil.
func PatternFunc(find func(r *http.Request) string) Middleware {
	if find == nil {
		panic("usher: PatternFunc of a nil function") //nolint:forbidigo // documented
	}
	return MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r.Pattern = find(r)
		next.ServeHTTP(w, r)
	})
}
