package usherecho4_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/usher-go/usher/adapters/adaptertest"
	"github.com/usher-go/usher/adapters/usherecho4"
)

// swap is a middleware that passes on another writer, made in advance.
type swap struct{ w flusher }

type flusher struct{ http.ResponseWriter }

func (*flusher) Flush() {}

func (s *swap) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.ServeNext(w, r, next) })
}

func (s *swap) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	s.w.ResponseWriter = w
	next.ServeHTTP(&s.w, r)
}

// TestAllocs of the suite counts the cost of a middleware that passes on the writer it
// received.
func TestAnotherWriterAllocs(t *testing.T) {
	adaptertest.SkipUnderRace(t)
	count := func(m ...echo.MiddlewareFunc) float64 {
		e := echo.New()
		e.Use(m...)
		e.GET("/", func(echo.Context) error { return nil })
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		return testing.AllocsPerRun(1000, func() { e.ServeHTTP(w, r) })
	}
	if added := count(usherecho4.Middleware(new(swap))) - count(); added != 2 {
		t.Errorf("%v allocations added, want 2", added)
	}
}
