package jwk_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"

	"github.com/usher-go/usher/jwtauth/jwk"
)

func TestKeyPrintsNoMaterial(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	k := mustKey(t, jwk.KeyConfig{ID: "a", Algorithm: jwk.HS256, Secret: secret})
	const want = `key "a" (HS256)`
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, k); got != want {
			t.Errorf("%s prints %s", verb, got)
		}
		if got := fmt.Sprintf(verb, *k); got != want {
			t.Errorf("%s of a copy prints %s", verb, got)
		}
	}
	if b, err := json.Marshal(k); err == nil {
		t.Errorf("a secret is encoded as %s", b)
	}
}

// A configuration is what gets logged.
func TestKeyConfigPrintsNoMaterial(t *testing.T) {
	canary := []byte("canarycanarycanarycanarycanary32")
	for name, c := range map[string]jwk.KeyConfig{
		"a secret": {ID: "a", Algorithm: jwk.HS256, Secret: canary},
		"PEM":      {ID: "a", Algorithm: jwk.RS256, PEM: canary},
		"a JWK":    {ID: "a", JWK: canary},
		"material": {ID: "a", Algorithm: jwk.EdDSA, Material: ed25519.PrivateKey(canary)},
	} {
		for _, v := range []any{c, &c, []jwk.KeyConfig{c}, struct{ Key jwk.KeyConfig }{c}, struct{ Key *jwk.KeyConfig }{&c}, map[string]any{"k": c}} {
			var log bytes.Buffer
			slog.New(slog.NewTextHandler(&log, nil)).Info("config", "config", v)
			slog.New(slog.NewJSONHandler(&log, nil)).Info("config", "config", v)
			texts := []string{log.String(), string(must(json.Marshal(v)))}
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
				texts = append(texts, fmt.Sprintf(verb, v))
			}
			for _, text := range texts {
				for _, form := range []string{"%s", "%x", "%X", "%d", "%v"} {
					if strings.Contains(text, strings.Trim(fmt.Sprintf(form, canary), "[]")) || strings.Contains(text, b64(canary)[:32]) {
						t.Errorf("%s in a %T is printed: %s", name, v, text)
					}
				}
			}
		}
		if got := fmt.Sprintf("%+v", c); !strings.Contains(got, `key "a"`) {
			t.Errorf("%s does not name the key", got)
		}
	}
}

// The modulus is that of test 7 of Wycheproof's json_web_key_test.
func TestAKeyOfAGeneratorThatIsKnownToBeWeak(t *testing.T) {
	const n = "AanFpofbj7KjD4Lf-N2hVMKR7yewSyXhhbirIMTGpfYEhZ_lnt5UoK98DnKIgArXGTu3MaW_HhFw16HGaTDUHqPrId7fe4r11CqRw09yBFuW79V8sYIwHdzCaWflUI6auImYbVfoN9_" +
		"nD5n8N8SY9DwXw7mwZM9wREPXoDPgOoIWl6q_MPsp7n0zs3Z5ZaiQWOOzl1S9OhwAfSiiOwz6efnXEaxuTEtPd7BjSx7NaFka8Dx9U7YqXy2RFj1O9PjyaDGuRh7YXsX3iMUSP_" +
		"wSyHQg_c_qHRtKUsNSGCT7OZg0hzm2KphtjnayKJvC64vAbROBR4Ubg6Bxg9IQVZ-QYyE"
	text := `{"kty":"RSA","alg":"RS256","n":"` + n + `","e":"AQAB"}`
	modulus := new(big.Int).SetBytes(must(base64.RawURLEncoding.DecodeString(n)))
	for name, c := range map[string]jwk.KeyConfig{
		"a JWK":    {JWK: []byte(text)},
		"material": {Algorithm: jwk.PS512, Material: &rsa.PublicKey{N: modulus, E: 65537}},
	} {
		if _, err := jwk.New(c); err == nil || !strings.Contains(err.Error(), "CVE-2017-15361") {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := newSigner("other")
	keys := publishing(t, text, other.JWK())
	if found, _, err := keys.Find(t.Context(), "", jwk.RS256); err != nil || len(found) != 0 {
		t.Errorf("published: %v, %v", found, err)
	}
	// Neighbours of the modulus are no keys, but are not of that generator either.
	for range 100 {
		modulus.Add(modulus, big.NewInt(2))
		if _, err := jwk.New(jwk.KeyConfig{Algorithm: jwk.RS256, Material: &rsa.PublicKey{N: modulus, E: 65537}}); err != nil {
			t.Error(err)
		}
	}
}

// A modulus that only looks like one of that generator modulo the primes of its smaller
// keys is not refused.
func TestAModulusIsComparedModuloEveryPrimeOfTheGenerator(t *testing.T) {
	product := big.NewInt(2)
	for n := int64(3); n <= 167; n += 2 {
		if big.NewInt(n).ProbablyPrime(0) {
			product.Mul(product, big.NewInt(n))
		}
	}
	factor := new(big.Int).Lsh(big.NewInt(1), uint(2048-product.BitLen()))
	modulus := factor.Mul(factor.Add(factor, big.NewInt(12345)), product)
	modulus.Add(modulus, big.NewInt(1)) // 1 is a power of any number
	if _, err := jwk.New(jwk.KeyConfig{Algorithm: jwk.RS256, Material: &rsa.PublicKey{N: modulus, E: 65537}}); err != nil || modulus.BitLen() != 2048 {
		t.Errorf("%d bits: %v", modulus.BitLen(), err)
	}
}

func TestHowManyBitsAnRSAKeyHas(t *testing.T) {
	for bits, want := range map[uint]bool{2047: false, 2048: true, 8192: true, 8193: false} {
		modulus := new(big.Int).Lsh(big.NewInt(1), bits-1)
		modulus.Add(modulus, big.NewInt(12345))
		if _, err := jwk.New(jwk.KeyConfig{Algorithm: jwk.RS256, Material: &rsa.PublicKey{N: modulus, E: 65537}}); (err == nil) != want {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
}

// Package fmt calls no method of an unexported field, and follows a pointer in such a
// field if the verb does not suit it.
func TestKeyInAnotherValuePrintsNoMaterial(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key      *jwk.Key
		material []byte
	}{
		{mustKey(t, jwk.KeyConfig{ID: "a", Algorithm: jwk.HS256, Secret: secret}), secret},
		{mustKey(t, jwk.KeyConfig{ID: "a", Algorithm: jwk.EdDSA, Material: private}), private.Seed()},
	} {
		for _, v := range []any{
			struct{ k jwk.Key }{*c.key},
			struct{ k *jwk.Key }{c.key},
			&struct{ k *jwk.Key }{c.key},
			struct{ k jwk.Static }{jwk.Static{c.key}},
			[]jwk.Key{*c.key},
		} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p"} {
				got := fmt.Sprintf(verb, v)
				for _, form := range []string{"%s", "%x", "%X", "%d", "% x"} {
					if text := strings.Trim(fmt.Sprintf(form, c.material), "[]"); strings.Contains(got, text) {
						t.Errorf("%s of a %T prints the material: %s", verb, v, got)
					}
				}
			}
		}
	}
}

func TestKeyIsACopy(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := mustKey(t, jwk.KeyConfig{Algorithm: jwk.EdDSA, Material: private})
	before, _ := json.Marshal(k)
	clear(private)
	clear(secret)
	if after, _ := json.Marshal(k); !bytes.Equal(before, after) {
		t.Error("the key has changed with the material that it was made from")
	}
}

func TestPublicHalfGoesThroughJWK(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := mustKey(t, jwk.KeyConfig{ID: "x", Algorithm: jwk.ES512, Material: private})
	first, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	public := mustKey(t, jwk.KeyConfig{JWK: first})
	second, err := json.Marshal(public)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) || public.CanSign() || !k.CanSign() || public.ID() != "x" || public.Algorithm() != jwk.ES512 {
		t.Errorf("%s became %s (%v)", first, second, public)
	}
}

func TestPitfallWeakKeysAreRefused(t *testing.T) {
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	for name, c := range map[string]jwk.KeyConfig{
		"no secret":                {Algorithm: jwk.HS256, Secret: nil},
		"empty secret":             {Algorithm: jwk.HS256, Secret: []byte{}},
		"31 bytes for HS256":       {Algorithm: jwk.HS256, Secret: secret[:31]},
		"47 bytes for HS384":       {Algorithm: jwk.HS384, Secret: secret[:47]},
		"63 bytes for HS512":       {Algorithm: jwk.HS512, Secret: secret[:63]},
		"RSA of 1024 bits":         {Algorithm: jwk.RS256, Material: &small.PublicKey},
		"private RSA of 1024 bits": {Algorithm: jwk.PS256, Material: small},
		"no algorithm":             {Secret: secret},
		"none":                     {Algorithm: "none", Secret: secret},
		"P-256 for ES384":          {Algorithm: jwk.ES384, Material: ecKey()},
		"RSA for ES256":            {Algorithm: jwk.ES256, Material: rsaKey()},
		"Ed25519 for ES256":        {Algorithm: jwk.ES256, Material: ed25519Key()},
		"a secret for RS256":       {Algorithm: jwk.RS256, Secret: secret},
		"two kinds of material":    {Algorithm: jwk.HS256, Secret: secret, JWK: []byte(`{}`)},
		"a string":                 {Algorithm: jwk.HS256, Material: "0123456789abcdef0123456789abcdef"},
		"a nil pointer":            {Algorithm: jwk.RS256, Material: (*rsa.PublicKey)(nil)},
		"an empty RSA key":         {Algorithm: jwk.RS256, Material: &rsa.PublicKey{}},
		"an empty private RSA key": {Algorithm: jwk.RS256, Material: &rsa.PrivateKey{}},
		"an empty EC key":          {Algorithm: jwk.ES256, Material: &ecdsa.PublicKey{}},
		"an empty private EC key":  {Algorithm: jwk.ES256, Material: &ecdsa.PrivateKey{}},
		"an ID with a line end":    {ID: "k1\n", Algorithm: jwk.HS256, Secret: secret},
		"an ID after a blank":      {ID: " k1", Algorithm: jwk.HS256, Secret: secret},
		"a short Ed25519 key":      {Algorithm: jwk.EdDSA, Material: ed25519.PublicKey("x")},
		"an empty Ed25519 key":     {Algorithm: jwk.EdDSA, Material: ed25519.PrivateKey{}},
	} {
		t.Run(name, func(t *testing.T) {
			if k, err := jwk.New(c); err == nil {
				t.Errorf("%v", k)
			} else if bytes.Contains([]byte(err.Error()), secret[:8]) {
				t.Errorf("the secret is in the error: %v", err)
			}
		})
	}
	for name, data := range map[string]string{
		"e of 1":              rsaJWK("AQ"),
		"e of 2":              rsaJWK("Ag"),
		"e of 2^64":           rsaJWK("AQAAAAAAAAAA"),
		"no e":                rsaJWK(""),
		"for encryption":      `{"kty":"oct","alg":"HS256","use":"enc","k":"` + b64(secret) + `"}`,
		"for key derivation":  `{"kty":"oct","alg":"HS256","key_ops":["deriveKey"],"k":"` + b64(secret) + `"}`,
		"key_ops of a number": `{"kty":"oct","alg":"HS256","key_ops":1,"k":"` + b64(secret) + `"}`,
		"kid of a number":     `{"kty":"oct","alg":"HS256","kid":1,"k":"` + b64(secret) + `"}`,
		"empty":               `{}`,
		"two k":               `{"kty":"oct","alg":"HS256","k":"` + b64(secret) + `","k":"AAAA"}`,
		"padded":              `{"kty":"oct","alg":"HS256","k":"` + b64(secret) + `="}`,
		"off the curve":       `{"kty":"EC","alg":"ES256","crv":"P-256","x":"` + b64(make([]byte, 32)) + `","y":"` + b64(make([]byte, 32)) + `"}`,
		"a short coordinate":  `{"kty":"EC","alg":"ES256","crv":"P-256","x":"AQ","y":"AQ"}`,
		"Ed448":               `{"kty":"OKP","alg":"EdDSA","crv":"Ed448","x":"` + b64(make([]byte, 57)) + `"}`,
		"X25519":              `{"kty":"OKP","alg":"EdDSA","crv":"X25519","x":"` + b64(make([]byte, 32)) + `"}`,
		"secp256k1":           `{"kty":"EC","alg":"ES256K","crv":"secp256k1","x":"` + b64(make([]byte, 32)) + `","y":"` + b64(make([]byte, 32)) + `"}`,
		"another private half": `{"kty":"OKP","alg":"EdDSA","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"` +
			b64(make([]byte, 32)) + `"}`,
		"not JSON": `-----BEGIN PUBLIC KEY-----`,
	} {
		t.Run(name, func(t *testing.T) {
			if k, err := jwk.New(jwk.KeyConfig{JWK: []byte(data)}); err == nil {
				t.Errorf("%v", k)
			}
		})
	}
}

func rsaJWK(e string) string {
	return `{"kty":"RSA","alg":"RS256","n":"` + b64(rsaKey().N.Bytes()) + `","e":"` + e + `"}`
}
