package idempotency_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// asAcme replaces the authentication of a real server.
func asAcme(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, usher.WithPrincipal(r, &usher.Principal{ID: "acme", Kind: usher.KindAPIKey}))
	})
}

// order posts an order of tea with a key and prints the response.
func order(h http.Handler, key string) {
	r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader("tea"))
	r.Header.Set("Idempotency-Key", key)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	replayed := ""
	if w.Header().Get("Idempotency-Replayed") == "true" {
		replayed = " (replayed)"
	}
	fmt.Println(w.Code, w.Body.String()+replayed)
}

func Example() {
	once, err := idempotency.New(idempotency.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	orders := 0
	mux := http.NewServeMux()
	mux.Handle("POST /orders", once.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		item, _ := io.ReadAll(r.Body)
		orders++
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "order %d: %s", orders, item)
	})))
	h := asAcme(mux) // in place of usher.Authenticate

	order(h, "a")
	order(h, "a")
	order(h, "b")
	// Output:
	// 201 order 1: tea
	// 201 order 1: tea (replayed)
	// 201 order 2: tea
}

// A slow handler works with a context that ends when its claim is lost, and passes on its
// fencing token and a key of its own.
func ExampleExecution_Context() {
	once, err := idempotency.New(idempotency.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := asAcme(once.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := idempotency.From(r.Context())
		ctx, cancel := e.Context(r.Context())
		defer cancel()
		if err := ship(ctx, e.Generation(), e.DownstreamKey("carrier")); err != nil {
			usher.Fail(w, r, err)
			return
		}
		fmt.Fprint(w, "shipped")
	})))
	order(h, "a")
	// Output:
	// 200 shipped
}

func ship(ctx context.Context, generation uint64, key string) error {
	if generation == 0 || len(key) != 64 {
		return fmt.Errorf("no execution")
	}
	return ctx.Err()
}

// The common mistake is to put the middleware outside authentication. Keys belong to
// callers, and the caller is not known there. So a request with a key is refused:
// otherwise all callers would share their keys.
func ExampleMiddleware_Wrap_incorrect() {
	once, err := idempotency.New(idempotency.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := once.Wrap(asAcme(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "ordered")
	})))
	order(h, "a")
	// Output:
	// 401 {"type":"about:blank","title":"Unauthorized","status":401,"detail":"A request with an idempotency key needs a credential.","code":"missing_credential"}
}

// A service publishes the rules for its keys, and each refusal links to their documentation.
func ExampleMiddleware_Discovery() {
	once, err := idempotency.New(idempotency.Config{
		ValidKey:      idempotency.IsUUID,
		Documentation: "https://api.example.com/docs/retries",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/idempotency", once.Discovery())
	mux.Handle("POST /orders", asAcme(once.Wrap(http.NotFoundHandler())))

	order(mux, "a")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/idempotency", nil))
	var policy struct{ Lifetime, Documentation string }
	err = json.Unmarshal(w.Body.Bytes(), &policy)
	fmt.Println(policy.Lifetime, policy.Documentation, err)
	// Output:
	// 400 {"type":"https://api.example.com/docs/retries#idempotency_key_invalid","title":"Bad Request","status":400,"detail":"The idempotency key does not have the form that this service requires.","code":"idempotency_key_invalid","param":"Idempotency-Key"}
	// PT24H https://api.example.com/docs/retries <nil>
}
