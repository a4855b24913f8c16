package envelope_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/oteltest"
)

func TestNoTwoRequestsHaveTheSameGeneratedID(t *testing.T) {
	const goroutines, each = 4, 100
	for _, prefix := range []string{"", "req-", strings.Repeat("p", 40)} {
		h := must(envelope.Config{RequestIDPrefix: prefix}).Wrap(http.NotFoundHandler())
		ids := make(chan string, goroutines*each)
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for range each {
					w := httptest.NewRecorder()
					h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
					ids <- w.Header().Get("X-Request-Id")
				}
			})
		}
		wg.Wait()
		close(ids)
		seen := map[string]bool{}
		for id := range ids {
			if random, ok := strings.CutPrefix(id, prefix); !ok || len(random) != 16 || seen[id] {
				t.Fatalf("the ID %q, after %d others", id, len(seen))
			}
			seen[id] = true
		}
	}
}

// An ID that stands in the logs is never a text that a client has chosen, unless the service
// is configured for it.
func TestRequestID(t *testing.T) {
	long := strings.Repeat("x", 129)
	tests := []struct {
		name  string
		from  func(*http.Request) string
		given []string
		taken bool
	}{
		{"of a client, without a configuration", nil, []string{"one"}, false},
		{"none", fromHeader, nil, false},
		{"letters, digits and marks", fromHeader, []string{"aZ09._-+=/:;#@"}, true},
		{"the longest", fromHeader, []string{long[:128]}, true},
		{"too long", fromHeader, []string{long}, false},
		{"empty", fromHeader, []string{""}, false},
		{"a space", fromHeader, []string{"a b"}, false},
		{"a quote", fromHeader, []string{`a"b`}, false},
		{"a backslash", fromHeader, []string{`a\b`}, false},
		{"markup", fromHeader, []string{"a<b>"}, false},
		{"a list", fromHeader, []string{"a,b"}, false},
		{"not ASCII", fromHeader, []string{"ä"}, false},
		{"a line", fromHeader, []string{"a\nb"}, false},
		{"two", fromHeader, []string{"a", "b"}, false},

		{"a UUID", fromHeader, []string{"0191d8f4-9c3e-7d2a-8b1f-2f1f6c1a9e55"}, true},
		{"a UUID as a URN", fromHeader, []string{"urn:uuid:0191d8f4-9c3e-7d2a-8b1f-2f1f6c1a9e55"}, true},
		{"of Kong", fromHeader, []string{"0191d8f4-9c3e-7d2a-8b1f-2f1f6c1a9e55#42"}, true},
		{"of chi", fromHeader, []string{"host.example/Yy3vfVXK1O-000001"}, true},
		{"of a load balancer of AWS", fromHeader, []string{"Self=1-67891234-12456789abcdef012345678;Root=1-67891233-abcdef012345678912345678"}, true},
		{"in base64", fromHeader, []string{"JKJaXFPoIAMFRXg+/w=="}, true},
		{"of an address", fromHeader, []string{"42@node-7"}, true},
	}
	generated := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header["X-Request-Id"] = tt.given
			w := httptest.NewRecorder()
			var seen string
			must(envelope.Config{RequestID: tt.from}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				seen = envelope.RequestID(r.Context())
			})).ServeHTTP(w, r)
			id := w.Header().Get("X-Request-Id")
			switch {
			case id != seen:
				t.Errorf("sent %q, the handler has %q", id, seen)
			case tt.taken && id != tt.given[0]:
				t.Errorf("generated %q", id)
			case !tt.taken && (len(id) != 16 || generated[id]):
				t.Errorf("generated %q", id)
			}
			generated[id] = true
		})
	}
}

func TestRequestIDFromHeaderReadsAnyField(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("X-Amzn-Trace-Id", "Root=1-1")
	if id := envelope.RequestIDFromHeader("x-amzn-trace-id")(r); id != "Root=1-1" {
		t.Errorf("ID %q", id)
	}
}

// One request has one ID: in the header, in the body, for the handler and on the span,
// whatever a middleware or an upstream inside the envelope sets.
func TestOneRequestHasOneID(t *testing.T) {
	upstream := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "upstream")
		w.Header().Set("X-Upstream-Got", r.Header.Get("X-Request-Id"))
		writes(200, asJSON, `{"a":1}`)(w, r)
	}))
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	own := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Request-Id", "own")
			next(w, r)
		}
	}
	handlers := map[string]http.Handler{
		"nothing":         own(func(http.ResponseWriter, *http.Request) {}),
		"a status":        own(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }),
		"JSON":            own(writes(200, asJSON, `{"a":1}`)),
		"text":            own(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "none", 404) }),
		"Value":           own(func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(1) }),
		"Fail":            own(failing(&usher.Error{Status: 404})),
		"a panic":         own(func(http.ResponseWriter, *http.Request) { panic("x") }),
		"a flush":         own(func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() }),
		"a second value":  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Add("X-Request-Id", "own") }),
		"a changed value": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header()["X-Request-Id"][0] = "own" }),
		"a timeout":       http.TimeoutHandler(own(writes(200, asJSON, `{"a":1}`)), 1e9, ""),
		"a proxy": &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		},
	}
	for _, wrap := range []bool{false, true} {
		for name, h := range handlers {
			t.Run(name, func(t *testing.T) {
				var tracer oteltest.Tracer
				env := must(envelope.Config{Wrap: wrap, ForwardRequestID: true, OnPanic: func(*http.Request, any, []byte) {}})
				var id string
				s := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					ctx, span := tracer.Start(r.Context(), "server")
					defer span.End()
					env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						id = envelope.RequestID(r.Context())
						if got := r.Header["X-Request-Id"]; len(got) != 1 || got[0] != id {
							t.Errorf("the handler gets the header %q", got)
						}
						h.ServeHTTP(w, r)
					})).ServeHTTP(w, r.WithContext(ctx))
					if got := r.Header.Get("X-Request-Id"); got != "client" {
						t.Errorf("outside the envelope the request has %q", got)
					}
				}))
				got := get(t, s, "/", "X-Request-Id: client")
				wantHeader(t, got, "X-Request-Id", id)
				if v := got.Header.Get("X-Upstream-Got"); name == "a proxy" && v != id {
					t.Errorf("the upstream got %q, want %q", v, id)
				}
				if strings.Contains(got.body, "metadata") && !strings.Contains(got.body, `"request_id":"`+id+`"`) {
					t.Errorf("body %s, want the ID %s", got.body, id)
				}
				var noted string
				for _, kv := range tracer.Spans()[0].Attributes {
					if kv.Key == "usher.request.id" {
						noted = kv.Value.AsString()
					}
				}
				if noted != id {
					t.Errorf("the span has %q, want %q", noted, id)
				}
			})
		}
	}
}

// A middleware outside the envelope may have set the field already, and the shape may fail.
func TestAResponseWithoutAShapeHasTheID(t *testing.T) {
	env := must(envelope.Config{
		Shape:     envelope.Shape{Error: func([]byte, *envelope.Response) []byte { panic("shape") }},
		RequestID: fromHeader,
		OnPanic:   func(*http.Request, any, []byte) {},
	})
	h := env.Wrap(failing(&usher.Error{Status: 404}))
	got := get(t, start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		h.ServeHTTP(w, r)
	})), "/", "X-Request-Id: one")
	wantStatus(t, got, 500)
	wantHeader(t, got, "X-Request-Id", "one")
}
