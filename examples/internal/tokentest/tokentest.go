// Package tokentest signs tokens, right or wrong in any way.
package tokentest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"sync"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// A Signer signs what stands before the signature of a token.
type Signer func(signed []byte) []byte

// Sign returns a token with this header and these claims, which may be wrong in
// any way.
func Sign(header, claims string, s Signer) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(header)) + "." + encode([]byte(claims))
	return signed + "." + encode(s([]byte(signed)))
}

// Claims returns members as the claims of a token.
func Claims(members map[string]any) string { return string(usher.Must(json.Marshal(members))) }

// With returns claims with some changed, or removed by nil.
func With(all, change map[string]any) map[string]any {
	all = maps.Clone(all)
	maps.Copy(all, change)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

// HS256 signs with a secret.
func HS256(secret []byte) Signer {
	return func(signed []byte) []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write(signed)
		return mac.Sum(nil)
	}
}

// RS256 signs with an RSA key.
func RS256(key *rsa.PrivateKey) Signer {
	return func(signed []byte) []byte {
		sum := sha256.Sum256(signed)
		return usher.Must(rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:]))
	}
}

// ES256 signs with a key on P-256.
func ES256(key *ecdsa.PrivateKey) Signer {
	return func(signed []byte) []byte {
		sum := sha256.Sum256(signed)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		usher.Must(r, err)
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
}

// EdDSA signs with an Ed25519 key.
func EdDSA(key ed25519.PrivateKey) Signer {
	return func(signed []byte) []byte { return ed25519.Sign(key, signed) }
}

// KeyPairs has one key for each algorithm, and one of an authorization server.
type KeyPairs struct {
	RSA       *rsa.PrivateKey
	EC        *ecdsa.PrivateKey
	Ed        ed25519.PrivateKey
	Authority *ecdsa.PrivateKey
}

// Keys are made once, as that takes long.
var Keys = sync.OnceValue(func() KeyPairs {
	_, ed, err := ed25519.GenerateKey(nil)
	return KeyPairs{
		RSA:       usher.Must(rsa.GenerateKey(rand.Reader, 2048)),
		EC:        usher.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		Ed:        usher.Must(ed, err),
		Authority: usher.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
	}
})

// Trust returns the public half of a key as the keys of an issuer.
func Trust(a jwk.Algorithm, public crypto.PublicKey) jwk.Static {
	return jwk.Static{usher.Must(jwk.New(jwk.KeyConfig{Algorithm: a, Material: public}))}
}
