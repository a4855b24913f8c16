package jwtauth

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/exchange"
)

// A ResourceMetadata tells clients which authorization servers issue tokens for
// a service (RFC 9728).
type ResourceMetadata struct {
	// Resource is the identifier of the service, a URL with https and without a
	// fragment. Required. It is what tokens should have as their audience.
	Resource string `json:"resource"`
	// AuthorizationServers are their issuers.
	AuthorizationServers []string `json:"authorization_servers,omitempty"`
	// Scopes are those that clients may want to ask for.
	Scopes []string `json:"scopes_supported,omitempty"`
	// Name and Documentation are for people.
	Name          string `json:"resource_name,omitempty"`
	Documentation string `json:"resource_documentation,omitempty"`
}

// NewResourceMetadata returns the handler that answers GET and HEAD with m, or
// all faults of m. Mount it outside authentication, at
// /.well-known/oauth-protected-resource followed by the path of Resource if it
// has one, and name its URL as Config.ResourceMetadata.
func NewResourceMetadata(m ResourceMetadata) (http.Handler, error) {
	var errs []error
	check := func(field, text string) {
		if u, err := url.Parse(text); err != nil || u.Scheme != "https" || u.Host == "" || u.Fragment != "" {
			errs = append(errs, &usher.ConfigError{
				Field:  "jwtauth.ResourceMetadata." + field,
				Reason: "must be a URL with https and without a fragment",
			})
		}
	}
	check("Resource", m.Resource)
	for _, s := range m.AuthorizationServers {
		check("AuthorizationServers", s)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	body, err := json.Marshal(struct {
		ResourceMetadata
		Methods []string `json:"bearer_methods_supported"`
	}{m, []string{"header"}})
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header()["Allow"] = []string{"GET, HEAD"}
			usher.MethodNotAllowed(w, r)
			return
		}
		if x := exchange.From(r.Context()); x != nil {
			x.Render(http.StatusOK) // RFC 9728 has fixed the form
		}
		h := w.Header()
		h["Content-Type"] = []string{"application/json"}
		h["Cache-Control"] = []string{"public, max-age=3600"}
		// Browsers of any origin may read what is public.
		h["Access-Control-Allow-Origin"] = []string{"*"}
		// The client may have gone; there is nobody left to tell.
		_, _ = w.Write(body)
	}), nil
}
