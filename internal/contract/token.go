package contract

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

// with returns claims with some changed, or removed by nil.
func with(all, change map[string]any) map[string]any {
	all = maps.Clone(all)
	maps.Copy(all, change)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

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

// A keyPairs has one key for each algorithm, and one of an authorization server.
type keyPairs struct {
	rsa       *rsa.PrivateKey
	ec        *ecdsa.PrivateKey
	ed        ed25519.PrivateKey
	authority *ecdsa.PrivateKey
}

// keys are made once, as that takes long.
var keys = sync.OnceValue(func() keyPairs {
	_, ed, err := ed25519.GenerateKey(nil)
	return keyPairs{
		rsa:       must(rsa.GenerateKey(rand.Reader, 2048)),
		ec:        must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		ed:        must(ed, err),
		authority: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
	}
})

// trust returns the public half of a key as the keys of an issuer.
func trust(a jwtauth.Algorithm, public crypto.PublicKey) jwtauth.StaticKeys {
	return jwtauth.StaticKeys{must(jwtauth.NewKey(jwtauth.KeyConfig{Algorithm: a, Material: public}))}
}
