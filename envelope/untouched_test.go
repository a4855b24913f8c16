package envelope_test

import (
	"net/http"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// Documents and protocols with a form of their own pass unchanged.
func TestHandlersInUntouchedPass(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		status  int
		body    string
	}{
		{"a document under /.well-known", writes(200, asJSON, `{"issuer":"https://a.example"}`), 200, `{"issuer":"https://a.example"}`},
		{"an OpenAPI document with a length", writes(200, with(asJSON, "Content-Length", "19"), `{"openapi":"3.1.0"}`), 200, `{"openapi":"3.1.0"}`},
		{"an error of Connect", writes(404, asJSON, `{"code":"not_found","message":"m"}`), 404, `{"code":"not_found","message":"m"}`},
		{"an error of a gateway to gRPC", writes(501, asJSON, `{"code":12,"message":"m","details":[]}`), 501, `{"code":12,"message":"m","details":[]}`},
		{"text", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "m", http.StatusBadRequest) }, 400, "m\n"},
		{"a refusal has the shape", failing(&usher.Error{Status: 403, Message: "m"}), 403, `{"error":{"code":"forbidden","message":"m"}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := get(t, start(t, wrapData.Wrap(envelope.Untouched(tt.handler))), "/")
			wantStatus(t, got, tt.status)
			if got.body != tt.body {
				t.Errorf("body %s", got.body)
			}
		})
	}
	t.Run("without an envelope", func(t *testing.T) {
		if got := get(t, start(t, envelope.Untouched(writes(200, asJSON, "1"))), "/"); got.body != "1" {
			t.Errorf("body %s", got.body)
		}
	})
}
