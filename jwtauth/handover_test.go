package jwtauth_test

import (
	"net/http"
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
