// Package jwk holds the keys that sign and verify JSON Web Tokens, and sets of keys.
//
//	keys, err := jwk.NewRemote(jwk.RemoteConfig{Issuer: "https://issuer.example"})
//	defer keys.Close()
//
// A [Remote] is a key set that its issuer publishes: the one that the issuer's metadata
// names, or one at a URL. [Sets] are several sets of one issuer, and a [Pool] has the sets of
// many issuers, of which it keeps those in use. A [Static] is a list of keys. [New]
// makes a key from PEM, a JSON Web Key (RFC 7517), a secret or a key of the standard
// library, and [Generate] makes a new one. Packages jwtauth and jwtauth/session use keys.
//
// # Guarantees
//
//   - A key is for one algorithm and never changes; if a published key names none, it is
//     for one algorithm of each issuer that trusts it. Printing or encoding a key never
//     shows a private key or a secret.
//   - Weak keys are refused: secrets shorter than the hash, RSA keys below 2048 bits or
//     of a generator that is known to be weak, and points that are not on their curve.
//   - A Remote follows each rotation, also an unannounced one: while a key may exist that
//     has not been fetched yet, its tokens are unavailable, which leads to a 503, never a
//     401. At most 64 of their requests wait, each for at most a second, and no other token
//     waits. Of the fetches that unknown key IDs cause, at most one per CoolDown finds no
//     new key.
//   - While no usable set can be fetched, the last one is used until it is stale. Then
//     the keys are unavailable.
//   - A symmetric key in a published set is never used, and neither is a key that is
//     published with its private half.
package jwk
