package jwtauth_test

import (
	"net/http"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/jwtauth"
)

// What a claim in another case says reaches no field, neither in the token nor deep inside,
// and whichever comes last.
func TestClaimsAreDecodedByTheirExactNames(t *testing.T) {
	type realm struct {
		Roles []string `json:"roles"`
	}
	type claims struct {
		Role    string           `json:"role"`
		Realm   realm            `json:"realm"`
		Clients map[string]realm `json:"clients"`
		Groups  []realm          `json:"groups"`
	}
	user := realm{[]string{"user"}}
	for name, tt := range map[string]struct {
		members string
		want    claims
	}{
		"beside the claim, after it":  {`"role":"user","Role":"admin"`, claims{Role: "user"}},
		"beside the claim, before it": {`"ROLE":"admin","role":"user"`, claims{Role: "user"}},
		"alone":                       {`"ROLE":"admin"`, claims{}},
		"with an escape":              {`"\u0052ole":"admin"`, claims{}},
		"with a letter that is the same in another case": {`"realm":{"role\u017f":["admin"]}`, claims{}},
		"in an object":           {`"realm":{"roles":["user"],"ROLES":["admin"]}`, claims{Realm: user}},
		"an object":              {`"Realm":{"roles":["admin"]},"realm":{"roles":["user"]}`, claims{Realm: user}},
		"in an object by name":   {`"clients":{"api":{"roles":["user"],"Roles":["admin"]}}`, claims{Clients: map[string]realm{"api": user}}},
		"in an object of a list": {`"groups":[{"Roles":["admin"]},{"roles":["user"]}]`, claims{Groups: []realm{{}, user}}},
	} {
		t.Run(name, func(t *testing.T) {
			found := make(chan claims, 1)
			h := usher.Authenticate(verifier(t, nil)).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				found <- must(jwtauth.Claims[claims](r.Context()))
			}))
			h.ServeHTTP(discard{http.Header{}}, request(t, plain(jwtHeader, payload(tt.members))))
			select {
			case got := <-found:
				if !compare.Equal(got, tt.want) {
					t.Errorf("%+v, want %+v", got, tt.want)
				}
			default:
				t.Error("refused")
			}
		})
	}
}
