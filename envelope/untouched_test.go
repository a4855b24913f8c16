package envelope_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
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
	t.Run("within two envelopes", func(t *testing.T) {
		inner := envelope.Untouched(writes(200, asJSON, "1"))
		for _, env := range []*envelope.Envelope{wrapData, must(envelope.Config{})} {
			if got := get(t, start(t, wrapStandard.Wrap(env.Wrap(inner))), "/"); got.body != "1" {
				t.Errorf("body %s", got.body)
			}
		}
	})
	t.Run("without an envelope", func(t *testing.T) {
		if got := get(t, start(t, envelope.Untouched(writes(200, asJSON, "1"))), "/"); got.body != "1" {
			t.Errorf("body %s", got.body)
		}
	})
}

// Clients of these documents know no envelope.
func TestDocumentsOfStandardsPass(t *testing.T) {
	const document = `{"issuer":"https://a.example"}`
	own := func(f func(*http.Request) bool) envelope.Config { return envelope.Config{Untouched: f} }
	api := own(func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/rpc/") })
	none := own(func(*http.Request) bool { return false })
	failing := own(func(*http.Request) bool { panic("canary") })
	tests := []struct {
		name      string
		config    envelope.Config
		method    string
		path      string
		status    int
		untouched bool
	}{
		{"a well-known document", envelope.Config{}, "GET", "/.well-known/openid-configuration", 200, true},
		{"one in a directory", envelope.Config{}, "GET", "/.well-known/oauth-protected-resource/mcp", 200, true},
		{"an OpenAPI document", envelope.Config{}, "GET", "/v1/openapi.json", 200, true},
		{"a Swagger document", envelope.Config{}, "GET", "/swagger.json", 200, true},
		{"a key set", envelope.Config{}, "GET", "/oauth/jwks.json", 200, true},
		{"a path that only contains the prefix", envelope.Config{}, "GET", "/notes/.well-known/x", 200, false},
		{"a name that only ends like one", envelope.Config{}, "GET", "/myopenapi.json", 200, false},
		{"another method", envelope.Config{}, "PUT", "/files/openapi.json", 200, false},
		{"an error there", envelope.Config{}, "GET", "/.well-known/nothing", 404, false},
		{"a path of one's own", api, "GET", "/rpc/Echo", 200, true},
		{"an error of one's own", api, "POST", "/rpc/Echo", 404, true},
		{"another path", api, "GET", "/notes", 200, false},
		{"one's own choice replaces the default", none, "GET", "/openapi.json", 200, false},
		{"a choice that fails", failing, "GET", "/openapi.json", 200, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.Shape, tt.config.Wrap = envelope.Data(), true
			for name, h := range map[string]http.Handler{
				"one envelope":               quiet(tt.config).Wrap(writes(tt.status, asJSON, document)),
				"an envelope within another": wrapStandard.Wrap(quiet(tt.config).Wrap(writes(tt.status, asJSON, document))),
			} {
				got := do(t, start(t, h), tt.method, tt.path)
				wantStatus(t, got, tt.status)
				switch {
				case tt.untouched && got.body != document:
					t.Errorf("%s: body %s", name, got.body)
				case !tt.untouched && got.body == document:
					t.Errorf("%s: the body passes", name)
				}
			}
		})
	}
}

// The function is asked about what would be wrapped, and nothing else.
func TestUntouchedIsAskedOnlyAboutWhatWouldBeWrapped(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		asked   int
	}{
		{"JSON", writes(200, asJSON, "1"), 1},
		{"an error of text", writes(404, map[string]string{"Content-Type": "text/plain"}, "m"), 1},
		{"a table", writes(200, map[string]string{"Content-Type": "text/csv"}, "a,b"), 0},
		{"a response without a body", writes(204, nil), 0},
		{"a refusal in the shape", failing(&usher.Error{Status: 403}), 0},
	}
	for _, tt := range tests {
		asked := 0
		env := quiet(envelope.Config{Wrap: true, Untouched: func(*http.Request) bool { asked++; return true }})
		env.ServeNext(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", http.NoBody), tt.handler)
		if asked != tt.asked {
			t.Errorf("%s: asked %d times, want %d", tt.name, asked, tt.asked)
		}
	}
}
