package envelope_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/oteltest"
)

// Whichever layer has ended a request with an error, the span says by one attribute why.
func TestTheSpanHasTheCodeOfEachError(t *testing.T) {
	env := must(envelope.Config{
		Wrap: true, Shape: envelope.Data(),
		Catalogue: envelope.Catalogue{Codes: map[string]envelope.Entry{"taken": {Code: "E17"}}},
		OnError:   func(context.Context, error) {}, OnPanic: func(*http.Request, any, []byte) {},
	})
	mux := http.NewServeMux()
	for path, handler := range map[string]http.HandlerFunc{
		"GET /well":  writes(200, asJSON, "1"),
		"GET /taken": failing(&usher.Error{Status: 409, Code: "taken"}),
		"GET /down":  failing(&usher.Error{Status: 503, Code: "down"}),
		"GET /none":  failing(&usher.Error{Status: 410}),
		"GET /blank": failing(&usher.Error{Status: 502}),
		"GET /own":   func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusConflict) },
		"GET /fault": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) },
		"GET /panic": func(http.ResponseWriter, *http.Request) { panic("canary") },
		"GET /late":  flushes(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200); panic("canary") }),
		"GET /abort": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		mux.Handle(path, handler)
	}
	for path, want := range map[string]string{
		"GET /well":    "",
		"GET /taken":   "usher.error.code=taken", // which the catalogue replaces for clients alone
		"GET /down":    "usher.error.code=down error.type=down",
		"GET /none":    "",
		"GET /blank":   "error.type=502",
		"GET /own":     "usher.error.code=conflict",
		"GET /fault":   "usher.error.code=service_unavailable error.type=service_unavailable",
		"GET /panic":   "usher.error.code=internal error.type=internal",
		"GET /late":    "usher.error.code=internal error.type=internal",
		"GET /abort":   "",
		"GET /unknown": "usher.error.code=not_found",
		"POST /well":   "usher.error.code=method_not_allowed",
	} {
		t.Run(path, func(t *testing.T) {
			var tracer oteltest.Tracer
			ctx, span := tracer.Start(t.Context(), "server")
			method, target, _ := strings.Cut(path, " ")
			func() {
				defer func() { _ = recover() }() // of a response that is aborted
				env.Wrap(mux).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, method, target, nil))
			}()
			span.End()
			var got []string
			for _, kv := range tracer.Spans()[0].Attributes {
				if strings.Contains(string(kv.Key), "error") {
					got = append(got, string(kv.Key)+"="+kv.Value.String())
				}
			}
			if text := strings.Join(got, " "); text != want {
				t.Errorf("got %q, want %q", text, want)
			}
		})
	}
}

// A handler of its own that fails because its client has left is no failure either, as far
// as its text shows.
func TestAHandlerThatItsClientHasLeftIsNotReported(t *testing.T) {
	for text, want := range map[string]int{"query: context canceled": 0, "query: disk full": 1} {
		var reports reporter
		ctx, leave := context.WithCancel(t.Context())
		leave()
		must(envelope.Config{Wrap: true, OnError: reports.onError}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, text, http.StatusInternalServerError)
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		if errs := reports.reports(); len(errs) != want {
			t.Errorf("%s: reported %v", text, errs)
		}
	}
}
