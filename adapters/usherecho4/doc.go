// Package usherecho4 mounts usher's middlewares, and any others of net/http, on
// echo v4. Package usherecho has the same names for echo v5, the current line.
//
//	e := echo.New()
//	e.HTTPErrorHandler = usherecho4.HTTPErrorHandler
//	e.Validator = usherecho4.Validator(validator.New())
//	e.Use(usherecho4.Middleware(env), usherecho4.Middleware(limits))
//	api := e.Group("/api", usherecho4.Middleware(usher.Authenticate(keys)))
//	api.POST("/orders", createOrder, usherecho4.Middleware(once))
//
// # Guarantees
//
//   - What is inside a middleware runs with the request and the writer that the
//     middleware passes on, whichever of echo's methods a handler responds with.
//   - The request and the response of echo are restored afterwards, also after a panic.
//   - A middleware that depends on responses sees the response to an error of the
//     handler, or to a request without a route, before its next returns.
//   - Errors of binding and of a validator are 400 with the faulty fields, and never a
//     text of the program.
//   - Limits and idempotency see the pattern of the route before the handler runs, even
//     if echo is mounted under an http.ServeMux. Requests that match no route share the
//     empty pattern.
//
// The suite of package adaptertest tests these guarantees over real connections.
//
// # Order
//
// Middlewares of Echo.Use run for every request, even one that matches no route, and
// those of a group for the paths below it. Middlewares of Echo.Pre run before echo has
// found a route: limits by route and idempotency do not belong there.
//
// Put the envelope outside everything that may refuse a request, and compression outside
// the envelope and idempotency, which need plain bodies. Put a middleware that replaces
// the error that the handler returns inside both: they need the response when the error
// reaches them. Echo's Recover may go anywhere: a middleware outside a Recover sees its
// response, and one inside has been unwound before the Recover responds. Outside the
// envelope it gets the panics of handlers only with envelope.Config.PassPanics.
//
// Put [PathValues] outside everything that reads r.PathValue: without it an
// usher.Requirement with an Owner refuses every request, and counts it as no_owner.
// [Middleware] does not set the values itself, as net/http takes two allocations for them
// on every route with parameters, and few middlewares read them.
//
// # What echo does differently
//
//   - echo.WrapMiddleware makes a new handler for each request, and errors get a response
//     only after the middleware has returned: see the example of what goes wrong with it.
//   - An Echo.HTTPErrorHandler of your own must check whether the response is committed,
//     as echo's and [HTTPErrorHandler] do: it is called inside the middleware, and once
//     more by echo with the returned error.
//   - Context.RealIP trusts the X-Forwarded-For of every client, unless
//     Echo.IPExtractor is set. Limits by address use package clientip.
//   - Echo reuses its context for another request as soon as the first has returned: put
//     http.TimeoutHandler around echo, not inside it. Echo's TimeoutWithConfig makes errors
//     200 without a body, with or without this package: use usher.Deadline.
package usherecho4
