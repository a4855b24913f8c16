package idempotency_test

import (
	"net/http"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

func TestOwnerRouteAndKeyAreHashedApart(t *testing.T) {
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{
		Route: func(r *http.Request) string { return r.Header.Get("Route") },
	}).Wrap(calls)
	seen := map[string]bool{}
	for _, parts := range [][3]string{{"a", "b", "c"}, {"ab", "", "c"}, {"a", "bc", "d"}, {"a", "b", "cd"}, {"a|b", "c", "d"}, {"a", "b|c", "d"}} {
		w := do(h, post("/", "", as(&usher.Principal{ID: parts[0]}), key(parts[2]), func(r *http.Request) { r.Header.Set("Route", parts[1]) }))
		if seen[w.Body.String()] || w.Code != 201 {
			t.Errorf("%q got %d %s", parts, w.Code, w.Body)
		}
		seen[w.Body.String()] = true
	}
	calls.want(t, 6)
}

func TestRoutesOutsideAndInsideARouter(t *testing.T) {
	t.Run("inside the router two routes have separate keys", func(t *testing.T) {
		calls := new(counting)
		once := newMiddleware(t, idempotency.Config{})
		mux := http.NewServeMux()
		mux.Handle("POST /a/{id}", once.Wrap(calls))
		mux.Handle("POST /b/{id}", once.Wrap(calls))
		do(mux, post("/a/1", ""))
		do(mux, post("/b/1", ""))
		calls.want(t, 2)
		wantFailure(t, do(mux, post("/a/2", "")), 422, usher.CodeIdempotencyKeyReused)
	})
	t.Run("outside the router the second request is refused rather than replayed", func(t *testing.T) {
		calls := new(counting)
		mux := http.NewServeMux()
		mux.Handle("POST /a", calls)
		mux.Handle("POST /b", calls)
		h := newMiddleware(t, idempotency.Config{}).Wrap(mux)
		first := do(h, post("/a", ""))
		wantFailure(t, do(h, post("/b", "")), 422, usher.CodeIdempotencyKeyReused)
		wantReplay(t, do(h, post("/a", "")), first)
		calls.want(t, 1)
	})
}

func TestKeysAreThoseOfTheRoutePattern(t *testing.T) {
	once := newMiddleware(t, idempotency.Config{})
	orders := new(counting)
	outer, inner := http.NewServeMux(), http.NewServeMux()
	outer.Handle("POST /orders/{id}", orders)
	inner.Handle("POST /orders/{id}", once.Wrap(orders))
	request := func() *http.Request { return post("/orders/7", `{}`, key("1")) }

	first := do(inner, request())
	wantReplay(t, do(usher.Chain(usher.Pattern(outer), once).Wrap(outer), request()), first)
	orders.want(t, 1)
	// Without a pattern the key is another one, as the documentation warns.
	do(once.Wrap(outer), request())
	orders.want(t, 2)
}
