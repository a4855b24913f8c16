// Package usherecho mounts usher's middlewares, and any others of net/http, on
// echo v5.
//
//	e := echo.New()
//	e.HTTPErrorHandler = usherecho.HTTPErrorHandler
//	e.Use(usherecho.Middleware(env), usherecho.Middleware(limits))
//	api := e.Group("/api", usherecho.Middleware(usher.Authenticate(keys)))
//	api.POST("/orders", createOrder, usherecho.Middleware(once))
//
// # Guarantees
//
//   - What follows a middleware runs with the request that the middleware passes on, and
//     with its writer, whichever way of echo a handler responds in.
//   - The request and the response of echo are restored afterwards, also after a panic.
//   - A middleware that depends on responses has seen the one to an error of the
//     handler, or to a request without a route, before its next returns.
//   - Limits and idempotency keys have the pattern of the route before the
//     handler runs, also if echo is mounted under an http.ServeMux. Requests that
//     match no route share the empty pattern.
//
// The suite of package adaptertest tests these guarantees over real connections.
//
// # Order
//
// Echo.Use runs for every request, also one that matches no route, and the
// middlewares of a group for the paths below it. Those of Echo.Pre run before echo
// has found a route: limits by route and idempotency do not belong there.
//
// The envelope stands outside everything that may refuse a request, and compression
// outside the envelope and idempotency, which keep plain bodies. A middleware
// that replaces the error that the handler returns stands inside both: they
// need the response when the error reaches them. Echo's Recover may stand anywhere: a
// middleware sees the response of one that stands inside it, and is unwound before
// one that stands outside responds.
//
// [PathValues] stands outside everything that reads r.PathValue: a usher.Requirement with
// an Owner refuses every request without it.
//
// # What echo does differently
//
//   - echo.WrapMiddleware makes a new handler for each request and responds to errors
//     when the middleware has returned: see the example of what goes wrong with it.
//   - An Echo.HTTPErrorHandler of your own must check whether the response is
//     committed, as echo's and [HTTPErrorHandler] do: it is called inside, and by echo
//     once more with the error that was returned.
//   - Context.RealIP is the peer, unless Echo.IPExtractor is set: with
//     echo.LegacyIPExtractor it trusts the X-Forwarded-For of every client. Limits by
//     address use package clientip.
//   - It reuses its context for another request as soon as the first has returned.
//     http.TimeoutHandler stands around echo and not inside.
package usherecho
