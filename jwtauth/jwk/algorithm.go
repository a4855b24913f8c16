package jwk

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rsa"
	"maps"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// An Algorithm is the name of a signature algorithm in the header of a token (RFC
// 7518, section 3.1). Names are case-sensitive.
type Algorithm string

// The algorithms. There is no "none".
const (
	HS256   Algorithm = "HS256" // HMAC with SHA-256 and a secret of at least 32 bytes
	HS384   Algorithm = "HS384" // at least 48 bytes
	HS512   Algorithm = "HS512" // at least 64 bytes
	RS256   Algorithm = "RS256" // RSA PKCS #1 v1.5 with a key of at least 2048 bits
	RS384   Algorithm = "RS384"
	RS512   Algorithm = "RS512"
	PS256   Algorithm = "PS256" // RSA PSS, the salt as long as the hash
	PS384   Algorithm = "PS384"
	PS512   Algorithm = "PS512"
	ES256   Algorithm = "ES256"   // ECDSA on P-256
	ES384   Algorithm = "ES384"   // ECDSA on P-384
	ES512   Algorithm = "ES512"   // ECDSA on P-521
	EdDSA   Algorithm = "EdDSA"   // Ed25519, under the name of RFC 8037
	Ed25519 Algorithm = "Ed25519" // the same, under the name of RFC 9864
)

// A scheme is the implementation of an algorithm.
type scheme struct {
	method jwt.SigningMethod
	family family
	secret int            // least length of a secret, in bytes
	curve  elliptic.Curve // of ECDSA keys
}

// A family is a group of algorithms with one type of key.
type family uint8

const (
	hmacFamily family = iota
	rsaFamily
	ecdsaFamily
	ed25519Family
)

// schemes has all algorithms. The registry of golang-jwt is not used: it has "none", and
// any package can register more.
var schemes = map[Algorithm]scheme{
	HS256:   {method: jwt.SigningMethodHS256, family: hmacFamily, secret: 32},
	HS384:   {method: jwt.SigningMethodHS384, family: hmacFamily, secret: 48},
	HS512:   {method: jwt.SigningMethodHS512, family: hmacFamily, secret: 64},
	RS256:   {method: jwt.SigningMethodRS256, family: rsaFamily},
	RS384:   {method: jwt.SigningMethodRS384, family: rsaFamily},
	RS512:   {method: jwt.SigningMethodRS512, family: rsaFamily},
	PS256:   {method: pss(crypto.SHA256), family: rsaFamily},
	PS384:   {method: pss(crypto.SHA384), family: rsaFamily},
	PS512:   {method: pss(crypto.SHA512), family: rsaFamily},
	ES256:   {method: jwt.SigningMethodES256, family: ecdsaFamily, curve: elliptic.P256()},
	ES384:   {method: jwt.SigningMethodES384, family: ecdsaFamily, curve: elliptic.P384()},
	ES512:   {method: jwt.SigningMethodES512, family: ecdsaFamily, curve: elliptic.P521()},
	EdDSA:   {method: jwt.SigningMethodEdDSA, family: ed25519Family},
	Ed25519: {method: jwt.SigningMethodEdDSA, family: ed25519Family},
}

// pss returns RSA PSS with the salt length of RFC 7518, section 3.5. That of golang-jwt
// accepts salts of any length.
func pss(h crypto.Hash) jwt.SigningMethod {
	return &jwt.SigningMethodRSAPSS{
		SigningMethodRSA: &jwt.SigningMethodRSA{Hash: h},
		Options:          &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash},
	}
}

// known returns all algorithms, for messages.
func known() []Algorithm { return slices.Sorted(maps.Keys(schemes)) }

// Valid reports whether a is one of the constants of this package.
func (a Algorithm) Valid() bool {
	_, ok := schemes[a]
	return ok
}

// Equal reports whether a and b are the same algorithm. Two names are: [EdDSA] and
// [Ed25519], so keys, tokens and issuers that use either fit those that use the other.
func (a Algorithm) Equal(b Algorithm) bool {
	return a == b || a == EdDSA && b == Ed25519 || a == Ed25519 && b == EdDSA
}

// Symmetric reports whether the keys for a are secrets, so that anybody who can
// verify a signature can also make one.
func (a Algorithm) Symmetric() bool { return a.Valid() && schemes[a].family == hmacFamily }
