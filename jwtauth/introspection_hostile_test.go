package jwtauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
)

// Some servers respond to a token that they cannot read with an error of the client. A
// client that sends many such tokens does not make the tokens of other clients
// unavailable.
func TestInventedTokensDoNotMakeTheServerCountAsDown(t *testing.T) {
	for _, status := range []int{200, 400, 413, 422} {
		synctest.Test(t, func(t *testing.T) {
			p := new(publisher)
			var calls atomic.Int64
			p.Serve(func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				if strings.HasPrefix(r.PostFormValue("token"), "junk") {
					w.WriteHeader(status)
					return
				}
				_, _ = io.WriteString(w, active(nil))
			})
			i := introspection(t, p, func(c *jwtauth.IntrospectionConfig) { c.OnError = func(context.Context, error) {} })
			for n := range 300 {
				if _, err := i.Authenticate(request(t, fmt.Sprint("junk", n))); statusOf(err) != 503 {
					t.Fatalf("junk: %v", err)
				}
				if n%10 == 0 {
					if _, err := i.Authenticate(request(t, fmt.Sprint("good", n))); err != nil {
						t.Fatalf("after %d tokens that the server refuses with %d: %v", n, status, err)
					}
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*usher.Error](err); ok {
		return e.Status
	}
	return 0
}

func TestIntrospectionResponsesThatCouldBeReadInTwoWays(t *testing.T) {
	with := func(members string) string { return "{" + members + "," + active(nil)[1:] }
	for name, tt := range map[string]struct {
		response string
		want     jwtauth.Verdict
	}{
		"Active false beside active":               {with(`"Active":false`), jwtauth.InvalidClaims},
		"TOKEN_TYPE of a refresh token":            {with(`"TOKEN_TYPE":"refresh_token"`), jwtauth.InvalidClaims},
		"Exp beside exp":                           {with(`"Exp":1`), jwtauth.InvalidClaims},
		"CNF alone":                                {with(`"CNF":{}`), jwtauth.InvalidClaims},
		"Scope beside scope":                       {with(`"Scope":"admin"`), jwtauth.InvalidClaims},
		"a name twice deep inside":                 {with(`"act":{"sub":"a","sub":"b"}`), jwtauth.Unavailable},
		"members of applications in another case":  {with(`"Sid":"1","Permissions":"x","role":"a","Role":"b"`), jwtauth.Accepted},
		"more than a hundred members, none useful": {with(manyMembers(200)), jwtauth.Accepted},
	} {
		t.Run(name, func(t *testing.T) {
			i := introspecting(t, tt.response, func(c *jwtauth.IntrospectionConfig) { c.OnError = func(context.Context, error) {} })
			want(t, i, opaque, tt.want)
		})
	}
}
