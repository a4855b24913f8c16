package jwk_test

import (
	"encoding/json"
	"testing"

	"github.com/usher-go/usher/jwtauth/jwk"
)

// FuzzJWK checks that whatever is accepted as a key survives encoding and decoding.
func FuzzJWK(f *testing.F) {
	f.Add([]byte(newSigner("1").JWK()))
	f.Add([]byte(rsaJWK("AQAB")))
	f.Add([]byte(`{"kty":"oct","alg":"HS256","k":"` + b64(secret) + `"}`))
	f.Add(must(json.Marshal(mustKey(f, jwk.KeyConfig{ID: "e", Algorithm: jwk.ES256, Material: ecKey()}))))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := jwk.New(jwk.KeyConfig{JWK: data})
		if err != nil {
			return
		}
		public, err := json.Marshal(k)
		if err != nil {
			return // a secret
		}
		again, err := jwk.New(jwk.KeyConfig{JWK: public})
		if err != nil || again.ID() != k.ID() || again.Algorithm() != k.Algorithm() || again.CanSign() {
			t.Fatalf("%s became %s: %v", data, public, err)
		}
	})
}
