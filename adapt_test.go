package usher_test

import (
	"bytes"
	"context"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/race"
)

type key struct{}

// appending copies the request, as most middlewares do.
func appending(text string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			before, _ := r.Context().Value(key{}).(string)
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, before+text)))
		})
	}
}

func TestAdaptFindsTheNextOfEachRequest(t *testing.T) {
	a, b := usher.Adapt(appending("a")), usher.Adapt(appending("b"))
	h := usher.Chain(a, b, a) // a twice: the inner one has a next of its own
	for _, name := range []string{"one", "two"} {
		w := httptest.NewRecorder()
		h.ServeNext(w, httptest.NewRequest(http.MethodGet, "/", nil), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, name+r.Context().Value(key{}).(string))
		}))
		if got := w.Body.String(); got != name+"aba" {
			t.Errorf("body %q, want %q", got, name+"aba")
		}
	}
}

func TestAdaptBuildsTheMiddlewareOnce(t *testing.T) {
	built := 0
	m := usher.Adapt(func(next http.Handler) http.Handler {
		built++
		return next
	})
	served := 0
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ })
	for range 3 {
		m.ServeNext(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), next)
		m.Wrap(next).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	}
	if built != 1 || served != 6 {
		t.Errorf("built %d times for %d requests", built, served)
	}
}

func TestAdaptRefusesAContextThatIsNotDerived(t *testing.T) {
	m := usher.Adapt(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(context.Background()))
		})
	})
	w := httptest.NewRecorder()
	m.ServeNext(w, httptest.NewRequest(http.MethodGet, "/", nil), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the next of another request has run")
	}))
	if w.Code != http.StatusInternalServerError {
		t.Errorf("status %d", w.Code)
	}
}

func TestAdaptOfNilPanics(t *testing.T) {
	mustPanic(t, "usher: Adapt of a nil middleware", func() { usher.Adapt(nil) })
}

func TestAdaptAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	m := usher.Adapt(func(next http.Handler) http.Handler { return next })
	h := m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w, r := httptest.NewRecorder(), get()
	if got := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); got != 2 {
		t.Errorf("%v allocations, want 2: the copy of the request and its context", got)
	}
}

// http.TimeoutHandler calls next on a goroutine that may outlive the request. Run
// with -race.
func TestAdaptOfATimeoutHandler(t *testing.T) {
	timeout := usher.Adapt(func(next http.Handler) http.Handler { return http.TimeoutHandler(next, time.Second, "late") })
	for way, run := range ways {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var finished atomic.Bool
				h := run(usher.Chain(timeout, usher.Authenticate(constant{caller})), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					r.Pattern, r.MultipartForm = "GET /notes", new(multipart.Form)
					if r.Header.Get("Slow") != "" {
						<-r.Context().Done()
						time.Sleep(time.Second)
						finished.Store(true)
						r.Pattern = "too late"
						return
					}
					p, _ := usher.PrincipalFrom(r.Context())
					_, _ = io.WriteString(w, p.ID)
				}))
				r := get()
				w := serve(h, r)
				if w.Code != http.StatusOK || w.Body.String() != caller.ID || r.Pattern != "GET /notes" || r.MultipartForm == nil {
					t.Errorf("in time: status %d, body %q, pattern %q, form %v", w.Code, w.Body, r.Pattern, r.MultipartForm)
				}
				r = get("Slow", "1")
				w = serve(h, r)
				if w.Code != http.StatusServiceUnavailable || w.Body.String() != "late" || finished.Load() {
					t.Errorf("late: status %d, body %q, handler finished %t", w.Code, w.Body, finished.Load())
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if !finished.Load() || r.Pattern != "" {
					t.Errorf("afterwards: handler finished %t, pattern %q", finished.Load(), r.Pattern)
				}
			})
		})
	}
}

// The server removes temporary files only for the request that it made.
func TestAdaptLetsTheServerRemoveTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	s := httptest.NewServer(usher.Adapt(appending("a")).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil {
			t.Error(err)
		}
		if files(t, dir) == 0 {
			t.Error("the form was kept in memory")
		}
	})))
	body, contentType := upload(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	s.Close()
	if n := files(t, dir); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

func upload(t *testing.T) (body *bytes.Buffer, contentType string) {
	t.Helper()
	body = new(bytes.Buffer)
	m := multipart.NewWriter(body)
	f, err := m.CreateFormFile("file", "a.bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Repeat([]byte("x"), 64<<10)); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	return body, m.FormDataContentType()
}

func files(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
