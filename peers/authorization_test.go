package peers_test

import (
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/storage"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// redirect is where authorization servers send a browser with a code. Nothing listens
// there.
const redirect = "http://127.0.0.1:9/callback"

// An authorizationServer is a server of another library on the loopback, in which alice
// logs in without a page. Its access tokens are for the API.
type authorizationServer struct {
	issuer    string
	audience  string
	algorithm jwk.Algorithm
	// app is a client for people, and job one without them.
	app oauth2.Config
	job clientcredentials.Config
	// jwks, introspection and revocation are endpoints, which metadata names if it is true.
	jwks, introspection, revocation string
	metadata                        bool
	// api and secret authenticate the API at the endpoint for introspection.
	api, secret string
	// prefix and required distinguish access tokens from refresh tokens in the responses to
	// introspections, and required JWTs from ID tokens: see package jwtauth.
	prefix   string
	required []string
	profile  jwtauth.Profile // of JWTs
	subject  string          // alice
	scope    string          // of access tokens, or "" if they have none
	// noAudience means that introspections have no aud, and noJob that only JWTs are for
	// the job.
	noAudience, noJob bool
	// rotate replaces the key without notice.
	rotate func()
}

// discover fills in the endpoints from the metadata of the server.
func (s *authorizationServer) discover(t *testing.T) {
	t.Helper()
	resp, err := http.Get(s.issuer + "/.well-known/openid-configuration") //nolint:noctx // It is a test on the loopback.
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var m struct {
		Issuer        string `json:"issuer"`
		Authorization string `json:"authorization_endpoint"`
		Token         string `json:"token_endpoint"`
		JWKS          string `json:"jwks_uri"`
		Introspection string `json:"introspection_endpoint"`
		Revocation    string `json:"revocation_endpoint"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil || m.Issuer != s.issuer {
		t.Fatalf("%+v %v", m, err)
	}
	s.metadata = true
	s.app.Endpoint.AuthURL, s.app.Endpoint.TokenURL, s.job.TokenURL = m.Authorization, m.Token, m.Token
	s.jwks, s.introspection, s.revocation = m.JWKS, m.Introspection, m.Revocation
}

// authorize runs the code flow with PKCE as a browser and the app do, and returns the
// tokens.
func (s *authorizationServer) authorize(t *testing.T) *oauth2.Token {
	t.Helper()
	verifier := oauth2.GenerateVerifier()
	address := s.app.AuthCodeURL("some-unguessable-state", oauth2.SetAuthURLParam("prompt", "consent"), oauth2.S256ChallengeOption(verifier))
	back := browse(t, address)
	if back.Get("state") != "some-unguessable-state" {
		t.Fatalf("%s led to %v", address, back)
	}
	token, err := s.app.Exchange(t.Context(), back.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	if token.RefreshToken == "" {
		t.Fatal("no refresh token")
	}
	return token
}

// browse returns the parameters with which a server sends a browser back to redirect.
func browse(t *testing.T, address string) (back url.Values) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), redirect) {
			back = r.URL.Query()
			return http.ErrUseLastResponse
		}
		return nil
	}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := browser.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if back.Get("code") == "" {
		t.Fatalf("%s: %s led to %v", resp.Status, address, back)
	}
	return back
}

// idToken returns the ID token beside an access token.
func idToken(token *oauth2.Token) string {
	text, _ := token.Extra("id_token").(string)
	return text
}

// refresh exchanges the refresh token.
func (s *authorizationServer) refresh(t *testing.T, token *oauth2.Token) *oauth2.Token {
	t.Helper()
	token, err := s.app.TokenSource(t.Context(), &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// credentials returns an access token of the job.
func (s *authorizationServer) credentials(t *testing.T) string {
	t.Helper()
	token, err := s.job.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return token.AccessToken
}

// revoke revokes a token as the app (RFC 7009).
func (s *authorizationServer) revoke(t *testing.T, token string) {
	t.Helper()
	form := url.Values{"token": {token}}
	if s.app.Endpoint.AuthStyle == oauth2.AuthStyleInParams {
		form.Set("client_id", s.app.ClientID)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.revocation, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if s.app.Endpoint.AuthStyle == oauth2.AuthStyleInHeader {
		r.SetBasicAuth(s.app.ClientID, s.app.ClientSecret)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", s.revocation, resp.Status)
	}
}

// introspectionConfig returns the configuration of an Introspection by the server that
// remembers nothing.
func (s *authorizationServer) introspectionConfig(t *testing.T) jwtauth.IntrospectionConfig {
	c := jwtauth.IntrospectionConfig{
		Endpoint: s.introspection, ClientID: s.api, ClientSecret: s.secret, Issuer: s.issuer,
		Audiences: []string{s.audience}, TokenPrefix: s.prefix, RequiredClaims: s.required,
		CacheTTL: time.Nanosecond, DangerouslyAllowHTTP: true, OnError: unexpected(t),
	}
	if s.noAudience {
		c.Audiences, c.DangerouslyAcceptAnyAudience = nil, true
	}
	return c
}

// introspect returns an Introspection by the server.
func (s *authorizationServer) introspect(t *testing.T) *jwtauth.Introspection {
	t.Helper()
	i, err := jwtauth.NewIntrospection(s.introspectionConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// keys returns the key set of the server: that of its metadata, if it has some.
func (s *authorizationServer) keys(t *testing.T) *jwk.Remote {
	t.Helper()
	if s.metadata {
		return remote(t, jwk.RemoteConfig{Issuer: s.issuer})
	}
	return remote(t, jwk.RemoteConfig{URL: s.jwks})
}

// trusted returns the server as an issuer of JWTs.
func (s *authorizationServer) trusted(keys jwk.Set) jwtauth.TrustedIssuer {
	return jwtauth.TrustedIssuer{
		Issuer: s.issuer, Audiences: []string{s.audience, s.job.ClientID}, Algorithms: []jwk.Algorithm{s.algorithm}, Keys: keys,
		Profile: s.profile, RequiredClaims: s.required,
	}
}

// wantCaller fails the test unless the API accepts a token, and takes its caller for id.
func (s *authorizationServer) wantCaller(t *testing.T, api, token, id string) {
	t.Helper()
	status, c := get(t, api, token)
	if status != http.StatusOK || c.ID != id {
		t.Errorf("%d %+v, want the caller %s", status, c, id)
	}
	if s.scope != "" && !slices.Contains(c.Scopes, s.scope) {
		t.Errorf("%+v has no scope", c)
	}
}

// wantRefusal fails the test unless the API refuses a token.
func wantRefusal(t *testing.T, api, what, token string) {
	t.Helper()
	if status, c := get(t, api, token); status != http.StatusUnauthorized {
		t.Errorf("%s: %d %+v", what, status, c)
	}
}

// Of what a server issues, only access tokens open the API, and only until they are
// revoked.
func TestIntrospectionAcceptsAccessTokensAndNothingElse(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *authorizationServer{
		"oidc-provider": func(t *testing.T) *authorizationServer { return oidcProvider(t, audience, "opaque", jwk.RS256, true) },
		// Then only RequiredClaims distinguishes its refresh tokens.
		"oidc-provider and any audience": func(t *testing.T) *authorizationServer {
			s := oidcProvider(t, audience, "opaque", jwk.RS256, true)
			s.noAudience = true
			return s
		},
		"zitadel": func(t *testing.T) *authorizationServer { return zitadel(t, false, jwk.RS256) },
		"fosite":  func(t *testing.T) *authorizationServer { return fositeServer(t, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			api := serveAPI(t, s.introspect(t))
			tokens := s.authorize(t)
			s.wantCaller(t, api, tokens.AccessToken, s.issuer+"|"+s.subject)
			wantRefusal(t, api, "a refresh token", tokens.RefreshToken)
			wantRefusal(t, api, "an unknown token", tokens.AccessToken+"x")
			if text := idToken(tokens); text != "" {
				wantRefusal(t, api, "an ID token", text)
			}
			if !s.noJob {
				// The responses have a client_id and no sub.
				s.wantCaller(t, api, s.credentials(t), "|"+s.issuer+"|job")
			}

			refreshed := s.refresh(t, tokens)
			s.wantCaller(t, api, refreshed.AccessToken, s.issuer+"|"+s.subject)
			wantRefusal(t, api, "a refresh token", refreshed.RefreshToken)
			s.revoke(t, refreshed.AccessToken)
			wantRefusal(t, api, "a revoked token", refreshed.AccessToken)
			s.revoke(t, refreshed.RefreshToken)
			wantRefusal(t, api, "a revoked refresh token", refreshed.RefreshToken)
		})
	}
}

// The same for servers whose access tokens are JWTs.
func TestAVerifierAcceptsAccessTokensAndNothingElse(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *authorizationServer{
		"oidc-provider ES256":             func(t *testing.T) *authorizationServer { return oidcProvider(t, audience, "jwt", jwk.ES256, true) },
		"oidc-provider PS256 without alg": func(t *testing.T) *authorizationServer { return oidcProvider(t, audience, "jwt", jwk.PS256, false) },
		"oidc-provider EdDSA without alg": func(t *testing.T) *authorizationServer { return oidcProvider(t, audience, "jwt", jwk.EdDSA, false) },
		"zitadel RS256":                   func(t *testing.T) *authorizationServer { return zitadel(t, true, jwk.RS256) },
		"zitadel ES256":                   func(t *testing.T) *authorizationServer { return zitadel(t, true, jwk.ES256) },
		"zitadel EdDSA":                   func(t *testing.T) *authorizationServer { return zitadel(t, true, jwk.EdDSA) },
		"fosite ES256":                    func(t *testing.T) *authorizationServer { return fositeJWT(t, jwk.ES256) },
		"fosite PS512":                    func(t *testing.T) *authorizationServer { return fositeJWT(t, jwk.PS512) },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			api := serveAPI(t, verifier(t, s.trusted(s.keys(t))))
			tokens := s.authorize(t)
			s.wantCaller(t, api, tokens.AccessToken, s.issuer+"|"+s.subject)
			wantRefusal(t, api, "a refresh token", tokens.RefreshToken)
			if text := idToken(tokens); text != "" {
				wantRefusal(t, api, "an ID token", text)
			}
			refreshed := s.refresh(t, tokens)
			s.wantCaller(t, api, refreshed.AccessToken, s.issuer+"|"+s.subject)
			s.wantCaller(t, api, s.credentials(t), s.issuer+"|"+s.job.ClientID)
		})
	}
}

// One API takes the tokens of four servers, two by verification and two by introspection.
// Each authenticator recognizes its own.
func TestTokensOfSeveralServersOpenOneAPI(t *testing.T) {
	provider, fosite := oidcProvider(t, audience, "jwt", jwk.ES256, true), fositeServer(t, nil)
	introspected := zitadel(t, true, jwk.ES256)
	introspected.required, introspected.scope = nil, storage.CustomScope
	issuer, sign := goOIDC(t, jwk.PS256, false)
	api := serveAPI(t,
		fosite.introspect(t), introspected.introspect(t), verifier(t, provider.trusted(provider.keys(t))),
		verifier(t, jwtauth.TrustedIssuer{
			Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.PS256},
			Keys: remote(t, jwk.RemoteConfig{Issuer: issuer}),
		}))
	for _, s := range []*authorizationServer{provider, fosite, introspected} {
		tokens := s.authorize(t)
		s.wantCaller(t, api, tokens.AccessToken, s.issuer+"|"+s.subject)
		wantRefusal(t, api, "a refresh token", tokens.RefreshToken)
	}
	own := with(claims(), object{"iss": issuer})
	if status, c := get(t, api, sign(own)); status != http.StatusOK || c.ID != issuer+"|alice" {
		t.Errorf("%d %+v", status, c)
	}
	for _, s := range []string{provider.issuer, fosite.issuer, introspected.issuer, "https://other.example"} {
		wantRefusal(t, api, "a token in the name of "+s, sign(with(own, object{"iss": s})))
	}
}
