package routers_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/gorilla/mux"
	"github.com/julienschmidt/httprouter"
	"github.com/uptrace/bunrouter"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/examples/routers"
	"github.com/usher-go/usher/ratelimit"
)

// router is one of the routers with the routes of the test.
type router struct {
	http.Handler

	name    string
	pattern usher.Middleware
	order   string // the pattern of GET /orders/{id}, as the router writes it
}

func all() []router {
	gorilla := mux.NewRouter()
	gorilla.HandleFunc("/orders/{id}", func(w http.ResponseWriter, r *http.Request) { order(w, mux.Vars(r)["id"]) }).Methods(http.MethodGet)
	gorilla.PathPrefix("/admin").Subrouter().HandleFunc("/users/{id:[0-9]+}", func(w http.ResponseWriter, r *http.Request) { order(w, mux.Vars(r)["id"]) })
	gorilla.NotFoundHandler = http.HandlerFunc(usher.NotFound)

	julien := routers.NewHTTPRouter()
	julien.Handle(http.MethodGet, "/orders/:id", func(w http.ResponseWriter, _ *http.Request, p httprouter.Params) { order(w, p.ByName("id")) })
	julien.Handle(http.MethodGet, "/admin/users/:id", func(w http.ResponseWriter, _ *http.Request, p httprouter.Params) { order(w, p.ByName("id")) })
	julien.Router.NotFound = http.HandlerFunc(usher.NotFound)

	bun := routers.NewBunRouter(bunrouter.WithNotFoundHandler(bunrouter.HTTPHandlerFunc(usher.NotFound)))
	bun.Handle(http.MethodGet, "/orders/:id", func(w http.ResponseWriter, r bunrouter.Request) error { order(w, r.Param("id")); return nil })
	bun.Handle(http.MethodGet, "/admin/users/:id", func(w http.ResponseWriter, r bunrouter.Request) error { order(w, r.Param("id")); return nil })

	return []router{
		{gorilla, "gorilla/mux", routers.Gorilla(gorilla), "/orders/{id}"},
		{julien, "httprouter", julien.Pattern(), "/orders/:id"},
		{bun, "bunrouter", bun.Pattern(), "/orders/:id"},
	}
}

func order(w http.ResponseWriter, id string) { _, _ = fmt.Fprint(w, "order "+id) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A limit by route, outside of the router, counts all orders as one route and everything
// that no route matches as another. Its refusals have the pattern.
func TestALimitByRouteOutsideOfTheRouter(t *testing.T) {
	for _, router := range all() {
		t.Run(router.name, func(t *testing.T) {
			limits := must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
				Name: "by-route", Key: ratelimit.ByRoute(), Limit: ratelimit.RollingWindow(2, time.Hour),
			}}}))
			env := must(envelope.New(envelope.Config{Shape: envelope.Data()}))
			var pattern string
			seen := usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				next.ServeHTTP(w, r)
				pattern = r.Pattern
			})
			h := usher.Chain(router.pattern, seen, env, limits).Wrap(router)
			for _, tt := range []struct {
				method, path string
				status       int
				pattern      string
			}{
				{"GET", "/orders/1", 200, router.order},
				{"GET", "/orders/2", 200, router.order},
				{"GET", "/orders/3", 429, router.order},
				{"GET", "/orders/orders", 429, router.order},
				{"GET", "/none/1", 404, ""},
				{"DELETE", "/orders/1", 405, ""},
				{"GET", "/none/2", 429, ""},
				{"DELETE", "/orders/2", 429, ""},
			} {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
				if w.Code != tt.status || pattern != tt.pattern {
					t.Errorf("%s %s: %d %q, want %d %q", tt.method, tt.path, w.Code, pattern, tt.status, tt.pattern)
				}
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/admin/users/7", nil))
			if w.Body.String() != "order 7" || pattern == "" {
				t.Errorf("%d %s of %q", w.Code, w.Body, pattern)
			}
		})
	}
}

// A log that is outside of the router has the route of a request that never reached it.
func ExampleGorilla() {
	router := mux.NewRouter()
	router.HandleFunc("/orders/{id}", func(http.ResponseWriter, *http.Request) {}).Methods(http.MethodGet)
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	access := usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(w, r)
		log.Info("request", "route", r.Pattern)
	})
	h := usher.Chain(routers.Gorilla(router), access, usher.Require(usher.Requirement{})).Wrap(router)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/orders/7", nil))
	fmt.Println(w.Code)
	// Output:
	// level=INFO msg=request route=/orders/{id}
	// 401
}

func ExampleHTTPRouter() {
	router := routers.NewHTTPRouter()
	router.Handle(http.MethodGet, "/orders/:id", func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		_, _ = fmt.Fprintf(w, "order %s of %s", p.ByName("id"), r.Pattern)
	})
	w := httptest.NewRecorder()
	router.Pattern().Wrap(router).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/orders/7", nil))
	fmt.Println(w.Body)
	// Output: order 7 of /orders/:id
}

func ExampleBunRouter() {
	router := routers.NewBunRouter()
	router.Handle(http.MethodGet, "/orders/:id", func(w http.ResponseWriter, r bunrouter.Request) error {
		_, err := fmt.Fprintf(w, "order %s of %s", r.Param("id"), r.Pattern)
		return err
	})
	w := httptest.NewRecorder()
	router.Pattern().Wrap(router).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/orders/7", nil))
	fmt.Println(w.Body)
	// Output: order 7 of /orders/:id
}
