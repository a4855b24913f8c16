package jwtauth_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/jwtauth"
)

// Clients of RFC 9728 read the members at the top level, and a shared cache sends one
// caller's response to all callers.
func TestResourceMetadataHasItsOwnFormInEveryEnvelope(t *testing.T) {
	metadata, err := jwtauth.NewResourceMetadata(jwtauth.ResourceMetadataConfig{
		Resource: "https://api.example.com", AuthorizationServers: []string{"https://id.example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	once, err := idempotency.New(idempotency.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, shape := range map[string]envelope.Shape{"standard": envelope.Standard(), "data": envelope.Data(), "typed": envelope.Typed()} {
		t.Run(name, func(t *testing.T) {
			env, err := envelope.New(envelope.Config{Wrap: true, Shape: shape})
			if err != nil {
				t.Fatal(err)
			}
			for stack, h := range map[string]http.Handler{
				"in an envelope": env.Wrap(metadata),
				"in two":         env.Wrap(env.Wrap(metadata)),
				"in a chain":     usher.Chain(env, once).Wrap(metadata),
				"in none":        metadata,
			} {
				t.Run(stack, func(t *testing.T) {
					s := httptest.NewServer(h)
					defer s.Close()
					r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/.well-known/oauth-protected-resource?q=1", http.NoBody)
					if err != nil {
						t.Fatal(err)
					}
					resp, err := s.Client().Do(r)
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = resp.Body.Close() }()
					body, err := io.ReadAll(resp.Body)
					if err != nil {
						t.Fatal(err)
					}
					var document struct {
						Resource string `json:"resource"`
					}
					if err := json.Unmarshal(body, &document); err != nil || document.Resource != "https://api.example.com" {
						t.Errorf("body %s", body)
					}
					if strings.Contains(string(body), "127.0.0.1") || strings.Contains(string(body), "q=1") {
						t.Errorf("a response that is cached for all has data of one caller: %s", body)
					}
				})
			}
		})
	}
}
