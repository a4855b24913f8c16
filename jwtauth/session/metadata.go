package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/document"
	"github.com/usher-go/usher/internal/outbound"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// ServeMetadata responds with the metadata from which verifiers in other services find the
// keys of the Manager (RFC 8414; OpenID Connect Discovery 1.0), so that these need only its
// Issuer: [jwk.RemoteConfig] for instance, or go-oidc. The jwks_uri is the Issuer followed
// by /.well-known/jwks.json. If the Issuer is https://shop.example:
//
//	mux.HandleFunc("/.well-known/openid-configuration", manager.ServeMetadata)
//	mux.HandleFunc("/.well-known/jwks.json", manager.ServeJWKS)
//
// If the Issuer has a path, both paths begin with it. The Issuer must be an https URL, or an
// http URL on a loopback host; otherwise the response is 500, with the reason as its private
// cause. The response may be cached for an hour, and pages of every origin may read it. No
// envelope wraps it.
//
// The Manager is no OAuth server: the metadata has no endpoints.
func (m *Manager) ServeMetadata(w http.ResponseWriter, r *http.Request) {
	body, err := m.metadata(time.Now())
	if err != nil {
		usher.Fail(w, r, err)
		return
	}
	d := document.Document{Body: body, MaxAge: time.Hour, AnyOrigin: true}
	document.Serve(w, r, d, usher.MethodNotAllowed)
}

func (m *Manager) metadata(now time.Time) ([]byte, error) {
	u, err := outbound.ParsePublicURL(m.name)
	if err == nil && (u.RawQuery != "" || u.ForceQuery) {
		err = errors.New("must be a URL without a query")
	}
	if err != nil {
		return nil, fmt.Errorf("session: ServeMetadata: the Issuer %q %w", m.name, err)
	}
	// Clients refuse OpenID Connect metadata without response_types_supported,
	// subject_types_supported or id_token_signing_alg_values_supported. From the last of
	// these they also learn the algorithms of other tokens.
	return json.Marshal(struct {
		Issuer        string          `json:"issuer"`
		KeysURL       string          `json:"jwks_uri"`
		ResponseTypes []string        `json:"response_types_supported"`
		SubjectTypes  []string        `json:"subject_types_supported"`
		Algorithms    []jwk.Algorithm `json:"id_token_signing_alg_values_supported"`
	}{m.name, strings.TrimSuffix(m.name, "/") + "/.well-known/jwks.json", []string{"none"}, []string{"public"}, m.publicAlgorithms(now)})
}

// publicAlgorithms returns the algorithms of the keys that ServeJWKS publishes.
func (m *Manager) publicAlgorithms(now time.Time) []jwk.Algorithm {
	list := []jwk.Algorithm{}
	for n := range m.signers {
		s := &m.signers[n]
		if a := s.key.Algorithm(); s.isPublished(now) && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}
