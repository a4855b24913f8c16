// Package ratelimit limits how much callers may use: several limits decided at once,
// per address, caller, account, route or anything else.
//
//	limiter, err := ratelimit.New(ratelimit.Config{
//		Policies: []ratelimit.Policy{ratelimit.PerAddress(100, time.Minute)},
//	})
//	http.ListenAndServe(addr, limiter.Wrap(mux))
//
// A [Policy] has more fields, for limits by plan, costs and exceptions. A route with its
// own limits gets a limiter derived from the first:
//
//	search, err := limiter.With(ratelimit.Policy{
//		Name:  "search",
//		Key:   ratelimit.ByPrincipal(),
//		Limit: ratelimit.TokenBucket(60, time.Minute, 10),
//	})
//	mux.Handle("/search", search.Wrap(searchHandler))
//
// # What to use
//
//   - To count failures only, as a login does: [Policy.Count].
//   - For code without a request, such as the consumer of a queue: [Limiter.Allow].
//   - For a key that a handler finds in the body, such as a name: [Limiter.Allow], or a
//     [KeyFunc] that takes it from the context.
//   - To show what a key has left: [Limiter.Peek]. To forget what it has used:
//     [Limiter.Reset].
//   - For plans and limits that change while the service runs: [Config.PlanOf] for the plan
//     of an account, [Policy.LimitOf] for its limit, [Policy.LimitFor] for the limit of a
//     request. What a key has used counts under its new limit too.
//   - For a cost that only the handler knows: [Policy.Settle].
//   - For billing periods: [CalendarWindow] with [Limit.From].
//   - To slow clients down instead of refusing them: [Policy.Delay].
//   - For a key that many clients share: [Policy.Stagger].
//   - For streams of events: [Concurrency]. An EventSource of a browser that is refused
//     closes and never tries again, whatever the status and Retry-After; only a page that
//     uses fetch sees them.
//   - To try a limit out: [Policy.Shadow].
//   - For several processes: [Config.Store], from stores/usherredis or stores/usherpg.
//   - For operators: [Config.OnError], [Config.OnDecision] and [Config.MeterProvider].
//
// # Guarantees
//
//   - One decision covers all policies of a request. It charges all of them or none, so a
//     client that is refused by one limit does not use up another, and the order of the
//     policies makes no difference.
//   - A policy charges a key once, however limiters derived from one another are nested.
//     With authentication between them, the key of a caller may change; the policy then
//     charges both keys.
//   - Each algorithm enforces the bound that its constructor documents: [RollingWindow]
//     exactly, [TokenBucket] and [CalendarWindow] with the bursts described there. Each
//     limit keeps its bound even if the limit of a key changes from one request to the
//     next.
//   - A client that shares its key with nobody and waits as long as Retry-After or
//     RateLimit asks is admitted.
//   - A client that spreads what is left (r of RateLimit) over the effective window (t)
//     is served, at the average rate of the policy.
//   - Clients that share a key with [Policy.Stagger] are given their turns one after
//     another: 1,000 clients that obey a bucket of 10 a second need 2 attempts in the
//     median, in place of 50.
//   - Memory is bounded. A flood of invented keys neither grows it nor gives a
//     limited key a fresh allowance; see [Memory].
//   - No two decisions can deadlock, whatever policies they have in common.
//   - If a store fails, hangs or panics, [Config.OnStoreFailure] decides within
//     [Config.StoreTimeout], and the cause reaches [Config.OnError]. One slow call in a
//     hundred changes the decision of at most two requests in a hundred. An outage costs
//     each request its timeout for about two seconds, and then one request a second; the
//     store is used again at most a second and a timeout after it has recovered.
//   - No response waits until the store has refunded what its request did not use. A client
//     that comes back at once to the same process finds it refunded, and its place free.
//   - If the result of a store's call is lost, the call is repeated, and charges once.
//   - A process that dies frees its places of concurrency limits in a shared store, and what
//     its requests have reserved there under policies with Settle, within [Config.Lease].
//   - Concurrent requests use no more than a budget if each reserves the most that it may
//     need, or ends when [Settle] reports that nothing is left. [Policy.Overrun] says what
//     becomes of the rest.
//   - If a client disconnects before a store has responded, its request does not reach
//     the handler, whatever the store does. If the request is charged, it is charged
//     once, in the store.
//
// # Order
//
// A service with all of its parts has them in this order:
//
//	usher.Chain(envelope, addresses, byAddress, auth, require, byCaller, once).Wrap(mux)
//
// Each part has a reason for its place:
//
//   - The envelope gives refusals their shape, so all limiters are inside it.
//   - A [clientip.Resolver] finds the client behind proxies, so it is outside all limiters.
//     A server without proxies needs none.
//   - A limiter by address is outside [usher.Authenticate], so that it limits guesses at
//     credentials.
//   - A limiter by caller, account or plan is inside, where the caller is known. Outside, it
//     would count by address alone. It is inside [usher.Require] too, which refuses a
//     request before it is charged, and outside idempotency, so that it counts replays.
//
// Two limiters of [New] make two decisions, and the first also counts what the second
// refuses. If [Limiter.With] of the outer one has made the inner one, a refusal by the inner
// one gives back what the outer one has charged. The outer one must then have no policy by
// caller: it would count by address outside, and by caller inside as well. In a test,
// package ushertest reports whether a request reaches a limiter, and as which caller.
//
// At the end of the process, shut the server down first, and then the limiter, before the
// store is closed; see [Limiter.Shutdown].
package ratelimit
