package usherchi

import (
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"
)

// Mount mounts h under prefix on r, which may be a sub-router. The paths that h sees
// begin after prefix. Mount is for handlers of usher with paths of their own, such as
// apikey.NewHandler. http.StripPrefix would need the prefixes of all outer routers, and
// allows no parameters in them.
func Mount(r chi.Router, prefix string, h http.Handler) {
	r.Mount(prefix, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner, u := r.WithContext(r.Context()), *r.URL
		u.Path, u.RawPath = chi.RouteContext(r.Context()).RoutePath, ""
		if r.URL.RawPath != "" {
			// With a RawPath, chi routes by the escaped path.
			if path, err := url.PathUnescape(u.Path); err == nil {
				u.Path, u.RawPath = path, u.Path
			}
		}
		inner.URL = &u
		h.ServeHTTP(w, inner)
	}))
}
