package peers_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"sync"
	"testing"

	"github.com/usher-go/usher/jwtauth/jwk"
)

// asymmetric are all algorithms whose keys can be published.
var asymmetric = []jwk.Algorithm{
	jwk.RS256, jwk.RS384, jwk.RS512, jwk.PS256, jwk.PS384, jwk.PS512,
	jwk.ES256, jwk.ES384, jwk.ES512, jwk.EdDSA, jwk.Ed25519,
}

// common are those without the name Ed25519, which neither go-oidc nor the Web Crypto API of
// Node.js 18 know.
var common = asymmetric[:len(asymmetric)-1]

// other returns the algorithm that a key for a suits as well, or "".
func other(a jwk.Algorithm) jwk.Algorithm {
	switch a[:2] {
	case "RS":
		return "PS" + a[2:]
	case "PS":
		return "RS" + a[2:]
	}
	return ""
}

// privateKey returns a private key for a. For RSA it is always the same one, because its
// numbers take long to find.
func privateKey(t *testing.T, a jwk.Algorithm) (key crypto.Signer) {
	t.Helper()
	var err error
	switch a {
	case jwk.ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jwk.ES384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jwk.ES512:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case jwk.EdDSA, jwk.Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = rsaKey()
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// newKey returns a private key for a with an ID of its own.
func newKey(t *testing.T, a jwk.Algorithm) *jwk.Key {
	t.Helper()
	key, err := jwk.New(jwk.KeyConfig{Algorithm: a, ID: rand.Text(), Material: privateKey(t, a)})
	if err != nil {
		t.Fatal(err)
	}
	return key
}
