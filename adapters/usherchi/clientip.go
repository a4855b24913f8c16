package usherchi

import (
	"net/http"

	"github.com/go-chi/chi/v5/middleware"

	"github.com/usher-go/usher/clientip"
)

// ClientIP is a middleware that stores the address found by one of chi's middlewares,
// such as ClientIPFromXFF and ClientIPFromHeader, for clientip.Of and every other package
// of usher. Put it inside that middleware. If chi has found no address, the client is the
// peer of the connection, which no client can choose.
//
// ClientIP is for servers that already use chi's middlewares; others use a
// clientip.Resolver. Chi finds the address, but not the scheme: behind a proxy,
// clientip.RequireTLS refuses every request unless there is a Resolver.
func ClientIP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if addr := middleware.GetClientIPAddr(r.Context()); addr.IsValid() {
			r = clientip.WithAddr(r, addr)
		}
		next.ServeHTTP(w, r)
	})
}
