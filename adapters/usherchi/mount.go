package usherchi

import (
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"
)

// Mount mounts h under prefix on r, which may be a sub-router. The paths that h sees
// begin after prefix. Mount is for the handlers of usher that have
// paths of their own, such as that of apikey.NewHandler. With http.StripPrefix one would
// have to state the prefix of every router further out, without parameters.
func Mount(r chi.Router, prefix string, h http.Handler) {
	r.Mount(prefix, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner, u := r.WithContext(r.Context()), *r.URL
		u.Path, u.RawPath = chi.RouteContext(r.Context()).RoutePath, ""
		if r.URL.RawPath != "" {
			// Then chi routes by the escaped path.
			if path, err := url.PathUnescape(u.Path); err == nil {
				u.Path, u.RawPath = path, u.Path
			}
		}
		inner.URL = &u
		h.ServeHTTP(w, inner)
	}))
}
