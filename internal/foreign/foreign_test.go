package foreign_test

import (
	"bytes"
	"context"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/foreign"
)

type key struct{}

// mark copies the request, as most middlewares do.
func mark(text string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			before, _ := r.Context().Value(key{}).(string)
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, before+text)))
		})
	}
}

func TestNextIsThatOfTheRequest(t *testing.T) {
	a, b := foreign.New(mark("a")), foreign.New(mark("b"))
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

func TestMiddlewareIsBuiltOnce(t *testing.T) {
	built := 0
	m := foreign.New(func(next http.Handler) http.Handler {
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

func TestLostContextIsAnError(t *testing.T) {
	m := foreign.New(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(context.Background()))
		})
	})
	w := httptest.NewRecorder()
	m.ServeNext(w, httptest.NewRequest(http.MethodGet, "/", nil), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("somebody's next has run")
	}))
	if w.Code != http.StatusInternalServerError {
		t.Errorf("status %d", w.Code)
	}
}

// The server removes temporary files only of the request that it made.
func TestTemporaryFilesOfFormsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	s := httptest.NewServer(foreign.New(mark("a")).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
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
