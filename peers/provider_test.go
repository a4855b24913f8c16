package peers_test

import (
	"net/url"
	"testing"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// oidcProvider returns a server of oidc-provider. Its access tokens have a format, opaque
// or jwt; its keys have an alg if they are named.
func oidcProvider(t *testing.T, format string, a jwk.Algorithm, named bool) *authorizationServer {
	t.Helper()
	provider := runScript(t, "provider.js")
	s := &authorizationServer{
		audience: audience, algorithm: a, api: "api", secret: "secret-of-the-api",
		required: []string{"token_type"}, subject: "alice", scope: "orders:read",
		app: oauth2.Config{
			ClientID: "app", RedirectURL: redirect, Scopes: []string{"openid", "offline_access", "orders:read"},
			Endpoint: oauth2.Endpoint{AuthStyle: oauth2.AuthStyleInParams},
		},
		job: clientcredentials.Config{
			ClientID: "job", ClientSecret: "secret-of-the-job", Scopes: []string{"orders:read"},
			AuthStyle: oauth2.AuthStyleInHeader, EndpointParams: url.Values{"resource": {audience}},
		},
	}
	if format == "jwt" {
		s.profile, s.required = jwtauth.ProfileAccessToken, nil
	}
	provider.call(t, "start", object{"audience": audience, "format": format, "algorithm": a, "named": named, "redirect": redirect}, &s.issuer)
	s.discover(t)
	return s
}
