package jwtauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// An operator reads in the private cause which value came and which was expected.
func TestTheCauseOfARefusalHasTheValueAndTheExpectation(t *testing.T) {
	now := time.Now()
	with := func(name string, value any) string { return token(claims(map[string]any{name: value})) }
	for name, tt := range map[string]struct {
		change func(*jwtauth.TrustedIssuer)
		token  string
		want   jwtauth.Verdict
		cause  string
	}{
		"a slash at the end of iss": {nil, with("iss", issuer+"/"), jwtauth.UnknownIssuer, `iss is "https://issuer.example/", want "https://issuer.example"`},
		"no iss":                    {nil, with("iss", nil), jwtauth.UnknownIssuer, `iss is absent, want "https://issuer.example"`},
		"an alias":                  {func(i *jwtauth.TrustedIssuer) { i.Aliases = []string{"a"} }, with("iss", "b"), jwtauth.UnknownIssuer, `iss is "b", want one of "a", "https://issuer.example"`},
		"a long iss":                {nil, with("iss", strings.Repeat("x", 500)), jwtauth.UnknownIssuer, `"` + strings.Repeat("x", 100) + `"... (500 bytes), want`},
		"a line end in iss":         {nil, with("iss", "a\nb\x1b[0m"), jwtauth.UnknownIssuer, `iss is "a\nb\x1b[0m"`},
		"alg":                       {nil, sealed(`{"alg":"HS512"}`, payload(`"x":1`), jwt.SigningMethodHS512, secret), jwtauth.WrongAlgorithm, `alg is "HS512", want "HS256"`},
		"typ":                       {nil, plain(`{"alg":"HS256","typ":"at+jwt"}`, payload(`"x":1`)), jwtauth.WrongType, `typ is "at+jwt", want "JWT"`},
		"no typ": {func(i *jwtauth.TrustedIssuer) { i.Types = []string{"a+jwt", "b+jwt"} }, good(), jwtauth.WrongType,
			`typ is "JWT", want one of "a+jwt", "b+jwt"`},
		"a refresh token": {nil, with("token_use", "refresh"), jwtauth.WrongType, `token_use is "refresh"`},
		"kid": {func(i *jwtauth.TrustedIssuer) {
			i.Keys = jwk.Static{mustKey(t, jwk.KeyConfig{ID: "k1", Algorithm: jwk.HS256, Secret: secret})}
		}, plain(`{"alg":"HS256","kid":"k2"}`, payload(`"x":1`)), jwtauth.UnknownKey, `kid is "k2" and alg is "HS256": no such key in the Keys of "https://issuer.example"`},
		"the signature":         {nil, good()[:len(good())-43] + strings.Repeat("A", 43), jwtauth.BadSignature, `kid is "" and alg is "HS256": the key`},
		"aud":                   {nil, with("aud", "https://other.example"), jwtauth.WrongAudience, `aud is "https://other.example", want "https://api.example"`},
		"two in aud":            {nil, with("aud", []string{"a", "b"}), jwtauth.WrongAudience, `aud is "a", "b", want "https://api.example"`},
		"many in aud":           {nil, with("aud", strings.Split(strings.Repeat("a", 15), "")), jwtauth.WrongAudience, `"a", 5 more, want`},
		"no aud":                {nil, with("aud", nil), jwtauth.WrongAudience, `aud is absent, want "https://api.example"`},
		"aud of a number":       {nil, with("aud", 7), jwtauth.InvalidClaims, `aud is "7", which is not valid`},
		"another claim":         {func(i *jwtauth.TrustedIssuer) { i.AudienceClaim = "client_id" }, with("client_id", "x"), jwtauth.WrongAudience, `client_id is "x", want`},
		"another claim and aud": {func(i *jwtauth.TrustedIssuer) { i.AudienceClaim, i.Audiences = "azp", []string{"web"} }, with("azp", "web"), jwtauth.WrongAudience, `aud is "https://api.example", want "web"`},
		"that claim as 7":       {func(i *jwtauth.TrustedIssuer) { i.AudienceClaim = "azp" }, with("azp", 7), jwtauth.InvalidClaims, `azp is "7", which is not valid`},
		"exp of a string":       {nil, with("exp", "soon"), jwtauth.InvalidClaims, `exp is "soon", which is not valid`},
		"no exp":                {nil, with("exp", nil), jwtauth.InvalidClaims, `exp is absent, but it is required`},
		"a required claim":      {func(i *jwtauth.TrustedIssuer) { i.RequiredClaims = []string{"email"} }, with("email", ""), jwtauth.InvalidClaims, `email is "", but it is required`},
		"no sub":                {nil, with("sub", nil), jwtauth.InvalidClaims, "without an ID"},
		"the lifetime":          {func(i *jwtauth.TrustedIssuer) { i.MaxLifetime = time.Minute }, good(), jwtauth.InvalidClaims, "MaxLifetime, which is 1m0s"},
		"expired": {nil, with("exp", now.Add(-time.Hour).Unix()), jwtauth.Expired,
			"exp is " + now.Add(-time.Hour).UTC().Format(time.RFC3339) + ", the present time is " + now.UTC().Format("2006-01-02T")},
		"the leeway":   {nil, with("nbf", now.Add(time.Hour).Unix()), jwtauth.NotYetValid, "nbf is " + now.Add(time.Hour).UTC().Format(time.RFC3339)},
		"in future":    {nil, with("iat", now.Add(time.Hour).Unix()), jwtauth.NotYetValid, "and Leeway is 5s"},
		"too long":     {nil, strings.Repeat("a", 70000), jwtauth.Malformed, "the header field"},
		"the limit":    {nil, strings.Repeat("a", 60000), jwtauth.Malformed, "60000 bytes are more than MaxTokenLength, which is "},
		"two words":    {nil, good() + " x", jwtauth.Malformed, "are not one token"},
		"bound":        {nil, with("cnf", map[string]any{"jkt": "x"}), jwtauth.Unconfirmed, "Config has no Confirm"},
		"two segments": {nil, "a.b", jwtauth.Malformed, "three segments"},
	} {
		t.Run(name, func(t *testing.T) {
			v := trusts(t, func(i *jwtauth.TrustedIssuer) {
				if tt.change != nil {
					tt.change(i)
				}
			})
			_, err := v.Authenticate(request(t, tt.token))
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.cause) {
				t.Errorf("%v\nwant %v: %s", err, tt.want, tt.cause)
			}
			if w := respond(t, v, request(t, tt.token)); w.Code != http.StatusUnauthorized || strings.Contains(w.Body.String(), "want") {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
}

func TestTheCauseOfARevocationIdentifiesTheToken(t *testing.T) {
	var list jwtauth.RevocationList
	v := verifier(t, func(c *jwtauth.Config) { c.Revocations = &list })
	if err := list.RevokeToken(t.Context(), issuer, "1", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	_, err := v.Authenticate(request(t, token(claims(map[string]any{"jti": "1", "sid": "2"}))))
	if !errors.Is(err, jwtauth.Revoked) || !strings.Contains(err.Error(), `jti is "1", sid is "2", sub is "ann"`) {
		t.Error(err)
	}
}

func TestTheCauseOfARefusalAfterAnIntrospection(t *testing.T) {
	for name, tt := range map[string]struct {
		response string
		want     jwtauth.Verdict
		cause    string
	}{
		"iss":        {active(map[string]any{"iss": issuer + "/"}), jwtauth.InvalidClaims, `iss is "https://issuer.example/", want "https://issuer.example"`},
		"aud":        {active(map[string]any{"aud": "x"}), jwtauth.WrongAudience, `aud is "x", want "https://api.example"`},
		"exp":        {active(map[string]any{"exp": "x"}), jwtauth.InvalidClaims, `exp is "x", which is not valid`},
		"token_type": {active(map[string]any{"token_type": "refresh_token"}), jwtauth.WrongType, `token_type is "refresh_token"`},
		"a claim":    {active(map[string]any{"exp": nil}), jwtauth.InvalidClaims, "exp is absent, but it is required"},
	} {
		t.Run(name, func(t *testing.T) {
			p := new(publisher)
			p.Say(tt.response)
			i := introspection(t, p, nil)
			for range 2 { // asked, and remembered
				_, err := i.Authenticate(request(t, opaque))
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.cause) {
					t.Errorf("%v\nwant %v: %s", err, tt.want, tt.cause)
				}
			}
		})
	}
}

// Most refusals are never printed, and hostile clients cause many.
func TestACauseCostsLittle(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	v := verifier(t, nil)
	for name, tt := range map[string]struct {
		text string
		most float64
	}{
		"too long":           {strings.Repeat("a", 60000), 2},
		"not three segments": {"garbage", 1},
	} {
		r := request(t, tt.text)
		if got := testing.AllocsPerRun(100, func() { _, _ = v.Authenticate(r) }); got > tt.most {
			t.Errorf("%s: %v allocations, want at most %v", name, got, tt.most)
		}
	}
	expired := token(claims(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}))
	accepted, refused := request(t, good()), request(t, expired)
	forgetful := verifier(t, func(c *jwtauth.Config) { c.CacheCapacity = -1 })
	count := func(r *http.Request) float64 {
		return testing.AllocsPerRun(100, func() { _, _ = forgetful.Authenticate(r) })
	}
	// The refusal and its cause, in place of a principal.
	if a, b := count(accepted), count(refused); b > a+1 {
		t.Errorf("%v allocations for a refusal, and %v for a token that is accepted", b, a)
	}
}

// A cause reaches logs and terminals. The text of a client in it is short and visible, and
// it has neither the token nor its signature.
func TestACauseIsSafeToPrint(t *testing.T) {
	const raw = "\x1b[31m\x00\r\n\u0085\u202e\u2028\ufeff"
	hostile := string(must(json.Marshal(raw + strings.Repeat("A", 2000))))
	var reported error
	v := verifier(t, func(c *jwtauth.Config) {
		c.OnError = func(_ context.Context, err error) { reported = err }
		c.ResolveIssuer = func(_ context.Context, iss string) (jwtauth.TrustedIssuer, error) {
			if iss == "\u202edown" {
				return jwtauth.TrustedIssuer{}, errDown
			}
			return jwtauth.TrustedIssuer{Issuer: iss, Aliases: []string{"|"}}, nil
		}
	})
	with := func(name, value string) string {
		return token(claims(map[string]any{name: json.RawMessage(value)}))
	}
	bad := good()
	for name, text := range map[string]string{
		"alg":            plain(`{"alg":`+hostile+`}`, payload(`"x":1`)),
		"typ":            plain(`{"alg":"HS256","typ":`+hostile+`}`, payload(`"x":1`)),
		"kid":            plain(`{"alg":"HS256","kid":`+hostile+`}`, payload(`"x":1`)) + "A",
		"iss":            with("iss", hostile),
		"iss, no faults": with("iss", `"\u202edown"`),
		"iss, faults":    with("iss", `"\u202efaults"`),
		"iss of a list":  with("iss", `[`+hostile+`]`),
		"sub":            with("sub", `{"a":`+hostile+`}`),
		"aud":            with("aud", hostile),
		"many aud":       with("aud", `[`+strings.Repeat(`"\u001b",`, 500)+`"x"]`),
		"exp":            with("exp", hostile),
		"jti":            with("jti", `[`+hostile+`]`),
		"token_use":      with("token_use", strings.TrimSuffix(hostile, `"`)+`_refresh_token"`),
		"kid of a token": plain(`{"alg":"HS256","kid":"`+bad+`"}`, payload(`"x":1`)) + "A",
		"no form":        bad + "\x1b",
	} {
		t.Run(name, func(t *testing.T) {
			reported = nil
			_, err := v.Verify(t.Context(), text)
			if err == nil {
				t.Fatal("accepted")
			}
			signature := text[strings.LastIndexByte(text, '.')+1:]
			for _, s := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprint(reported)} {
				if i := strings.IndexFunc(s, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
					t.Errorf("a character at %d of %q", i, s)
				}
				if len(s) > 1500 || strings.Contains(s, signature) || strings.Contains(s, bad) {
					t.Errorf("%d bytes: %s", len(s), s)
				}
			}
		})
	}
}
