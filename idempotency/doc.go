// Package idempotency lets a client repeat a request without fear: one with an
// Idempotency-Key runs once, and a repetition gets the answer of the first.
//
//	once, err := idempotency.New(idempotency.Config{})
//	mux.Handle("POST /orders", once.Wrap(createOrder))
//
// # Guarantees
//
//   - Of all requests of one caller with one method, route and key, one runs at a
//     time, and after it none, unless it had no effect. The others get 409 while it
//     runs, or wait if [Config.Wait] says so, and its answer after that.
//   - A key that comes back with another host, request target, media type, content
//     encoding or body gets 422, also while the first runs. Host and target count as
//     the client has sent them, so a retry to another name of the service, or past a
//     proxy that changes them, is another request.
//   - No caller sees the response of another, nor of another method or route. A record
//     is bound to its owner and key: one that a store returns for another key is
//     refused with an error, and the request does not run.
//   - The handler reads exactly the bytes that were compared.
//   - Work goes on when its client has gone: the context of the request outlives the
//     client by [Config.DisconnectTimeout], and the retry gets the response.
//   - A response that nobody wrote is not kept if the client has gone or the time of
//     the request is over. A handler that means an empty response writes its status.
//   - An answer is stored before its first byte is sent, and also if the client has
//     gone. One that is too large, flushed, hijacked or has trailers is passed on as
//     it is; a retry is told that it cannot be had again, and does not run. The
//     outcome of one that is shorter or longer than its Content-Length is unknown.
//   - A process that dies keeps its keys for [Config.Lease] and no longer. One that
//     was only thought dead cannot overwrite what its successor has stored.
//   - While the store fails, requests with a key get 503 within
//     [Config.StoreTimeout], and do not run. If it fails just when a request ends,
//     the client gets its response after [Config.FinishTimeout], the lease is kept,
//     and the result is stored once the store takes it: see [Middleware.Shutdown].
//
// # Limits
//
// At most one request at a time holds a valid lease; that is not exactly once. A
// process that dies after its effect and before the answer is stored leaves a key
// that is free again after the lease, and the retry has the effect once more. So
// does one that is paused, or cut off from the store, for longer than its lease,
// unless the handler minds [Execution.Lost], and one that has 1,024 results to store
// when another is added. To close the gap, store the response in the transaction of the
// effect ([Execution.Result]), pass [Execution.Generation] on to what can refuse
// the past, and [Execution.DownstreamKey] to services with keys of their own.
//
// Bodies are held in memory, up to [Config.MaxBody], and answers up to
// [Config.MaxResponse]: nothing is written to disk. A body is read before the
// handler runs, so it must arrive within [Config.BodyTimeout]; a client that sends
// nothing at all is what http.Server.ReadTimeout is for.
//
// # Order
//
// Inside authentication, as keys belong to callers; inside limits, so that replays
// are limited and carry the state of today; inside the envelope, which gives
// refusals their shape and replays the request ID and, around plain JSON, the
// metadata of today. What a handler has written through usher.Respond, usher.Fail
// or the writers of the envelope is stored as it was sent, metadata included, and
// not put into the shape again.
//
// It may stand outside a router or inside. Outside, routes are not known yet: two
// routes then share a key, and the second gets 422. Compression stands outside: plain
// bodies are stored, without the Content-Encoding that a compressor has announced
// before, and each replay is compressed as its own request asks for. Outside also
// stands http.TimeoutHandler: inside, it responds with 503 and leaves the handler
// running, while 503 tells a retry that it may run.
package idempotency
