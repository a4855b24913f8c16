// Package ushergin mounts usher's middlewares, and any others of net/http, on gin
// 1.12 or newer.
//
//	binding.Validator = ushergin.Validator(binding.Validator)
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
//   - The chain inside a middleware runs with the request and the writer that the
//     middleware passes on, whichever of gin's methods a handler responds with. A request
//     that the middleware refuses is aborted. So is a chain that has panicked, if the
//     middleware recovers.
//   - The request and the writer of gin are restored afterwards, also after a panic.
//   - Each middleware inside the envelope sees the response of [Errors] to an error in
//     c.Errors, wherever inside the envelope Errors is.
//   - Errors of binding and of the validator are 400 with the faulty fields, and never a
//     text of the program.
//   - A status without a body stays lazy, as in gin: a middleware sees it, and an outer
//     handler may still replace it.
//   - Limits and idempotency see the pattern of the route before the handler runs, even
//     if the engine is mounted under an http.ServeMux. Requests that match no route share
//     the empty pattern.
//
// The suite of package adaptertest tests these guarantees over real connections.
//
// # Order
//
// Middlewares of Engine.Use run for every request, even one that matches no route.
// Middlewares of a group do not run for paths below it that match no route, so a limit
// against scanning belongs on the engine. Put [Errors] directly inside the envelope, so
// that it responds for everything inside, and compression outside both. Put a middleware
// that adds or replaces errors after Context.Next inside the middlewares that must see
// the response. The same applies to another renderer of c.Errors: usher's middlewares
// inside it see what the handler has set, such as an empty 200.
//
// The envelope responds to panics. Without an envelope, gin.Recovery does. A
// gin.Recovery outside the envelope gets the panics of handlers only with
// envelope.Config.PassPanics.
// A middleware outside a gin.Recovery sees its response, and one inside has been unwound
// before the gin.Recovery responds.
//
// Put [PathValues] outside everything that reads r.PathValue: without it an
// usher.Requirement with an Owner refuses every request, and counts it as no_owner.
// [Middleware] does not set the values itself, as net/http takes two allocations for them
// on every route with parameters, and few middlewares read them.
//
// # What gin does differently
//
//   - Gin writes the text of its own 404 and 405 after the whole chain, so middlewares
//     see only the status: see [NoRoute] and [NoMethod].
//   - Context.Bind and AbortWithError send their status at once, without a body.
//     Handlers that leave the response to [Errors] use ShouldBind and Error.
//   - gin.Recovery continues after http.ErrAbortHandler, with 200 if nothing was set.
//   - Context.ClientIP trusts the X-Forwarded-For of every peer, unless
//     Engine.SetTrustedProxies lists the proxies. Limits by address use package clientip.
package ushergin
