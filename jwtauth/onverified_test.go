package jwtauth_test

import (
	"context"
	"strings"
	"testing"

	"github.com/usher-go/usher/jwtauth"
)

func TestOnVerifiedGetsEachValidTokenWhenItIsVerified(t *testing.T) {
	for name, c := range map[string]struct{ capacity, calls int }{
		"tokens are remembered":  {0, 1},
		"no token is remembered": {-1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			v := verifier(t, func(config *jwtauth.Config) {
				config.CacheCapacity = c.capacity
				config.Issuers[0].OnVerified = func(_ context.Context, t *jwtauth.Token) { got = append(got, t.Subject) }
			})
			for _, invalid := range []string{
				token(claims(map[string]any{"aud": "https://other.example"})), token(claims(map[string]any{"exp": 1})),
				token(claims(nil)) + "x",
			} {
				if _, err := v.Authenticate(request(t, invalid)); err == nil {
					t.Error("accepted")
				}
			}
			valid := token(claims(map[string]any{"sub": "ann"}))
			for range 3 {
				want(t, v, valid, jwtauth.Accepted)
			}
			if strings.Join(got, " ") != strings.TrimSpace(strings.Repeat("ann ", c.calls)) {
				t.Errorf("called for %q", got)
			}
		})
	}
}

func TestAPanicOfOnVerifiedIsReported(t *testing.T) {
	var reported []error
	v := verifier(t, func(c *jwtauth.Config) {
		c.Issuers[0].OnVerified = func(context.Context, *jwtauth.Token) { panic("oops") }
		c.OnError = func(_ context.Context, err error) { reported = append(reported, err) }
	})
	want(t, v, token(claims(nil)), jwtauth.Accepted)
	if len(reported) != 1 || !strings.Contains(reported[0].Error(), "OnVerified") {
		t.Errorf("reported %v", reported)
	}
}
