// Package ratelimit limits how much callers may use: several limits decided at once,
// per address, caller, account, route or anything else.
//
//	limiter, err := ratelimit.New(ratelimit.Config{
//		Policies: []ratelimit.Policy{ratelimit.PerAddress(100, time.Minute)},
//	})
//	http.ListenAndServe(addr, limiter.Wrap(mux))
//
// A Policy has further fields: limits by plan, costs, exceptions. A route with its own
// limits has a limiter that derives from the first:
//
//	search, err := limiter.With(ratelimit.Policy{
//		Name:  "search",
//		Key:   ratelimit.ByPrincipal(),
//		Limit: ratelimit.TokenBucket(60, time.Minute, 10),
//	})
//	mux.Handle("/search", search.Wrap(searchHandler))
//
// # Guarantees
//
//   - A request is decided once over all its policies. It is charged to all of
//     them or to none, so a client that is refused by one limit does not use up
//     another, and the order of the policies makes no difference.
//   - However limiters that derive from each other are nested, a policy charges a
//     key once. Where authentication stands between them, the key of a caller may
//     change, and the policy charges both keys.
//   - Each algorithm bounds what its constructor says: [RollingWindow] exactly,
//     [TokenBucket] and [CalendarWindow] with the bursts that they describe. If the
//     limit of a key changes, even from one request to the next, each limit keeps
//     what it bounds.
//   - A client that waits as long as Retry-After or RateLimit says, and shares its
//     key with nobody, is admitted.
//   - Memory is bounded. A flood of invented keys neither grows it nor gives a
//     limited key a fresh allowance; see [Memory].
//   - No two decisions can deadlock, whatever policies they have in common.
//   - If a store fails, hangs or panics, the decision is that of
//     [Config.OnStoreFailure], within [Config.StoreTimeout], and the cause reaches
//     [Config.OnError]. One slow call in a hundred changes the decision of at most
//     two requests in a hundred. An outage costs each request its timeout for about
//     two seconds, and then one request a second; the store is used again at most a
//     second and a timeout after it has recovered.
//   - A client that leaves before a store has responded does not reach the handler,
//     whatever the store does; if it is charged, it is charged once, in the store.
//
// # Order
//
// A limiter by address stands outside authentication, so that guessing keys is
// limited. A limiter by caller, account or plan stands inside, where the caller is
// known: outside it would count by address alone. These are two limiters and two
// decisions, of which the first also counts what the second refuses. Both stand inside
// the envelope, which gives refusals their shape, and inside a [clientip.Resolver] if
// there are proxies; a limiter by caller stands inside [usher.Require] and outside
// idempotency, so that it counts replays. In a test, package ushertest reports whether a
// request reaches a limiter, and as whom.
package ratelimit
