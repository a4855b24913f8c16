// Package apikey issues API keys, keeps them safe, and tells from a request whose
// key it carries.
//
//	format := apikey.Native{Prefix: "shop", Environments: []string{"live", "test"}}
//	store, err := apikey.NewCache(apikey.CacheConfig{Store: database})
//	keys, err := apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format})
//	auth, err := apikey.New(apikey.Config{Store: store, Formats: []apikey.Format{format}, Environment: "live"})
//	mux.Handle("GET /orders", usher.Authenticate(auth).Wrap(listOrders))
//
// [NewManager] issues and revokes keys, [NewHandler] is its HTTP API, and [New] is
// what stands before the routes that ask for a key. [NewMemory] is a store for
// a single process.
//
// # Guarantees
//
//   - The text of a key is in the answer to [Manager.Create] and [Manager.Rotate]
//     and nowhere else: stores get a hash, and a [Secret] prints as "[redacted]".
//   - What does not look like a key costs no lookup and no allocation, however
//     long it is. That a key never existed, is revoked, expired or of another
//     environment is not told apart by the answer.
//   - An owner never has more active keys than the limit, however many are created
//     at once. A key belongs to the account of its creator and never grants what
//     its creator does not hold, after a change and a rotation neither, and nobody
//     changes or revokes a key that grants more than they hold.
//   - A revoked key is refused at once by the node that revoked it, and elsewhere
//     within the bound that [Cache] states.
//   - A store that fails, panics or hangs is a 503 within its timeout and never a
//     401. While it hangs, invented keys leave a bounded number of calls and
//     goroutines behind, whatever becomes of their clients.
//   - A callback that panics lets nobody in, changes nothing, and does not end the
//     process.
//   - A use is noted in memory and written in batches, never per request.
//
// # Order
//
// Limits per address stand outside [usher.Authenticate], as checksums do not stop
// somebody who computes them; limits per caller stand inside.
package apikey
