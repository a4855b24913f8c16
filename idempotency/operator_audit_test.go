package idempotency_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// The audit log has the context of the operator, and nothing of the client but digests. A
// panic in it changes nothing.
func TestOnChangeIsAnAuditLog(t *testing.T) {
	type operator struct{}
	var texts []string
	var reported []error
	m := newMiddleware(t, idempotency.Config{
		OnChange: func(ctx context.Context, c idempotency.Change) {
			texts = append(texts, fmt.Sprintf("%v %+v %s", ctx.Value(operator{}), c, c.Key))
			panic("bug")
		},
		OnError: func(_ context.Context, err error) { reported = append(reported, err) },
	})
	calls := orders()
	h := m.Wrap(calls)
	panics(nil, h, post("/", "visible", key("visible-key")))
	ctx := context.WithValue(t.Context(), operator{}, "olga")
	k := ofAlice
	k.Key = "visible-key"
	if _, err := m.Lookup(ctx, k); err != nil {
		t.Error(err)
	}
	if err := m.Resolve(ctx, k, idempotency.Resolution{
		Outcome: idempotency.Keep, Response: &idempotency.Response{Status: 200, Body: []byte("visible")},
	}); err != nil {
		t.Error(err)
	}
	if err := m.Delete(ctx, k); err != nil {
		t.Error(err)
	}
	if w := do(h, post("/", "visible", key("visible-key"))); w.Code != 201 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if len(texts) != 3 || len(reported) != 3 || !strings.Contains(reported[0].Error(), "Config.OnChange") {
		t.Fatalf("OnChange got %q, OnError %v", texts, reported)
	}
	for _, text := range texts {
		if !strings.HasPrefix(text, "olga ") || strings.Contains(text, "visible") || strings.Contains(text, "alice") {
			t.Errorf("OnChange got %s", text)
		}
	}
}

// Within an envelope an operator sees the response without the envelope of its request, and
// supplies one that gets an envelope.
func TestAnOperatorWithinAnEnvelope(t *testing.T) {
	asks := always(idempotency.Resolution{Outcome: idempotency.Keep, Response: &idempotency.Response{
		Status: 201, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"order":1}`),
	}})
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		status  int
		body    string
	}{
		{"plain JSON", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(201)
			fmt.Fprint(w, `{"order":1}`)
		}, 201, `{"order":1}`},
		{"usher.Respond", func(w http.ResponseWriter, r *http.Request) {
			usher.Respond(w, r, usher.Reply{Status: 201, Data: map[string]int{"order": 1}})
		}, 201, `{"order":1}`},
		{"usher.Fail", func(w http.ResponseWriter, r *http.Request) {
			usher.Fail(w, r, &usher.Error{Status: 422, Code: "no_tea", Message: "There is no tea."})
		}, 422, `{"code":"no_tea","message":"There is no tea."}`},
		{"a resolution", func(http.ResponseWriter, *http.Request) { panic("bug") }, 201, `{"order":1}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMiddleware(t, idempotency.Config{Resolve: asks.Resolve, OnError: func(context.Context, error) {}})
			h := newEnvelope(t).Wrap(m.Wrap(c.handler))
			do(h, post("/", ""))
			w := do(h, post("/", ""))
			if w.Code != c.status || strings.Count(w.Body.String(), "status_code") != 1 || w.Header().Get("Idempotency-Replayed") != "true" {
				t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
			}
			e, err := m.Lookup(t.Context(), ofAlice)
			if err != nil || e.Response == nil || e.Response.Status != c.status || string(e.Response.Body) != c.body {
				t.Errorf("Lookup returned %+v, %v", e.Response, err)
			}
		})
	}
}
