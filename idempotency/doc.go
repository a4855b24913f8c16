// Package idempotency makes requests safe to retry: a request with an
// Idempotency-Key is executed once, and each duplicate of it gets the response of
// the first.
//
//	once, err := idempotency.New(idempotency.Config{})
//	mux.Handle("POST /orders", once.Wrap(createOrder))
//
// The page docs/idempotency-draft.md of the repository compares this package with
// draft-ietf-httpapi-idempotency-key-header-07, sentence by sentence.
//
// # Guarantees
//
//   - Of all requests of one caller with one method, route and key, one runs at a time,
//     and no other runs after it unless it had no effect. While it runs, duplicates wait
//     for its response, for [Config.Wait] at most, and then get 409; afterwards they get
//     the response at once.
//   - A key that is reused with another host, request target, media type, content
//     encoding, body or field of [Config.FingerprintHeaders] gets 422, even while the
//     first request is in flight or after its process has died. Host and target count as the client sent them: a retry
//     to another name of the service, or through a proxy that rewrites them, is another
//     request. A multipart body counts by its parts, whatever its boundary.
//   - No caller gets the response of another caller, method or route. A record is
//     bound to its owner and key: a request for which the store returns the record of
//     another key gets an error and does not run.
//   - The handler reads exactly the bytes that were compared.
//   - Work goes on when its client disconnects: the context of the request outlives
//     the client by [Config.DisconnectTimeout], and the retry gets the response.
//   - An empty response that the handler did not write itself is not stored if the
//     client has disconnected or the request has run out of time. A handler that
//     means an empty response writes its status.
//   - A response is stored before its first byte is sent, even if the client has
//     disconnected. A response that is too large, flushed or hijacked, or has trailers,
//     is sent as it is; a retry gets 409, and does not run. The outcome of a response
//     that is shorter or longer than its Content-Length is unknown.
//   - A response whose handler has called [Execution.Commit] is sent only once its
//     transaction is committed. Otherwise nothing of it is sent or stored.
//   - A retry of a request whose process has died runs after [Config.Lease], unless
//     [Config.Resolve] finds out that the request had its effect. A process that only
//     seemed dead cannot overwrite what its successor has stored.
//   - A retry of a request whose outcome is unknown does not run unless Config.Resolve or
//     an operator ([Middleware.Resolve], [Middleware.Delete]) decides that it may. The 409
//     says in its member new_key_safe whether the client may send the request with a new
//     key.
//   - While the store fails, requests with a key get 503 within [Config.StoreTimeout],
//     and do not run. If it fails when a request ends, the client gets its response after
//     [Config.FinishTimeout], the lease is kept, and the result is stored once the store
//     accepts it: see [Middleware.Shutdown].
//
// # Limits
//
// At most one request at a time holds a valid lease; that is not exactly once. If a
// process dies after the effect and before the response is stored, a retry runs after the
// lease, and has the effect again. The same happens in two other cases: if
// a process is paused, or cut off from the store, for longer than its lease and its
// handler ignores the end of [Execution.Context]; and if it already has 1,024 results that
// the store has yet to accept and another is added.
//
// To close this gap, finish the claim in the transaction of the effect: a [TxStore] keeps
// the records where the handler keeps its data, and [Execution.Commit] passes what its
// FinishTx takes to the function that commits. Where that is not possible, pass
// [Execution.DownstreamKey] to services that accept keys, let [Config.Resolve] ask them
// what has become of a request, and protect the data with the fencing token
// ([Execution.Generation]).
//
// Bodies are kept in memory, up to [Config.MaxBody], and so are responses, up to
// [Config.MaxResponse]; nothing is written to disk. A body is read before the
// handler runs and must arrive within [Config.BodyTimeout]. An outer writer without an
// Unwrap method hides the connection: behind it a body that stalls ends only by
// http.Server.ReadTimeout.
//
// # Without HTTP
//
// [Middleware.Execute] does for a message of a queue or a call of gRPC what a Middleware
// does for a request: with the same stores, leases, profiles and errors.
//
// # Order
//
// Put this middleware inside authentication, because keys belong to callers; inside rate
// limits, so that replays count and carry the current state of the limits; and inside the
// envelope, which gives refusals their shape. The envelope also gives each replay its
// shape, with the request ID, the time and the address of the replay's own request: plain
// JSON is stored without an envelope, and of what a handler writes through usher.Respond,
// usher.Fail or the writers of the envelope, the data or the public part of the error is
// stored. The status stays that of the first response, even if the catalogue has changed.
// A body is stored as it was sent, metadata included, if it was changed inside this
// middleware after it had got its shape, by a compressor for instance; if the envelope is
// inside this middleware; or if a usher.Responder of the service wrote it.
//
// Put it inside the router, or outside the router and inside usher.Pattern. Outside the
// router without usher.Pattern, the route is unknown: all routes share one set of keys,
// and a key that is reused on another route gets 422.
//
// A 405 is not stored, nor is a 404 for which no route is known, so a retry finds a route
// that was added meanwhile. If the router sets no pattern, [Config.Route] names its routes.
//
// Anything that changes the pattern of a route changes its keys: a new pattern, but also
// adding usher.Pattern or [Config.Route]. For up to [Config.TTL] after such a change, a
// retry of an earlier request runs again.
//
// Put compression outside: bodies are stored plain, without the Content-Encoding that an
// outer compressor has announced, and each replay is compressed as its own request asks.
// A body that is compressed inside is stored and replayed as it is, with its
// Content-Encoding, even to a client that does not accept it: its status and header count
// for more than an error that would hide them.
// Put http.TimeoutHandler outside as well: inside, it responds with 503 while the handler
// goes on, and 503 releases the key, so a retry runs.
package idempotency
