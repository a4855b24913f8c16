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
// Code without a request, and handlers that know a key only after they have parsed the
// body, call [Limiter.Allow]. [Limiter.Peek] shows what a key has left, and [Limiter.Reset]
// forgets what it has used.
//
// Limits change at run time through [Config.PlanOf], [Policy.LimitOf] and
// [Policy.LimitFor]. What a key has used counts under its new limit too.
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
// Put a limiter by address outside authentication, so that guessing keys is limited. Put
// a limiter by caller, account or plan inside, where the caller is known: outside, it
// would count by address alone. So would a parent that is outside, for the policies that
// its children inherit, in addition to what the children count by caller. These are two limiters and two decisions, and the first
// also counts what the second refuses. Put both inside the envelope, which gives refusals
// their shape, and inside a [clientip.Resolver] if there are proxies. Put a limiter by
// caller inside [usher.Require], and outside idempotency so that it counts replays. In a
// test, package ushertest reports whether a request reaches a limiter, and as which
// caller.
package ratelimit
