package envelope_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// If a callback panics, its own effect is lost and the response is not.
func TestACallbackThatPanics(t *testing.T) {
	value := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(1) })
	late := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "x")
		usher.Fail(w, r, errDatabase)
	})
	panicking := func(context.Context, error) { panic("callback") }
	tests := []struct {
		name    string
		config  envelope.Config
		handler http.Handler
		status  int // 0 if the connection is aborted
		panics  int32
	}{
		{"OnError, by Fail", envelope.Config{OnError: panicking}, failing(&usher.Error{Status: 503}), 503, 1},
		{"OnError, for the text of a handler", envelope.Config{OnError: panicking}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "x", http.StatusBadGateway)
		}), 502, 1},
		{"OnError, for an aborted connection", envelope.Config{OnError: panicking}, late, 0, 1},
		{"RequestID", envelope.Config{RequestID: func(*http.Request) string { panic("callback") }}, value, 200, 1},
		{"Marshal", envelope.Config{Marshal: func(any) ([]byte, error) { panic("callback") }}, value, 500, 1},
		{"Shape.Error, by Fail", envelope.Config{Shape: envelope.Shape{Error: func([]byte, *envelope.Response) []byte { panic("callback") }}}, failing(&usher.Error{Status: 404}), 500, 2},
		{"Shape.Before", envelope.Config{Shape: envelope.Shape{
			Before: func([]byte, *envelope.Response) []byte { panic("callback") },
			After:  func(b []byte, _ *envelope.Response) []byte { return b },
			Error:  func(b []byte, _ *envelope.Response) []byte { return append(b, "{}"...) },
		}}, value, 500, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var panics atomic.Int32
			tt.config.Wrap = true
			tt.config.OnPanic = func(_ *http.Request, v any, stack []byte) {
				if v != "callback" || len(stack) == 0 {
					t.Errorf("OnPanic got %v", v)
				}
				panics.Add(1)
			}
			s := start(t, must(tt.config).Wrap(tt.handler))
			status, body, err := fetch(t, s)
			if (err != nil) != (tt.status == 0) || err == nil && status != tt.status {
				t.Errorf("status %d, %v", status, err)
			}
			if strings.Contains(body, "callback") {
				t.Errorf("body %s", body)
			}
			if tt.panics == 2 && body != "" {
				t.Errorf("a shape that panics made the body %s", body)
			}
			if n := panics.Load(); n != tt.panics {
				t.Errorf("%d panics reported, want %d", n, tt.panics)
			}
			if tt.status != 0 && get(t, s, "/").Header.Get("X-Request-Id") == "" {
				t.Error("the response has no ID")
			}
		})
	}
}

// The bare status is sent without the header fields that the handler set for its own body.
func TestAShapeThatPanicsLeavesABareStatus(t *testing.T) {
	env := must(envelope.Config{
		Wrap: true, Shape: envelope.Shape{Error: func([]byte, *envelope.Response) []byte { panic("callback") }},
		OnPanic: func(*http.Request, any, []byte) {}, RequestID: fromHeader,
	})
	got := get(t, start(t, env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Cache-Control", "public")
		usher.Fail(w, r, &usher.Error{Status: 404})
	}))), "/", "X-Request-Id: one")
	wantStatus(t, got, 500)
	wantHeader(t, got, "X-Request-Id", "one")
	for _, name := range []string{"Content-Encoding", "Cache-Control", "Content-Type"} {
		wantHeader(t, got, name, "")
	}
}

func TestAnOnPanicThatPanicsIsLogged(t *testing.T) {
	log := captureLog(t)
	env := must(envelope.Config{Shape: envelope.Data(), OnPanic: func(*http.Request, any, []byte) { panic("OnPanic") }})
	got := get(t, start(t, env.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("handler") }))), "/")
	wantStatus(t, got, 500)
	wantBody(t, got, `{"error":{"code":"internal","message":"Internal Server Error"}}`)
	if !strings.Contains(log.String(), "panic=handler") || !strings.Contains(log.String(), "panic=OnPanic") {
		t.Errorf("log: %s", log)
	}
}
