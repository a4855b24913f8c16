package jwtauth_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
)

// ofIssuer returns a verifier of tokens with this iss, whose principals have it as Owner.
func ofIssuer(t *testing.T, iss string, change func(*jwtauth.Config)) *jwtauth.Verifier {
	t.Helper()
	return verifier(t, func(c *jwtauth.Config) {
		c.Issuers[0].Issuer = iss
		c.Principal = func(_ *jwtauth.Token, p usher.Principal) usher.Principal {
			p.Owner = iss
			return p
		}
		if change != nil {
			change(c)
		}
	})
}

func TestVerifiersShareARouteByIssuer(t *testing.T) {
	a, b := ofIssuer(t, "https://a.example", nil), ofIssuer(t, "https://b.example", nil)
	of := func(iss string) string { return token(claims(map[string]any{"iss": iss})) }
	for name, list := range map[string][]usher.Authenticator{"one order": {a, b}, "the other": {b, a}} {
		t.Run(name, func(t *testing.T) {
			var caller usher.Principal
			h := usher.Authenticate(list...).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				caller, _ = usher.PrincipalFrom(r.Context())
			}))
			for range 2 { // verified, and remembered
				for _, iss := range []string{"https://a.example", "https://b.example"} {
					caller = usher.Principal{}
					if w := serve(h, request(t, of(iss))); w.Code != http.StatusOK || caller.Owner != iss {
						t.Errorf("%s: %d, %+v", iss, w.Code, caller)
					}
				}
			}
			forged := of("https://b.example")
			for text, name := range map[string]string{
				of("https://c.example"):                   "of another issuer",
				token(claims(map[string]any{"iss": nil})): "without iss",
				forged[:len(forged)-4] + "AAAA":           "with a forged signature",
				"garbage":                                 "of no form",
			} {
				if w := serve(h, request(t, text)); w.Code != http.StatusUnauthorized {
					t.Errorf("a token %s: %d", name, w.Code)
				}
			}
		})
	}
}

// Who verifies a token depends on its iss alone: a verifier that refuses it is the last.
func TestARefusalIsFinal(t *testing.T) {
	strict := ofIssuer(t, issuer, func(c *jwtauth.Config) { c.Issuers[0].RequiredClaims = []string{"email"} })
	lax := ofIssuer(t, issuer, nil)
	h := usher.Authenticate(strict, lax).Wrap(http.NotFoundHandler())
	if w := serve(h, request(t, good())); w.Code != http.StatusUnauthorized {
		t.Errorf("%d", w.Code)
	}
}

// The holder of a token cannot choose who verifies it: a spelling that the verifier of its
// issuer refuses is not handed to an authorization server that may be less strict.
func TestAnotherSpellingOfATokenDoesNotChangeWhoVerifiesIt(t *testing.T) {
	lax := introspecting(t, active(map[string]any{"sub": "hop"}), nil)
	a := ofIssuer(t, "https://a.example", nil)
	h := usher.Authenticate(a, lax).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		_, _ = io.WriteString(w, p.ID)
	}))
	of := func(payload string) string { return plain(jwtHeader, payload) }
	rest := `,"sub":"ann","aud":"` + audience + `","exp":4102444800}`
	good := of(`{"iss":"https://a.example"` + rest)
	parts := strings.Split(good, ".")
	jwe := b64([]byte(`{"alg":"dir","enc":"A256GCM"}`)) + "..iv.text.tag"
	for name, tt := range map[string]struct{ text, caller string }{
		"the token":                    {good, "https://a.example|ann"},
		"escapes":                      {of(`{"i\u0073s":"https:\/\/a.example"` + rest), "https://a.example|ann"},
		"opaque":                       {"opaque", "|hop"},
		"opaque, with dots":            {"ory_at_x.y", "|hop"},
		"opaque, like the first third": {parts[0], "|hop"},
		"encrypted":                    {jwe, "|hop"},
		"of the authorization server":  {of(`{"iss":"` + issuer + `"` + rest), "|hop"},
		"padded":                       {good + "=", ""},
		"a padded payload":             {parts[0] + "." + parts[1] + "=." + parts[2], ""},
		"a padded header":              {parts[0] + "=." + parts[1] + "." + parts[2], ""},
		"standard base64":              {parts[0] + "." + parts[1] + "." + parts[2][:40] + "+/", ""},
		"a dot at the end":             {good + ".", ""},
		"a fourth segment":             {good + ".x", ""},
		"as many segments as a JWE":    {good + ".x.y", ""},
		"two dots in the middle":       {parts[0] + ".." + parts[1] + "." + parts[2], ""},
		"no signature":                 {parts[0] + "." + parts[1] + ".", ""},
		"a signature of another":       {good[:len(good)-4] + "AAAA", ""},
		"two iss":                      {of(`{"iss":"https://a.example","iss":"` + issuer + `"` + rest), ""},
		"Iss":                          {of(`{"Iss":"` + issuer + `","iss":"https://a.example"` + rest), ""},
		"half of the payload":          {of(`{"iss":"` + issuer + `"`), ""},
		"a byte order mark":            {of("\ufeff" + `{"iss":"https://a.example"` + rest), ""},
		"too long":                     {of(`{"x":"` + strings.Repeat("x", 16<<10) + `","iss":"https://a.example"` + rest), ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(h, request(t, tt.text))
			if got := w.Body.String(); tt.caller == "" && w.Code != http.StatusUnauthorized ||
				tt.caller != "" && (w.Code != http.StatusOK || !strings.HasSuffix(got, tt.caller)) {
				t.Errorf("%d %.100s", w.Code, got)
			}
		})
	}
}
