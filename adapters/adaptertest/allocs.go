package adaptertest

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestAllocs checks that the adapter adds as many allocations per request as router
// declares, to a middleware that replaces neither the request nor the writer.
func TestAllocs(t *testing.T, router Router) {
	SkipUnderRace(t)
	pass := Step{Usher: middlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(w, r)
	})}
	// Five middlewares, so that rounding does not hide an allocation.
	bare, with := countAllocs(t, router), countAllocs(t, router, pass, pass, pass, pass, pass)
	if added := with - bare; added != 5*router.Allocs {
		t.Errorf("five middlewares add %d allocations to %d, want %d each", added, bare, router.Allocs)
	}
}

// SkipUnderRace skips a test that counts allocations if the race detector is on: the
// detector makes allocations of its own.
func SkipUnderRace(tb testing.TB) {
	tb.Helper()
	if raceEnabled {
		tb.Skip("the race detector makes allocations of its own")
	}
}

func countAllocs(tb testing.TB, router Router, use ...Step) int {
	status := func(c Context) error { return c.Status(http.StatusNoContent) }
	h := router.Handler(tb, App{Use: use, Routes: []Route{get("/items/{id}", status)}})
	w := &discard{header: make(http.Header)}
	r := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, "/items/41", nil)
	h.ServeHTTP(w, r) // some frameworks build the chain on the first request
	if w.status != http.StatusNoContent {
		tb.Fatalf("status %d", w.status)
	}
	return int(testing.AllocsPerRun(1000, func() { h.ServeHTTP(w, r) }))
}

type discard struct {
	header http.Header
	status int
}

func (w *discard) Header() http.Header         { return w.header }
func (w *discard) WriteHeader(status int)      { w.status = status }
func (w *discard) Write(p []byte) (int, error) { return len(p), nil }
