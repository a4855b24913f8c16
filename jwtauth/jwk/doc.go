// Package jwk holds the keys that sign and verify JSON Web Tokens, and sets of keys.
//
//	keys, err := jwk.NewRemote(jwk.RemoteConfig{URL: "https://issuer.example/jwks"})
//	defer keys.Close()
//
// A [Remote] is a key set that its issuer publishes. [Static] is a list of keys made by
// [New], from PEM, a JSON Web Key (RFC 7517), a secret or a key of the standard library.
// [Generate] makes a new key. Packages jwtauth and jwtauth/session use keys.
//
// # Guarantees
//
//   - A key is for one algorithm and never changes. However it is printed or encoded,
//     neither a private key nor a secret is seen.
//   - Weak keys are refused: secrets shorter than the hash, RSA keys below 2048 bits,
//     points off their curve.
//   - No request waits for a Remote except for its first fetch, and unknown key IDs
//     cause at most one fetch per CoolDown. While no usable set can be fetched, the
//     last one is used until it is stale; then the keys are unavailable, which is a 503
//     and never a 401.
//   - A symmetric key in a published set is never used.
package jwk
