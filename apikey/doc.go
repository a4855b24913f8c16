// Package apikey issues, stores and authenticates API keys.
//
//	keys := usher.Must(apikey.Open(apikey.ManagerConfig{
//		Store:  database,
//		Format: apikey.Native{Prefix: "shop"},
//	}, apikey.Config{}))
//	mux.Handle("GET /orders", usher.Authenticate(keys.Authenticator).Wrap(listOrders))
//
// A [Manager] issues, changes and revokes keys, and [NewHandler] returns its HTTP API. An
// [Authenticator] verifies the keys in requests. A service keeps its keys in its
// database, as a [Store]; [NewMemory] keeps them for a single process. [Open] puts a
// [Cache] over a database.
//
// The first key of a service is in its configuration: every process stores it at every
// start by [Manager.ImportText], and one of them adds it. [Manager.Derive] issues keys for
// jobs and agents, which end with the key that they are derived from.
//
// If the store is an [Admin], operators can find, revoke and purge the keys of all owners:
// [Manager.Select], [Manager.RevokeAll], [Manager.Purge].
//
// Keys of another system, of which only a bcrypt, argon2id or salted hash exists, stay valid
// through a [Legacy]: each is verified once, and stored like any other key.
//
// # Guarantees
//
//   - The text of a key is returned by [Manager.Create], [Manager.Rotate] and
//     [Manager.Derive] and exists nowhere else: stores keep a hash, a [Secret] prints as
//     "[redacted]", and an [Authenticator] recognizes keys in use by a keyed code (SipHash)
//     of their text.
//   - Text that does not have the form of a key costs no lookup and no allocation,
//     however long it is. A response does not reveal whether a key never existed, is
//     revoked or disabled, has expired, belongs to another environment, or is used from
//     a network that it does not allow.
//   - An owner never has more active keys than the limit, however many are created
//     concurrently, except for keys of a [Legacy]. Keys in the grace of a rotation have the
//     same limit again, or count with the active ones. The keys that are stored of an
//     owner, ended ones included, are bounded, and so is every field of a key, however it
//     is set.
//   - A key belongs to the account of its creator and never grants what its creator does
//     not hold, not even after a change or a rotation. Callers can change and revoke only
//     keys that grant no more than they hold. A key that the server itself has disabled
//     stays so until the server enables it.
//   - A derived key never grants more than its parent, and ends with it.
//   - A revoked key is refused immediately by the node that revoked it, and elsewhere
//     within the time that [Cache] documents.
//   - A store that fails, panics or hangs leads to a 503 within its timeout, and never
//     to a 401. While most of its calls fail, requests fail at once. While it hangs,
//     invented keys occupy a bounded number of calls and goroutines, even if their
//     clients disconnect. Every failure reaches OnError or the log.
//   - A callback that panics lets no request pass, changes nothing, and does not end
//     the process.
//   - A use is recorded in memory and written in batches, never per request.
//
// # Order
//
// Limits per address go outside [usher.Authenticate], because checksums do not stop
// attackers who compute them; [usher.Require] and limits per caller go inside. Behind
// proxies, put a clientip.Resolver outside all of them; events have the address that it
// finds.
//
// The preflight request of a browser (OPTIONS) carries no key, so a CORS middleware goes
// outside [usher.Authenticate], too. [Authenticator.HideKey] goes inside, before a handler
// that passes requests on.
package apikey
