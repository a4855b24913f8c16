// Package ushergin mounts usher's middlewares, and any others of net/http, on gin
// 1.12 or newer.
//
//	engine := gin.New()
//	engine.HandleMethodNotAllowed = true
//	engine.Use(ushergin.Middleware(env), ushergin.Errors, ushergin.Middleware(limits))
//	engine.NoRoute(ushergin.NoRoute)
//	engine.NoMethod(ushergin.NoMethod)
//	api := engine.Group("/api", ushergin.Middleware(usher.Authenticate(keys)))
//	api.POST("/orders", ushergin.Middleware(once), createOrder)
//
// # Guarantees
//
//   - The chain inside a middleware runs with the request that the middleware passes
//     on, and with its writer, whichever way of gin a handler responds in. A request
//     that the middleware refuses is aborted. So is a chain that has panicked, if the
//     middleware recovers.
//   - The request and the writer of gin are restored afterwards, also after a panic.
//   - The response of [Errors] to an error in c.Errors is seen by each
//     middleware inside the envelope, wherever Errors stands there.
//   - A status without a body stays lazy, as in gin: a middleware sees it, and a handler
//     further out may still replace it.
//   - Limits and idempotency keys have the pattern of the route before the
//     handler runs, also if the engine is mounted under an http.ServeMux. Requests
//     that match no route share the empty pattern.
//
// The suite of package adaptertest tests these guarantees over real connections.
//
// # Order
//
// Engine.Use runs for every request, also one that matches no route. Middlewares of
// a group do not run for paths below it that match none, so a limit against
// scanning belongs to the engine. [Errors] stands right inside the envelope, so that
// it responds for all that follow, and compression outside both. A middleware that
// adds or replaces errors after Context.Next stands inside the middlewares that
// are to see the response. So does another renderer of c.Errors:
// usher's middlewares inside it see what the handler has set, such as an empty 200.
//
// The envelope responds to panics. Without one, or outside it, gin.Recovery does. A
// middleware sees the response of a gin.Recovery that stands inside it, and is
// unwound before one that stands outside responds.
//
// [PathValues] stands outside everything that reads r.PathValue: a usher.Requirement with
// an Owner refuses every request without it.
//
// # What gin does differently
//
//   - It writes the text of its own 404 and 405 after the whole chain, so that
//     middlewares see only the status: see [NoRoute] and [NoMethod].
//   - Context.Bind and AbortWithError send their status at once, without a body.
//     Handlers that leave the response to [Errors] use ShouldBind and Error.
//   - gin.Recovery continues after http.ErrAbortHandler, with 200 if nothing was set.
//   - Context.ClientIP trusts X-Forwarded-For of every peer unless
//     Engine.SetTrustedProxies names the proxies. Limits by address use package clientip.
package ushergin
