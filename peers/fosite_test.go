package peers_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v3"
	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	oauth2strategy "github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/storage"
	"github.com/ory/fosite/token/jwt"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/usher-go/usher/jwtauth/jwk"
)

// fositeServer returns an authorization server built with Ory Fosite. With a key its
// access tokens are JWTs.
func fositeServer(t *testing.T, key *jose.JSONWebKey) *authorizationServer {
	t.Helper()
	ctx := t.Context()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	config := &fosite.Config{
		GlobalSecret:        []byte("some-super-cool-secret-that-is-32"),
		AccessTokenLifespan: time.Hour,
		AccessTokenIssuer:   server.URL,
		JWTScopeClaimKey:    jwt.JWTScopeFieldString,
		RefreshTokenScopes:  []string{"offline"},
		EnforcePKCE:         true,
		HashCost:            4,
	}
	hash := func(secret string) []byte {
		b, err := (&fosite.BCrypt{Config: config}).Hash(ctx, []byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	scopes := []string{"offline", "orders:read"}
	store := storage.NewMemoryStore()
	store.Clients = map[string]fosite.Client{
		"app": &fosite.DefaultClient{
			ID: "app", Public: true, RedirectURIs: []string{redirect}, ResponseTypes: []string{"code"},
			GrantTypes: []string{"authorization_code", "refresh_token"}, Scopes: scopes, Audience: []string{audience},
		},
		"job": &fosite.DefaultClient{ID: "job", Secret: hash("secret-of-the-job"), GrantTypes: []string{"client_credentials"}, Scopes: scopes},
		"api": &fosite.DefaultClient{ID: "api", Secret: hash("secret-of-the-api")},
	}
	var strategy oauth2strategy.CoreStrategy = compose.NewOAuth2HMACStrategy(config)
	if key != nil {
		strategy = compose.NewOAuth2JWTStrategy(func(context.Context) (any, error) { return key, nil }, strategy, config)
	}
	provider := compose.Compose(config, store, &compose.CommonStrategy{CoreStrategy: strategy},
		compose.OAuth2AuthorizeExplicitFactory, compose.OAuth2PKCEFactory, compose.OAuth2RefreshTokenGrantFactory,
		compose.OAuth2ClientCredentialsGrantFactory, compose.OAuth2TokenIntrospectionFactory, compose.OAuth2TokenRevocationFactory)
	grant := func(r fosite.Requester) {
		for _, scope := range r.GetRequestedScopes() {
			r.GrantScope(scope)
		}
		r.GrantAudience(audience)
	}
	session := func(subject, client string) *oauth2strategy.JWTSession {
		return &oauth2strategy.JWTSession{Subject: subject, JWTClaims: &jwt.JWTClaims{
			Subject: subject, Extra: map[string]any{"client_id": client},
		}}
	}
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		request, err := provider.NewAuthorizeRequest(r.Context(), r)
		if err != nil {
			provider.WriteAuthorizeError(r.Context(), w, request, err)
			return
		}
		grant(request)
		response, err := provider.NewAuthorizeResponse(r.Context(), request, session("alice", request.GetClient().GetID()))
		if err != nil {
			provider.WriteAuthorizeError(r.Context(), w, request, err)
			return
		}
		provider.WriteAuthorizeResponse(r.Context(), w, request, response)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		s := session("", "")
		request, err := provider.NewAccessRequest(r.Context(), r, s)
		if err != nil {
			provider.WriteAccessError(r.Context(), w, request, err)
			return
		}
		if request.GetGrantTypes().ExactOne("client_credentials") {
			// Introspections have no sub for a client, as for oidc-provider.
			s.JWTClaims.Subject = request.GetClient().GetID()
			s.JWTClaims.Extra["client_id"] = s.JWTClaims.Subject
			grant(request)
		}
		response, err := provider.NewAccessResponse(r.Context(), request)
		if err != nil {
			provider.WriteAccessError(r.Context(), w, request, err)
			return
		}
		provider.WriteAccessResponse(r.Context(), w, request, response)
	})
	mux.HandleFunc("POST /introspect", func(w http.ResponseWriter, r *http.Request) {
		response, err := provider.NewIntrospectionRequest(r.Context(), r, new(oauth2strategy.JWTSession))
		if err != nil {
			provider.WriteIntrospectionError(r.Context(), w, err)
			return
		}
		provider.WriteIntrospectionResponse(r.Context(), w, response)
	})
	mux.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) {
		provider.WriteRevocationResponse(r.Context(), w, provider.NewRevocationRequest(r.Context(), r))
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}})
	})
	return &authorizationServer{
		issuer: server.URL, audience: audience, api: "api", secret: "secret-of-the-api", prefix: "ory_at_",
		subject: "alice", scope: "orders:read",
		app: oauth2.Config{
			ClientID: "app", RedirectURL: redirect, Scopes: scopes,
			Endpoint: oauth2.Endpoint{AuthURL: server.URL + "/authorize", TokenURL: server.URL + "/token", AuthStyle: oauth2.AuthStyleInParams},
		},
		job: clientcredentials.Config{
			ClientID: "job", ClientSecret: "secret-of-the-job", TokenURL: server.URL + "/token", Scopes: []string{"orders:read"},
			AuthStyle: oauth2.AuthStyleInHeader,
		},
		jwks: server.URL + "/keys", introspection: server.URL + "/introspect", revocation: server.URL + "/revoke",
	}
}

// fositeJWT returns a server whose access tokens are JWTs.
func fositeJWT(t *testing.T, a jwk.Algorithm) *authorizationServer {
	t.Helper()
	s := fositeServer(t, &jose.JSONWebKey{KeyID: "1", Algorithm: string(a), Key: privateKey(t, a)})
	s.algorithm = a
	return s
}

// The responses of Fosite about the two tokens are equal, so nothing in them can
// distinguish the tokens.
func TestARefreshTokenOfFositeDoesNotOpenTheAPI(t *testing.T) {
	s := fositeServer(t, nil)
	tokens := s.authorize(t)
	for _, prefix := range []string{"", s.prefix} {
		s.prefix = prefix
		api := serveAPI(t, s.introspect(t))
		if status, _ := get(t, api, tokens.AccessToken); status != http.StatusOK {
			t.Errorf("prefix %q: the access token: %d", prefix, status)
		}
		if status, _ := get(t, api, tokens.RefreshToken); status != http.StatusUnauthorized {
			t.Errorf("prefix %q: the refresh token: %d", prefix, status)
		}
	}
}
