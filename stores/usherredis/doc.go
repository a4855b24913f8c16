// Package usherredis keeps the limits of package ratelimit and the records of package
// idempotency on a Redis server, so that any number of processes share them.
//
//	redis := usher.Must(usherredis.Open(usherredis.Config{
//		URL:    "redis://redis.internal:6379/0",
//		Prefix: "orders",
//	}))
//	defer redis.Close()
//	limits := usher.Must(ratelimit.New(ratelimit.Config{
//		Store:    redis.Limits(),
//		Policies: []ratelimit.Policy{ratelimit.PerPrincipal(100, time.Minute)},
//	}))
//	retries := usher.Must(idempotency.New(idempotency.Config{Store: redis.Idempotency()}))
//
// It needs Redis 7 or later, or Valkey, and the setting maxmemory-policy noeviction, which
// is the default of both: a server that drops keys when its memory is full also drops
// limits and records. [Redis.Check] reports such a setting, and belongs in a health check.
//
// A user of its own needs few rights:
//
//	ACL SETUSER orders on >PASSWORD ~{orders}:* +eval +evalsha +get +set +setrange +strlen +del +pexpire +pttl +time +info +ping
//
// # What it guarantees
//
// A decision over any number of policies is one script and one round trip. It charges all
// of them or none, even if the server fails in between or its data cannot be read. The
// result is the same as that of a [ratelimit.Memory] at the same instant: both count in
// integers. The time is that of the server, so the clocks of processes may differ. Only
// calendar windows need the clock of a process to be right to within the length of a
// window. A decision that only peeks writes nothing.
//
// Units that a decision holds are kept with what their key has used: every decision of the
// policy counts them, and only a decision that holds some sends or stores more. They outlive
// a reset, and end with their lease if the process that renews it has died.
//
// The package never repeats a call by itself, but a caller may: a decision with the same ID
// is charged once, and a claim with the same token is made once, even if the first reply
// was lost.
//
// A call ends with its context, whatever the server does. Its error matches one of package
// usher: ErrUnavailable if there is no connection or the server accepts no call now,
// ErrFull if its memory is full, ErrCorrupt if something else has written to the keys, and
// ErrClosed. If the memory is full, nothing is charged; leases and claims can still be
// renewed, keys be reset, and records be found and deleted, and a claim ends as a tombstone
// if there is no room for its response. No error contains a credential or a key.
//
// # What it does not guarantee
//
// Redis replicates asynchronously, and by default writes to disk only from time to time;
// with appendonly yes, once a second. When it fails over or crashes, the last acknowledged
// writes may be lost. Limits then admit that much more, and a lost claim can be made again
// while its request is running. Where a request must run at most once even then, keep the
// record in the database of the handler.
//
// If the clock of the server is set back, limits count as if what was used had been used
// just now: no key is refused for longer than its limit takes to be free again, or to earn a
// debt. Leases last longer by as much as the clock was set back.
//
// # What it stores
//
// All keys begin with {Prefix}, so in a cluster one node has them all, and the keys of an
// application can be found with SCAN:
//
//	{orders}:limit:POLICY:DIGEST    what a key has used and holds, until neither counts any more
//	{orders}:places:POLICY:DIGEST   the places of a concurrency limit, until their leases end
//	{orders}:call:ID                the results of a call, for 5 seconds
//	{orders}:record:OWNER NAME      an idempotency record, for its TTL
//
// DIGEST, ID, OWNER and NAME are bytes of hashes and numbers, and reveal nothing about a
// caller. A key with a token bucket or a calendar window takes about 200 bytes of memory. A
// rolling window takes 12 bytes more for each request that counts, and a place 28 bytes.
// While a key holds units, it takes 50 bytes more, and 28 for each further decision that
// holds some. A record takes about 250 bytes and its response. What earlier versions have
// stored is read, and they read what this one stores, so programs of one version and the
// next work side by side. To repair a value that cannot be read, reset its key, or delete the
// record: the store then forgets what the key has used.
package usherredis
