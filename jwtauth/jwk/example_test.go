package jwk_test

import (
	"encoding/json"
	"fmt"

	"github.com/usher-go/usher/jwtauth/jwk"
)

// The public key of an issuer, as it publishes it.
func Example() {
	key, err := jwk.New(jwk.KeyConfig{JWK: []byte(`{
		"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "2026",
		"x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	}`)})
	if err != nil {
		panic(err)
	}
	keys := jwk.Static{key}
	fmt.Println(keys[0], keys[0].CanSign())
	// Output: key "2026" (EdDSA) false
}

// A key pair whose public half is published.
func ExampleGenerate() {
	key, err := jwk.Generate(jwk.ES256)
	if err != nil {
		panic(err)
	}
	public, err := json.Marshal(key)
	if err != nil {
		panic(err)
	}
	published, err := jwk.New(jwk.KeyConfig{JWK: public})
	if err != nil {
		panic(err)
	}
	fmt.Println(key.CanSign(), published.CanSign(), published.ID() == key.ID())
	// Output: true false true
}

// A password is not a secret for HMAC, and the public key of RS256 is not one either:
// anybody who knows it could sign. Both are refused.
func ExampleNew_incorrect() {
	_, err := jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: []byte("correct horse")})
	fmt.Println(err)
	_, err = jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: []byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----")})
	fmt.Println(err)
	// Output:
	// jwk.KeyConfig.Secret: a secret must have at least 32 bytes for this algorithm
	// jwk.KeyConfig.Secret: is PEM and not a secret
}
