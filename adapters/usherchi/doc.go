// Package usherchi adds to chi what usher's middlewares need from a router. The
// middlewares themselves need no adapter:
//
//	r := chi.NewRouter()
//	r.Use(usherchi.Pattern, env.Wrap, limits.Wrap)
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
//     middlewares of the root and of sub-routers, even if the router is mounted under an
//     http.ServeMux, and the empty pattern for each request that matches no route. Chi
//     itself has no pattern yet in the middlewares of the root, and only "/api/*" in
//     those of the sub-router.
//   - [ClientIP] never trusts a client's header field, unless a middleware of chi is
//     configured to.
//   - [MethodNotAllowed] sets Allow.
//
// The suite of package adaptertest tests over real connections that usher behaves on chi
// as it does on net/http.
//
// # Order
//
// On the root, middlewares of Router.Use run for every request, even one that matches no
// route; on a sub-router they run for the paths below it. Those of Router.With and
// Router.Group run only for their routes. A limit against scanning belongs on the root.
// Put middlewares that change what chi looks for, such as middleware.GetHead or
// middleware.StripSlashes, outside [Pattern], and all others inside: a tracer such as
// otelhttp and an access log then know the route, which chi sets only on the copy of the
// request that they pass on. Put [ClientIP] inside middleware.ClientIPFromXFF or a similar
// one.
//
// An usher.Require that compares owners works in Router.Use of the sub-router whose path
// has the parameter, and anywhere below: there r.PathValue and chi.URLParam return it.
//
// Put the envelope outside everything that may refuse a request, and middleware.Compress
// outside the envelope and idempotency, which need plain bodies. middleware.Recoverer may
// go anywhere: a middleware outside a Recoverer sees its response, and one inside has
// been unwound before the Recoverer responds. Outside the envelope it gets the
// panics of handlers only with envelope.Config.PassPanics.
//
// # What chi does differently
//
//   - Chi reuses its context for another request as soon as the first has returned: put
//     http.TimeoutHandler around the router, not inside it.
//   - Chi copies the request and does not return the multipart form of the copy, so the
//     server does not remove the temporary files of the form: handlers that parse a form
//     call RemoveAll on it.
//   - middleware.RealIP trusts every client. Use the middlewares that [ClientIP] names,
//     or a clientip.Resolver.
package usherchi
