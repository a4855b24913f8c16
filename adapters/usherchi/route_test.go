package usherchi_test

import (
	stdcontext "context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/go-cmp/cmp"

	"github.com/usher-go/usher/adapters/usherchi"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// A trail records what Route returns at each place that a request passes through.
type trail map[string]string

func (t trail) at(place string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			t[place] = usherchi.Route(r)
			next.ServeHTTP(w, r)
			t[place+", after"] = usherchi.Route(r)
		})
	}
}

func (t trail) handler(_ http.ResponseWriter, r *http.Request) { t["handler"] = usherchi.Route(r) }

// service has routes in the root, in sub-routers of two levels and with middlewares
// of their own.
func service(t trail, outermost ...func(http.Handler) http.Handler) http.Handler {
	root := chi.NewRouter()
	root.Use(outermost...)
	root.Use(t.at("root"))
	root.Get("/", t.handler)
	root.With(t.at("with")).Get("/items/{id}", t.handler)
	root.Get("/files/*", t.handler)
	root.Route("/api", func(r chi.Router) {
		r.Use(t.at("sub"))
		r.Get("/", t.handler)
		r.With(t.at("with")).Get("/items/{id}", t.handler)
		r.Route("/accounts/{account}", func(r chi.Router) {
			r.Use(t.at("subsub"))
			r.With(t.at("with")).Post("/items/{id:[0-9]+}", t.handler)
		})
	})
	return root
}

func TestRouteIsTheSameEverywhere(t *testing.T) {
	tests := []struct {
		name, method, path string
		with               []func(http.Handler) http.Handler
		want               string
		places             []string
	}{
		{"the root", "GET", "/", nil, "/", []string{"root", "handler"}},
		{"a route of the root", "GET", "/items/7", nil, "/items/{id}", []string{"root", "with", "handler"}},
		{"an escaped path", "GET", "/items/a%2Fb", nil, "/items/{id}", []string{"root", "with", "handler"}},
		{"a wildcard", "GET", "/files/a/b", nil, "/files/*", []string{"root", "handler"}},
		{"the path of a sub-router", "GET", "/api", nil, "/api", []string{"root", "sub", "handler"}},
		{"the same with a slash", "GET", "/api/", nil, "/api", []string{"root", "sub", "handler"}},
		{"a route of a sub-router", "GET", "/api/items/7", nil, "/api/items/{id}", []string{"root", "sub", "with", "handler"}},
		{
			"a route two levels down", "POST", "/api/accounts/ann/items/7", nil,
			"/api/accounts/{account}/items/{id:[0-9]+}", []string{"root", "sub", "subsub", "with", "handler"},
		},
		{
			"a slash too many, stripped", "GET", "/api/items/7/", []func(http.Handler) http.Handler{middleware.StripSlashes},
			"/api/items/{id}", []string{"root", "sub", "with", "handler"},
		},
		{
			"slashes too many, cleaned", "GET", "//api//items/7", []func(http.Handler) http.Handler{middleware.CleanPath},
			"/api/items/{id}", []string{"root", "sub", "with", "handler"},
		},
		{
			"HEAD in place of GET", "HEAD", "/api/items/7", []func(http.Handler) http.Handler{middleware.GetHead},
			"/api/items/{id}", []string{"root", "sub", "with", "handler"},
		},
		{"no route", "GET", "/nothing", nil, "", []string{"root"}},
		{"no route in a sub-router", "GET", "/api/nothing", nil, "", []string{"root", "sub"}},
		{"no such path in a sub-router", "GET", "/api/items/7/", nil, "", []string{"root", "sub"}},
		{"another method", "DELETE", "/api/items/7", nil, "", []string{"root", "sub"}},
		{"a method that chi does not know", "BREW", "/items/7", nil, "", []string{"root"}},
	}
	for _, mounted := range []string{"alone", "under ServeMux", "under ServeMux with a prefix"} {
		for _, tt := range tests {
			t.Run(mounted+"/"+tt.name, func(t *testing.T) {
				got, path := make(trail), tt.path
				h := service(got, tt.with...)
				switch mounted {
				case "under ServeMux":
					mux := http.NewServeMux()
					mux.Handle("/", h)
					if tt.with == nil { // the mux cleans paths itself
						h = mux
					}
				case "under ServeMux with a prefix":
					mux := http.NewServeMux()
					mux.Handle("/v1/{tenant}/", http.StripPrefix("/v1/ann", h))
					if tt.with == nil {
						h, path = mux, "/v1/ann"+path
					}
				}
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(tt.method, path, nil))
				want := make(trail)
				for _, place := range tt.places {
					want[place] = tt.want
					if place != "handler" {
						want[place+", after"] = tt.want
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// Chi does not see a router inside another handler as a sub-router. Route must not
// mistake it for the root, which may have the same paths.
// A tracer passes on a copy of the request, with its span, and reads the pattern of its own.
func TestATracerInsidePatternKnowsTheRoute(t *testing.T) {
	type span struct{}
	var got string
	tracer := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(stdcontext.WithValue(r.Context(), span{}, true)))
			got = r.Pattern
		})
	}
	h := service(trail{}, usherchi.Pattern, tracer)
	for path, want := range map[string]string{"/items/7": "/items/{id}", "/api/items/7": "/api/items/{id}", "/nowhere": ""} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
		if got != want {
			t.Errorf("%s has the pattern %q, want %q", path, got, want)
		}
	}
}

func TestRouteOfAHiddenRouter(t *testing.T) {
	for _, mount := range []bool{false, true} {
		got := make(trail)
		hidden := chi.NewRouter()
		hidden.Use(got.at("hidden"))
		hidden.With(got.at("with")).Get("/items/{id}", got.handler)
		root := chi.NewRouter()
		root.Use(got.at("root"))
		root.Get("/items/{id}", got.handler)
		if h := http.StripPrefix("/hidden", hidden); mount {
			root.Mount("/hidden", h)
		} else {
			root.Handle("/hidden/*", h)
		}
		root.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/hidden/items/7", nil))
		want := trail{"root": "/hidden/*", "hidden": "/hidden/*"}
		for _, place := range []string{"root, after", "hidden, after", "with", "with, after", "handler"} {
			want[place] = "/hidden/items/{id}"
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("mount %t: %s", mount, diff)
		}
	}
}

// Chi treats an empty path as the root.
func TestRouteOfAnEmptyPath(t *testing.T) {
	got := make(trail)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.URL.Path = ""
	service(got).ServeHTTP(httptest.NewRecorder(), r)
	if got["root"] != "/" || got["handler"] != "/" {
		t.Errorf("%v", got)
	}
}

// Before a request is routed, its pattern is empty, which is the same for all routes: a
// key that was used on one route would be refused on another.
func TestIdempotencyKeysBelongToRoutes(t *testing.T) {
	for name, tt := range map[string]struct {
		use    func(http.Handler) http.Handler
		route  func(*http.Request) string
		status int
	}{
		"by Pattern":           {use: usherchi.Pattern, status: http.StatusCreated},
		"by Route":             {route: usherchi.Route, status: http.StatusCreated},
		"with neither of them": {status: http.StatusUnprocessableEntity},
	} {
		t.Run(name, func(t *testing.T) {
			once := must(idempotency.New(idempotency.Config{DangerouslyAllowAnonymous: true, Route: tt.route}))
			created := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }
			root := chi.NewRouter()
			if tt.use != nil {
				root.Use(tt.use)
			}
			root.Use(once.Wrap)
			root.Post("/orders", created)
			root.Post("/refunds", created)
			var last int
			for _, path := range []string{"/orders", "/refunds"} {
				r := httptest.NewRequest(http.MethodPost, path, nil)
				r.Header.Set("Idempotency-Key", "k-1")
				w := httptest.NewRecorder()
				root.ServeHTTP(w, r)
				last = w.Code
			}
			if last != tt.status {
				t.Errorf("the second route responds with %d, want %d", last, tt.status)
			}
		})
	}
}

func TestRouteOfAContextMadeByHand(t *testing.T) {
	rctx := chi.NewRouteContext()
	rctx.RoutePatterns = []string{"/items/{id}"}
	r := httptest.NewRequest(http.MethodGet, "/items/7", nil)
	r = r.WithContext(stdcontext.WithValue(r.Context(), chi.RouteCtxKey, rctx))
	if got := usherchi.Route(r); got != "/items/{id}" {
		t.Errorf("Route is %q", got)
	}
}

func TestRouteWithoutARouter(t *testing.T) {
	if got := usherchi.Route(httptest.NewRequest(http.MethodGet, "/items/7", nil)); got != "" {
		t.Errorf("Route is %q", got)
	}
}

// A path that is not registered must not get a counter of its own.
func TestByRoute(t *testing.T) {
	keys := make(map[ratelimit.Key][]string)
	byRoute := usherchi.ByRoute()
	h := service(make(trail), func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			key, ok := byRoute(r)
			if !ok {
				t.Errorf("%s is not counted", r.URL.Path)
			}
			keys[key] = append(keys[key], r.URL.Path)
			next.ServeHTTP(w, r)
		})
	})
	for _, path := range []string{"/api/items/1", "/api/items/2", "/items/1", "/1", "/2", "/api/1", "/api/items/1/2"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
	}
	want := map[ratelimit.Key][]string{
		ratelimit.TextKey("/api/items/{id}"): {"/api/items/1", "/api/items/2"},
		ratelimit.TextKey("/items/{id}"):     {"/items/1"},
		ratelimit.TextKey(""):                {"/1", "/2", "/api/1", "/api/items/1/2"},
	}
	if diff := cmp.Diff(want, keys, cmp.AllowUnexported(ratelimit.Key{})); diff != "" {
		t.Error(diff)
	}
}

// For the root of a mounted router, chi calls that router with every method.
func TestTheRootOfAMountedRouter(t *testing.T) {
	var before, ran string
	root := chi.NewRouter()
	root.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			before = usherchi.Route(r)
			next.ServeHTTP(w, r)
		})
	})
	root.MethodNotAllowed(usherchi.MethodNotAllowed)
	h := func(_ http.ResponseWriter, r *http.Request) { ran = chi.RouteContext(r.Context()).RoutePattern() }
	items := func(r chi.Router) { r.Get("/", h); r.Post("/{id}", h) }
	root.Route("/items", items)
	root.Route("/shops/{shop:[a-z]+}", func(r chi.Router) { r.Route("/items", items) })
	root.Route("/rest", func(r chi.Router) { r.Get("/", h); r.HandleFunc("/*", h) })
	root.Route("/none", func(r chi.Router) { r.Get("/x", h) })
	root.Get("/none", h)
	root.Mount("/files", http.HandlerFunc(h))
	root.Get("/apart", h)
	root.Route("/apart/", func(r chi.Router) { r.Post("/", h) })
	root.Get("/", h)
	root.Route("/deep", func(r chi.Router) {
		r.Get("/", h)
		r.Route("/", func(r chi.Router) { r.Post("/x", h) })
	})

	for line, want := range map[string]struct{ pattern, allow string }{
		"GET /items":          {"/items", ""},
		"GET /items/":         {"/items", ""},
		"POST /items":         {"", "GET"},
		"DELETE /items/":      {"", "GET"},
		"POST /items/7":       {"/items/{id}", ""},
		"GET /shops/a/items":  {"/shops/{shop:[a-z]+}/items", ""},
		"POST /shops/a/items": {"", "GET"},
		"GET /rest":           {"/rest", ""},
		"POST /rest":          {"/rest/*", ""},
		"POST /rest/x":        {"/rest/*", ""},
		"GET /none":           {"/none", ""},
		"GET /files":          {"/files", ""},
		"POST /files/x":       {"/files/*", ""},
		"GET /apart":          {"/apart", ""},
		"POST /apart/":        {"/apart", ""},
		"GET /":               {"/", ""},
		"POST /":              {"", "GET"},
		"GET /deep":           {"/deep", ""},
		"POST /deep/x":        {"/deep/x", ""},
	} {
		before, ran = "not run", ""
		w := httptest.NewRecorder()
		method, path, _ := strings.Cut(line, " ")
		root.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if before != want.pattern || ran != want.pattern || w.Header().Get("Allow") != want.allow {
			t.Errorf("%s: %q before and %q in the handler, want %q; status %d, Allow: %s", line, before, ran, want.pattern, w.Code, w.Header().Get("Allow"))
		}
	}
}
