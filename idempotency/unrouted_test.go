package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A mounting builds a service that has a POST route for /v1/orders, or none yet.
type mounting struct {
	name  string
	build func(once *idempotency.Middleware, orders http.Handler) http.Handler
}

// muxWith returns a mux with a route for orders, if that is not nil, and with one for GET.
func muxWith(path string, orders http.Handler) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+path, func(http.ResponseWriter, *http.Request) {})
	if orders != nil {
		mux.Handle("POST "+path, orders)
	}
	return mux
}

// copying is a middleware that copies the request, as many do.
func copying(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), valueKey{}, "value")))
	})
}

var mountings = []mounting{
	{"outside the mux", func(once *idempotency.Middleware, orders http.Handler) http.Handler {
		return once.Wrap(muxWith("/v1/orders", orders))
	}},
	{"outside the mux, inside usher.Pattern", func(once *idempotency.Middleware, orders http.Handler) http.Handler {
		mux := muxWith("/v1/orders", orders)
		return usher.Chain(usher.Pattern(mux), once).Wrap(mux)
	}},
	{"outside the mux, with Authenticate between", func(once *idempotency.Middleware, orders http.Handler) http.Handler {
		return usher.Chain(once, usher.Authenticate(usher.Optional(nobody{}))).Wrap(muxWith("/v1/orders", orders))
	}},
	{"outside a mux with a handler for unknown paths", func(once *idempotency.Middleware, orders http.Handler) http.Handler {
		mux := muxWith("/v1/orders", orders)
		mux.HandleFunc("/", http.NotFound)
		return once.Wrap(mux)
	}},
	{"outside a mux with usher.NotFound", func(once *idempotency.Middleware, orders http.Handler) http.Handler {
		mux := muxWith("/v1/orders", orders)
		mux.HandleFunc("/{$}", func(http.ResponseWriter, *http.Request) {})
		mux.HandleFunc("/", usher.NotFound)
		return once.Wrap(mux)
	}},
	{"outside a mux with usher.MethodNotAllowed", func(once *idempotency.Middleware, orders http.Handler) http.Handler {
		mux := muxWith("/v1/orders", orders)
		mux.HandleFunc("/v1/orders", usher.MethodNotAllowed)
		return once.Wrap(mux)
	}},
	{"outside a mux with a last parameter for unknown paths", func(once *idempotency.Middleware, orders http.Handler) http.Handler {
		mux := muxWith("/v1/orders", orders)
		mux.HandleFunc("/{path...}", http.NotFound)
		return once.Wrap(mux)
	}},
	{"inside a mux, around a nested one", func(once *idempotency.Middleware, orders http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/v1/", once.Wrap(muxWith("/v1/orders", orders)))
		return mux
	}},
	{"inside a mux, around a nested one without the prefix", func(once *idempotency.Middleware, orders http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/v1/", once.Wrap(http.StripPrefix("/v1", muxWith("/orders", orders))))
		return mux
	}},
	{"inside a router with a wildcard for the middlewares of a group", func(once *idempotency.Middleware, orders http.Handler) http.Handler {
		h := once.Wrap(http.NotFoundHandler())
		if orders != nil {
			h = once.Wrap(orders)
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Pattern = "/v1/*"
			h.ServeHTTP(w, r)
		})
	}},
	{"with a Route of its own", func(*idempotency.Middleware, http.Handler) http.Handler { return nil }},
}

// nobody is an authenticator that finds no credential.
type nobody struct{}

func (nobody) Authenticate(*http.Request) (*usher.Principal, error) {
	return nil, usher.ErrNoCredential
}

// A service responds with 404 or 405 until it has the route. Then a retry, which still has
// the key, runs.
func TestAResponseThatNoRouteProducedIsNotRemembered(t *testing.T) {
	profiles := map[string]idempotency.Profile{
		"default": nil, "Stripe": idempotency.ProfileStripe, "release server errors": idempotency.ProfileReleaseServerErrors,
		"keep all":          func(int) idempotency.Outcome { return idempotency.Keep },
		"keep the statuses": func(int) idempotency.Outcome { return idempotency.KeepStatus },
		"forget":            func(int) idempotency.Outcome { return idempotency.Forget },
	}
	for name, profile := range profiles {
		for _, m := range mountings {
			t.Run(m.name+", profile: "+name, func(t *testing.T) {
				config := idempotency.Config{Store: newMemory(t, idempotency.MemoryConfig{}), Profile: profile}
				build := m.build
				if m.name == "with a Route of its own" {
					config.Route = func(*http.Request) string { return "" }
					build = mountings[0].build
				}
				once := newMiddleware(t, config)
				request := func() *http.Request {
					return post("/v1/orders", "{}", func(r *http.Request) { r.Pattern = "" })
				}
				old := build(once, nil)
				for range 2 {
					if w := do(old, request()); w.Code != 404 && w.Code != 405 || w.Header().Get("Idempotency-Replayed") != "" {
						t.Errorf("without the route: %d, replayed %q", w.Code, w.Header().Get("Idempotency-Replayed"))
					}
				}
				calls := new(counting)
				if w := do(build(newMiddleware(t, config), calls), request()); w.Code != 201 {
					t.Errorf("with the route: %d %s", w.Code, w.Body)
				}
				calls.want(t, 1)
			})
		}
	}
}

// What a route itself responds is stored, and the handler decides.
func TestA404OfARouteIsReplayed(t *testing.T) {
	for _, m := range []mounting{
		mountings[0], mountings[1], mountings[2],
		{"inside the mux", func(once *idempotency.Middleware, orders http.Handler) http.Handler {
			return muxWith("/v1/orders", once.Wrap(orders))
		}},
		{"inside the mux, with a middleware that copies the request", func(once *idempotency.Middleware, orders http.Handler) http.Handler {
			return muxWith("/v1/orders", once.Wrap(copying(orders)))
		}},
		{"at a route whose pattern ends with a slash", func(once *idempotency.Middleware, orders http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Pattern, r.URL.Path = "/v1/orders/", "/v1/orders/"
				once.Wrap(orders).ServeHTTP(w, r)
			})
		}},
		{"with a Route of its own", func(_ *idempotency.Middleware, orders http.Handler) http.Handler {
			return newMiddleware(t, idempotency.Config{Route: func(*http.Request) string { return "orders" }}).Wrap(orders)
		}},
	} {
		t.Run(m.name, func(t *testing.T) {
			calls := &counting{next: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such product", http.StatusNotFound) }}
			h := m.build(newMiddleware(t, idempotency.Config{}), calls)
			request := func() *http.Request {
				return post("/v1/orders", "{}", func(r *http.Request) { r.Pattern = "" })
			}
			first := do(h, request())
			for range 2 {
				wantReplay(t, do(h, request()), first)
			}
			calls.want(t, 1)
		})
	}
	t.Run("if it is the error of a call", func(t *testing.T) {
		for _, operation := range []string{"pay", "pay/", "pay/*", "pay/{path...}"} {
			m := newMiddleware(t, idempotency.Config{Route: func(*http.Request) string { return "" }})
			calls := 0
			for _, replayed := range []bool{false, true} {
				_, got, err := m.Execute(t.Context(), idempotency.Call{Owner: "ada", Operation: operation, Key: "k"},
					func(context.Context) ([]byte, error) {
						calls++
						return nil, &usher.Error{Status: http.StatusNotFound, Code: "no_account"}
					})
				if e, ok := errors.AsType[*usher.Error](err); !ok || e.Code != "no_account" || got != replayed || calls != 1 {
					t.Errorf("%s: got %v, replayed %v, after %d calls", operation, err, got, calls)
				}
			}
		}
	})
	for _, status := range []int{404, 405} {
		t.Run(fmt.Sprint("if the handler keeps it although no route is known: ", status), func(t *testing.T) {
			calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
				idempotency.From(r.Context()).SetOutcome(idempotency.Keep)
				w.WriteHeader(status)
			}}
			h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
			request := func() *http.Request { return post("/", "{}", func(r *http.Request) { r.Pattern = "" }) }
			first := do(h, request())
			wantReplay(t, do(h, request()), first)
			calls.want(t, 1)
		})
	}
}
