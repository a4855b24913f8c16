// Package ratelimit limits how much callers may use: several limits decided at
// once, per address, caller, account, route or anything else.
//
//	limiter, err := ratelimit.New(ratelimit.Config{
//		Policies: []ratelimit.Policy{{
//			Name:  "address",
//			Key:   ratelimit.ByAddress(),
//			Limit: ratelimit.TokenBucket(100, time.Minute, 20),
//		}},
//	})
//	search, err := limiter.With(ratelimit.Policy{
//		Name:  "search",
//		Key:   ratelimit.ByPrincipal(),
//		Limit: ratelimit.RollingWindow(10, time.Minute),
//	})
//	mux.Handle("/", limiter.Wrap(pages))
//	mux.Handle("/search", search.Wrap(searchHandler))
//
// # Guarantees
//
//   - A request is decided once over all its policies. It is charged to all of
//     them or to none, so a client that is refused by one limit does not use up
//     another, and the order of the policies makes no difference.
//   - However limiters that derive from each other are nested, a policy charges a
//     key once. Where authentication stands between them, the key of a caller may
//     become another, and the policy charges both.
//   - Each algorithm bounds what its constructor says: [RollingWindow] exactly,
//     [TokenBucket] and [CalendarWindow] with the bursts that they describe. Where
//     the limit of a key changes, from one request to the next even, each limit
//     keeps what it bounds.
//   - A client that waits as long as Retry-After or RateLimit say, and shares its
//     key with nobody, is admitted.
//   - Memory is bounded. A flood of invented keys neither grows it nor lets a
//     limited key start afresh; see [Memory].
//   - No two decisions can wait for each other for ever, whatever policies they
//     have in common.
//   - A store that fails, hangs or panics does what [Config.OnStoreFailure] says,
//     within [Config.StoreTimeout], and [Config.OnError] is told.
//   - A client that leaves before a store has responded does not reach the handler,
//     whatever the store does; if it is charged, it is there and once.
//
// # Order
//
// A limit by address stands outside authentication, so that guessing keys is
// limited; one by caller, account or plan stands inside, where the caller is
// known: outside it would count by address alone. That makes two limiters and
// two decisions, of which the first also counts what the second refuses.
// Both stand inside the envelope, which gives refusals their shape.
// [CheckMounted] tells in a test whether a limiter stands where it should.
package ratelimit
