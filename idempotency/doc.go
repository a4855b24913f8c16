// Package idempotency makes requests safe to retry: a request with an Idempotency-Key is
// executed once, and each duplicate of it gets the response of the first.
//
//	once, err := idempotency.New(idempotency.Config{Required: true})
//	…
//	protected := usher.Chain(usher.Authenticate(keys), once)
//	mux.Handle("POST /payments", protected.Wrap(createPayment))
//
// A client makes up a key for each payment, and sends it in the header field Idempotency-Key
// with the request and with each retry. A key belongs to its caller, so a request with a key
// gets 401 if nothing further out has authenticated it. A request without a key runs every
// time, unless [Config.Required] refuses it.
//
// This suffices for a server that is a single process and whose handler has its effect here.
// Otherwise:
//
//   - Several processes share a [Config.Store], as package usherredis or usherpg has.
//   - A handler whose effect is in a database ends its transaction with [Execution.Commit],
//     so that the effect and the stored response are one step.
//   - A handler whose effect is at another service, such as a payment provider, passes on
//     [Execution.DownstreamKey], and [Config.Resolve] asks the service what has become of a
//     request whose outcome is unknown.
//   - [ProfileDeliveries] is for webhooks, which are delivered again until they succeed.
//   - [Middleware.Execute] executes a message of a queue, or a call of gRPC, with the same
//     stores, leases, profiles and errors.
//   - Operators use [Middleware.Lookup], [Middleware.Resolve] and [Middleware.Delete].
//   - [Middleware.Discovery] publishes the rules for clients, and each refusal links to
//     [Config.Documentation].
//
// The types around [Store], such as [Claim], [Record] and [Result], are for authors of stores.
// The page docs/idempotency-draft.md of the repository compares this package with
// draft-ietf-httpapi-idempotency-key-header-07, sentence by sentence.
//
// # Guarantees
//
// Which requests run:
//
//   - Of all requests of one caller with one method, route and key, one runs at a time, and
//     no other runs after it unless it had no effect. While it runs, its duplicates wait, for
//     [Config.Wait] at most, and then get 409. Afterwards they get its response at once.
//   - A key that is reused with another host, request target, media type, content encoding,
//     body or field of [Config.FingerprintHeaders] gets 422, even while the first request is
//     in flight, or after its process has died. Host and target count as the client sent
//     them: a retry to another name of the service, or through a proxy that rewrites them, is
//     another request. A multipart body counts by its parts, whatever its boundary.
//   - The handler reads exactly the bytes that were compared.
//   - A retry of a request whose outcome is unknown does not run unless [Config.Resolve] or an
//     operator decides that it may.
//   - A retry of a request whose process has died runs after [Config.Lease], unless
//     Config.Resolve finds out that the request had its effect. A process that only seemed
//     dead cannot overwrite what its successor has stored.
//
// What is stored and replayed:
//
//   - No caller gets the response of another caller, method or route. A record is bound to
//     its owner and key: a request for which the store returns the record of another key
//     gets an error and does not run.
//   - A response is stored before its first byte is sent. One that is too large, flushed or
//     hijacked, or has trailers, is sent as it is; a retry gets 409, and does not run.
//   - A response whose handler has called [Execution.Commit] is sent only once its
//     transaction is committed. Otherwise nothing of it is sent or stored.
//   - A response that is shorter or longer than its Content-Length is never replayed: its
//     outcome is unknown.
//   - A 405 is not stored, nor is a 404 for which no route is known, so that a retry finds a
//     route that was added meanwhile.
//
// While something fails:
//
//   - Work goes on when its client disconnects, for [Config.DisconnectTimeout] at most, and
//     the retry gets the response. An empty response that the handler did not write itself
//     is then not stored, so a handler that means one writes its status.
//   - While the store fails, requests with a key get 503 within [Config.StoreTimeout], and do
//     not run. If it fails when a request ends, the client gets its response after
//     [Config.FinishTimeout], the lease is kept, and the result is stored once the store
//     accepts it: see [Middleware.Shutdown].
//
// # Limits
//
// At most one request at a time holds a valid lease; that is not exactly once. The retry has
// the effect again
//
//   - if a process dies after the effect and before the response is stored;
//   - if a process is paused, or cut off from the store, for longer than its lease, and its
//     handler ignores the end of [Execution.Context];
//   - if a process already has 1,024 results that the store has yet to accept, and adds
//     another.
//
// [Execution.Commit] closes this gap with a [TxStore], which keeps the records where the
// handler keeps its data. Config.Resolve closes the first case if the other service knows what
// it has done; and a database that compares the fencing token ([Execution.Generation]) closes
// the second.
//
// Bodies are kept in memory, up to [Config.MaxBody], and so are responses, up to
// [Config.MaxResponse]; nothing is written to disk. A body is read before the handler runs
// and must arrive within [Config.BodyTimeout]. An outer writer without an Unwrap method hides
// the connection: behind it a body that stalls ends only by http.Server.ReadTimeout.
//
// # Retries
//
// A client that got no response, or a 5xx, sends the same request again with the same key. A
// request that is changed after a response of the handler gets a new key. The refusals of this
// package ask for the following.
//
//	the same request with the same key, after Retry-After if there is one
//	  408 body_timeout
//	  409 idempotency_in_progress
//	  429 idempotency_too_many_keys
//	  503 idempotency_unavailable
//	  503 idempotency_record_unreadable
//	  400 body_unreadable
//	a corrected request
//	  400 idempotency_key_missing
//	  400 idempotency_key_invalid
//	  401 missing_credential
//	  413 payload_too_large
//	the same request with a new key, if it is meant as another one
//	  422 idempotency_key_reused
//	no request: find out what the first one has done
//	  409 idempotency_outcome_unknown
//	  409 idempotency_response_not_kept
//	  500 idempotency_record_unreadable
//
// Each 409 says in its member new_key_safe whether the client may also send the request with
// a new key: only if it is true did the first request certainly have no effect.
//
// # Order
//
// Put this middleware inside authentication, because keys belong to callers; inside rate
// limits, so that replays count and carry the current state of the limits; and inside the
// envelope, which gives refusals their shape. Put it inside the router, or outside the router
// and inside usher.Pattern. Without either the route is unknown: all routes share one set of
// keys, and a key that is reused on another route gets 422. If the router sets no pattern,
// [Config.Route] names its routes.
//
// A change of a route's pattern is a change of its keys, and so is adding usher.Pattern or
// Config.Route. For up to [Config.TTL] after it, a retry of an earlier request runs again.
//
// The envelope also gives each replay its shape, with the request ID, the time and the address
// of the replay's own request: plain JSON is stored without an envelope, and of what a handler
// writes through usher.Respond, usher.Fail or the writers of the envelope, the data or the
// public part of the error is stored. The status stays that of the first response, even if
// the catalogue has changed. A body is stored as it was sent, metadata included, if it was
// changed inside this middleware after it had got its shape, by a compressor for instance; if
// the envelope is inside this middleware; or if a usher.Responder of the service wrote it.
//
// Put compression outside: bodies are stored plain, without the Content-Encoding that an
// outer compressor has announced, and each replay is compressed as its own request asks. A
// body that is compressed inside is stored and replayed as it is, even to a client that does
// not accept its Content-Encoding: its status and header count for more than an error that
// would hide them. Put http.TimeoutHandler outside as well: inside, it responds with 503 while
// the handler goes on, and 503 releases the key, so a retry runs.
//
// # Memory
//
// Without a Store, records are in a [Memory] of 192 MiB, and are lost when the process ends.
// With the default TTL it has room for all responses of a day at these rates:
//
//	100 bytes    7 requests a second
//	  1 KiB     100 a minute
//	  4 KiB      27 a minute
//	 20 KiB       6 a minute
//
// Above them the oldest responses are given up: a late retry gets 409 and does not run. See
// [Memory.Capacity] for other sizes. One caller alone can have three quarters of the room, and
// each is sure of its [MemoryConfig].OwnerShare.
package idempotency
