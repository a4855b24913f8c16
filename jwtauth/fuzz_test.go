package jwtauth_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/jwtauth"
)

// FuzzVerify signs arbitrary headers and payloads. If a token is accepted, golang-jwt in
// its strict configuration must read it in the same way.
func FuzzVerify(f *testing.F) {
	body := string(must(json.Marshal(map[string]any{"iss": issuer, "aud": audience, "sub": "ann", "iat": 1, "exp": 4102444800})))
	for _, header := range []string{jwtHeader, `{"alg":"HS256"}`, ` { "typ" : "JWT" , "alg" : "HS256" } `, `{"alg":"none"}`, `{"alg":"HS256","kid":"x"}`} {
		f.Add(header, body)
	}
	for _, extra := range []string{
		`"exp":1`, `"EXP":1`, `"a":"\ud800"`, `"nbf":1e300`, `"nbf":-0.0`, `"a":{"b":[1,"]}",null]}`, `"scope":["a"]`,
		`"e\u0078p":1`, `"a":"\\"`, `"jti":1`, `"a":1e400`,
	} {
		f.Add(jwtHeader, body[:len(body)-1]+","+extra+"}")
	}
	f.Add(jwtHeader, " "+strings.ReplaceAll(body, ",", " ,\r\n\t")+"\n")
	f.Add(jwtHeader, body+"x")
	v := verifier(f, func(c *jwtauth.Config) { c.CacheCapacity, c.Leeway = -1, -1 })
	oracle := jwt.NewParser(
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithStrictDecoding(), jwt.WithExpirationRequired(),
		jwt.WithIssuer(issuer), jwt.WithAudience(audience),
	)
	f.Fuzz(func(t *testing.T, header, payload string) {
		text := plain(header, payload)
		got, err := v.Verify(t.Context(), text)
		if err != nil {
			return
		}
		theirs := jwt.MapClaims{}
		_, err = oracle.ParseWithClaims(text, theirs, func(*jwt.Token) (any, error) { return secret, nil })
		if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return // a number in some claim that no float64 holds
		}
		if err != nil {
			t.Fatalf("accepted %s %s, but: %v", header, payload, err)
		}
		iss, _ := theirs.GetIssuer()
		sub, _ := theirs.GetSubject()
		aud, _ := theirs.GetAudience()
		exp, _ := theirs.GetExpirationTime()
		if got.Issuer != iss || got.Subject != sub || !compare.Equal(got.Audience, []string(aud)) || got.ExpiresAt.Unix() != exp.Unix() {
			t.Fatalf("%+v, golang-jwt reads %v", got, theirs)
		}
		var ours map[string]any
		if err := got.Claims(&ours); err != nil || !compare.Equal(ours, map[string]any(theirs)) {
			t.Fatalf("%v %v, golang-jwt reads %v", err, ours, theirs)
		}
	})
}

// FuzzToken feeds arbitrary text to every function that parses a token.
func FuzzToken(f *testing.F) {
	f.Add(good())
	f.Add("a.b.c")
	f.Add("..")
	f.Add("eyJhbGciOiJIUzI1NiJ9.bnVsbA.AAAA")
	v := verifier(f, nil)
	f.Fuzz(func(t *testing.T, text string) {
		_, err := v.Verify(t.Context(), text)
		if err == nil && strings.Count(text, ".") != 2 {
			t.Fatalf("accepted %q", text)
		}
	})
}
