package jwtauth_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/jwtauth"
)

func resourceMetadata(tb testing.TB, resource string) *jwtauth.ResourceMetadata {
	tb.Helper()
	m, err := jwtauth.NewResourceMetadata(jwtauth.ResourceMetadataConfig{Resource: resource})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func TestResourceMetadata(t *testing.T) {
	m, err := jwtauth.NewResourceMetadata(jwtauth.ResourceMetadataConfig{
		Resource: audience, AuthorizationServers: []string{issuer}, Scopes: []string{"read"}, Name: "Orders", Documentation: "https://docs.example",
		Extra: map[string]any{"dpop_bound_access_tokens_required": true, "dpop_signing_alg_values_supported": []string{"ES256"}, "resource_name#de": "Aufträge"},
	})
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"resource":"https://api.example","authorization_servers":["https://issuer.example"],"scopes_supported":["read"],` +
		`"resource_name":"Orders","resource_documentation":"https://docs.example","bearer_methods_supported":["header"],` +
		`"dpop_bound_access_tokens_required":true,"dpop_signing_alg_values_supported":["ES256"],"resource_name#de":"Aufträge"}`
	for method, status := range map[string]int{http.MethodGet: 200, http.MethodHead: 200, http.MethodOptions: 204, http.MethodPost: 405} {
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/", nil))
		if w.Code != status || w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %v", method, w.Code, w.Header())
		}
		if status == 200 && (w.Body.String() != body || w.Header().Get("Content-Type") != "application/json") {
			t.Errorf("%s: %s %s", method, w.Header().Get("Content-Type"), w.Body)
		}
		if status == 405 && w.Header().Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("%s: %v", method, w.Header())
		}
	}
}

// The well-known path goes between the host and the path (RFC 9728, section 3.1).
func TestPathsOfResourceMetadata(t *testing.T) {
	const root = "/.well-known/oauth-protected-resource"
	for resource, tt := range map[string]struct {
		url   string
		paths []string
	}{
		"https://api.example":               {"https://api.example" + root, []string{root}},
		"https://api.example/":              {"https://api.example" + root, []string{root}},
		"https://api.example:8443/mcp":      {"https://api.example:8443" + root + "/mcp", []string{root + "/mcp", root}},
		"https://api.example/a/b/":          {"https://api.example" + root + "/a/b/", []string{root + "/a/b/", root}},
		"https://api.example/a%2Fb/%7Bc%7D": {"https://api.example" + root + "/a%2Fb/%7Bc%7D", []string{root + "/a%2Fb/%7Bc%7D", root}},
		"https://api.example/mcp?tenant=a":  {"https://api.example" + root + "/mcp?tenant=a", []string{root + "/mcp", root}},
		"http://[::1]:3000/mcp":             {"http://[::1]:3000" + root + "/mcp", []string{root + "/mcp", root}},
		"https://api.example?tenant=a%20b+": {"https://api.example" + root + "?tenant=a%20b+", []string{root}},
	} {
		t.Run(resource, func(t *testing.T) {
			m := resourceMetadata(t, resource)
			if diff := compare.Diff(tt.paths, m.Paths()); m.URL() != tt.url || diff != "" {
				t.Errorf("URL %s, paths (-want +got):\n%s", m.URL(), diff)
			}
			m.Paths()[0] = "changed"
			mux := http.NewServeMux()
			mux.HandleFunc("GET /", usher.NotFound)
			m.Register(mux)
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
				for _, path := range append(tt.paths, tt.url) {
					w := httptest.NewRecorder()
					mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
					if w.Code != 200 && w.Code != 204 || w.Header().Get("Access-Control-Allow-Origin") != "*" {
						t.Errorf("%s %s: %d", method, path, w.Code)
					}
				}
			}
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, m.Paths()[0]+"below", nil))
			if w.Code != 404 {
				t.Errorf("a path below: %d", w.Code)
			}
			if _, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{hs256(t)}, ResourceMetadata: m.URL()}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestResourceMetadataHasNoFaults(t *testing.T) {
	const path = "jwtauth.ResourceMetadataConfig."
	_, err := jwtauth.NewResourceMetadata(jwtauth.ResourceMetadataConfig{
		AuthorizationServers: []string{"http://a", issuer, ""}, Scopes: []string{"a b"},
		Extra: map[string]any{
			"resource": "x", "authorization_servers": nil, "scopes_supported": nil, "resource_name": "",
			"resource_documentation": "", "bearer_methods_supported": []string{"query"}, "f": func() {},
		},
	})
	wantFaults(t, err, path+"Resource", path+"AuthorizationServers[0]", path+"AuthorizationServers[2]", path+"Scopes[0]",
		path+`Extra["authorization_servers"]`, path+`Extra["bearer_methods_supported"]`, path+`Extra["resource"]`,
		path+`Extra["resource_documentation"]`, path+`Extra["resource_name"]`, path+`Extra["scopes_supported"]`, path+"Extra")
	for _, resource := range []string{"https://a#b", "https://a/b/../c", "https://a//b", "https://a/.", "//a", "https://", "mailto:a"} {
		_, err := jwtauth.NewResourceMetadata(jwtauth.ResourceMetadataConfig{Resource: resource})
		wantFaults(t, err, path+"Resource")
	}
}

// On the client's own host there is nobody between client and server. Elsewhere an
// attacker who changes the metadata directs the client to a server of their own.
func TestMetadataNeedsTLSExceptOnLoopback(t *testing.T) {
	for text, ok := range map[string]bool{
		"https://api.example/mcp":      true,
		"http://localhost":             true,
		"http://LOCALHOST:3000/mcp":    true,
		"http://api.localhost:3000":    true,
		"http://127.0.0.1:3000":        true,
		"http://127.8.8.8":             true,
		"http://[::1]:3000/mcp":        true,
		"http://[::ffff:127.0.0.1]":    true,
		"http://api.example":           false,
		"http://localhost.example":     false,
		"http://notlocalhost":          false,
		"http://127.0.0.1.example":     false,
		"http://10.0.0.1":              false,
		"http://[::2]":                 false,
		"http://0.0.0.0":               false,
		"ftp://localhost":              false,
		"https://user@localhost":       false,
		"https://api.example#fragment": false,
		"localhost":                    false,
		"/mcp":                         false,
	} {
		_, err := jwtauth.New(jwtauth.Config{
			Issuers: []jwtauth.TrustedIssuer{hs256(t)}, ResourceMetadata: text,
		})
		_, ofResource := jwtauth.NewResourceMetadata(jwtauth.ResourceMetadataConfig{Resource: text})
		_, ofServer := jwtauth.NewResourceMetadata(jwtauth.ResourceMetadataConfig{Resource: audience, AuthorizationServers: []string{issuer, text}})
		if ok {
			if err != nil || ofResource != nil || ofServer != nil {
				t.Errorf("%s: %v, %v, %v", text, err, ofResource, ofServer)
			}
			continue
		}
		wantFaults(t, err, "jwtauth.Config.ResourceMetadata")
		wantFaults(t, ofResource, "jwtauth.ResourceMetadataConfig.Resource")
		wantFaults(t, ofServer, "jwtauth.ResourceMetadataConfig.AuthorizationServers[1]")
	}
}
