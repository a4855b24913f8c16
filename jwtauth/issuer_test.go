package jwtauth_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// trusts returns a verifier of one issuer, HS256 changed by change.
func trusts(tb testing.TB, change func(*jwtauth.TrustedIssuer)) *jwtauth.Verifier {
	tb.Helper()
	return verifier(tb, func(c *jwtauth.Config) { change(&c.Issuers[0]) })
}

func TestAnAliasIsTheSameIssuer(t *testing.T) {
	const alias = "issuer.example"
	var list jwtauth.RevocationList
	v := trusts(t, func(i *jwtauth.TrustedIssuer) { i.Aliases, i.Revocations = []string{alias}, &list })
	first := must(v.Authenticate(request(t, token(claims(nil)))))
	second := must(v.Authenticate(request(t, token(claims(map[string]any{"iss": alias, "jti": "1"})))))
	if first.ID != second.ID {
		t.Errorf("one subject is %s and %s", first.ID, second.ID)
	}
	of := second.Details.(*jwtauth.Token)
	if of.Issuer != issuer {
		t.Errorf("the issuer is %s", of.Issuer)
	}
	if err := list.RevokeToken(t.Context(), issuer, "1", of.ExpiresAt); err != nil {
		t.Fatal(err)
	}
	want(t, v, token(claims(map[string]any{"iss": alias, "jti": "1"})), jwtauth.Revoked)
	for _, iss := range []string{"https://" + alias + "/", strings.ToUpper(alias), ""} {
		want(t, v, token(claims(map[string]any{"iss": iss})), jwtauth.UnknownIssuer)
	}
}

func TestOneIssuerMayHaveTokensWithoutIss(t *testing.T) {
	other := hs256(t)
	other.Issuer = "https://other.example"
	other.Keys = jwk.Static{mustKey(t, jwk.KeyConfig{Algorithm: jwk.HS256, Secret: []byte(strings.Repeat("z", 32))})}
	v := verifier(t, func(c *jwtauth.Config) {
		c.Issuers[0].WithoutIssuer = true
		c.Issuers = append(c.Issuers, other)
	})
	nameless := must(v.Verify(t.Context(), token(claims(map[string]any{"iss": nil}))))
	if nameless.Issuer != issuer {
		t.Errorf("the issuer is %q", nameless.Issuer)
	}
	want(t, v, good(), jwtauth.Accepted)
	for iss, verdict := range map[string]jwtauth.Verdict{
		`"iss":null`:                        jwtauth.Accepted,
		`"iss":""`:                          jwtauth.UnknownIssuer,
		`"iss":7`:                           jwtauth.UnknownIssuer,
		`"iss":[]`:                          jwtauth.UnknownIssuer,
		`"iss":["` + issuer + `"]`:          jwtauth.UnknownIssuer,
		`"iss":"https://nobody.example"`:    jwtauth.UnknownIssuer,
		`"iss":"` + other.Issuer + `"`:      jwtauth.BadSignature,
		`"Iss":"` + other.Issuer + `"`:      jwtauth.Malformed,
		`"i\u0073s":"` + other.Issuer + `"`: jwtauth.BadSignature,
	} {
		want(t, v, plain(jwtHeader, `{`+iss+`,"sub":"ann","aud":"`+audience+`","exp":4102444800}`), verdict)
	}
	want(t, verifier(t, nil), token(claims(map[string]any{"iss": nil})), jwtauth.UnknownIssuer)
	want(t, verifier(t, nil), plain(jwtHeader, `{"iss":null,"sub":"ann","aud":"`+audience+`","exp":4102444800}`), jwtauth.UnknownIssuer)
}

func TestAnIssuerMayHaveSeveralTypes(t *testing.T) {
	header := func(typ string) string {
		if typ == "" {
			return `{"alg":"HS256"}`
		}
		return `{"alg":"HS256","typ":"` + typ + `"}`
	}
	for name, tt := range map[string]struct {
		types, accepted, refused []string
	}{
		"one":           {[]string{"order+jwt"}, []string{"order+jwt", "application/Order+JWT"}, []string{"", "JWT", "at+jwt"}},
		"two":           {[]string{"a+jwt", "b+jwt"}, []string{"a+jwt", "b+jwt"}, []string{"", "JWT", "c+jwt"}},
		"JWT or at+jwt": {[]string{"JWT", "at+jwt"}, []string{"", "JWT", "jwt", "at+jwt"}, []string{"session+jwt", "JOSE"}},
		"JOSE":          {[]string{"JOSE"}, []string{"JOSE"}, []string{"", "JWT"}},
		"the profile's": {nil, []string{"", "JWT"}, []string{"at+jwt"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := trusts(t, func(i *jwtauth.TrustedIssuer) { i.Types = tt.types })
			for _, typ := range tt.accepted {
				want(t, v, plain(header(typ), payload(`"x":1`)), jwtauth.Accepted)
			}
			for _, typ := range tt.refused {
				want(t, v, plain(header(typ), payload(`"x":1`)), jwtauth.WrongType)
			}
		})
	}
	// The types replace that of the profile, and leave its other rules.
	v := trusts(t, func(i *jwtauth.TrustedIssuer) { i.Profile, i.Types = jwtauth.ProfileAccessToken, []string{"JWT"} })
	want(t, v, plain(header("JWT"), payload(`"client_id":"c","jti":"1"`)), jwtauth.Accepted)
	want(t, v, plain(header("JWT"), payload(`"jti":"1"`)), jwtauth.InvalidClaims)
	want(t, v, plain(header("at+jwt"), payload(`"client_id":"c","jti":"1"`)), jwtauth.WrongType)
}

func TestAClaimMayStandForTheAudience(t *testing.T) {
	for name, tt := range map[string]struct {
		claim   string
		members string
		want    jwtauth.Verdict
	}{
		"a string":                           {"client_id", `"client_id":"web"`, jwtauth.Accepted},
		"an array":                           {"azp", `"azp":["other","web"]`, jwtauth.Accepted},
		"another value":                      {"client_id", `"client_id":"other"`, jwtauth.WrongAudience},
		"absent":                             {"client_id", `"x":1`, jwtauth.WrongAudience},
		"absent, and aud has the value":      {"client_id", `"aud":"web"`, jwtauth.WrongAudience},
		"aud names another service":          {"client_id", `"aud":"other","client_id":"web"`, jwtauth.WrongAudience},
		"aud names other services":           {"client_id", `"aud":["other","x"],"client_id":"web"`, jwtauth.WrongAudience},
		"aud names this service too":         {"client_id", `"aud":["other","web"],"client_id":"web"`, jwtauth.Accepted},
		"aud in another case":                {"client_id", `"aud":"WEB","client_id":"web"`, jwtauth.WrongAudience},
		"aud has an empty value":             {"client_id", `"aud":["","other"],"client_id":"web"`, jwtauth.InvalidClaims},
		"aud has one value, which is empty":  {"client_id", `"aud":[""],"client_id":"web"`, jwtauth.InvalidClaims},
		"aud has a null":                     {"client_id", `"aud":[null],"client_id":"web"`, jwtauth.InvalidClaims},
		"aud is an object":                   {"client_id", `"aud":{"other":true},"client_id":"web"`, jwtauth.InvalidClaims},
		"aud is a number":                    {"client_id", `"aud":7,"client_id":"web"`, jwtauth.InvalidClaims},
		"aud is empty":                       {"client_id", `"aud":[],"client_id":"web"`, jwtauth.Accepted},
		"aud is empty, with a blank":         {"client_id", `"aud":[ ],"client_id":"web"`, jwtauth.Accepted},
		"aud is empty text":                  {"client_id", `"aud":"","client_id":"web"`, jwtauth.Accepted},
		"aud is null":                        {"client_id", `"aud":null,"client_id":"web"`, jwtauth.Accepted},
		"the claim is aud":                   {"aud", `"aud":["other","web"]`, jwtauth.Accepted},
		"the claim is aud, of others":        {"/aud", `"aud":"other"`, jwtauth.WrongAudience},
		"the claim is aud, which is empty":   {"aud", `"aud":[]`, jwtauth.WrongAudience},
		"null":                               {"azp", `"azp":null`, jwtauth.InvalidClaims},
		"a number":                           {"azp", `"azp":1`, jwtauth.InvalidClaims},
		"empty":                              {"azp", `"azp":""`, jwtauth.InvalidClaims},
		"in another claim":                   {"/kubernetes.io/namespace", `"kubernetes.io":{"namespace":"web"}`, jwtauth.Accepted},
		"in another claim, another value":    {"/kubernetes.io/namespace", `"kubernetes.io":{"namespace":"x"}`, jwtauth.WrongAudience},
		"in no object":                       {"/kubernetes.io/namespace", `"kubernetes.io":"web"`, jwtauth.WrongAudience},
		"in no claim":                        {"/kubernetes.io/namespace", `"namespace":"web"`, jwtauth.WrongAudience},
		"a name with a slash":                {"kubernetes.io/serviceaccount/namespace", `"kubernetes.io/serviceaccount/namespace":"web"`, jwtauth.Accepted},
		"a pointer to a name with a slash":   {"/a~1b/c~0d", `"a/b":{"c~d":"web"}`, jwtauth.Accepted},
		"a pointer to the name of an escape": {"/a~01", `"a~1":"web"`, jwtauth.Accepted},
	} {
		t.Run(name, func(t *testing.T) {
			v := trusts(t, func(i *jwtauth.TrustedIssuer) { i.Audiences, i.AudienceClaim = []string{"web"}, tt.claim })
			text := plain(jwtHeader, `{"iss":"`+issuer+`","sub":"ann","exp":4102444800,`+tt.members+`}`)
			want(t, v, text, tt.want)
			if tt.want == jwtauth.Accepted {
				if got := must(v.Verify(t.Context(), text)).Audience; got[len(got)-1] != "web" {
					t.Errorf("the audience is %q", got)
				}
			}
		})
	}
}

// A key set may have the keys of several issuers, as that of Microsoft Entra has.
func TestAKeyOfAnotherIssuerSignsNothing(t *testing.T) {
	const (
		template = "https://login.example/{tenantid}/v2.0"
		tenant   = "https://login.example/t1/v2.0"
	)
	for name, tt := range map[string]struct {
		of, tid string
		aliases []string
		want    jwtauth.Verdict
	}{
		"no issuer":                      {"", "", nil, jwtauth.Accepted},
		"this issuer":                    {tenant, "", nil, jwtauth.Accepted},
		"another issuer":                 {"https://login.example/t2/v2.0", "", nil, jwtauth.UnknownKey},
		"another case":                   {"https://login.example/T1/v2.0", "", nil, jwtauth.UnknownKey},
		"an alias":                       {"https://sts.example/t1/", "", []string{"https://sts.example/t1/"}, jwtauth.Accepted},
		"any tenant":                     {template, "t1", nil, jwtauth.Accepted},
		"any tenant, of another one":     {template, "t2", nil, jwtauth.UnknownKey},
		"any tenant, without tid":        {template, "", nil, jwtauth.UnknownKey},
		"a tenant that is not its own":   {"https://login.example/personal/v2.0", "t1", nil, jwtauth.UnknownKey},
		"a tid that is the placeholder":  {template, "{tenantid}", nil, jwtauth.UnknownKey},
		"a tid that completes to others": {"https://login.example/{tenantid}", "t1/v2.0", nil, jwtauth.Accepted},
	} {
		t.Run(name, func(t *testing.T) {
			text := `{"kty":"oct","alg":"HS256","k":"` + b64(secret) + `","issuer":"` + tt.of + `"}`
			v := trusts(t, func(i *jwtauth.TrustedIssuer) {
				i.Issuer, i.Aliases = tenant, tt.aliases
				i.Keys = jwk.Static{mustKey(t, jwk.KeyConfig{JWK: []byte(text)})}
			})
			want(t, v, token(claims(map[string]any{"iss": tenant, "tid": tt.tid})), tt.want)
			want(t, v, token(claims(map[string]any{"iss": tenant, "tid": 7})), map[bool]jwtauth.Verdict{
				true: jwtauth.UnknownKey, false: tt.want}[strings.Contains(tt.of, "{")])
		})
	}
}

func TestAnyAudience(t *testing.T) {
	v := trusts(t, func(i *jwtauth.TrustedIssuer) { i.Audiences, i.DangerouslyAcceptAnyAudience = nil, true })
	for _, aud := range []string{`"aud":"https://other.example"`, `"aud":[]`, `"aud":null`, `"aud":""`, `"aud":{}`, `"x":1`} {
		want(t, v, plain(jwtHeader, `{"iss":"`+issuer+`","sub":"ann","exp":4102444800,`+aud+`}`), jwtauth.Accepted)
	}
	if got := must(v.Verify(t.Context(), good())).Audience; len(got) != 1 || got[0] != audience {
		t.Errorf("the audience is %q", got)
	}
}

func TestFaultsOfATrustedIssuer(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*jwtauth.TrustedIssuer)
		field  string
		reason string
	}{
		"an issuer with a line end":   {func(i *jwtauth.TrustedIssuer) { i.Issuer += "\n" }, "Issuer", "line end"},
		"an issuer with a blank":      {func(i *jwtauth.TrustedIssuer) { i.Issuer = " " + i.Issuer }, "Issuer", "blank"},
		"an audience with a line end": {func(i *jwtauth.TrustedIssuer) { i.Audiences = []string{"a", "b\r\n"} }, "Audiences", `"b\r\n" must not`},
		"an alias with a tab":         {func(i *jwtauth.TrustedIssuer) { i.Aliases = []string{"a\t"} }, "Aliases[0]", "blank"},
		"an empty alias":              {func(i *jwtauth.TrustedIssuer) { i.Aliases = []string{""} }, "Aliases[0]", "required"},
		"an alias with a bar":         {func(i *jwtauth.TrustedIssuer) { i.Aliases = []string{"a|b"} }, "Aliases[0]", "bar"},
		"an alias that is the issuer": {func(i *jwtauth.TrustedIssuer) { i.Aliases = []string{issuer} }, "Aliases", "already"},
		"an alias twice":              {func(i *jwtauth.TrustedIssuer) { i.Aliases = []string{"a", "a"} }, "Aliases", "already"},
		"an alias that is another":    {func(i *jwtauth.TrustedIssuer) { i.Aliases = []string{"https://first.example"} }, "Aliases", "already"},
		"a second without iss":        {func(i *jwtauth.TrustedIssuer) { i.WithoutIssuer = true }, "WithoutIssuer", "two"},
		"an empty type":               {func(i *jwtauth.TrustedIssuer) { i.Types = []string{"a", ""} }, "Types", `"JWT"`},
		"a type with a blank":         {func(i *jwtauth.TrustedIssuer) { i.Types = []string{"at+jwt "} }, "Types", "blank"},
		"a claim with a blank":        {func(i *jwtauth.TrustedIssuer) { i.RequiredClaims = []string{"email "} }, "RequiredClaims", "blank"},
		"a scope claim with a blank":  {func(i *jwtauth.TrustedIssuer) { i.ScopeClaims = []string{"\troles"} }, "ScopeClaims", "blank"},
		"an audience claim likewise":  {func(i *jwtauth.TrustedIssuer) { i.AudienceClaim = "azp " }, "AudienceClaim", "blank"},
		"no JSON Pointer":             {func(i *jwtauth.TrustedIssuer) { i.AudienceClaim = "/a~2" }, "AudienceClaim", "JSON Pointer"},
		"an end in an escape":         {func(i *jwtauth.TrustedIssuer) { i.AudienceClaim = "/a~" }, "AudienceClaim", "JSON Pointer"},
		"any audience, and one":       {func(i *jwtauth.TrustedIssuer) { i.DangerouslyAcceptAnyAudience = true }, "Audiences", "must be empty"},
		"any audience, and a claim": {func(i *jwtauth.TrustedIssuer) {
			i.Audiences, i.AudienceClaim, i.DangerouslyAcceptAnyAudience = nil, "azp", true
		}, "AudienceClaim", "must be empty"},
		"keys that were not made": {func(i *jwtauth.TrustedIssuer) { i.Keys = (*jwk.Remote)(nil) }, "Keys", "NewRemote"},
		"a claim for no audience": {func(i *jwtauth.TrustedIssuer) { i.Audiences, i.AudienceClaim = nil, "azp" }, "Audiences", "at least one"},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := hs256(t), hs256(t)
			first.Issuer, first.WithoutIssuer = "https://first.example", true
			tt.change(&second)
			_, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{first, second}})
			fault, ok := errors.AsType[*usher.ConfigError](err)
			if !ok || fault.Field != "jwtauth.Config.Issuers[1]."+tt.field || !strings.Contains(fault.Reason, tt.reason) {
				t.Errorf("%v", err)
			}
		})
	}
}
