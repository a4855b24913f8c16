package peers_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

// A challenge is one that oauth4webapi has read.
type challenge struct {
	Scheme     string
	Parameters map[string]string
}

// formats are those of the access tokens of oidc-provider, each with an authenticator for
// them.
var formats = map[string]func(t *testing.T, s *authorizationServer, c jwtauth.Config) (usher.Authenticator, error){
	"jwt": func(t *testing.T, s *authorizationServer, c jwtauth.Config) (usher.Authenticator, error) {
		c.Issuers = []jwtauth.TrustedIssuer{s.trusted(s.keys(t))}
		return jwtauth.New(c)
	},
	"opaque": func(t *testing.T, s *authorizationServer, c jwtauth.Config) (usher.Authenticator, error) {
		i := s.introspectionConfig(t)
		i.Realm, i.ResourceMetadata, i.Scopes = c.Realm, c.ResourceMetadata, c.Scopes
		return jwtauth.NewIntrospection(i)
	},
}

// serveShop serves an API with the routes /orders and /refunds, which require a scope each,
// and its metadata, and returns its URL. A server of oidc-provider issues its tokens, and
// the client has discovered that.
func serveShop(t *testing.T, client *script, format string) (api string, s *authorizationServer) {
	t.Helper()
	mux := http.NewServeMux()
	api = "http://" + serve(t, mux) + "/shop"
	s = oidcProvider(t, api, format, jwk.ES256, true)
	metadata, err := jwtauth.NewResourceMetadata(jwtauth.ResourceMetadataConfig{
		Resource: api, AuthorizationServers: []string{s.issuer}, Scopes: []string{"orders:read", "orders:write"},
	})
	if err != nil {
		t.Fatal(err)
	}
	metadata.Register(mux)
	a, err := formats[format](t, s, jwtauth.Config{
		Realm: "shop", ResourceMetadata: metadata.URL(), Scopes: []string{"orders:read"}, OnError: unexpected(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, scope := range map[string]string{"/shop/orders": "orders:read", "/shop/refunds": "orders:write"} {
		mux.Handle("GET "+path, usher.Chain(usher.Authenticate(a), usher.Require(usher.Requirement{Scopes: []string{scope}})).
			Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				p, _ := usher.PrincipalFrom(r.Context())
				_ = json.NewEncoder(w).Encode(p.ID)
			})))
	}
	var resource struct {
		Resource string   `json:"resource"`
		Servers  []string `json:"authorization_servers"`
	}
	client.call(t, "discover", object{"api": api, "client": "app", "redirect": redirect}, &resource)
	if resource.Resource != api || len(resource.Servers) != 1 || resource.Servers[0] != s.issuer {
		t.Errorf("%+v", resource)
	}
	return api, s
}

// authorize has a browser authorize a client for these scopes.
func authorize(t *testing.T, client *script, scopes string) {
	t.Helper()
	var address, granted string
	client.call(t, "authorize", object{"scope": "openid offline_access " + scopes}, &address)
	client.call(t, "exchange", object{"query": browse(t, address).Encode()}, &granted)
	if !strings.Contains(granted, scopes) {
		t.Errorf("%q was granted for %q", granted, scopes)
	}
}

// A client that knows only the URL of an API finds its authorization server, asks for the
// scopes that the challenges name, and gets in, whatever the format of the tokens.
func TestAClientOfOAuth4WebAPIFindsItsWay(t *testing.T) {
	for format := range formats {
		t.Run(format, func(t *testing.T) {
			client := runScript(t, "client.js")
			api, s := serveShop(t, client, format)
			want := func(code, scope string, got []challenge) {
				t.Helper()
				if len(got) != 1 || got[0].Scheme != "bearer" {
					t.Fatalf("%+v", got)
				}
				p := got[0].Parameters
				if p["error"] != code || p["scope"] != scope || p["realm"] != "shop" ||
					p["resource_metadata"] != strings.TrimSuffix(api, "/shop")+"/.well-known/oauth-protected-resource/shop" {
					t.Errorf("%+v", p)
				}
			}
			challenges := func(params object) (got []challenge) {
				t.Helper()
				client.call(t, "challenge", params, &got)
				return got
			}
			request := func(path string) {
				t.Helper()
				var response struct {
					Status int
					Body   string
				}
				client.call(t, "request", object{"path": path}, &response)
				if response.Status != http.StatusOK || response.Body != s.issuer+"|alice" {
					t.Errorf("%+v", response)
				}
			}

			got := challenges(object{"path": "/shop/orders", "token": "unknown"})
			want("invalid_token", "orders:read", got)
			authorize(t, client, got[0].Parameters["scope"])
			request("/shop/orders")

			got = challenges(object{"path": "/shop/refunds"})
			want("insufficient_scope", "orders:read orders:write", got)
			authorize(t, client, got[0].Parameters["scope"])
			request("/shop/refunds")
			request("/shop/orders")

			client.call(t, "refresh", nil, nil)
			request("/shop/orders")
			if format == "opaque" {
				client.call(t, "revoke", nil, nil)
				want("invalid_token", "orders:read", challenges(object{"path": "/shop/orders"}))
			}
		})
	}
}

// A token that is bound to a key of its client (RFC 9449) opens nothing, with a proof or
// without one, unless the API confirms that.
func TestTokensThatOIDCProviderHasBoundAreRefused(t *testing.T) {
	for format := range formats {
		t.Run(format, func(t *testing.T) {
			client := runScript(t, "client.js")
			api, _ := serveShop(t, client, format)
			client.call(t, "bind", nil, nil)
			authorize(t, client, "orders:read")
			var tokens struct {
				Type   string `json:"token_type"`
				Access string `json:"access_token"`
			}
			client.call(t, "tokens", nil, &tokens)
			if tokens.Type != "dpop" {
				t.Fatalf("the token is not bound: %+v", tokens)
			}
			wantRefusal(t, api+"/orders", "a bound token", tokens.Access)
			var challenges []challenge
			client.call(t, "challenge", object{"path": "/shop/orders"}, &challenges)
			if len(challenges) != 1 || challenges[0].Scheme != "bearer" {
				t.Errorf("%+v", challenges)
			}
		})
	}
}

// An API built with oauth4webapi accepts the access tokens of sessions whose type is that
// of RFC 9068, and those of oidc-provider that usher accepts.
func TestOAuth4WebAPIAcceptsAccessTokensOfSessions(t *testing.T) {
	api := runScript(t, "client.js")
	for _, a := range common {
		manager := sessions(t, session.Config{Type: "at+jwt", Keys: []session.SigningKey{{Key: newKey(t, a)}}})
		validate := object{
			"issuer": sessionIssuer, "jwks": "http://" + serve(t, http.HandlerFunc(manager.ServeJWKS)),
			"audience": audience, "token": login(t, manager).AccessToken(),
		}
		var verified object
		api.call(t, "validate", validate, &verified)
		if verified["sub"] != "alice" || verified["client_id"] != "app" || verified["scope"] != "orders:read" {
			t.Errorf("%s: %v", a, verified)
		}
		if exp, _ := verified["exp"].(float64); time.Until(time.Unix(int64(exp), 0)) > time.Hour {
			t.Errorf("%s: exp %v", a, verified["exp"])
		}
		for name, changes := range map[string]object{
			"another audience": {"audience": audience + "/other"},
			"another issuer":   {"issuer": sessionIssuer + "/other"},
		} {
			var thrown *scriptError
			if err := api.try(t, "validate", with(validate, changes), nil); !errors.As(err, &thrown) {
				t.Errorf("%s, %s: %v", a, name, err)
			}
		}
	}
}
