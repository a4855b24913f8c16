package peers_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// An authorization is what a client requests when it sends its user to the authorization
// server.
type authorization struct{ Scope, Resource string }

// sorted returns all with the scopes of each in order: the client for Go has them in any.
func sorted(all []authorization) []authorization {
	all = slices.Clone(all)
	for i := range all {
		scopes := strings.Fields(all[i].Scope)
		slices.Sort(scopes)
		all[i].Scope = strings.Join(scopes, " ")
	}
	return all
}

// An mcpClient is a client of the Model Context Protocol with its tokens. It calls the tool
// whoami of a server, with a header field that makes the tool need more scopes if step is
// set. It returns the text of the result and all authorizations of the client so far.
type mcpClient func(t *testing.T, url string, step bool) (text string, all []authorization, err error)

// stepHeader is the field of requests that need more scopes.
const stepHeader = "X-Step"

// typeScriptClients returns a function that makes clients. Without an ID they register
// themselves.
func typeScriptClients(t *testing.T) func(t *testing.T, id string) mcpClient {
	t.Helper()
	sdk := runScript(t, "mcp.js")
	return func(t *testing.T, id string) mcpClient {
		t.Helper()
		sdk.call(t, "forget", object{"redirect": redirect, "clientID": id}, nil)
		return func(t *testing.T, url string, step bool) (text string, all []authorization, err error) {
			t.Helper()
			header := object{}
			if step {
				header[stepHeader] = "1"
			}
			var result struct {
				Text           string
				Authorizations []authorization
			}
			err = sdk.try(t, "call", object{"url": url, "tool": "whoami", "header": header}, &result)
			return result.Text, result.Authorizations, err
		}
	}
}

// A stepTransport sends the field of requests that need more scopes.
type stepTransport struct{}

func (stepTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(stepHeader, "1")
	return http.DefaultTransport.RoundTrip(r)
}

func goClient(t *testing.T, id string) mcpClient {
	t.Helper()
	var all []authorization
	c := auth.AuthorizationCodeHandlerConfig{
		RedirectURL: redirect,
		AuthorizationCodeFetcher: func(ctx context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, args.URL, http.NoBody)
			if err != nil {
				return nil, err
			}
			q := r.URL.Query()
			all = append(all, authorization{q.Get("scope"), q.Get("resource")})
			back := browse(t, args.URL)
			return &auth.AuthorizationResult{Code: back.Get("code"), State: back.Get("state"), Iss: back.Get("iss")}, nil
		},
	}
	if id != "" {
		c.PreregisteredClient = &oauthex.ClientCredentials{ClientID: id}
	} else {
		c.DynamicClientRegistrationConfig = &auth.DynamicClientRegistrationConfig{Metadata: &oauthex.ClientRegistrationMetadata{
			ClientName: "notes", RedirectURIs: []string{redirect}, TokenEndpointAuthMethod: "none",
			GrantTypes: []string{"authorization_code", "refresh_token"}, ResponseTypes: []string{"code"},
		}}
	}
	handler, err := auth.NewAuthorizationCodeHandler(&c)
	if err != nil {
		t.Fatal(err)
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "notes", Version: "1"}, nil)
	return func(t *testing.T, url string, step bool) (string, []authorization, error) {
		t.Helper()
		transport := mcp.StreamableClientTransport{Endpoint: url, OAuthHandler: handler, DisableStandaloneSSE: true, MaxRetries: -1}
		if step {
			transport.HTTPClient = &http.Client{Transport: stepTransport{}}
		}
		s, err := client.Connect(t.Context(), &transport, nil)
		if err != nil {
			return "", all, err
		}
		defer func() { _ = s.Close() }()
		result, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: "whoami"})
		if err != nil {
			return "", all, err
		}
		text, _ := result.Content[0].(*mcp.TextContent)
		return text.Text, all, nil
	}
}

// whoami is a server with a tool that returns the ID of the caller.
var whoami = mcp.NewStreamableHTTPHandler(func(r *http.Request) *mcp.Server {
	p, _ := usher.PrincipalFrom(r.Context())
	s := mcp.NewServer(&mcp.Implementation{Name: "notes", Version: "1"}, nil)
	mcp.AddTool(s, &mcp.Tool{Name: "whoami"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: p.ID}}}, nil, nil
	})
	return s
}, &mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true})

// An mcpSetup is how a server of the Model Context Protocol is protected.
type mcpSetup struct {
	resource string // path of the resource
	metadata jwtauth.ResourceMetadataConfig
	// hidden means that no challenge names the metadata.
	hidden bool
	scopes []string // of the challenges
	// apart means that the metadata is at a URL of its own.
	apart bool
	check func(context.Context, *jwtauth.Token) error
	// before and after are listed beside the authenticator of tokens.
	before, after usher.Authenticator
	// registers means that the client is unknown to the authorization server. That of the
	// tests gives such a client no more scopes than it has registered for.
	registers bool
}

// serveMCP serves the tool at /notes for orders:read, and for orders:write too if a request
// needs more. It returns its origin and the issuer of its tokens, which is a server of
// oidc-provider.
func serveMCP(t *testing.T, provider *script, s mcpSetup) (origin, issuer string) {
	t.Helper()
	mux := http.NewServeMux()
	origin = "http://" + serve(t, mux)
	resource := origin + s.resource
	provider.call(t, "start", object{"audience": resource, "format": "jwt", "algorithm": jwk.RS256, "named": true, "redirect": redirect}, &issuer)

	s.metadata.Resource, s.metadata.AuthorizationServers = resource, []string{issuer}
	metadata, err := jwtauth.NewResourceMetadata(s.metadata)
	if err != nil {
		t.Fatal(err)
	}
	c := jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer: issuer, Audiences: []string{resource}, Algorithms: []jwk.Algorithm{jwk.RS256}, Profile: jwtauth.ProfileAccessToken,
			Keys: remote(t, jwk.RemoteConfig{Issuer: issuer}),
		}},
		Realm: "notes", ResourceMetadata: metadata.URL(), Scopes: s.scopes, Check: s.check, OnError: unexpected(t),
	}
	switch {
	case s.hidden:
		c.ResourceMetadata = ""
		metadata.Register(mux)
	case s.apart:
		c.ResourceMetadata = origin + "/metadata"
		mux.Handle("/metadata", metadata)
	default:
		metadata.Register(mux)
	}
	tokens, err := jwtauth.New(c)
	if err != nil {
		t.Fatal(err)
	}
	var authenticators []usher.Authenticator
	for _, a := range []usher.Authenticator{s.before, tokens, s.after} {
		if a != nil {
			authenticators = append(authenticators, a)
		}
	}
	scope := func(name string) usher.Middleware { return usher.Require(usher.Requirement{Scopes: []string{name}}) }
	step := usher.When(func(r *http.Request) bool { return r.Header.Get(stepHeader) != "" }, scope("orders:write"))
	mux.Handle("/notes", usher.Chain(usher.Authenticate(authenticators...), scope("orders:read"), step).Wrap(whoami))
	return origin, issuer
}

// apiKeys returns an authenticator of API keys.
func apiKeys(t *testing.T, c apikey.Config) usher.Authenticator {
	t.Helper()
	m, err := apikey.NewManager(apikey.ManagerConfig{
		Store: apikey.NewMemory(), Format: apikey.Native{Prefix: "notes", Environments: []string{"live"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Manager, c.Realm = m, "keys"
	a, err := apikey.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// The official clients find the authorization server, request the scopes that they need
// for this resource, and log their user in once; and once more if a request needs more.
func TestOfficialMCPClients(t *testing.T) {
	provider := runScript(t, "provider.js")
	clients := map[string]func(*testing.T, string) mcpClient{"TypeScript": typeScriptClients(t), "Go": goClient}
	read := []string{"orders:read"}
	for name, s := range map[string]mcpSetup{
		"by default":                       {resource: "/notes", scopes: read},
		"a resource without a path":        {scopes: read},
		"scopes in the metadata alone":     {resource: "/notes", metadata: jwtauth.ResourceMetadataConfig{Scopes: read}},
		"more scopes in the metadata":      {resource: "/notes", scopes: read, metadata: jwtauth.ResourceMetadataConfig{Scopes: []string{"orders:write"}}},
		"no hint in the challenge":         {resource: "/notes", hidden: true, scopes: read},
		"no hint, a resource without path": {hidden: true, scopes: read},
		"metadata at a URL of its own":     {resource: "/notes", apart: true, scopes: read},
		"a client that registers itself":   {resource: "/notes", scopes: read, registers: true},
		"API keys listed first":            {resource: "/notes", apart: true, scopes: read, before: apiKeys(t, apikey.Config{})},
		"bearer API keys listed first":     {resource: "/notes", apart: true, scopes: read, before: apiKeys(t, apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}}})},
		"bearer API keys listed last":      {resource: "/notes", apart: true, scopes: read, after: apiKeys(t, apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}}})},
	} {
		for language, newClient := range clients {
			t.Run(name+"/"+language, func(t *testing.T) {
				origin, issuer := serveMCP(t, provider, s)
				id, steps := "app", []bool{false, false, true, false}
				if s.registers {
					id, steps = "", steps[:2]
				}
				client := newClient(t, id)
				want := []authorization{{"orders:read", origin + s.resource}}
				for n, step := range steps {
					if step {
						want = append(want, authorization{"orders:read orders:write", origin + s.resource})
					}
					text, all, err := client(t, origin+"/notes", step)
					if err != nil || text != issuer+"|alice" {
						t.Fatalf("call %d: %q %v, after %v", n, text, err, all)
					}
					if diff := compare.Diff(want, sorted(all)); diff != "" {
						t.Errorf("call %d: authorizations (-want +got):\n%s", n, diff)
					}
				}
			})
		}
	}
}

// When its token ends, a client with a refresh token gets another one without its user. The
// client for Go keeps no refresh token.
func TestMCPClientWithARefreshToken(t *testing.T) {
	var last, refused atomic.Value
	origin, issuer := serveMCP(t, runScript(t, "provider.js"), mcpSetup{
		resource: "/notes", scopes: []string{"orders:read", "offline_access"},
		check: func(_ context.Context, token *jwtauth.Token) error {
			last.Store(token.ID)
			if refused.Load() == token.ID {
				return &usher.Error{Status: http.StatusUnauthorized, Code: usher.CodeInvalidToken}
			}
			return nil
		},
	})
	client := typeScriptClients(t)(t, "app")
	want := []authorization{{"offline_access orders:read", origin + "/notes"}}
	for range 3 {
		before := last.Load()
		text, all, err := client(t, origin+"/notes", false)
		if err != nil || text != issuer+"|alice" || last.Load() == before {
			t.Fatalf("%q %v, token %v after %v", text, err, last.Load(), before)
		}
		if diff := compare.Diff(want, sorted(all)); diff != "" {
			t.Errorf("authorizations (-want +got):\n%s", diff)
		}
		refused.Store(last.Load())
	}
}
