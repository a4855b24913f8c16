package jwtauth_test

import (
	"encoding/json"
	"errors"
	"slices"
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
// FuzzStandIn fuzzes the payload of a token whose aud another claim may stand for, and that
// may lack an iss.
func FuzzStandIn(f *testing.F) {
	for _, members := range []string{
		`"aud":null,"a":{"b":"web"}`, `"aud":"","a":{"b":["x","web"]}`, `"aud":[],"a":{"b":"web"}`, `"aud":"other","a":{"b":"web"}`,
		`"aud":["other","web"],"a":{"b":"web"}`, `"aud":{},"a":{"b":"web"}`, `"a":[{"b":"web"}]`, `"iss":null,"a":{"b":"web"}`, `"iss":"","a":{"b":"web"}`,
		`"iss":"https://other.example","a":{"b":"web"}`, `"i\u0073s":"x","a":{"\u0062":"web"}`,
	} {
		f.Add(`{"sub":"ann","exp":4102444800,` + members + `}`)
	}
	v := verifier(f, func(c *jwtauth.Config) {
		c.CacheCapacity, c.Leeway = -1, -1
		i := &c.Issuers[0]
		i.WithoutIssuer, i.AudienceClaim, i.Audiences = true, "/a/b", []string{"web"}
	})
	f.Fuzz(func(t *testing.T, payload string) {
		text := plain(jwtHeader, payload)
		if _, err := v.Verify(t.Context(), text); err != nil {
			return
		}
		theirs := jwt.MapClaims{}
		if err := json.Unmarshal([]byte(payload), &theirs); err != nil {
			t.Fatal(err)
		}
		if iss := theirs["iss"]; iss != nil && iss != issuer {
			t.Errorf("accepted for iss %v", iss)
		}
		if aud, err := theirs.GetAudience(); err != nil || len(aud) > 0 && aud[0] != "" && !slices.Contains(aud, "web") {
			t.Errorf("accepted for aud %v, %v", theirs["aud"], err)
		}
		if _, certain := v.Detect(request(t, text)); !certain {
			t.Error("accepted, but not recognized")
		}
	})
}

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
		if _, certain := v.Detect(request(t, text)); err == nil && !certain {
			t.Fatalf("accepted, but not recognized: %q", text)
		}
	})
}
