package idempotency_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/compare"
)

// A RequestKey names the same record as the request, however the owner and the route are
// found out and the key is sent.
func TestARequestKeyNamesTheRecordOfTheRequest(t *testing.T) {
	routed := func(m *idempotency.Middleware) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("POST /orders/{id}", m.Wrap(new(counting)))
		return mux
	}
	bare := func(m *idempotency.Middleware) http.Handler { return m.Wrap(new(counting)) }
	for _, c := range []struct {
		name    string
		config  idempotency.Config
		handler func(*idempotency.Middleware) http.Handler
		request *http.Request
		key     idempotency.RequestKey
	}{
		{"a principal", idempotency.Config{}, bare, post("/orders/1", ""), ofAlice},
		{"a principal with more than an identity", idempotency.Config{}, bare, post("/orders/1", ""), idempotency.RequestKey{
			Principal: &usher.Principal{ID: alice.ID, Kind: alice.Kind, Name: "x", Plan: "gold"}, Method: "POST", Route: "POST /test", Key: "k",
		}},
		{"nobody", idempotency.Config{DangerouslyAllowAnonymous: true}, bare, post("/orders/1", "", anonymous),
			idempotency.RequestKey{Method: "POST", Route: "POST /test", Key: "k"}},
		{"an owner", idempotency.Config{Owner: func(*http.Request) (string, bool) { return "acme", true }}, bare, post("/orders/1", ""),
			idempotency.RequestKey{Owner: "acme", Method: "POST", Route: "POST /test", Key: "k"}},
		{"no route", idempotency.Config{}, bare, post("/orders/1", "", func(r *http.Request) { r.Pattern = "" }),
			idempotency.RequestKey{Principal: alice, Method: "POST", Key: "k"}},
		{"a route", idempotency.Config{}, routed, post("/orders/1", ""),
			idempotency.RequestKey{Principal: alice, Method: "POST", Route: "POST /orders/{id}", Key: "k"}},
		{"a configured route", idempotency.Config{Route: func(*http.Request) string { return "orders" }}, routed, post("/orders/1", ""),
			idempotency.RequestKey{Principal: alice, Method: "POST", Route: "orders", Key: "k"}},
		{"another method", idempotency.Config{Methods: []string{"PUT"}}, bare,
			post("/orders/1", "", func(r *http.Request) { r.Method = "PUT" }),
			idempotency.RequestKey{Principal: alice, Method: "PUT", Route: "POST /test", Key: "k"}},
		{"a key in quotes", idempotency.Config{}, bare, post("/orders/1", "", key(`"k"`)), ofAlice},
		{"a key that the operator quotes", idempotency.Config{}, bare, post("/orders/1", ""),
			idempotency.RequestKey{Principal: alice, Method: "POST", Route: "POST /test", Key: `"k"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var event idempotency.Event
			var change idempotency.Change
			c.config.OnResult = func(_ context.Context, e idempotency.Event) { event = e }
			c.config.OnChange = func(_ context.Context, e idempotency.Change) { change = e }
			m := newMiddleware(t, c.config)
			do(c.handler(m), c.request)
			e, err := m.Lookup(t.Context(), c.key)
			if err != nil || e.State != idempotency.StateDone {
				t.Errorf("got %+v, %v", e, err)
			}
			if e.Key != event.Key || e.Key != change.Key || e.Generation != event.Generation || e.Generation != change.Generation {
				t.Errorf("the entry is %+v, the event %+v, the change %+v", e, event, change)
			}
			// Every part counts.
			for name, other := range map[string]func(*idempotency.RequestKey){
				"owner": func(k *idempotency.RequestKey) {
					switch {
					case k.Principal != nil:
						k.Principal = &usher.Principal{ID: "bob", Kind: alice.Kind}
					case k.Owner != "":
						k.Owner = "other"
					default:
						k.Key = "other" // Nobody has no name.
					}
				},
				"kind": func(k *idempotency.RequestKey) {
					if k.Principal != nil {
						k.Principal = &usher.Principal{ID: alice.ID, Kind: usher.KindJWT}
					} else {
						k.Key = "other"
					}
				},
				"route": func(k *idempotency.RequestKey) { k.Route += "x" },
				"key":   func(k *idempotency.RequestKey) { k.Key = "other" },
			} {
				k := c.key
				other(&k)
				if e, err := m.Lookup(t.Context(), k); !errors.Is(err, idempotency.ErrNotFound) {
					t.Errorf("another %s: got %+v, %v", name, e, err)
				}
			}
		})
	}
}

// A RequestKey that no request can have is an error that names the field, and is reported.
func TestAnInvalidRequestKeyIsAnError(t *testing.T) {
	owned := idempotency.Config{Owner: func(*http.Request) (string, bool) { return "acme", true }}
	for _, c := range []struct {
		name   string
		config idempotency.Config
		key    idempotency.RequestKey
		field  string
	}{
		{"no key", idempotency.Config{}, idempotency.RequestKey{Principal: alice, Method: "POST"}, "Key"},
		{"a key with a blank", idempotency.Config{}, idempotency.RequestKey{Principal: alice, Method: "POST", Key: "secret key"}, "Key"},
		{"no method", idempotency.Config{}, idempotency.RequestKey{Principal: alice, Key: "k"}, "Method"},
		{"a method that does not count", idempotency.Config{}, idempotency.RequestKey{Principal: alice, Method: "PUT", Key: "k"}, "Method"},
		{"no owner", idempotency.Config{}, idempotency.RequestKey{Method: "POST", Key: "k"}, "Principal"},
		{"an owner that is not configured", idempotency.Config{}, idempotency.RequestKey{Principal: alice, Owner: "acme", Method: "POST", Key: "k"}, "Owner"},
		{"a principal that does not count", owned, idempotency.RequestKey{Principal: alice, Owner: "acme", Method: "POST", Key: "k"}, "Principal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := new(changes)
			c.config.OnChange = log.add
			m := newMiddleware(t, c.config)
			_, lookup := m.Lookup(t.Context(), c.key)
			resolve := m.Resolve(t.Context(), c.key, idempotency.Resolution{Outcome: idempotency.Forget})
			remove := m.Delete(t.Context(), c.key)
			for _, err := range []error{lookup, resolve, remove} {
				if err == nil || !strings.Contains(err.Error(), "RequestKey."+c.field+" ") || strings.Contains(err.Error(), "secret") {
					t.Errorf("got %v, want a fault of %s", err, c.field)
				}
			}
			want := []string{"lookup 0: 0 to 0, true", "resolve 5: 0 to 0, true", "delete 0: 0 to 0, true"}
			if diff := compare.Diff(want, log.take(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
