package jwtauth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/document"
	"github.com/usher-go/usher/internal/outbound"
)

// ResourceMetadata names the authorization servers that issue tokens for a service
// (RFC 9728).
type ResourceMetadata struct {
	// Resource is the identifier of the service, an https URL without a fragment.
	// Required. Tokens should have it as their audience.
	Resource string `json:"resource"`
	// AuthorizationServers are the issuers of the authorization servers.
	AuthorizationServers []string `json:"authorization_servers,omitempty"`
	// Scopes are the scopes that clients may request.
	Scopes []string `json:"scopes_supported,omitempty"`
	// Name and Documentation are for people to read.
	Name          string `json:"resource_name,omitempty"`
	Documentation string `json:"resource_documentation,omitempty"`
}

// NewResourceMetadata returns the handler that responds to GET and HEAD with m, or all
// faults of m. Mount the handler outside authentication, at
// /.well-known/oauth-protected-resource followed by the path of Resource if it has one,
// and set Config.ResourceMetadata to the handler's URL. The response may be cached for an
// hour.
func NewResourceMetadata(m ResourceMetadata) (http.Handler, error) {
	f := config.Of[usher.ConfigError]("jwtauth.ResourceMetadata")
	checkPublicURL(f, "Resource", m.Resource)
	for n, s := range m.AuthorizationServers {
		checkPublicURL(f, fmt.Sprintf("AuthorizationServers[%d]", n), s)
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	body, err := json.Marshal(struct {
		ResourceMetadata
		Methods []string `json:"bearer_methods_supported"`
	}{m, []string{"header"}})
	if err != nil {
		return nil, err
	}
	d := document.Document{Body: body, MaxAge: time.Hour, AnyOrigin: true}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		document.Serve(w, r, d, usher.MethodNotAllowed)
	}), nil
}

// checkPublicURL adds the fault of a URL that is published for clients. During
// development the server is often on the client's own host, which needs no TLS.
func checkPublicURL(f config.Faults[usher.ConfigError], field, text string) {
	u, err := outbound.ParseURL(text, true)
	switch {
	case err != nil:
		f.Add(field, err.Error())
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		f.Add(field, "must be https, or http on a loopback host")
	}
}

// isLoopback reports whether a host is always the client's own. The names are those of RFC
// 6761, section 6.3, which no server may resolve to another host.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	if err == nil {
		return addr.Unmap().IsLoopback()
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
