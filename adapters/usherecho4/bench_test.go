package usherecho4_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherecho4"
)

// BenchmarkMiddleware measures the cost of a middleware that does nothing and of one that
// passes on another writer, compared with a native one and echo's own adapter.
func BenchmarkMiddleware(b *testing.B) {
	for _, bb := range []struct {
		name string
		use  []echo.MiddlewareFunc
	}{
		{"none", nil},
		{"native", []echo.MiddlewareFunc{func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error { return next(c) }
		}}},
		{"usher", []echo.MiddlewareFunc{usherecho4.Middleware(usher.Chain())}},
		{"usher, another writer", []echo.MiddlewareFunc{usherecho4.Middleware(new(swap))}},
		{"foreign", []echo.MiddlewareFunc{usherecho4.Adapt(usher.Chain(new(swap)).Wrap)}},
		{"echo.WrapMiddleware", []echo.MiddlewareFunc{echo.WrapMiddleware(usher.Chain(new(swap)).Wrap)}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			e := echo.New()
			e.Use(bb.use...)
			e.GET("/items/:id", func(echo.Context) error { return nil })
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/items/7", nil)
			b.ReportAllocs()
			for b.Loop() {
				e.ServeHTTP(w, r)
			}
		})
	}
}
