package jwtauth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// A server of the Model Context Protocol sends clients without a token to the authorization
// server: its challenge names the metadata and the scopes to request.
func ExampleNewResourceMetadata() {
	metadata, err := jwtauth.NewResourceMetadata(jwtauth.ResourceMetadataConfig{
		Resource:             "https://api.example/mcp",
		AuthorizationServers: []string{"https://login.example"},
		Scopes:               []string{"notes:read", "notes:write"},
	})
	if err != nil {
		panic(err)
	}
	key, err := jwk.Generate(jwk.ES256) // of the authorization server
	if err != nil {
		panic(err)
	}
	tokens, err := jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer:     "https://login.example",
			Audiences:  []string{"https://api.example/mcp"},
			Algorithms: []jwk.Algorithm{jwk.ES256},
			Keys:       jwk.Static{key},
		}},
		ResourceMetadata: metadata.URL(),
		Scopes:           []string{"notes:read"}, // what a client needs to begin with
	})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	metadata.Register(mux)
	mux.Handle("/mcp", usher.Authenticate(tokens).Wrap(http.NotFoundHandler())) // the handler of an MCP library

	for _, path := range append([]string{"/mcp"}, metadata.Paths()...) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Println(w.Code, path, w.Header()["Www-Authenticate"])
	}
	// Output:
	// 401 /mcp [Bearer scope="notes:read", resource_metadata="https://api.example/.well-known/oauth-protected-resource/mcp"]
	// 200 /.well-known/oauth-protected-resource/mcp []
	// 200 /.well-known/oauth-protected-resource []
}
