// Package usher takes a request from the door of an existing HTTP server to its
// handler: who is calling, may they call now, and in which shape is the answer
// written. This package is the vocabulary that the others speak.
//
//	auth := usher.Authenticate(keys)                      // an *apikey.Authenticator, for instance
//	write := usher.Require(usher.Requirement{Level: usher.LevelReadWrite})
//	mux.Handle("POST /notes", usher.Chain(auth, write).Wrap(createNote))
//
// # Guarantees
//
//   - A request never carries its principal further than its context, and never
//     has one unless an [Authenticator] returned it.
//   - Two credentials in one request are refused, unless [Precedence] says which
//     one decides; a bad credential never falls back to another one.
//   - A credential that could not be judged is a 503 and not a 401.
//   - A shared cache gives no caller the response of another: Authenticate names in
//     Vary what the response depends on, and responses that a handler does not
//     declare otherwise are private. What [Fail] writes is stored nowhere.
//   - The cause of an [Error] is never sent to a client.
//   - However many of this module's middlewares a request passes, it is copied
//     once: the first puts one holder into its context, the others fill it in.
//
// # Order
//
// From the outside in: the envelope, so that every refusal has its shape; limits
// per address; [Authenticate]; [Require]; limits per caller; idempotency; the
// handler. An access log that wants to know who called stands outside all of
// them and calls [Track].
package usher
