// Package usher defines what its middleware packages share: middlewares and chains of
// middlewares, principals, authenticators, requirements, and errors.
//
//	auth := usher.Authenticate(keys) // an *apikey.Authenticator, for instance
//	write := usher.Require(usher.Requirement{Level: usher.LevelReadWrite})
//	mux.Handle("POST /notes", usher.Chain(auth, write).Wrap(createNote))
//
// A [Middleware] wraps any http.Handler. [Adapt] converts a net/http middleware into one,
// and [MiddlewareFunc] a function. Handlers read the caller with [PrincipalFrom], and
// respond with [Respond] and [Fail].
//
// Packages apikey, jwtauth and jwtauth/session authenticate; ratelimit and idempotency
// protect handlers; envelope gives responses their shape; clientip finds the address of
// the client; malformed names the faults of a request; ushertest is for tests.
//
// # Guarantees
//
//   - A request has a principal only if an [Authenticator] returned it for this
//     request, or [WithPrincipal] set it.
//   - Two credentials in one request are refused, unless [Precedence] ranks
//     them; an invalid credential never falls back to another one.
//   - A credential that could not be verified gets a 503, not a 401.
//   - A shared cache never gives one caller the response of another: Authenticate lists
//     in Vary what the response depends on, and makes responses private unless their
//     handler sets Cache-Control. Caches store nothing that [Fail] writes.
//   - The cause of an [Error] is never sent to a client.
//   - However many middlewares of this module a request passes through, they copy it
//     once: the first puts a holder into its context, and the others fill in that holder.
//     Each [Adapt] and [Deadline] copies the request once more.
//
// # Order
//
// From the outside in: tracing, [Pattern], access log, compression, envelope,
// clientip.Resolver, clientip.RequireTLS, CORS, limits by address, [Deadline]; the router;
// and on each route [Authenticate], [Require], limits by principal, idempotency, handler.
// The example named Server shows a whole stack.
//
// Tracing, such as otelhttp, is outside because this module begins no spans: it notes its
// decisions on the span of the request. Pattern is directly inside: if a middleware between
// them passes on a copy of the request, the trace has no route. All of the middlewares may
// also go outside the router, except a Require that compares owners by r.PathValue. An
// access log that needs the principal or the client's address calls [Track].
//
// # Shutdown
//
// Some types write in the background or keep a goroutine. After http.Server.Shutdown has
// returned, call Shutdown of idempotency.Middleware and ratelimit.Limiter, then Close of
// apikey.Authenticator, apikey.Cache, jwk.Remote, jwk.Pool and jwtauth.RevocationMirror,
// and close the stores last.
package usher
