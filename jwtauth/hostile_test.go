package jwtauth_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// asymmetric trusts an issuer that signs with RS256, ES256 and EdDSA.
func asymmetric(tb testing.TB) *jwtauth.Verifier {
	tb.Helper()
	i := hs256(tb)
	i.Algorithms = []jwk.Algorithm{jwk.RS256, jwk.ES256, jwk.EdDSA}
	i.Keys = jwk.Static{
		mustKey(tb, jwk.KeyConfig{ID: "r", Algorithm: jwk.RS256, Material: &rsaKey().PublicKey}),
		mustKey(tb, jwk.KeyConfig{ID: "e", Algorithm: jwk.ES256, Material: &ecKey().PublicKey}),
		mustKey(tb, jwk.KeyConfig{ID: "d", Algorithm: jwk.EdDSA, Material: ed25519Key().Public()}),
	}
	return mustVerifier(tb, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
}

func TestJ01AlgorithmNoneIsRefusedInAnySpelling(t *testing.T) {
	body := string(must(json.Marshal(claims(nil))))
	for _, alg := range []string{
		`{"alg":"none"}`, `{"alg":"None"}`, `{"alg":"nOnE"}`, `{"alg":"noNE"}`, `{"alg":""}`, `{}`, `{"typ":"JWT"}`,
		`{"alg":0}`, `{"alg":["HS256"]}`, `{"alg":null}`, `{"alg":{"a":"HS256"}}`, `{"alg":"hs256"}`, `{"alg":"HS256 "}`,
		`{"ALG":"HS256"}`, `{"alg":"HS256","ALG":"none"}`,
	} {
		text := b64([]byte(alg)) + "." + b64([]byte(body))
		for name, token := range map[string]string{
			"unsigned":  text + ".",
			"signed":    plain(alg, body),
			"signature": text + "." + b64([]byte("x")),
		} {
			t.Run(alg+" "+name, func(t *testing.T) {
				if v := verdict(t, verifier(t, nil), token); v != jwtauth.Malformed && v != jwtauth.WrongAlgorithm {
					t.Error(v)
				}
				if w := respond(t, verifier(t, nil), request(t, token)); w.Code != http.StatusUnauthorized {
					t.Error(w.Code)
				}
			})
		}
	}
}

func TestJ02PublicKeyIsNoSecret(t *testing.T) {
	v := asymmetric(t)
	for name, public := range map[string]any{"RSA": &rsaKey().PublicKey, "EC": &ecKey().PublicKey, "Ed25519": ed25519Key().Public()} {
		der := must(x509.MarshalPKIXPublicKey(public))
		text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		for _, key := range [][]byte{der, text, text[:len(text)-1], append([]byte("\n"), text...)} {
			for _, kid := range []string{"", `,"kid":"r"`, `,"kid":"e"`} {
				forged := sealed(`{"alg":"HS256"`+kid+`}`, string(must(json.Marshal(claims(nil)))), jwt.SigningMethodHS256, key)
				want(t, v, forged, jwtauth.WrongAlgorithm)
			}
			// Even where HS256 is accepted, a key that is public cannot be the secret.
			if _, err := jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: text}); err == nil {
				t.Errorf("the PEM of a public %s key is taken for a secret", name)
			}
			if _, err := jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, PEM: text}); err == nil {
				t.Errorf("a public %s key is taken for a secret", name)
			}
		}
	}
	// An issuer with both algorithms: even then each key is only for its own.
	i := hs256(t)
	i.Algorithms = append(i.Algorithms, jwk.RS256)
	i.Keys = jwk.Static{mustKey(t, jwk.KeyConfig{ID: "r", Algorithm: jwk.RS256, Material: &rsaKey().PublicKey})}
	both := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
	der := must(x509.MarshalPKIXPublicKey(&rsaKey().PublicKey))
	want(t, both, sealed(`{"alg":"HS256","kid":"r"}`, string(must(json.Marshal(claims(nil)))), jwt.SigningMethodHS256, der), jwtauth.UnknownKey)
}

func TestJ03MisshapenTokensCostNothing(t *testing.T) {
	v := verifier(t, nil)
	segment := strings.Repeat("A", 1<<20)
	for name, text := range map[string]string{
		"900k dots":                strings.Repeat(".", 900<<10),
		"5000 dots":                strings.Repeat(".", 5000),
		"five parts":               good() + ".a.b",
		"four parts":               good() + ".a",
		"two parts":                good()[:strings.LastIndexByte(good(), '.')],
		"one part":                 "abc",
		"an empty part":            "a..b",
		"an empty signature":       good()[:strings.LastIndexByte(good(), '.')+1],
		"an empty header":          good()[strings.IndexByte(good(), '.'):],
		"a segment of 1 MB":        segment + "." + segment + "." + segment,
		"over the limit by one":    strings.Repeat("A", 16_383) + "." + "A",
		"a great many short parts": strings.Repeat("a.", 4000),
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, text)
			want(t, v, text, jwtauth.Malformed)
			if race.Enabled {
				return
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range 100 {
				_, _ = v.Authenticate(r)
			}
			runtime.ReadMemStats(&after)
			if each := (after.TotalAlloc - before.TotalAlloc) / 100; each > 40<<10 {
				t.Errorf("%d bytes allocated", each)
			}
		})
	}
}

func TestJ03LongestToken(t *testing.T) {
	exactly := func(n int) string {
		for pad := n * 3 / 5; ; pad++ {
			if text := token(claims(map[string]any{"pad": strings.Repeat("x", pad)})); len(text) >= n {
				return text
			}
		}
	}
	v := verifier(t, func(c *jwtauth.Config) { c.MaxTokenLength = 1000 })
	for n := range 4 {
		text := exactly(999 + n)
		wanted := jwtauth.Accepted
		if len(text) > 1000 {
			wanted = jwtauth.Malformed
		}
		want(t, v, text, wanted)
	}
	want(t, verifier(t, nil), exactly(16_000), jwtauth.Accepted)
	want(t, verifier(t, nil), exactly(16_385), jwtauth.Malformed)
	// Entra ID puts up to 200 groups into a token.
	groups := make([]string, 200)
	for i := range groups {
		groups[i] = fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
	}
	want(t, verifier(t, nil), token(claims(map[string]any{"groups": groups})), jwtauth.Accepted)
}

func TestJ04OtherSerialisationsAndExtensionsAreRefused(t *testing.T) {
	body := string(must(json.Marshal(claims(nil))))
	for name, text := range map[string]string{
		"JWE":                       "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..aXY.Y2lwaGVy.dGFn",
		"enc in three parts":        plain(`{"alg":"HS256","enc":"A128GCM"}`, body),
		"zip":                       plain(`{"alg":"HS256","zip":"DEF"}`, body),
		"JSON serialisation":        `{"payload":"` + b64([]byte(body)) + `","signatures":[]}`,
		"flattened":                 `{"payload":"` + b64([]byte(body)) + `","protected":"e30","signature":"eA"}`,
		"detached":                  strings.Split(good(), ".")[0] + ".." + strings.Split(good(), ".")[2],
		"b64 false":                 plain(`{"alg":"HS256","b64":false,"crit":["b64"]}`, body),
		"b64 false without crit":    plain(`{"alg":"HS256","b64":false}`, body),
		"b64 true":                  plain(`{"alg":"HS256","b64":true,"crit":["b64"]}`, body),
		"crit of an unknown member": plain(`{"alg":"HS256","crit":["x"],"x":1}`, body),
		"an empty crit":             plain(`{"alg":"HS256","crit":[]}`, body),
		"crit of a known member":    plain(`{"alg":"HS256","crit":["exp"],"exp":1}`, body),
		"crit in another case":      plain(`{"alg":"HS256","Crit":["x"],"x":1}`, body),
		"crit with an escape":       plain(`{"alg":"HS256","cr\u0069t":["x"],"x":1}`, body),
		"nested":                    plain(`{"alg":"HS256","cty":"JWT"}`, good()),
		"payload null":              plain(jwtHeader, "null"),
		"payload of an array":       plain(jwtHeader, "["+body+"]"),
		"payload of a string":       plain(jwtHeader, `"x"`),
		"two objects":               plain(jwtHeader, body+body),
		"header of an array":        plain(`["alg","HS256"]`, body),
		"header null":               plain(`null`, body),
		"header with trailing data": plain(jwtHeader+"x", body),
		"kid of a number":           plain(`{"alg":"HS256","kid":1}`, body),
		"typ of a number":           plain(`{"alg":"HS256","typ":1}`, body),
		"header in another base":    "e30=" + good()[strings.IndexByte(good(), '.'):],
		"a leading blank":           "\u00a0" + good(),
		"percent encoding":          strings.ReplaceAll(good(), ".", "%2E"),
		"standard base64":           good()[:len(good())-43] + strings.Repeat("+", 43),
		"header as JSON with BOM":   plain("\ufeff"+jwtHeader, body),
	} {
		t.Run(name, func(t *testing.T) { want(t, verifier(t, nil), text, jwtauth.Malformed) })
	}
}

func TestJ07AudienceMustBeEqual(t *testing.T) {
	refused := map[string]string{
		"absent":                    `null`,
		"empty list":                `[]`,
		"an empty string":           `""`,
		"list of an empty string":   `[""]`,
		"an empty string beside it": `["","` + audience + `"]`,
		"nested":                    `[["` + audience + `"]]`,
		"in an object":              `{"aud":"` + audience + `"}`,
		"number":                    `1`,
		"a number beside it":        `[1,"` + audience + `"]`,
		"null beside it":            `[null,"` + audience + `"]`,
		"prefix":                    `"` + audience[:len(audience)-1] + `"`,
		"longer":                    `"` + audience + `/"`,
		"another case":              `"` + strings.ToUpper(audience) + `"`,
		"somebody else":             `["https://other.example"]`,
		"joined by a blank":         `"` + audience + ` https://other.example"`,
		"joined by a comma":         `"` + audience + `,https://other.example"`,
		"true":                      `true`,
	}
	for name, aud := range refused {
		t.Run(name, func(t *testing.T) {
			text := token(claims(map[string]any{"aud": json.RawMessage(aud)}))
			if v := verdict(t, verifier(t, nil), text); v != jwtauth.WrongAudience && v != jwtauth.InvalidClaims {
				t.Error(v)
			}
		})
	}
	want(t, verifier(t, nil), token(claims(map[string]any{"aud": nil})), jwtauth.WrongAudience)
	want(t, verifier(t, nil), token(claims(map[string]any{"aud": []string{"x", audience}})), jwtauth.Accepted)
	want(t, verifier(t, nil), plain(jwtHeader, `{"iss":"`+issuer+`","exp":4102444800,"sub":"a","Aud":"`+audience+`"}`), jwtauth.Malformed)
}

func TestJ08ConstructorsRefuseWhatWouldBeUnsafe(t *testing.T) {
	key := mustKey(t, jwk.KeyConfig{Algorithm: jwk.HS256, Secret: secret})
	_, err := jwtauth.New(jwtauth.Config{})
	wantFaults(t, err, "jwtauth.Config.Issuers")
	_, err = jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{
			{},
			{
				Issuer: "a|b", Audiences: []string{""}, Algorithms: []jwk.Algorithm{"none", "hs256"},
				Keys: jwk.Static{nil}, Profile: 99, RequiredClaims: []string{""}, MaxLifetime: -1,
			},
			{Issuer: issuer, Audiences: []string{"a"}, Algorithms: []jwk.Algorithm{jwk.RS256}, Keys: jwk.Static{key}},
			{
				Issuer: issuer, Audiences: []string{"a"}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: jwk.Static{},
				Profile: jwtauth.ProfileSession, DangerouslyAcceptWithoutExpiry: true,
			},
		},
		Leeway: time.Hour, MaxTokenLength: 1 << 20, CacheTTL: -1, Cookie: "a b", TrustedOrigins: []string{"https://a.example:443"}, ResourceMetadata: "http://x",
		Errors: map[jwtauth.Verdict]*usher.Error{
			jwtauth.Accepted: {Status: 401}, jwtauth.Expired: nil, jwtauth.Revoked: {Status: 200}, jwtauth.Unavailable: {Status: 401},
		},
	})
	wantFaults(t, err,
		"jwtauth.Config.Issuers[0].Issuer", "jwtauth.Config.Issuers[0].Audiences",
		"jwtauth.Config.Issuers[0].Algorithms", "jwtauth.Config.Issuers[0].Keys",
		"jwtauth.Config.Issuers[1].Issuer", "jwtauth.Config.Issuers[1].Audiences",
		"jwtauth.Config.Issuers[1].Algorithms[0]", "jwtauth.Config.Issuers[1].Algorithms[1]",
		"jwtauth.Config.Issuers[1].Keys", "jwtauth.Config.Issuers[1].Profile",
		"jwtauth.Config.Issuers[1].RequiredClaims", "jwtauth.Config.Issuers[1].MaxLifetime",
		"jwtauth.Config.Issuers[2].Keys",
		"jwtauth.Config.Issuers[3].Issuer", "jwtauth.Config.Issuers[3].Keys", "jwtauth.Config.Issuers[3].DangerouslyAcceptWithoutExpiry",
		"jwtauth.Config.Leeway", "jwtauth.Config.MaxTokenLength", "jwtauth.Config.CacheTTL",
		"jwtauth.Config.Cookie", "jwtauth.Config.TrustedOrigins[0]", "jwtauth.Config.ResourceMetadata",
		"jwtauth.Config.Errors[accepted]", "jwtauth.Config.Errors[expired]",
		"jwtauth.Config.Errors[revoked]", "jwtauth.Config.Errors[unavailable]",
	)
}

func TestJ09SameKidInTwoSetsIsTwoKeys(t *testing.T) {
	const other = "https://other.example"
	otherSecret := []byte(strings.Repeat("z", 32))
	set := func(s []byte) jwk.Static {
		return jwk.Static{mustKey(t, jwk.KeyConfig{ID: "1", Algorithm: jwk.HS256, Secret: s})}
	}
	first, second := hs256(t), hs256(t)
	first.Keys, second.Keys, second.Issuer = set(secret), set(otherSecret), other
	v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{first, second}})
	const header = `{"alg":"HS256","kid":"1"}`
	sign := func(iss string, s []byte) string {
		return sealed(header, string(must(json.Marshal(claims(map[string]any{"iss": iss})))), jwt.SigningMethodHS256, s)
	}
	want(t, v, sign(issuer, secret), jwtauth.Accepted)
	want(t, v, sign(other, otherSecret), jwtauth.Accepted)
	want(t, v, sign(issuer, otherSecret), jwtauth.BadSignature)
	want(t, v, sign(other, secret), jwtauth.BadSignature)
	want(t, v, sign("https://unknown.example", secret), jwtauth.UnknownIssuer)
	want(t, v, sign(strings.ToUpper(issuer), secret), jwtauth.UnknownIssuer)

	// The subject of one issuer is not the same subject of the other.
	a := must(v.Authenticate(request(t, sign(issuer, secret))))
	b := must(v.Authenticate(request(t, sign(other, otherSecret))))
	if a.ID == b.ID {
		t.Errorf("both are %s", a.ID)
	}
}

func TestJ12KeysAndAddressesInTheHeaderAreNotLookedAt(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer server.Close()
	own := ed25519Key()
	public := string(must(json.Marshal(mustKey(t, jwk.KeyConfig{ID: "x", Algorithm: jwk.EdDSA, Material: own}))))
	body := string(must(json.Marshal(claims(nil))))
	for name, member := range map[string]string{
		"jku": `"jku":"` + server.URL + `"`,
		"x5u": `"x5u":"` + server.URL + `"`,
		"jwk": `"jwk":` + public,
		"x5c": `"x5c":["MIIB"]`,
	} {
		t.Run(name, func(t *testing.T) {
			i := hs256(t)
			i.Algorithms = []jwk.Algorithm{jwk.EdDSA, jwk.HS256}
			v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
			want(t, v, sealed(`{"alg":"EdDSA","kid":"x",`+member+`}`, body, jwt.SigningMethodEdDSA, own), jwtauth.UnknownKey)
			// Ignored means that a token that is accepted without it is accepted with it.
			want(t, v, plain(`{"alg":"HS256",`+member+`}`, body), jwtauth.Accepted)
		})
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d outbound calls", n)
	}
}

func TestJ14TokensOfAnotherKindAreRefused(t *testing.T) {
	of := func(p jwtauth.Profile) *jwtauth.Verifier {
		i := hs256(t)
		i.Profile = p
		return mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
	}
	kinds := map[jwtauth.Profile]string{
		jwtauth.ProfilePlain: good(),
		jwtauth.ProfileAccessToken: plain(`{"alg":"HS256","typ":"at+jwt"}`,
			string(must(json.Marshal(claims(map[string]any{"client_id": "c", "jti": "1"}))))),
		jwtauth.ProfileSession: plain(`{"alg":"HS256","typ":"session+jwt"}`,
			string(must(json.Marshal(claims(map[string]any{"sid": "s", "jti": "1"}))))),
	}
	for accepts := range kinds {
		for is, text := range kinds {
			wanted := jwtauth.WrongType
			if is == accepts {
				wanted = jwtauth.Accepted
			}
			want(t, of(accepts), text, wanted)
		}
	}
	want(t, of(jwtauth.ProfileAssertion), kinds[jwtauth.ProfileSession], jwtauth.WrongType)
	want(t, of(jwtauth.ProfileAssertion), kinds[jwtauth.ProfileAccessToken], jwtauth.WrongType)
	// A refresh token is opaque.
	want(t, of(jwtauth.ProfileSession), "mF_9.B5f-4.1JqM", jwtauth.Malformed)
	want(t, of(jwtauth.ProfileSession), "mF_9B5f41JqM", jwtauth.Malformed)
	for _, typ := range []string{"at+jwt", "dpop+jwt", "refresh+jwt", "JWT2", "application/at+jwt", "text/JWT", "logout+jwt"} {
		want(t, of(jwtauth.ProfilePlain), plain(`{"alg":"HS256","typ":"`+typ+`"}`, string(must(json.Marshal(claims(nil))))), jwtauth.WrongType)
	}
}

// An ID token (OpenID Connect Core 1.0, section 2) is for a client, whatever its issuer also
// signs for the API.
func TestAnIDTokenDoesNotOpenTheAPI(t *testing.T) {
	const client = "web"
	idToken := token(claims(map[string]any{"aud": client, "azp": client, "nonce": "n", "at_hash": "h", "auth_time": 1}))
	of := func(change func(*jwtauth.TrustedIssuer)) *jwtauth.Verifier {
		i := hs256(t)
		change(&i)
		return mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
	}
	want(t, of(func(*jwtauth.TrustedIssuer) {}), idToken, jwtauth.WrongAudience)
	want(t, of(func(i *jwtauth.TrustedIssuer) { i.Profile = jwtauth.ProfileAccessToken }), idToken, jwtauth.WrongType)
	// Zitadel's access tokens have the same audience and typ.
	v := of(func(i *jwtauth.TrustedIssuer) { i.Audiences, i.RequiredClaims = []string{client}, []string{"jti"} })
	want(t, v, idToken, jwtauth.InvalidClaims)
	want(t, v, token(claims(map[string]any{"aud": client, "jti": "1"})), jwtauth.Accepted)
}

// otherSignature returns the token with the other signature that ECDSA has for it.
func otherSignature(tb testing.TB, token string) string {
	tb.Helper()
	last := strings.LastIndexByte(token, '.')
	sig := must(jwt.NewParser().DecodeSegment(token[last+1:]))
	s := new(big.Int).SetBytes(sig[32:])
	s.Sub(ecKey().Params().N, s).FillBytes(sig[32:])
	return token[:last+1] + b64(sig)
}

func TestSignaturesThatAreNone(t *testing.T) {
	v := asymmetric(t)
	body := string(must(json.Marshal(claims(nil))))
	text := b64([]byte(`{"alg":"ES256","kid":"e"}`)) + "." + b64([]byte(body))
	hash := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, ecKey(), hash[:])
	if err != nil {
		t.Fatal(err)
	}
	der := must(asn1.Marshal(struct{ R, S *big.Int }{r, s}))
	raw := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	want(t, v, text+"."+b64(raw), jwtauth.Accepted)
	for name, sig := range map[string][]byte{
		"r and s are 0":    make([]byte, 64),
		"r is 0":           append(make([]byte, 32), raw[32:]...),
		"as DER":           der,
		"a byte less":      raw[:63],
		"a byte more":      append(raw, 0),
		"of one byte":      {0},
		"of another curve": make([]byte, 96),
	} {
		t.Run(name, func(t *testing.T) { want(t, v, text+"."+b64(sig), jwtauth.BadSignature) })
	}
	for header, n := range map[string]int{`{"alg":"RS256","kid":"r"}`: 256, `{"alg":"EdDSA","kid":"d"}`: 64} {
		text := b64([]byte(header)) + "." + b64([]byte(body))
		want(t, v, text+"."+b64(make([]byte, n)), jwtauth.BadSignature)
		want(t, v, text+"."+b64(make([]byte, 1)), jwtauth.BadSignature)
		want(t, v, text+"."+b64(make([]byte, 3000)), jwtauth.BadSignature)
	}
}
