package jwtauth

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/usher-go/usher"
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
func (i *Issuer) ServeJWKS(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h["Allow"] = []string{"GET, HEAD"}
		usher.MethodNotAllowed(w, r)
		return
	}
	body, err := i.publicKeys(time.Now())
	if err != nil {
		usher.Fail(w, r, err)
		return
	}
	h["Content-Type"] = []string{"application/jwk-set+json"}
	h["Cache-Control"] = []string{"public, max-age=300"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	_, _ = w.Write(body) // the client may have gone
}

func (i *Issuer) publicKeys(now time.Time) ([]byte, error) {
	set := struct {
		Keys []*Key `json:"keys"`
	}{[]*Key{}}
	for n := range i.signers {
		s := &i.signers[n]
		if schemes[s.key.algorithm].family != hmacFamily && !s.isGone(now) {
			set.Keys = append(set.Keys, s.key)
		}
	}
	return json.Marshal(set)
}
