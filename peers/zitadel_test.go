package peers_test

import (
	"context"
	"crypto"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/usher-go/usher/jwtauth/jwk"
)

// A zitadelStorage is the storage of zitadel's example with another key and, if jwt is
// true, JWTs as access tokens.
type zitadelStorage struct {
	*storage.Storage
	key zitadelKey
	jwt bool
}

// A zitadelKey is a private key with the ID "1".
type zitadelKey struct {
	algorithm jose.SignatureAlgorithm
	private   crypto.Signer
}

func (k zitadelKey) ID() string                                  { return "1" }
func (k zitadelKey) SignatureAlgorithm() jose.SignatureAlgorithm { return k.algorithm }
func (k zitadelKey) Key() any                                    { return k.private }

type zitadelPublicKey struct{ zitadelKey }

func (k zitadelPublicKey) Algorithm() jose.SignatureAlgorithm { return k.algorithm }
func (k zitadelPublicKey) Use() string                        { return "sig" }
func (k zitadelPublicKey) Key() any                           { return k.private.Public() }

func (s *zitadelStorage) SigningKey(context.Context) (op.SigningKey, error) { return s.key, nil }

func (s *zitadelStorage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{s.key.algorithm}, nil
}

func (s *zitadelStorage) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{zitadelPublicKey{s.key}}, nil
}

func (s *zitadelStorage) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	return s.client(s.Storage.GetClientByClientID(ctx, id))
}

func (s *zitadelStorage) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	return s.client(s.Storage.ClientCredentials(ctx, id, secret))
}

func (s *zitadelStorage) client(c op.Client, err error) (op.Client, error) {
	if err == nil && s.jwt {
		c = jwtClient{c}
	}
	return c, err
}

// A jwtClient gets JWTs as access tokens.
type jwtClient struct{ op.Client }

func (jwtClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

// zitadel returns a server of zitadel's library with the storage of its example.
func zitadel(t *testing.T, jwt bool, a jwk.Algorithm) *authorizationServer {
	t.Helper()
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)

	clients := map[string]*storage.Client{"app": storage.WebClient("app", "secret-of-the-app", redirect)}
	store := &zitadelStorage{
		Storage: storage.NewStorageWithClients(storage.NewUserStore(server.URL), clients),
		key:     zitadelKey{jose.SignatureAlgorithm(a), privateKey(t, a)}, jwt: jwt,
	}
	provider, err := op.NewProvider(&op.Config{
		CryptoKey: [32]byte{1}, CodeMethodS256: true, GrantTypeRefreshToken: true,
	}, store, op.StaticIssuer(server.URL), op.WithAllowInsecure())
	if err != nil {
		t.Fatal(err)
	}
	callback := op.AuthCallbackURL(provider)
	mux := http.NewServeMux()
	mux.Handle("/", provider)
	mux.Handle("/login/username", op.NewIssuerInterceptor(provider.IssuerFromRequest).HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("authRequestID")
		if err := store.CheckUsernamePassword("test-user@127.0.0.1", "verysecure", id); err != nil {
			t.Error(err)
		}
		http.Redirect(w, r, callback(r.Context(), id), http.StatusFound)
	}))
	handler = mux

	s := &authorizationServer{
		issuer: server.URL, audience: "app", algorithm: a, api: "app", secret: "secret-of-the-app", subject: "id1",
		app: oauth2.Config{
			ClientID: "app", ClientSecret: "secret-of-the-app", RedirectURL: redirect,
			Scopes: []string{"openid", "offline_access", storage.CustomScope}, Endpoint: oauth2.Endpoint{AuthStyle: oauth2.AuthStyleInHeader},
		},
		job: clientcredentials.Config{
			ClientID: "sid1", ClientSecret: "verysecret", Scopes: []string{"openid"}, AuthStyle: oauth2.AuthStyleInHeader,
		},
		scope: storage.CustomScope, noAudience: true, noJob: true,
	}
	if jwt {
		// Its ID tokens have the same typ and audience, and no jti. No token has a scope.
		s.required, s.scope = []string{"jti"}, ""
	}
	s.discover(t)
	return s
}
