package contract

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"

	"github.com/usher-go/usher/jwtauth"
)

// A signer signs what stands before the signature of a token.
type signer func(signed []byte) []byte

// token returns a token with this header and these claims, which may be wrong in
// any way.
func token(header, claims string, s signer) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(header)) + "." + encode([]byte(claims))
	return signed + "." + encode(s([]byte(signed)))
}

// claims returns members as the claims of a token.
func claims(members map[string]any) string { return string(must(json.Marshal(members))) }

func hs256(secret []byte) signer {
	return func(signed []byte) []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write(signed)
		return mac.Sum(nil)
	}
}

func rs256(key *rsa.PrivateKey) signer {
	return func(signed []byte) []byte {
		sum := sha256.Sum256(signed)
		return must(rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:]))
	}
}

func es256(key *ecdsa.PrivateKey) signer {
	return func(signed []byte) []byte {
		sum := sha256.Sum256(signed)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		must(r, err)
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
}

func edDSA(key ed25519.PrivateKey) signer {
	return func(signed []byte) []byte { return ed25519.Sign(key, signed) }
}

// publicKey returns a key for verification under a name.
func publicKey(id string, a jwtauth.Algorithm, material any) *jwtauth.Key {
	return must(jwtauth.NewKey(jwtauth.KeyConfig{ID: id, Algorithm: a, Material: material}))
}
