package jwtauth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/document"
	"github.com/usher-go/usher/internal/outbound"
	"github.com/usher-go/usher/internal/scope"
)

// ResourceMetadataConfig describes a service to its clients (RFC 9728, section 2). Its URLs
// must be https, or http on a loopback host.
type ResourceMetadataConfig struct {
	// Resource is the identifier of the service, a URL without a fragment, usually that of
	// its API. Required. For a server of the Model Context Protocol it is the URL of the
	// endpoint that clients know, or the same without a path: many clients refuse any other.
	//
	// Clients ask the authorization server for tokens for this resource (RFC 8707), so it
	// must be one of the Audiences of the issuer, byte for byte. Some clients add a slash to
	// a URL without a path, and then tokens are for "https://api.example/" instead of
	// "https://api.example": list both as Audiences, or choose a Resource with a path.
	Resource string
	// AuthorizationServers are the issuers that clients get tokens from. The Model Context
	// Protocol requires at least one, and its clients use the first.
	AuthorizationServers []string
	// Scopes are the scopes that clients may request.
	Scopes []string
	// Name and Documentation, a URL, are for people to read.
	Name, Documentation string
	// Extra are further members, such as resource_policy_uri, jwks_uri or
	// dpop_bound_access_tokens_required. Their values are encoded by encoding/json. The
	// members above and bearer_methods_supported cannot be among them.
	Extra map[string]any
}

// ResourceMetadata is the handler that responds with the metadata of a service (RFC 9728),
// from which OAuth clients, such as those of the Model Context Protocol, learn where to get
// a token. It responds to GET and HEAD, and lets pages of every origin read the response,
// which may be cached for an hour. No envelope wraps it.
//
//	metadata, err := jwtauth.NewResourceMetadata(jwtauth.ResourceMetadataConfig{
//		Resource:             "https://api.example/mcp",
//		AuthorizationServers: []string{"https://id.example"},
//	})
//	metadata.Register(mux)
//	tokens, err := jwtauth.New(jwtauth.Config{ResourceMetadata: metadata.URL(), ...})
//
// A client in a browser also needs to read the challenges of the API itself. For pages of
// other origins the CORS of the API must permit that by Access-Control-Expose-Headers:
// WWW-Authenticate.
type ResourceMetadata struct {
	url      string
	paths    []string
	document document.Document
}

// resourceMetadataPath is the well-known path of RFC 9728, section 3.
const resourceMetadataPath = "/.well-known/oauth-protected-resource"

// NewResourceMetadata returns the handler for the metadata in c, or all faults of c.
func NewResourceMetadata(c ResourceMetadataConfig) (*ResourceMetadata, error) {
	f := config.Of[usher.ConfigError]("jwtauth.ResourceMetadataConfig")
	resource := checkPublicURL(f, "Resource", c.Resource)
	if resource != nil && resource.Path != "" && resource.JoinPath().EscapedPath() != resource.EscapedPath() {
		f.Add("Resource", "must not have empty or dot segments in its path")
	}
	for n, s := range c.AuthorizationServers {
		checkPublicURL(f, fmt.Sprintf("AuthorizationServers[%d]", n), s)
	}
	for n, s := range c.Scopes {
		f.If(!scope.Valid(s), fmt.Sprintf("Scopes[%d]", n), notAScope)
	}
	body := c.encode(f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	// RFC 9728, section 3.1: the well-known path goes before that of the resource, of which
	// a lone slash does not count.
	path := resourceMetadataPath + strings.TrimSuffix(resource.EscapedPath(), "/")
	if len(resource.Path) > 1 {
		path = resourceMetadataPath + resource.EscapedPath()
	}
	m := &ResourceMetadata{
		url:      resource.Scheme + "://" + resource.Host + path,
		paths:    []string{path},
		document: document.Document{Body: body, MaxAge: time.Hour, AnyOrigin: true},
	}
	if resource.RawQuery != "" {
		m.url += "?" + resource.RawQuery
	}
	if path != resourceMetadataPath {
		m.paths = append(m.paths, resourceMetadataPath)
	}
	return m, nil
}

// URL returns the URL of the metadata, for the ResourceMetadata of [Config] and
// [IntrospectionConfig].
func (m *ResourceMetadata) URL() string { return m.url }

// Paths returns the paths at which to mount m, on the host of the Resource and outside
// authentication: that of the URL, and the path for a service without a path, which some
// clients try.
func (m *ResourceMetadata) Paths() []string { return slices.Clone(m.paths) }

// Register mounts m at its Paths in mux. For other routers call Paths: m responds to GET,
// HEAD and OPTIONS.
func (m *ResourceMetadata) Register(mux *http.ServeMux) {
	for _, path := range m.paths {
		if strings.HasSuffix(path, "/") {
			path += "{$}"
		}
		// A pattern without a method would be in conflict with "GET /".
		mux.Handle("GET "+path, m)
		mux.Handle("OPTIONS "+path, m)
	}
}

// ServeHTTP implements [http.Handler].
func (m *ResourceMetadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	document.Serve(w, r, m.document, usher.MethodNotAllowed)
}

// encode returns the metadata as JSON, and adds the faults of Extra to f.
func (c *ResourceMetadataConfig) encode(f config.Faults[usher.ConfigError]) []byte {
	body, _ := json.Marshal(struct { // strings always encode
		Resource             string   `json:"resource"`
		AuthorizationServers []string `json:"authorization_servers,omitempty"`
		Scopes               []string `json:"scopes_supported,omitempty"`
		Name                 string   `json:"resource_name,omitempty"`
		Documentation        string   `json:"resource_documentation,omitempty"`
		Methods              []string `json:"bearer_methods_supported"`
	}{c.Resource, c.AuthorizationServers, c.Scopes, c.Name, c.Documentation, []string{"header"}})
	if len(c.Extra) == 0 {
		return body
	}
	for _, name := range []string{
		"authorization_servers", "bearer_methods_supported", "resource", "resource_documentation", "resource_name", "scopes_supported",
	} {
		_, twice := c.Extra[name]
		f.If(twice, fmt.Sprintf("Extra[%q]", name), "is a member already")
	}
	extra, err := json.Marshal(c.Extra)
	if err != nil {
		f.Add("Extra", "cannot be encoded: "+err.Error())
		return nil
	}
	return append(append(body[:len(body)-1], ','), extra[1:]...)
}

// checkPublicURL returns the URL, which is published for clients, or nil and adds its
// fault.
func checkPublicURL(f config.Faults[usher.ConfigError], field, text string) *url.URL {
	u, err := outbound.ParsePublicURL(text)
	if err != nil {
		f.Add(field, err.Error())
	}
	return u
}
