package jwtauth_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/jwtauth"
)

// A client that has read one challenge knows where to get a token, and for which scopes
// (RFC 6750, section 3; RFC 9728, section 5.1). So every challenge says so.
func TestEveryChallengeNamesMetadataAndScopes(t *testing.T) {
	const metadata = "https://api.example/.well-known/oauth-protected-resource"
	tokens := verifier(t, func(c *jwtauth.Config) {
		c.Realm, c.ResourceMetadata, c.Scopes = "api", metadata, []string{"read", "profile"}
	})
	server := new(publisher)
	server.Say(active(nil))
	opaque := introspection(t, server, func(c *jwtauth.IntrospectionConfig) {
		c.Realm, c.ResourceMetadata, c.Scopes = "api", metadata, []string{"read", "profile"}
	})
	scopes := func(list ...string) usher.Middleware { return usher.Require(usher.Requirement{Scopes: list}) }
	challenge := func(errorCode, scope string) []string {
		return []string{`Bearer realm="api"` + errorCode + `, scope="` + scope + `", resource_metadata="` + metadata + `"`}
	}
	reader := token(claims(map[string]any{"scope": "read"}))
	for name, tt := range map[string]struct {
		m      usher.Middleware
		token  string
		status int
		want   []string
	}{
		"no token":           {usher.Authenticate(tokens), "", 401, challenge("", "read profile")},
		"a bad token":        {usher.Authenticate(tokens), "x", 401, challenge(`, error="invalid_token"`, "read profile")},
		"a scope is missing": {usher.Chain(usher.Authenticate(tokens), scopes("admin", "read")), reader, 403, challenge(`, error="insufficient_scope"`, "read profile admin")},
		"a scope of two Requires": {
			usher.Chain(usher.Authenticate(tokens), scopes("read"), scopes("admin")), reader, 403, challenge(`, error="insufficient_scope"`, "read profile admin"),
		},
		"an anonymous caller":                {usher.Chain(usher.Authenticate(usher.Optional(tokens)), scopes("admin")), "", 401, challenge("", "read profile admin")},
		"a token need not have the scopes":   {usher.Authenticate(tokens), reader, 200, nil},
		"introspection: no token":            {usher.Authenticate(opaque), "", 401, challenge("", "read profile")},
		"introspection: a bad token":         {usher.Authenticate(opaque), "x,", 401, challenge(`, error="invalid_token"`, "read profile")},
		"introspection: a scope is missing":  {usher.Chain(usher.Authenticate(opaque), scopes("admin")), "opaque", 403, challenge(`, error="insufficient_scope"`, "read profile admin")},
		"introspection: of two in a request": {usher.Chain(usher.Authenticate(tokens, opaque), scopes("admin")), "opaque", 403, challenge(`, error="insufficient_scope"`, "read profile admin")},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			tt.m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, request(t, tt.token))
			if diff := compare.Diff(tt.want, w.Header().Values("WWW-Authenticate")); w.Code != tt.status || diff != "" {
				t.Errorf("%d (-want +got):\n%s", w.Code, diff)
			}
		})
	}
}

func TestTheScopesOfAChallengeAreScopes(t *testing.T) {
	list := []string{"read", "", "a b", `a"b`, "é"}
	_, err := jwtauth.New(jwtauth.Config{Scopes: list})
	wantFaults(t, err, "jwtauth.Config.Issuers", "jwtauth.Config.Scopes[1]", "jwtauth.Config.Scopes[2]", "jwtauth.Config.Scopes[3]", "jwtauth.Config.Scopes[4]")
	_, err = jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{
		Endpoint: "https://id.example", ClientID: "c", ClientSecret: "s", Issuer: "https://id.example", Audiences: []string{"a"}, Scopes: list[1:2],
	})
	wantFaults(t, err, "jwtauth.IntrospectionConfig.Scopes[0]")
}
