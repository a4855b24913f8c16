package usherchi_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/usher-go/usher/adapters/adaptertest"
	"github.com/usher-go/usher/adapters/usherchi"
)

// at returns a function that calls Route for the same request repeatedly: before chi has
// found the route, in the root and in a sub-router, and afterwards.
func at(tb testing.TB, place string, ask func(func())) {
	asked := false
	asking := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ask(func() {
				if asked = usherchi.Route(r) == "/api/items/{id}"; !asked {
					tb.Fatal("another route")
				}
			})
			next.ServeHTTP(w, r)
		})
	}
	root := chi.NewRouter()
	if place == "root" {
		root.Use(asking)
	}
	root.Route("/api", func(r chi.Router) {
		if place == "sub-router" {
			r.Use(asking)
		}
		if place == "with" {
			r = r.With(asking)
		}
		r.Get("/items/{id}", func(http.ResponseWriter, *http.Request) {})
	})
	root.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/api/items/7", nil))
	if !asked {
		tb.Fatal("Route was not called")
	}
}

func TestRouteAllocs(t *testing.T) {
	adaptertest.SkipUnderRace(t)
	for place, most := range map[string]float64{"root": 2, "sub-router": 2, "with": 2} {
		at(t, place, func(route func()) {
			if n := testing.AllocsPerRun(1000, route); n > most {
				t.Errorf("%s: %v allocations, want at most %v", place, n, most)
			}
		})
	}
}

func BenchmarkRoute(b *testing.B) {
	for _, place := range []string{"root", "sub-router", "with"} {
		b.Run(place, func(b *testing.B) {
			at(b, place, func(route func()) {
				b.ReportAllocs()
				for b.Loop() {
					route()
				}
			})
		})
	}
	b.Run("routing itself", func(b *testing.B) {
		root := chi.NewRouter()
		root.Route("/api", func(r chi.Router) {
			r.Get("/items/{id}", func(http.ResponseWriter, *http.Request) {})
		})
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/api/items/7", nil)
		b.ReportAllocs()
		for b.Loop() {
			root.ServeHTTP(w, r)
		}
	})
}
