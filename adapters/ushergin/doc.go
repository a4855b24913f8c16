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
//   - The chain runs on what a middleware hands on: its request, and a writer over
//     its writer, through which all of gin's ways to answer go. What it refuses is
//     aborted, and so is a chain that has panicked when it recovers.
//   - What was there before is back after it, also if the chain panics.
//   - An error in c.Errors to which [Errors] responds is a response that each
//     middleware inside of the envelope sees, wherever Errors stands there.
//   - A status without a body stays lazy, as gin has it: a middleware sees it, and
//     somebody further out may still answer something else.
//   - The pattern of the route is known to limits and idempotency keys before the
//     handler runs, also if the engine is mounted under an http.ServeMux; requests
//     that match no route share the empty one.
//
// The suite of package adaptertest holds them to it, over real connections.
//
// # Order
//
// Engine.Use runs for every request, also one that matches no route. Middlewares of
// a group do not run for paths below it that match none, so a limit against
// scanning belongs to the engine. [Errors] stands right inside the envelope, so that
// it responds for all that follow, and compression outside of both. What adds errors
// after Context.Next, or makes others of them, stands inside of the middlewares that
// are to see the response. Somebody else's renderer of c.Errors stands there too:
// usher's middlewares inside of it see what the handler has set, such as an empty 200.
//
// The envelope responds to panics. Without one, or outside of it, gin.Recovery does:
// outside of a middleware it takes over once that has let go; inside it is seen.
//
// # What gin does otherwise
//
//   - The text of its own 404 and 405 is written after the whole chain, where
//     middlewares see the status alone: see [NoRoute] and [NoMethod].
//   - Context.Bind and AbortWithError send their status at once, without a body.
//     Handlers that leave the answer to [Errors] use ShouldBind and Error.
//   - gin.Recovery goes on after http.ErrAbortHandler, with 200 if nothing was set.
//   - Context.ClientIP believes X-Forwarded-For from anybody unless
//     Engine.SetTrustedProxies says whom. Limits by address take a clientip.Resolver.
package ushergin
