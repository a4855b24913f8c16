package usherchi

import (
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"
)

// Mount puts h under prefix on r, which may be a sub-router, and gives it paths
// without all that has led there. It is made for the handlers of usher that have
// paths of their own, such as that of apikey.NewHandler, and needs no
// http.StripPrefix, which would have to know the prefix of every router further
// out and knows no parameters in them.
func Mount(r chi.Router, prefix string, h http.Handler) {
	r.Mount(prefix, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner, u := r.WithContext(r.Context()), *r.URL
		u.Path, u.RawPath = chi.RouteContext(r.Context()).RoutePath, ""
		if r.URL.RawPath != "" {
			// Then chi goes by the escaped path.
			if path, err := url.PathUnescape(u.Path); err == nil {
				u.Path, u.RawPath = path, u.Path
			}
		}
		inner.URL = &u
		h.ServeHTTP(w, inner)
	}))
}
