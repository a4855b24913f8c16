package jwk_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/internal/tokentest"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// privateKeys has a private key for each algorithm that is not symmetric. All that are for
// one type of key share it.
var privateKeys = sync.OnceValue(func() map[jwk.Algorithm]crypto.Signer {
	keys := map[jwk.Algorithm]crypto.Signer{
		jwk.ES256:   ecKey(),
		jwk.ES384:   must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		jwk.ES512:   must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
		jwk.EdDSA:   ed25519Key(),
		jwk.Ed25519: ed25519Key(),
	}
	for _, a := range []jwk.Algorithm{jwk.RS256, jwk.RS384, jwk.RS512, jwk.PS256, jwk.PS384, jwk.PS512} {
		keys[a] = rsaKey()
	}
	return keys
})

// signed returns a token of this algorithm and kid.
func signed(t *testing.T, a jwk.Algorithm, kid string) string {
	t.Helper()
	header := map[string]any{"alg": a}
	if kid != "" {
		header["kid"] = kid
	}
	text := b64(must(json.Marshal(header))) + "." + b64(must(json.Marshal(tokentest.Claims(nil))))
	k := mustKey(t, jwk.KeyConfig{Algorithm: a, Material: privateKeys()[a]})
	return text + "." + b64(must(k.Sign(text)))
}

// publicJWK returns the public key for an algorithm, with some members changed; nil
// removes one.
func publicJWK(t *testing.T, a jwk.Algorithm, members map[string]any) string {
	t.Helper()
	k := mustKey(t, jwk.KeyConfig{ID: "1", Algorithm: a, Material: privateKeys()[a]})
	var all map[string]any
	if err := json.Unmarshal(must(json.Marshal(k)), &all); err != nil {
		t.Fatal(err)
	}
	maps.Copy(all, members)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return string(must(json.Marshal(all)))
}

// trustingOnly returns a verifier of an issuer with these algorithms, in this order.
func trustingOnly(t *testing.T, keys jwk.Set, algorithms ...jwk.Algorithm) *jwtauth.Verifier {
	t.Helper()
	return mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
		Issuer: issuer, Audiences: []string{audience}, Algorithms: algorithms, Keys: keys,
	}}})
}

// publishing returns a Remote of a server with these keys.
func publishing(t *testing.T, keys ...string) *jwk.Remote {
	t.Helper()
	p := new(publisher)
	p.Say(keySetOf(keys...))
	return overTLS(t, p, nil)
}

// A published key that names no algorithm is for that of the issuer, whichever it is.
func TestAPublishedKeyWithoutAlgorithmIsForThatOfTheIssuer(t *testing.T) {
	for a := range privateKeys() {
		for name, members := range map[string]map[string]any{
			"without alg":         {"alg": nil},
			"without alg and use": {"alg": nil, "use": nil},
			"with alg":            nil,
		} {
			t.Run(fmt.Sprint(a, " ", name), func(t *testing.T) {
				v := trustingOnly(t, publishing(t, publicJWK(t, a, members)), a)
				want(t, v, signed(t, a, "1"), jwtauth.Accepted)
				want(t, v, signed(t, a, ""), jwtauth.Accepted)
			})
		}
	}
}

// A token must not choose among the algorithms of a key (RFC 8725, section 3.1).
func TestAPublishedKeyWithoutAlgorithmIsForTheFirstThatSuitsIt(t *testing.T) {
	keys := publishing(t, publicJWK(t, jwk.PS384, map[string]any{"alg": nil}))
	v := trustingOnly(t, keys, jwk.ES256, jwk.PS384, jwk.RS256, jwk.PS256)
	want(t, v, signed(t, jwk.PS384, "1"), jwtauth.Accepted)
	want(t, v, signed(t, jwk.RS256, "1"), jwtauth.UnknownKey)
	want(t, v, signed(t, jwk.PS256, "1"), jwtauth.UnknownKey)

	// Another issuer may use the same set in another way.
	other := trustingOnly(t, keys, jwk.RS256, jwk.PS384)
	want(t, other, signed(t, jwk.RS256, "1"), jwtauth.Accepted)
	want(t, other, signed(t, jwk.PS384, "1"), jwtauth.UnknownKey)
}

func TestAPublishedKeyWithAnAlgorithmIsForNoOther(t *testing.T) {
	v := trustingOnly(t, publishing(t, publicJWK(t, jwk.RS256, nil)), jwk.PS256, jwk.RS256)
	want(t, v, signed(t, jwk.RS256, "1"), jwtauth.Accepted)
	want(t, v, signed(t, jwk.PS256, "1"), jwtauth.UnknownKey)
}

// EdDSA and Ed25519 are one algorithm (RFC 9864): it does not matter which of the names a
// key has, which a token, and which the issuer's list.
func TestEdDSAAndEd25519AreOneAlgorithm(t *testing.T) {
	names := []jwk.Algorithm{jwk.EdDSA, jwk.Ed25519}
	for _, listed := range names {
		for _, named := range names {
			static := jwk.Static{mustKey(t, jwk.KeyConfig{ID: "1", Algorithm: named, Material: ed25519Key()})}
			published := publicJWK(t, named, nil)
			for name, keys := range map[string]jwk.Set{
				"a static key":                static,
				"a published key":             publishing(t, published),
				"a published key with no alg": publishing(t, publicJWK(t, named, map[string]any{"alg": nil})),
				"a JWK":                       jwk.Static{mustKey(t, jwk.KeyConfig{Algorithm: listed, JWK: []byte(published)})},
			} {
				v := trustingOnly(t, keys, listed)
				for _, a := range names {
					t.Run(fmt.Sprintf("token %s, %s %s, issuer %s", a, name, named, listed), func(t *testing.T) {
						want(t, v, signed(t, a, "1"), jwtauth.Accepted)
					})
				}
				want(t, v, signed(t, jwk.ES256, "1"), jwtauth.WrongAlgorithm)
			}
		}
	}
	for _, a := range everyAlgorithm {
		for _, b := range append(everyAlgorithm, "", "none", "ed25519") {
			same := a == b || a == jwk.EdDSA && b == jwk.Ed25519 || a == jwk.Ed25519 && b == jwk.EdDSA
			if a.Equal(b) != same || b.Equal(a) != same {
				t.Errorf("%q and %q", a, b)
			}
		}
	}
}

// What is signed has the name that its key has.
func TestAKeyKeepsTheNameOfItsAlgorithm(t *testing.T) {
	for _, a := range []jwk.Algorithm{jwk.EdDSA, jwk.Ed25519} {
		k := must(jwk.Generate(a))
		again := mustKey(t, jwk.KeyConfig{JWK: must(json.Marshal(k))})
		if k.Algorithm() != a || again.Algorithm() != a {
			t.Errorf("%v became %v", k, again)
		}
	}
}

// A key without an algorithm verifies nothing until it is given one.
func TestAKeyWithoutAlgorithm(t *testing.T) {
	found, _, err := publishing(t, publicJWK(t, jwk.RS256, map[string]any{"alg": nil})).Find(t.Context(), "1", jwk.PS256)
	if err != nil || len(found) != 1 || found[0].Algorithm() != "" {
		t.Fatalf("%v, %v", found, err)
	}
	k := found[0]
	if got := k.String(); got != `key "1" (no algorithm)` {
		t.Error(got)
	}
	signature := must(mustKey(t, jwk.KeyConfig{Algorithm: jwk.PS256, Material: rsaKey()}).Sign("text"))
	if err := k.Verify("text", signature); err == nil {
		t.Error("it verifies")
	}
	if bound := k.As(jwk.ES256, jwk.HS256, "none"); bound != nil {
		t.Errorf("%v for algorithms that are not for RSA", bound)
	}
	bound := k.As(jwk.ES256, jwk.PS256, jwk.RS256)
	if bound.Algorithm() != jwk.PS256 || bound.ID() != "1" || bound.Verify("text", signature) != nil {
		t.Errorf("%v", bound)
	}
	if bound.As(jwk.RS256) != bound {
		t.Error("a key changes its algorithm")
	}
	if _, err := jwk.New(jwk.KeyConfig{JWK: must(json.Marshal(k))}); err == nil {
		t.Error("New accepts a key without an algorithm")
	}
	if zero := new(jwk.Key); zero.As(jwk.RS256).Verify("text", signature) == nil {
		t.Error("the zero Key verifies")
	}
}
