// Package usherecho4 mounts usher's middlewares, and any others of net/http, on
// echo v4. Package usherecho has the same names for echo v5, the current line.
//
//	e := echo.New()
//	e.HTTPErrorHandler = usherecho4.HTTPErrorHandler
//	e.Use(usherecho4.Middleware(env), usherecho4.Middleware(limits))
//	api := e.Group("/api", usherecho4.Middleware(usher.Authenticate(keys)))
//	api.POST("/orders", createOrder, usherecho4.Middleware(once))
//
// # Guarantees
//
//   - What follows a middleware runs on what the middleware hands on: its request,
//     and a writer over its writer, through which all of echo's ways to answer go.
//   - What was there before is back after it, also if what follows panics.
//   - A middleware that watches or changes answers has seen that to an error of the
//     handler, and to a request without a route, before its next returns.
//   - The pattern of the route is known to limits and idempotency keys before the
//     handler runs, also if echo is mounted under an http.ServeMux; requests that
//     match no route share the empty one.
//
// The suite of package adaptertest holds them to it, over real connections.
//
// # Order
//
// Echo.Use runs for every request, also one that matches no route, and the
// middlewares of a group for the paths below it. Those of Echo.Pre run before echo
// has found a route: limits by route and idempotency do not belong there.
//
// The envelope stands outside of all that may refuse a request, and compression
// outside of the envelope and of idempotency, which keep plain bodies. A middleware
// that makes another error of what the handler returns stands inside of both: they
// ask for the answer when the error reaches them. Echo's Recover may stand anywhere:
// outside of a middleware it takes over once that has let go; inside it is seen.
//
// # What echo does otherwise
//
//   - echo.WrapMiddleware makes a new handler for each request and answers errors
//     when the middleware is done: see the example of what goes wrong with it.
//   - An Echo.HTTPErrorHandler of your own must look whether the response is
//     committed, as echo's and [HTTPErrorHandler] do: it is asked inside, and by echo
//     once more with the error that was returned.
//   - Context.RealIP believes whatever a client writes into X-Forwarded-For, unless
//     Echo.IPExtractor says otherwise. Limits by address take a clientip.Resolver.
//   - It uses its context for another request as soon as the first has returned.
//     http.TimeoutHandler stands around echo and not inside.
package usherecho4
