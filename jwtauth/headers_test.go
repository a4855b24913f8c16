package jwtauth_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// A header that is remembered decides no more than one that is parsed again.
func TestARememberedHeaderIsStillVerified(t *testing.T) {
	const other = "https://other.example"
	first, second, third := hs256(t), hs256(t), hs256(t)
	second.Issuer, second.Types = other, []string{"at+jwt"}
	third.Issuer, third.Algorithms = "https://third.example", []jwk.Algorithm{jwk.HS384}
	third.Keys = jwk.Static{mustKey(t, jwk.KeyConfig{Algorithm: jwk.HS384, Secret: []byte(strings.Repeat("z", 48))})}
	v := mustVerifier(t, jwtauth.Config{CacheCapacity: -1, Issuers: []jwtauth.TrustedIssuer{first, second, third}})

	text := good()
	for _, refused := range []string{text[:len(text)-43] + strings.Repeat("A", 43), token(claims(map[string]any{"iss": other})), "a.b.c"} {
		if verdict(t, v, refused) == jwtauth.Accepted || jwtauth.KnowsHeader(v, refused) {
			t.Errorf("the header of a token that was refused is remembered: %s", refused)
		}
	}
	want(t, v, text, jwtauth.Accepted)
	if !jwtauth.KnowsHeader(v, text) {
		t.Fatal("not remembered")
	}
	want(t, v, text, jwtauth.Accepted)
	want(t, v, text[:len(text)-43]+strings.Repeat("A", 43), jwtauth.BadSignature)
	want(t, v, token(claims(map[string]any{"exp": 1})), jwtauth.Expired)
	want(t, v, token(claims(map[string]any{"iss": other})), jwtauth.WrongType)
	want(t, v, token(claims(map[string]any{"iss": third.Issuer})), jwtauth.WrongAlgorithm)
	body := string(must(json.Marshal(claims(nil))))
	want(t, v, sealed(jwtHeader, body, jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32))), jwtauth.BadSignature)
	want(t, v, plain(jwtHeader+" ", body), jwtauth.Accepted) // another text, which is parsed
}
