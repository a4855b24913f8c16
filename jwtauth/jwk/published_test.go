package jwk_test

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

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

// An issuer that publishes a private key has lost it: anybody can sign with it.
func TestAKeyPublishedWithItsPrivateHalfIsSkipped(t *testing.T) {
	s := newSigner("good")
	for name, members := range map[string]map[string]any{
		"d":                         {"d": b64([]byte("canary"))},
		"d of another type":         {"d": 7},
		"only a prime":              {"p": b64([]byte("canary"))},
		"only an exponent of a CRT": {"dp": b64([]byte("canary"))},
		"a secret":                  {"k": b64([]byte("canary"))},
		"a d of null is none":       {"d": nullMember},
	} {
		t.Run(name, func(t *testing.T) {
			p := new(publisher)
			p.Say(keySetOf(publicJWK(t, jwk.RS256, members), s.JWK()))
			skipped := make(chan error, 1)
			keys := overTLS(t, p, func(c *jwk.RemoteConfig) {
				c.OnError = func(_ context.Context, err error) { skipped <- err }
			})
			v := trustingOnly(t, keys, jwk.RS256, jwk.EdDSA)
			want(t, v, s.Token(), jwtauth.Accepted)
			if name == "a d of null is none" {
				want(t, v, signed(t, jwk.RS256, "1"), jwtauth.Accepted)
				return
			}
			want(t, v, signed(t, jwk.RS256, "1"), jwtauth.UnknownKey)
			select {
			case err := <-skipped:
				if !strings.Contains(err.Error(), "private half") || strings.Contains(err.Error(), b64([]byte("canary"))) {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("no error is reported")
			}
		})
	}
}

// The keys of a SPIFFE trust bundle name a use of their own; those for certificates are in
// the same set.
func TestKeysOfAnotherUseAreIgnored(t *testing.T) {
	const svid, certificate = "jwt-svid", "x509-svid"
	for _, c := range []struct {
		wanted string
		use    any
		ok     bool
	}{
		{"", "sig", true},
		{"", nil, true},
		{"", nullMember, true},
		{"", "", true},
		{"", svid, false},
		{"", "enc", false},
		{"", "SIG", false},
		{"sig", nil, true},
		{svid, svid, true},
		{svid, "sig", false},
		{svid, certificate, false},
		{svid, nil, false}, // SPIFFE: a key without use must be ignored
	} {
		t.Run(fmt.Sprintf("%q wanted, %v published", c.wanted, c.use), func(t *testing.T) {
			other := certificate
			p := new(publisher)
			p.Say(keySetOf(
				publicJWK(t, jwk.ES384, map[string]any{"use": other}),
				publicJWK(t, jwk.ES256, map[string]any{"use": c.use}),
				publicJWK(t, jwk.EdDSA, map[string]any{"use": cmp.Or(c.wanted, "sig")}),
			))
			keys := overTLS(t, p, func(r *jwk.RemoteConfig) {
				r.Use = c.wanted
				r.OnError = func(_ context.Context, err error) { t.Error(err) }
			})
			v := trustingOnly(t, keys, jwk.ES256, jwk.ES384, jwk.EdDSA)
			want(t, v, signed(t, jwk.EdDSA, "1"), jwtauth.Accepted)
			want(t, v, signed(t, jwk.ES384, "1"), jwtauth.UnknownKey)
			if c.ok {
				want(t, v, signed(t, jwk.ES256, "1"), jwtauth.Accepted)
			} else {
				want(t, v, signed(t, jwk.ES256, "1"), jwtauth.UnknownKey)
			}
		})
	}
	_, err := jwk.NewRemote(jwk.RemoteConfig{URL: "https://issuer.example", Use: "enc"})
	wantFaults(t, err, "jwk.RemoteConfig.Use")
}

func TestAKeyNamesItsIssuer(t *testing.T) {
	const tenant = "https://login.example/{tenantid}/v2.0"
	for name, members := range map[string]map[string]any{
		"":       nil,
		tenant:   {"issuer": tenant},
		"no alg": {"issuer": "no alg", "alg": nil},
	} {
		found, _, err := publishing(t, publicJWK(t, jwk.RS256, members)).Find(t.Context(), "1", jwk.RS256)
		if err != nil || len(found) != 1 {
			t.Fatalf("%q: %v, %v", name, found, err)
		}
		k := found[0].As(jwk.RS256)
		again := mustKey(t, jwk.KeyConfig{JWK: must(json.Marshal(k))})
		if found[0].Issuer() != name || k.Issuer() != name || again.Issuer() != name {
			t.Errorf("%q, %q and %q, want %q", found[0].Issuer(), k.Issuer(), again.Issuer(), name)
		}
	}
	// A key that is given to another issuer is another key.
	synctest.Test(t, func(t *testing.T) {
		p := new(publisher)
		p.Say(keySetOf(publicJWK(t, jwk.RS256, map[string]any{"issuer": "a"})))
		keys := simulated(t, p, nil)
		synctest.Wait()
		before := must(keys.Version())
		p.Say(keySetOf(publicJWK(t, jwk.RS256, map[string]any{"issuer": "b"})))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if must(keys.Version()) == before {
			t.Error("the version is the same")
		}
	})
}

// nullMember is a member that is null; in publicJWK, nil removes one.
var nullMember = json.RawMessage("null")

// Issuers spell the same key in different ways. In a key set it does not matter.
func TestAKeyOfAKeySetInTheSpellingsOfIssuers(t *testing.T) {
	rsaN, ecX := rsaKey().N.Bytes(), must(ecKey().PublicKey.Bytes())[1:33]
	for name, c := range map[string]struct {
		algorithm jwk.Algorithm
		members   map[string]any
	}{
		"padded":                    {jwk.RS256, map[string]any{"n": base64.URLEncoding.EncodeToString(rsaN)}},
		"standard base64":           {jwk.RS256, map[string]any{"n": base64.StdEncoding.EncodeToString(rsaN)}},
		"standard base64, unpadded": {jwk.RS256, map[string]any{"n": base64.RawStdEncoding.EncodeToString(rsaN)}},
		"a coordinate in standard base64": {
			jwk.ES256, map[string]any{"x": base64.StdEncoding.EncodeToString(ecX)},
		},
		"a modulus with a leading zero": {jwk.RS256, map[string]any{"n": b64(append([]byte{0}, rsaN...))}},
		"alg is null":                   {jwk.RS256, map[string]any{"alg": nullMember}},
		"key_ops is null":               {jwk.RS256, map[string]any{"key_ops": nullMember}},
		"use is null":                   {jwk.RS256, map[string]any{"use": nullMember}},
		"kid is null":                   {jwk.RS256, map[string]any{"kid": nullMember}},
	} {
		t.Run(name, func(t *testing.T) {
			v := trustingOnly(t, publishing(t, publicJWK(t, c.algorithm, c.members)), c.algorithm)
			want(t, v, signed(t, c.algorithm, "1"), jwtauth.Accepted)
		})
	}
	for name, n := range map[string]string{
		"padding in the middle": b64(rsaN)[:100] + "=" + b64(rsaN)[100:],
		"blanks":                " " + b64(rsaN),
		"line ends":             b64(rsaN) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			keys := publishing(t, publicJWK(t, jwk.RS256, map[string]any{"n": n}), newSigner("other").JWK())
			want(t, trustingOnly(t, keys, jwk.RS256), signed(t, jwk.RS256, "1"), jwtauth.UnknownKey)
		})
	}
}

// The order of a set means nothing: a server that shuffles its keys must not end what is
// remembered of tokens.
func TestAKeySetInAnotherOrderIsTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newSigner("a"), newSigner("b"), newSigner("c")
		p := new(publisher)
		p.Say(publish(a, b, c))
		keys := simulated(t, p, nil)
		version := func() uint64 {
			t.Helper()
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			return must(keys.Version())
		}
		first := version()
		p.Say(publish(c, a, b))
		if second := version(); second != first {
			t.Errorf("version %d became %d", first, second)
		}
		for name, set := range map[string]string{
			"one is gone":             publish(c, b),
			"one is there twice":      publish(c, b, b),
			"one is replaced":         publish(c, newSigner("b"), b),
			"one has another kid":     publish(c, signer{ID: "d", Private: b.Private}, b),
			"one has an algorithm":    keySetOf(c.JWK(), strings.Replace(b.JWK(), "{", `{"alg":"Ed25519",`, 1), b.JWK()),
			"they have other letters": publish(signer{ID: "C", Private: c.Private}, a, b),
		} {
			before := version()
			p.Say(set)
			if version() == before {
				t.Errorf("%s: the version is the same", name)
			}
			p.Say(publish(c, a, b))
		}
	})
}

// A token without a kid may be of any key of the set.
func TestSixteenKeysAreTriedForATokenWithoutAKid(t *testing.T) {
	signers, published := make([]signer, 16), make([]string, 16)
	static := make(jwk.Static, 17)
	for n := range signers {
		signers[n] = newSigner("")
		published[n] = strings.Replace(signers[n].JWK(), `"kid":""`, fmt.Sprintf(`"kid":"%d"`, n), 1)
		static[n] = mustKey(t, jwk.KeyConfig{Algorithm: jwk.EdDSA, Material: signers[n].Private})
	}
	token := func(s signer) string {
		return tokentest.Sealed(`{"alg":"EdDSA"}`, string(must(json.Marshal(tokentest.Claims(nil)))), jwt.SigningMethodEdDSA, s.Private)
	}
	for name, keys := range map[string]jwk.Set{
		"published with IDs":    publishing(t, published...),
		"published without IDs": publishing(t, jwksOf(signers)...),
		"static without IDs":    static[:16],
	} {
		v := trustingOnly(t, keys, jwk.EdDSA)
		for n, s := range signers {
			t.Run(fmt.Sprint(name, n), func(t *testing.T) { want(t, v, token(s), jwtauth.Accepted) })
		}
		want(t, v, token(newSigner("")), jwtauth.BadSignature)
	}

	// The last of 17 would never be tried.
	static[16] = mustKey(t, jwk.KeyConfig{Algorithm: jwk.Ed25519, Material: newSigner("").Private})
	_, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
		Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.EdDSA}, Keys: static,
	}}})
	wantFaults(t, err, "jwtauth.Config.Issuers[0].Keys")

	// A key that the token names comes first, so it is tried whatever the others are.
	static[16] = mustKey(t, jwk.KeyConfig{ID: "named", Algorithm: jwk.EdDSA, Material: newSigner("").Private})
	keys, _, err := static.Find(t.Context(), "named", jwk.EdDSA)
	if err != nil || len(keys) != 17 || keys[0] != static[16] || keys[1] != static[0] {
		t.Errorf("%v, %v", keys, err)
	}
}

func jwksOf(signers []signer) []string {
	list := make([]string, len(signers))
	for n, s := range signers {
		list[n] = s.JWK()
	}
	return list
}

// The names in a set are matched exactly, like those in a key.
func TestTheKeysOfASetAreInOneMember(t *testing.T) {
	s, other := newSigner("1"), newSigner("1")
	set := func(name string) string { return `"` + name + `":[` + other.JWK() + `]` }
	keys := `"keys":[` + s.JWK() + `]`
	for name, body := range map[string]string{
		"Keys beside":       `{` + keys + `,` + set("Keys") + `}`,
		"Keys before":       `{` + set("KEYS") + `,` + keys + `}`,
		"a long s":          `{` + keys + `,` + set("key\u017f") + `}`,
		"other members":     `{"x":{"keys":7},` + keys + `}`,
		"the last of two":   `{` + set("keys") + `,` + keys + `}`,
		"an escape in keys": `{` + set("Keys") + `,"k\u0065ys":[` + s.JWK() + `]}`,
		"null beside it":    `{"Keys":null,` + keys + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := new(publisher)
			p.Say(body)
			v := trusting(t, overTLS(t, p, nil))
			want(t, v, s.Token(), jwtauth.Accepted)
			want(t, v, other.Token(), jwtauth.BadSignature)
		})
	}
	for name, body := range map[string]string{
		"only in another case":   `{` + set("Keys") + `}`,
		"null":                   `{"keys":null}`,
		"null after the keys":    `{` + keys + `,"keys":null}`,
		"an object":              `{"keys":{}}`,
		"a list of the keys":     `[` + s.JWK() + `]`,
		"a set and another":      `{` + keys + `}{}`,
		"nothing in the members": `{}`,
		"null alone":             `null`,
	} {
		t.Run(name, func(t *testing.T) {
			p := new(publisher)
			p.Say(body)
			v := trusting(t, overTLS(t, p, func(c *jwk.RemoteConfig) { c.OnError = func(context.Context, error) {} }))
			want(t, v, s.Token(), jwtauth.Unavailable)
			want(t, v, other.Token(), jwtauth.Unavailable)
		})
	}
}

// An issuer that changes what a key is for makes another key of it.
func TestAPublishedKeyThatChangesItsAlgorithmIsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := func(a jwk.Algorithm) string {
			return keySetOf(string(must(mustKey(t, jwk.KeyConfig{ID: "1", Algorithm: a, Material: rsaKey()}).MarshalJSON())))
		}
		p := new(publisher)
		p.Say(set(jwk.RS256))
		remote := simulated(t, p, nil)
		found := func(a jwk.Algorithm) bool {
			keys, _, err := remote.Find(t.Context(), "1", a)
			return err == nil && len(keys) == 1
		}
		if !found(jwk.RS256) {
			t.Error("the key is not there")
		}
		before := must(remote.Version())
		p.Say(set(jwk.PS256))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if !found(jwk.PS256) || found(jwk.RS256) || must(remote.Version()) == before {
			t.Error("the key is still for its former algorithm")
		}
	})
}

func TestMaxKeysIsTheLargestNumberOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signers := []signer{newSigner("1"), newSigner("2"), newSigner("3")}
		for n, want := range []bool{true, true, false} {
			p := new(publisher)
			p.Say(publish(signers[:n+1]...))
			remote := simulated(t, p, func(c *jwk.RemoteConfig) { c.MaxKeys = 2 })
			synctest.Wait()
			if _, err := remote.Version(); (err == nil) != want {
				t.Errorf("%d keys: %v", n+1, err)
			}
		}
	})
}
