package peers_test

import (
	"net/url"
	"sync"
	"testing"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// oidcProvider returns a server of oidc-provider. Its access tokens are for an audience and
// have a format, opaque or jwt; its keys have an alg if they are named.
func oidcProvider(t *testing.T, audience, format string, a jwk.Algorithm, named bool) *authorizationServer {
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
	s.rotate = func() { provider.call(t, "rotate", object{"algorithm": a, "named": named}, nil) }
	return s
}

// A running server replaces its key ten times without notice. No valid token is refused,
// and the tokens of a key that is gone are.
func TestKeysOfARunningServerAreFollowed(t *testing.T) {
	for _, named := range []bool{true, false} {
		s := oidcProvider(t, audience, "jwt", jwk.ES256, named)
		api := serveAPI(t, verifier(t, s.trusted(s.keys(t))))
		tokens := s.authorize(t)
		first := tokens.AccessToken
		s.wantCaller(t, api, first, s.issuer+"|alice")
		for range 10 {
			s.rotate()
			tokens = s.refresh(t, tokens)
			var requests sync.WaitGroup
			for range 20 {
				requests.Go(func() { s.wantCaller(t, api, tokens.AccessToken, s.issuer+"|alice") })
			}
			requests.Wait()
		}
		wantRefusal(t, api, "a token of a key that is gone", first)
		s.wantCaller(t, api, tokens.AccessToken, s.issuer+"|alice")
	}
}
