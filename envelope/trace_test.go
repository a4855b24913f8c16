package envelope_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// The text of a handler's own error is for operators: they get it, and clients do
// not.
func TestTheTextOfAHandlersOwnErrorReachesOnError(t *testing.T) {
	const secret = "pq: password authentication failed for hunter2"
	text := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, body, status) }
	}
	html := map[string]string{"Content-Type": "text/html"}
	tests := []struct {
		name    string
		method  string
		handler http.HandlerFunc
		status  int
		cause   string // a part of it
		silent  bool
		shown   bool
	}{
		{name: "http.Error with 500", handler: text(500, secret), status: 500, cause: secret},
		{name: "http.Error with 502", handler: text(502, secret), status: 502, cause: secret},
		{name: "http.Error with 503", handler: text(503, secret), status: 503, cause: secret},
		{name: "to HEAD", method: http.MethodHead, handler: text(500, secret), status: 500, cause: secret},
		{name: "as JSON", handler: writes(500, asJSON, `{"error":"`+secret+`"}`), status: 500, cause: secret},
		{name: "without a type", handler: writes(504, nil, secret), status: 504, cause: secret},
		{name: "in pieces", handler: writes(500, nil, "pq: password authentication", " failed for hunter2"), status: 500, cause: secret},
		{name: "before more than is kept", handler: text(500, secret+strings.Repeat("x", 200_000)), status: 500, cause: secret},
		{name: "not in UTF-8", handler: text(500, secret+"\xff"), status: 500, cause: secret},
		{name: "incomplete", handler: writes(500, map[string]string{"Content-Length": "900"}, secret), status: 500, cause: secret},
		{name: "nothing but the status", handler: writes(500, nil), status: 500},
		{name: "http.TimeoutHandler", handler: http.TimeoutHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}), time.Millisecond, secret).ServeHTTP, status: 503, cause: secret},
		{name: "a page of HTML is the handler's own", handler: writes(500, html, secret), status: 500, silent: true, shown: true},
		{name: "an error of the client", handler: text(404, "no such note"), status: 404, silent: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var reports reporter
			env := must(envelope.Config{Shape: envelope.Data(), Wrap: true, OnError: reports.onError})
			method := tt.method
			if method == "" {
				method = http.MethodGet
			}
			got := do(t, start(t, env.Wrap(tt.handler)), method, "/")
			wantStatus(t, got, tt.status)
			if strings.Contains(got.body, "hunter2") != tt.shown {
				t.Errorf("body %s", got.body)
			}
			errs := reports.reports()
			if tt.silent {
				if len(errs) > 0 {
					t.Errorf("reported %v", errs)
				}
				return
			}
			if len(errs) != 1 || errs[0].Status != tt.status {
				t.Fatalf("reported %v", errs)
			}
			cause := errs[0].Cause
			switch {
			case tt.cause == "":
				if cause != nil {
					t.Errorf("cause %v", cause)
				}
			case cause == nil || !strings.Contains(cause.Error(), tt.cause) || len(cause.Error()) > 5000:
				t.Errorf("cause %v", cause)
			}
		})
	}
}

func TestTheTextOfAHandlersOwnErrorIsLogged(t *testing.T) {
	log := captureLog(t)
	got := get(t, start(t, wrapData.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "pq: hunter2", http.StatusBadGateway)
	}))), "/")
	wantBody(t, got, `{"error":{"code":"bad_gateway","message":"Bad Gateway"}}`)
	if n := strings.Count(log.String(), "pq: hunter2"); n != 1 {
		t.Errorf("%d times in the log: %s", n, log)
	}
}

// A failure that usher.Fail has reported is not reported again.
func TestAFailureIsReportedOnce(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"Fail":                           failing(&usher.Error{Cause: errDatabase}),
		"Fail after the status":          func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500); usher.Fail(w, r, errDatabase) },
		"Fail twice, the second is late": func(w http.ResponseWriter, r *http.Request) { http.Error(w, "x", 400); usher.Fail(w, r, errDatabase) },
	} {
		t.Run(name, func(t *testing.T) {
			var reports reporter
			env := must(envelope.Config{Wrap: true, OnError: reports.onError})
			get(t, start(t, env.Wrap(env.Wrap(h))), "/")
			if errs := reports.reports(); len(errs) != 1 {
				t.Errorf("reported %v", errs)
			}
		})
	}
}
