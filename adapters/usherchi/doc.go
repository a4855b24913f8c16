// Package usherchi adds to chi what usher's middlewares ask of a router. The
// middlewares themselves need no adapter:
//
//	r := chi.NewRouter()
//	r.Use(usherchi.Pattern, env.Wrap, limits.Wrap)
//	r.NotFound(usherchi.NotFound)
//	r.MethodNotAllowed(usherchi.MethodNotAllowed)
//	r.Route("/api", func(r chi.Router) {
//		r.Use(usher.Authenticate(keys).Wrap)
//		r.With(once.Wrap).Post("/orders", createOrder)
//	})
//
// # Guarantees
//
//   - [Route], [ByRoute] and [Pattern] know the whole pattern of a route in the
//     middlewares of the root and of sub-routers, also if the router is mounted under
//     an http.ServeMux, and the empty one for each request that matches none. Chi
//     itself knows nothing in the root and "/api/*" in the sub-router until then.
//   - [ClientIP] never believes what a client writes into a header, unless a
//     middleware of chi was told to.
//   - [MethodNotAllowed] sets Allow.
//
// The suite of package adaptertest holds usher on chi to what it is on net/http,
// over real connections.
//
// # Order
//
// Router.Use of the root runs for every request, also one that matches no route;
// that of a sub-router for the paths below it; Router.With and Router.Group for
// their routes alone. A limit against scanning belongs to the root. Middlewares that
// change what chi looks for, middleware.GetHead or middleware.StripSlashes, stand
// before [Pattern], and [ClientIP] follows middleware.ClientIPFromXFF or its like.
//
// The envelope stands outside of all that may refuse a request, and
// middleware.Compress outside of the envelope and of idempotency, which keep plain
// bodies. middleware.Recoverer may stand anywhere: outside of a middleware it takes
// over once that has let go; inside it is seen.
//
// # What chi does otherwise
//
//   - It uses its context for another request as soon as the first has returned.
//     http.TimeoutHandler stands around the router and not inside.
//   - It copies the request and keeps what the copy learns, so that the server does
//     not find the temporary files of a multipart form: handlers that parse one call
//     RemoveAll on it.
//   - middleware.RealIP believes whatever a client writes. Use those that
//     [ClientIP] names, or a clientip.Resolver of this module.
package usherchi
