// Package usherchi adds to chi what usher's middlewares need from a router. The
// middlewares themselves need no adapter:
//
//	r := chi.NewRouter()
//	r.Use(env.Wrap, usherchi.Pattern, limits.Wrap)
//	r.NotFound(usher.NotFound)
//	r.MethodNotAllowed(usherchi.MethodNotAllowed)
//	r.Route("/api", func(r chi.Router) {
//		r.Use(usher.Authenticate(keys).Wrap)
//		r.With(once.Wrap).Post("/orders", createOrder)
//	})
//
// # Guarantees
//
//   - [Route], [ByRoute] and [Pattern] find the whole pattern of a route in the
//     middlewares of the root and of sub-routers, also if the router is mounted under
//     an http.ServeMux, and the empty pattern for each request that matches none. There
//     chi itself has no pattern in the root, and "/api/*" in the sub-router.
//   - [ClientIP] never trusts a header field of a client, unless a middleware of chi
//     is configured to.
//   - [MethodNotAllowed] sets Allow.
//
// The suite of package adaptertest tests over real connections that usher behaves on
// chi as on net/http.
//
// # Order
//
// Router.Use of the root runs for every request, also one that matches no route;
// that of a sub-router for the paths below it; Router.With and Router.Group for
// their routes alone. A limit against scanning belongs to the root. Middlewares that
// change what chi looks for, middleware.GetHead or middleware.StripSlashes, stand
// before [Pattern], and [ClientIP] follows middleware.ClientIPFromXFF or its like.
//
// A usher.Requirement with an Owner may stand in Router.Use of the sub-router whose path
// has the parameter, and anywhere below: r.PathValue and chi.URLParam have it there.
//
// The envelope stands outside everything that may refuse a request, and
// middleware.Compress outside the envelope and idempotency, which keep plain bodies. middleware.Recoverer may stand anywhere: a middleware sees the response of one
// that stands inside it, and is unwound before one that stands outside responds.
//
// # What chi does differently
//
//   - It reuses its context for another request as soon as the first has returned.
//     http.TimeoutHandler stands around the router and not inside.
//   - It copies the request and does not return the multipart form of the copy, so that
//     the server does not remove its temporary files: handlers that parse a form call
//     RemoveAll on it.
//   - middleware.RealIP trusts every client. Use those that [ClientIP] names, or a
//     clientip.Resolver.
package usherchi
