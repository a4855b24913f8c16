package usherchi_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherchi"
	"github.com/usher-go/usher/envelope"
)

func TestUnmatched(t *testing.T) {
	none := func(http.ResponseWriter, *http.Request) {}
	plain := func(r chi.Router) {}
	tests := []struct {
		name, method, path string
		with               func(chi.Router)
		status             int
		allow              string
	}{
		{"no such path", "GET", "/nothing", plain, 404, ""},
		{"no such path in a sub-router", "GET", "/api/nothing", plain, 404, ""},
		{"another method", "DELETE", "/items/7", plain, 405, "GET, POST"},
		{"another method in a sub-router", "PATCH", "/api/items/7", plain, 405, "PUT"},
		{"another method, escaped path", "DELETE", "/items/a%2Fb", plain, 405, "GET, POST"},
		{"a method that chi does not know", "BREW", "/items/7", plain, 405, "GET, POST"},
		{"such a method for no path", "BREW", "/nothing", plain, 404, ""},
		{"another method in a hidden router", "PATCH", "/hidden/items/7", plain, 405, ""},
		{
			"a slash too many, stripped", "PATCH", "/api/items/7/",
			func(r chi.Router) { r.Use(middleware.StripSlashes) }, 405, "PUT",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env, err := envelope.New(envelope.Config{Shape: envelope.Problem("")})
			if err != nil {
				t.Fatal(err)
			}
			router := chi.NewRouter()
			tt.with(router)
			router.Use(env.Wrap)
			router.NotFound(usher.NotFound)
			router.MethodNotAllowed(usherchi.MethodNotAllowed)
			router.Get("/items/{id}", none)
			router.Post("/items/{id}", none)
			hidden := chi.NewRouter()
			hidden.MethodNotAllowed(usherchi.MethodNotAllowed)
			hidden.Get("/items/{id}", none)
			router.Mount("/hidden", http.StripPrefix("/hidden", hidden))
			router.Route("/api", func(r chi.Router) { r.Put("/items/{id}", none) })
			w := httptest.NewRecorder()
			router.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
			if w.Code != tt.status || w.Header().Get("Allow") != tt.allow {
				t.Errorf("status %d, Allow %q, want %d, %q", w.Code, w.Header().Get("Allow"), tt.status, tt.allow)
			}
			if w.Header().Get("X-Request-Id") == "" || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("not in the envelope: %v", w.Header())
			}
		})
	}
}

func TestMount(t *testing.T) {
	show := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path+" "+r.URL.EscapedPath()+" "+r.URL.RawQuery)
	})
	router := chi.NewRouter()
	usherchi.Mount(router, "/keys", show)
	router.Route("/v1/{account}", func(r chi.Router) { usherchi.Mount(r, "/keys", show) })
	for path, want := range map[string]string{
		"/keys":                  "/ / ",
		"/keys/":                 "/ / ",
		"/keys/7?page=2":         "/7 /7 page=2",
		"/v1/ann/keys":           "/ / ",
		"/v1/ann/keys/7/rotate":  "/7/rotate /7/rotate ",
		"/v1/a%2Fb/keys/7%2Frot": "/7/rot /7%2Frot ",
		"/v1/a%2Fb/keys/7/%25":   "/7/% /7/%25 ",
	} {
		w := httptest.NewRecorder()
		router.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if got := w.Body.String(); got != want {
			t.Errorf("%s: the handler sees %q, want %q", path, got, want)
		}
	}
}
