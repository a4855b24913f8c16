package usherchi_test

import (
	stdcontext "context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherchi"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// A whole server: one shape for all responses and a limit on every route, API keys
// for a sub-router, one route whose requests can be repeated, and the management
// of keys by the people who own them.
func Example() {
	format := apikey.Native{Prefix: "shop", Environments: []string{"live"}}
	store := apikey.NewMemory()
	manager := must(apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format}))
	_, secret, err := manager.Create(stdcontext.Background(), apikey.Actor{System: true}, apikey.Key{Owner: "acme", Name: "demo"})
	if err != nil {
		panic(err)
	}
	auth := must(apikey.New(apikey.Config{Manager: manager}))
	defer func() { _ = auth.Close() }()
	env := must(envelope.New(envelope.Config{Shape: envelope.Data(), Wrap: true}))
	limits := must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name:  "route",
		Key:   ratelimit.Combine(ratelimit.ByAddress(), ratelimit.ByRoute()),
		Limit: ratelimit.RollingWindow(3, time.Minute),
	}}}))
	once := must(idempotency.New(idempotency.Config{}))
	manage := must(apikey.NewHandler(apikey.HandlerConfig{Manager: manager, Principal: person}))

	root := chi.NewRouter()
	root.Use(usherchi.Pattern, env.Wrap, limits.Wrap)
	root.NotFound(usher.NotFound)
	root.MethodNotAllowed(usherchi.MethodNotAllowed)
	root.Get("/health", func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value("up") })

	orders := 0
	root.Route("/api", func(r chi.Router) {
		r.Use(usher.Authenticate(auth).Wrap)
		r.With(once.Wrap).Post("/orders", func(w http.ResponseWriter, r *http.Request) {
			caller, _ := usher.PrincipalFrom(r.Context())
			orders++
			envelope.For(w, r).Created("", map[string]any{"order": orders, "for": caller.Owner})
		})
	})
	usherchi.Mount(root, "/account/keys", manage)

	call := func(method, path string, header ...string) {
		r := httptest.NewRequest(method, path, strings.NewReader("{}"))
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		root.ServeHTTP(w, r)
		fmt.Println(method, path, w.Code, w.Body)
	}
	key := []string{"X-API-Key", secret.Reveal(), "Idempotency-Key", "k-1"}
	call("GET", "/health")
	call("POST", "/api/orders")
	call("POST", "/api/orders", key...)
	call("POST", "/api/orders", key...) // a retry
	call("POST", "/api/orders", key...) // over the limit of this route
	call("GET", "/account/keys/k7")
	call("GET", "/account/keys/k7", "Cookie", "session=ann")
	call("GET", "/nowhere")
	call("POST", "/health")
	// Output:
	// GET /health 200 {"data":"up"}
	// POST /api/orders 401 {"error":{"code":"missing_credential","message":"The request carries no credential."}}
	// POST /api/orders 201 {"data":{"for":"acme","order":1}}
	// POST /api/orders 201 {"data":{"for":"acme","order":1}}
	// POST /api/orders 429 {"error":{"code":"rate_limited","message":"Rate limit exceeded.","details":{"violated-policies":["route"]},"retry_after":60},"retry_after":60}
	// GET /account/keys/k7 401 {"error":{"code":"missing_credential","message":"The request carries no credential."}}
	// GET /account/keys/k7 404 {"error":{"code":"api_key_not_found","message":"API key not found."}}
	// GET /nowhere 404 {"error":{"code":"not_found","message":"Not Found"}}
	// POST /health 405 {"error":{"code":"method_not_allowed","message":"Method Not Allowed"}}
}

// person authenticates people by their session.
func person(r *http.Request) (usher.Principal, error) {
	if c, err := r.Cookie("session"); err != nil || c.Value != "ann" {
		return usher.Principal{}, &usher.Error{
			Status: http.StatusUnauthorized, Code: usher.CodeMissingCredential, Message: "The request carries no credential.",
		}
	}
	return usher.Principal{ID: "ann", Owner: "acme", Level: usher.LevelFull}, nil
}

// Mount strips the prefix, as http.StripPrefix does elsewhere, including the prefixes of
// outer routers.
func ExampleMount() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path)
	})
	root := chi.NewRouter()
	root.Route("/accounts/{account}", func(r chi.Router) { usherchi.Mount(r, "/keys", handler) })

	for _, path := range []string{"/accounts/ann/keys", "/accounts/ann/keys/7/rotate"} {
		w := httptest.NewRecorder()
		root.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Println(w.Body)
	}
	// Output:
	// /
	// /7/rotate
}

// In a sub-router chi has only "/api/*" until it has found the route, so all routes would
// share one limit. An usherchi.Pattern outside the limiter has the same effect as
// usherchi.ByRoute, and everything inside it sees the pattern.
func ExampleByRoute_incorrect() {
	limiter := func(key ratelimit.KeyFunc) *ratelimit.Limiter {
		return must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{
			{Name: "route", Key: key, Limit: ratelimit.RollingWindow(1, time.Minute)},
		}}))
	}
	ok := func(http.ResponseWriter, *http.Request) {}
	root := chi.NewRouter()
	for path, key := range map[string]ratelimit.KeyFunc{"/wrong": ratelimit.ByRoute(), "/right": usherchi.ByRoute()} {
		root.Route(path, func(r chi.Router) {
			r.Use(limiter(key).Wrap)
			r.Get("/orders/{id}", ok)
			r.Get("/prices/{id}", ok)
		})
	}

	for _, path := range []string{"/wrong/orders/1", "/wrong/prices/1", "/right/orders/1", "/right/prices/1"} {
		w := httptest.NewRecorder()
		root.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Println(path, w.Code)
	}
	// Output:
	// /wrong/orders/1 200
	// /wrong/prices/1 429
	// /right/orders/1 200
	// /right/prices/1 200
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
