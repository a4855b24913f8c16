package session

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// ServeJWKS answers with the public keys of the Issuer, for verifiers in other
// services (RFC 7517, section 5): those that sign, those that will, and those of
// which a token may still be good. Secrets are not among them; where all keys are
// secrets the set is empty.
//
//	mux.HandleFunc("GET /.well-known/jwks.json", issuer.ServeJWKS)
//
// The answer may be cached for 5 minutes. Its media type is the one that RFC 7517,
// section 8.5 registers, so no envelope takes it for data to wrap.
func (m *Manager) ServeJWKS(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h["Allow"] = []string{"GET, HEAD"}
		usher.MethodNotAllowed(w, r)
		return
	}
	body, err := m.publicKeys(time.Now())
	if err != nil {
		usher.Fail(w, r, err)
		return
	}
	h["Content-Type"] = []string{"application/jwk-set+json"}
	h["Cache-Control"] = []string{"public, max-age=300"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	_, _ = w.Write(body) // the client may have gone
}

func (m *Manager) publicKeys(now time.Time) ([]byte, error) {
	set := struct {
		Keys []*jwk.Key `json:"keys"`
	}{[]*jwk.Key{}}
	for n := range m.signers {
		s := &m.signers[n]
		if !s.key.Algorithm().Symmetric() && !s.isGone(now) {
			set.Keys = append(set.Keys, s.key)
		}
	}
	return json.Marshal(set)
}
