package jwtauth_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// The checks of RFC 8725 and of the draft that is to replace it, by section. If other
// tests show a check in full, it is shown here only once.
func TestBestCurrentPractice(t *testing.T) {
	body := string(must(json.Marshal(claims(nil))))
	both := hs256(t)
	both.Algorithms = []jwk.Algorithm{jwk.HS256, jwk.RS256, jwk.PS256}
	both.Keys = jwk.Static{
		mustKey(t, jwk.KeyConfig{ID: "h", Algorithm: jwk.HS256, Secret: secret}),
		mustKey(t, jwk.KeyConfig{ID: "r", Algorithm: jwk.RS256, Material: rsaKey()}),
	}
	other := hs256(t)
	other.Issuer, other.Algorithms = "https://other.example", []jwk.Algorithm{jwk.HS512}
	other.Keys = jwk.Static{mustKey(t, jwk.KeyConfig{ID: "h", Algorithm: jwk.HS512, Secret: secret})}
	v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{both, other}})
	ofOther := string(must(json.Marshal(claims(map[string]any{"iss": other.Issuer}))))
	for name, tt := range map[string]struct {
		token string
		want  jwtauth.Verdict
	}{
		"3.1 an algorithm that is not in the list":                 {sealed(`{"alg":"HS384"}`, body, jwt.SigningMethodHS384, secret), jwtauth.WrongAlgorithm},
		"3.1 names are case-sensitive":                             {plain(`{"alg":"Hs256"}`, body), jwtauth.WrongAlgorithm},
		"3.1 noNE is not in the list":                              {plain(`{"alg":"noNE"}`, body), jwtauth.WrongAlgorithm},
		"3.1 one key, one algorithm: RS256 key used with PS256":    {sealed(`{"alg":"PS256","kid":"r"}`, body, jwt.SigningMethodPS256, rsaKey()), jwtauth.UnknownKey},
		"3.1 the algorithm of the key found by kid":                {plain(`{"alg":"HS256","kid":"r"}`, body), jwtauth.UnknownKey},
		"3.1 algorithms are those of the issuer":                   {sealed(`{"alg":"HS512","kid":"h"}`, body, jwt.SigningMethodHS512, secret), jwtauth.WrongAlgorithm},
		"3.1 algorithms are those of the issuer, the other one":    {plain(`{"alg":"HS256","kid":"h"}`, ofOther), jwtauth.WrongAlgorithm},
		"3.1 each issuer with its own":                             {sealed(`{"alg":"HS512","kid":"h"}`, ofOther, jwt.SigningMethodHS512, secret), jwtauth.Accepted},
		"3.2 none":                                                 {plain(`{"alg":"none"}`, body), jwtauth.WrongAlgorithm},
		"3.3 a token within a token is not unwrapped":              {plain(`{"alg":"HS256","cty":"JWT"}`, good()), jwtauth.Malformed},
		"3.3 an encrypted token":                                   {"e30.e30.e30.e30.e30", jwtauth.Malformed},
		"3.6 compressed":                                           {plain(`{"alg":"HS256","zip":"DEF"}`, body), jwtauth.Malformed},
		"3.7 only UTF-8":                                           {plain(jwtHeader, "\xff\xfe"+body), jwtauth.Malformed},
		"3.7 only UTF-8, no UTF-16":                                {plain(jwtHeader, "{\x00}\x00"), jwtauth.Malformed},
		"3.8 the key must belong to the issuer":                    {sealed(`{"alg":"HS512","kid":"r"}`, ofOther, jwt.SigningMethodHS512, secret), jwtauth.UnknownKey},
		"3.9 the audience must be ours":                            {token(claims(map[string]any{"aud": "https://other.example"})), jwtauth.WrongAudience},
		"3.10 a kid is a name and nothing else: a path":            {plain(`{"alg":"HS256","kid":"../../dev/null"}`, body), jwtauth.UnknownKey},
		"3.10 a kid is a name and nothing else: SQL":               {plain(`{"alg":"HS256","kid":"' OR 1=1 --"}`, body), jwtauth.UnknownKey},
		"3.11 an explicit type that is not expected":               {plain(`{"alg":"HS256","typ":"secevent+jwt"}`, body), jwtauth.WrongType},
		"3.11 a type is compared as a media type":                  {plain(`{"alg":"HS256","kid":"h","typ":"APPLICATION/jwt"}`, body), jwtauth.Accepted},
		"3.11 only a type without a slash omits application/":      {plain(`{"alg":"HS256","typ":"application/a/JWT"}`, body), jwtauth.WrongType},
		"3.14 only the characters of the compact serialisation":    {good() + "\u2028", jwtauth.Malformed},
		"3.14 no JSON serialisation":                               {`{"payload":"e30","signature":"e30"}`, jwtauth.Malformed},
		"3.13 and 3.15 password-based and inflated are never read": {"eyJhbGciOiJQQkVTMi1IUzI1NitBMTI4S1ciLCJwMmMiOjIxNDc0ODM2NDd9.e30.e30", jwtauth.UnknownIssuer},
	} {
		t.Run(name, func(t *testing.T) { want(t, v, tt.token, tt.want) })
	}
	t.Run("3.4 points on the curve", func(t *testing.T) {
		x, y := strings.Repeat("A", 42)+"E", strings.Repeat("A", 42)+"I"
		if k, err := jwk.New(jwk.KeyConfig{JWK: []byte(`{"kty":"EC","alg":"ES256","crv":"P-256","x":"` + x + `","y":"` + y + `"}`)}); err == nil {
			t.Error(k)
		}
	})
	t.Run("3.5 no short secret", func(t *testing.T) {
		if k, err := jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: []byte("correct horse battery staple")}); err == nil {
			t.Error(k)
		}
	})
	t.Run("3.8 a client is not a user of the same name", func(t *testing.T) {
		p, err := verifier(t, nil).Authenticate(request(t, token(claims(map[string]any{"client_id": "bob", "azp": "bob"}))))
		if err != nil || strings.Contains(p.ID, "bob") {
			t.Errorf("%+v %v", p, err)
		}
	})
	t.Run("3.12 a type of the application", func(t *testing.T) {
		i := hs256(t)
		i.Types = []string{"order+jwt"}
		v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
		want(t, v, plain(`{"alg":"HS256","typ":"application/Order+JWT"}`, body), jwtauth.Accepted)
		want(t, v, plain(`{"alg":"HS256"}`, body), jwtauth.WrongType)
		want(t, v, good(), jwtauth.WrongType)
	})
}

// Nothing that is written about a token may show its text or its signature, and the
// response shows no claim either.
func TestTokenIsInNoError(t *testing.T) {
	v := verifier(t, nil)
	canary := "canary0123456789"
	for _, text := range []string{
		canary, canary + ".a.b", "a." + canary + ".b", plain(`{"alg":"HS256","kid":"`+canary+`"}`, "{}"),
		plain(jwtHeader, `{"iss":"`+canary+`"}`), plain(jwtHeader, canary), token(claims(map[string]any{"aud": canary})),
		good()[:len(good())-43] + strings.Repeat("A", 43),
	} {
		_, err := v.Authenticate(request(t, text))
		if err == nil || strings.Contains(err.Error(), text) {
			t.Errorf("%v", err)
		}
		for segment := range strings.SplitSeq(text, ".") {
			if len(segment) > 1 && strings.Contains(err.Error(), segment) {
				t.Errorf("%v", err)
			}
		}
		if w := respond(t, v, request(t, text)); w.Code != http.StatusUnauthorized || strings.Contains(w.Body.String(), canary) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}
