package peers_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/storage"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
)

const api = "https://api.example"

// fositeServer is an authorization server built with Ory Fosite, as its own examples
// build one. Its tokens are for api.
func fositeServer(tb testing.TB) *httptest.Server {
	tb.Helper()
	config := &fosite.Config{
		GlobalSecret:        []byte("some-super-cool-secret-that-is-32"),
		AccessTokenLifespan: time.Hour,
		RefreshTokenScopes:  []string{"offline"},
	}
	provider := compose.Compose(config, storage.NewExampleStore(),
		&compose.CommonStrategy{CoreStrategy: compose.NewOAuth2HMACStrategy(config)},
		compose.OAuth2ResourceOwnerPasswordCredentialsFactory, //nolint:staticcheck // the shortest way to a refresh token
		compose.OAuth2TokenIntrospectionFactory)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		request, err := provider.NewAccessRequest(ctx, r, new(fosite.DefaultSession))
		if err != nil {
			provider.WriteAccessError(ctx, w, request, err)
			return
		}
		for _, scope := range request.GetRequestedScopes() {
			request.GrantScope(scope)
		}
		request.GrantAudience(api)
		response, err := provider.NewAccessResponse(ctx, request)
		if err != nil {
			provider.WriteAccessError(ctx, w, request, err)
			return
		}
		provider.WriteAccessResponse(ctx, w, request, response)
	})
	mux.HandleFunc("POST /introspect", func(w http.ResponseWriter, r *http.Request) {
		response, err := provider.NewIntrospectionRequest(r.Context(), r, new(fosite.DefaultSession))
		if err != nil {
			provider.WriteIntrospectionError(r.Context(), w, err)
			return
		}
		provider.WriteIntrospectionResponse(r.Context(), w, response)
	})
	s := httptest.NewServer(mux)
	tb.Cleanup(s.Close)
	return s
}

// fositePost sends a form as the client of the example store.
func fositePost(tb testing.TB, address string, form url.Values) []byte {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		tb.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("my-client", "foobar")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		tb.Fatalf("%s: %d %s %v", address, resp.StatusCode, body, err)
	}
	return body
}

func TestARefreshTokenOfFositeDoesNotOpenTheAPI(t *testing.T) {
	server := fositeServer(t)
	var tokens struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if err := json.Unmarshal(fositePost(t, server.URL+"/token", url.Values{
		"grant_type": {"password"}, "username": {"peter"}, "password": {"secret"}, "scope": {"fosite offline"},
	}), &tokens); err != nil || tokens.Access == "" || tokens.Refresh == "" {
		t.Fatalf("%+v %v", tokens, err)
	}
	// The responses are equal, so nothing in them can distinguish the two tokens.
	ask := func(token string) string {
		return string(fositePost(t, server.URL+"/introspect", url.Values{"token": {token}, "token_type_hint": {"access_token"}}))
	}
	if access, refresh := ask(tokens.Access), ask(tokens.Refresh); access != refresh {
		t.Logf("Fosite distinguishes them now: %s%s", access, refresh)
	}
	for _, prefix := range []string{"", "ory_at_"} {
		introspection, err := jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{
			Endpoint: server.URL + "/introspect", DangerouslyAllowHTTP: true, ClientID: "my-client", ClientSecret: "foobar",
			Issuer: server.URL, Audiences: []string{api}, TokenPrefix: prefix,
		})
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewServer(usher.Chain(
			usher.Authenticate(introspection), usher.Require(usher.Requirement{Scopes: []string{"fosite"}}),
		).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		defer s.Close()
		for _, tt := range []struct {
			name, token string
			want        int
		}{{"access", tokens.Access, http.StatusOK}, {"refresh", tokens.Refresh, http.StatusUnauthorized}} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+tt.token)
			resp, err := s.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != tt.want {
				t.Errorf("the %s token: %d, want %d", tt.name, resp.StatusCode, tt.want)
			}
		}
	}
}
