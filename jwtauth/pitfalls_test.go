package jwtauth_test

import (
	"crypto/rsa"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// with returns a token that is good except for the value of one claim, which is JSON.
func with(name, value string) string {
	return token(claims(map[string]any{name: json.RawMessage(value)}))
}

// Tokens, each with a correct signature, that golang-jwt v5.3.1 was measured to accept in
// one of its ways to parse.
func TestPitfallsOfTheParserUnderneath(t *testing.T) {
	body := string(must(json.Marshal(claims(nil))))
	expired := claims(map[string]any{"exp": time.Now().Unix() - 3600})
	expiredBody := string(must(json.Marshal(expired)))
	for name, tt := range map[string]struct {
		token string
		want  jwtauth.Verdict
	}{
		"exp of 0 is not an unlimited lifetime":    {with("exp", "0"), jwtauth.Expired},
		"exp of -0.0 is not an unlimited lifetime": {with("exp", "-0.0"), jwtauth.Expired},
		"exp below 0":                    {with("exp", "-1"), jwtauth.InvalidClaims},
		"exp of a string":                {with("exp", `"4102444800"`), jwtauth.InvalidClaims},
		"exp null":                       {with("exp", "null"), jwtauth.InvalidClaims},
		"exp of an array":                {with("exp", "[4102444800]"), jwtauth.InvalidClaims},
		"exp of 1e19":                    {with("exp", "1e19"), jwtauth.InvalidClaims},
		"exp of 1e300":                   {with("exp", "1e300"), jwtauth.InvalidClaims},
		"exp of 1e400":                   {with("exp", "1e400"), jwtauth.InvalidClaims},
		"exp after the year 9999":        {with("exp", "253402300800"), jwtauth.InvalidClaims},
		"no exp":                         {token(claims(map[string]any{"exp": nil})), jwtauth.InvalidClaims},
		"nbf of 1e300":                   {with("nbf", "1e300"), jwtauth.InvalidClaims},
		"iat of 1e300":                   {with("iat", "1e300"), jwtauth.InvalidClaims},
		"iat of 1e19":                    {with("iat", "1e19"), jwtauth.InvalidClaims},
		"nbf of a string":                {with("nbf", `"0"`), jwtauth.InvalidClaims},
		"nbf of 0 is long ago":           {with("nbf", "0"), jwtauth.Accepted},
		"exp with a fraction":            {with("exp", "4102444800.5"), jwtauth.Accepted},
		"exp with an exponent":           {with("exp", "4.1024448e9"), jwtauth.Accepted},
		"EXP beside an expired exp":      {plain(jwtHeader, expiredBody[:len(expiredBody)-1]+`,"EXP":4102444800}`), jwtauth.Malformed},
		"EXP alone":                      {plain(jwtHeader, strings.Replace(body, `"exp"`, `"EXP"`, 1)), jwtauth.Malformed},
		"Iss alone":                      {plain(jwtHeader, strings.Replace(body, `"iss"`, `"Iss"`, 1)), jwtauth.Malformed},
		"iss with a long s":              {plain(jwtHeader, payload(`"i\u017fs":"x"`)), jwtauth.Malformed},
		"exp twice":                      {plain(jwtHeader, payload(`"exp":4102444801`)), jwtauth.Malformed},
		"exp twice, once with an escape": {plain(jwtHeader, payload(`"e\u0078p":4102444801`)), jwtauth.Malformed},
		"exp with an escape":             {plain(jwtHeader, strings.Replace(body, `"exp"`, `"e\u0078p"`, 1)), jwtauth.Accepted},
		"a claim of our own twice":       {plain(jwtHeader, payload(`"a":1,"a":2`)), jwtauth.Malformed},
		"alg twice":                      {plain(`{"alg":"none","alg":"HS256"}`, body), jwtauth.Malformed},
		"alg twice, once with an escape": {plain(`{"\u0061lg":"none","alg":"HS256"}`, body), jwtauth.Malformed},
		"payload null":                   {plain(jwtHeader, "null"), jwtauth.Malformed},
		"two objects":                    {plain(jwtHeader, body+` {"b":2}`), jwtauth.Malformed},
		"invalid UTF-8 in a claim":       {plain(jwtHeader, payload("\"a\":\"\xff\"")), jwtauth.Malformed},
		"invalid UTF-8 in a name":        {plain(jwtHeader, payload("\"\xff\":1")), jwtauth.Malformed},
		"invalid UTF-8 deep inside":      {plain(jwtHeader, payload("\"a\":[{\"b\":\"\xc0\x80\"}]")), jwtauth.Malformed},
		"a lone high surrogate":          {plain(jwtHeader, payload(`"a":"\ud800"`)), jwtauth.Malformed},
		"a lone low surrogate":           {plain(jwtHeader, payload(`"a":"\udc00x"`)), jwtauth.Malformed},
		"surrogates in the wrong order":  {plain(jwtHeader, payload(`"a":"\udc00\ud800"`)), jwtauth.Malformed},
		"two low surrogates":             {plain(jwtHeader, payload(`"a":"\udc00\udc00"`)), jwtauth.Malformed},
		"two high surrogates":            {plain(jwtHeader, payload(`"a":"\ud800\ud800"`)), jwtauth.Malformed},
		"a lone surrogate deep inside":   {plain(jwtHeader, payload(`"a":[{"b":["\uD800"]}]`)), jwtauth.Malformed},
		"a lone surrogate in a name":     {plain(jwtHeader, payload(`"\ud800":1`)), jwtauth.Malformed},
		"a pair of surrogates":           {plain(jwtHeader, payload(`"a":"\ud83d\uDE00 \u0064\ud7ff\ue000"`)), jwtauth.Accepted},
		"an escaped backslash before text like an escape": {plain(jwtHeader, payload(`"a":"\\ud800","b":"\"}"`)), jwtauth.Accepted},
		"typ of anything":     {plain(`{"alg":"HS256","typ":"anything"}`, body), jwtauth.WrongType},
		"typ in another case": {plain(`{"alg":"HS256","typ":"jwt"}`, body), jwtauth.Accepted},
		"typ with its tree":   {plain(`{"alg":"HS256","typ":"application/JWT"}`, body), jwtauth.Accepted},
		"sub of a number":     {with("sub", "1"), jwtauth.InvalidClaims},
		"jti of a number":     {with("jti", "1"), jwtauth.InvalidClaims},
		"iss of a list":       {with("iss", `["`+issuer+`"]`), jwtauth.UnknownIssuer},
		"no iss":              {token(claims(map[string]any{"iss": nil})), jwtauth.UnknownIssuer},
		"very many members":   {plain(jwtHeader, payload(manyMembers(400))), jwtauth.Accepted},
		"very many members, the last of which occurs twice": {plain(jwtHeader, payload(manyMembers(400)+`,"exp":1`)), jwtauth.Malformed},
		"a name that is only a member of an object":         {plain(jwtHeader, payload(`"a":{"exp":1,"EXP":3}`)), jwtauth.Accepted},
		"a name twice in an object in a claim":              {plain(jwtHeader, payload(`"realm":{"roles":["user"],"roles":["admin"]}`)), jwtauth.Malformed},
		"a name twice deep inside":                          {plain(jwtHeader, payload(`"a":[[{"b":{"c":1,"d":2,"\u0063":3}}]]`)), jwtauth.Malformed},
		"a name twice deep inside the header":               {plain(`{"alg":"HS256","jwk":{"kty":"RSA","kty":"oct"}}`, body), jwtauth.Malformed},
		"Aud beside aud":                                    {plain(jwtHeader, payload(`"Aud":"x"`)), jwtauth.Malformed},
		"NBF alone":                                         {plain(jwtHeader, payload(`"NBF":1`)), jwtauth.Malformed},
		"Kid alone":                                         {plain(`{"alg":"HS256","Kid":"x"}`, body), jwtauth.Malformed},
		"Cnf alone, which would make it a bearer token":     {plain(jwtHeader, payload(`"Cnf":{}`)), jwtauth.Malformed},
		"Scope beside scope":                                {plain(jwtHeader, payload(`"scope":"read","Scope":"admin"`)), jwtauth.Malformed},
		"Sid beside sid":                                    {plain(jwtHeader, payload(`"sid":"1","Sid":"2"`)), jwtauth.Malformed},
		"Token_Use beside token_use":                        {plain(jwtHeader, payload(`"token_use":"access","Token_Use":"refresh"`)), jwtauth.Malformed},
		"claims of applications that differ in case":        {plain(jwtHeader, payload(`"role":"user","Role":"admin","groups":[],"Groups":[]`)), jwtauth.Accepted},
		"claims of applications like ours, in another case": {plain(jwtHeader, payload(`"Permissions":"x","Scope":"x","Sid":"x","Client_ID":"x","Type":"x"`)), jwtauth.Accepted},
	} {
		t.Run(name, func(t *testing.T) { want(t, verifier(t, nil), tt.token, tt.want) })
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"m`)
		b.WriteString(strings.Repeat("x", i%10))
		b.WriteByte(byte('a' + i%26))
		b.WriteByte(byte('a' + i/26%26))
		b.WriteString(`":0`)
	}
	return b.String()
}

func TestPitfallTrailingBitsOfBase64AreRefused(t *testing.T) {
	text := good() // 32 bytes of signature: 43 characters, of which the last has 2 bits too many
	const chars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(chars, text[len(text)-1])
	accepted := 0
	for i := range 4 {
		spelled := text[:len(text)-1] + string(chars[last&^3+i])
		if v := verdict(t, verifier(t, nil), spelled); v == jwtauth.Accepted {
			accepted++
		} else if v != jwtauth.Malformed {
			t.Error(v)
		}
	}
	if accepted != 1 {
		t.Errorf("%d spellings of one signature are accepted", accepted)
	}
}

func TestPitfallLineEndsInBase64AreRefused(t *testing.T) {
	// A header field cannot carry a line end, but Verify may be called with any text.
	v := verifier(t, nil)
	text := good()
	for _, end := range []string{"\n", "\r", "\r\n", " ", "=", "\x00", "\t"} {
		for _, at := range []int{0, 3, strings.IndexByte(text, '.'), strings.LastIndexByte(text, '.') + 1, len(text) - 2, len(text)} {
			changed := text[:at] + end + text[at:]
			if _, err := v.Verify(t.Context(), changed); err == nil {
				t.Errorf("accepted with %q at %d", end, at)
			}
		}
	}
	if _, err := v.Verify(t.Context(), text); err != nil {
		t.Error(err)
	}
}

func TestPitfallBothSignaturesOfECDSAAreOneTokenToRevocations(t *testing.T) {
	var list jwtauth.RevocationList
	i := hs256(t)
	i.Algorithms = []jwk.Algorithm{jwk.ES256}
	i.Keys = jwk.Static{mustKey(t, jwk.KeyConfig{Algorithm: jwk.ES256, Material: ecKey()})}
	v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}, Revocations: &list})
	first := sealed(`{"alg":"ES256"}`, string(must(json.Marshal(claims(map[string]any{"jti": "1"})))), jwt.SigningMethodES256, ecKey())
	second := otherSignature(t, first)
	want(t, v, first, jwtauth.Accepted)
	want(t, v, second, jwtauth.Accepted) // ordinary ECDSA
	if err := list.RevokeToken(t.Context(), issuer, "1", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	want(t, v, first, jwtauth.Revoked)
	want(t, v, second, jwtauth.Revoked)
}

// RFC 7518, section 3.5 does not allow a salt whose length differs from the hash's.
func TestPitfallSaltOfAnotherLengthIsRefused(t *testing.T) {
	i := hs256(t)
	i.Algorithms = []jwk.Algorithm{jwk.PS256}
	i.Keys = jwk.Static{mustKey(t, jwk.KeyConfig{Algorithm: jwk.PS256, Material: rsaKey()})}
	v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
	for salt, wanted := range map[int]jwtauth.Verdict{
		rsa.PSSSaltLengthEqualsHash: jwtauth.Accepted,
		32:                          jwtauth.Accepted,
		20:                          jwtauth.BadSignature,
		64:                          jwtauth.BadSignature,
	} {
		method := *jwt.SigningMethodPS256
		method.Options = &rsa.PSSOptions{SaltLength: salt}
		want(t, v, sealed(`{"alg":"PS256"}`, string(must(json.Marshal(claims(nil)))), &method, rsaKey()), wanted)
	}
}

func TestTimesAndTheirLeeway(t *testing.T) {
	for name, tt := range map[string]struct {
		leeway time.Duration
		claims map[string]int64 // seconds from now
		want   jwtauth.Verdict
	}{
		"a second before exp":             {-1, map[string]int64{"exp": 1}, jwtauth.Accepted},
		"at exp":                          {-1, map[string]int64{"exp": 0}, jwtauth.Expired},
		"within the leeway of 5 s":        {0, map[string]int64{"exp": -4}, jwtauth.Accepted},
		"at the end of the leeway of 5 s": {0, map[string]int64{"exp": -5}, jwtauth.Expired},
		"within a leeway of a minute":     {time.Minute, map[string]int64{"exp": -59}, jwtauth.Accepted},
		"at nbf":                          {-1, map[string]int64{"exp": 60, "nbf": 0}, jwtauth.Accepted},
		"a second before nbf":             {-1, map[string]int64{"exp": 60, "nbf": 1}, jwtauth.NotYetValid},
		"within the leeway before nbf":    {0, map[string]int64{"exp": 60, "nbf": 5}, jwtauth.Accepted},
		"before the leeway of nbf":        {0, map[string]int64{"exp": 60, "nbf": 6}, jwtauth.NotYetValid},
		"issued in the future":            {0, map[string]int64{"exp": 60, "iat": 6}, jwtauth.NotYetValid},
		"issued within the leeway":        {0, map[string]int64{"exp": 60, "iat": 5}, jwtauth.Accepted},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := verifier(t, func(c *jwtauth.Config) { c.Leeway = tt.leeway })
				c := claims(map[string]any{"iat": nil})
				for name, s := range tt.claims {
					c[name] = time.Now().Unix() + s
				}
				want(t, v, token(c), tt.want)
			})
		})
	}
}

func TestScopesOfAllClaimsInUse(t *testing.T) {
	for name, tt := range map[string]struct {
		members string
		want    []string
	}{
		"none":                           {`"a":1`, nil},
		"scope as words":                 {`"scope":"read  write"`, []string{"read", "write"}},
		"scope as a list":                {`"scope":["read","write"]`, []string{"read", "write"}},
		"scp as a list":                  {`"scp":["read"]`, []string{"read"}},
		"scp as words":                   {`"scp":"read write"`, []string{"read", "write"}},
		"permissions":                    {`"permissions":["read"]`, nil},
		"both of them, each once":        {`"scp":"b a","scope":"a"`, []string{"a", "b"}},
		"of another type":                {`"scope":{"read":true},"scp":1`, nil},
		"a list with another type":       {`"scope":["read",1]`, nil},
		"a list with null":               {`"scope":["read",null]`, nil},
		"empty":                          {`"scope":"","scp":[""]`, nil},
		"an item of a list with a space": {`"scope":["read write"]`, nil},
		"not a scope-token":              {`"scope":"read\u00a0admin a\"b a\\\\b \u00e9 write"`, []string{"write"}},
		"not a scope-token, in a list":   {`"scope":["read\tadmin","write"]`, []string{"write"}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := verifier(t, nil).Authenticate(request(t, plain(jwtHeader, payload(tt.members))))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(p.Scopes, tt.want) {
				t.Errorf("%q, want %q", p.Scopes, tt.want)
			}
		})
	}
}
