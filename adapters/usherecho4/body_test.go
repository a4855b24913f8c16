package usherecho4_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherecho4"
	"github.com/usher-go/usher/idempotency"
)

// A limit of echo that a body exceeds while idempotency reads it keeps its status, as
// without a key; so does any error of a body that echo's middlewares replace.
func TestALimitOfEchoKeepsItsStatus(t *testing.T) {
	once, err := idempotency.New(idempotency.Config{DangerouslyAllowAnonymous: true})
	if err != nil {
		t.Fatal(err)
	}
	failing := func(err error) echo.MiddlewareFunc {
		return func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error {
				c.Request().Body = io.NopCloser(io.MultiReader(strings.NewReader("some"), errReader{err}))
				return next(c)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		outer  echo.MiddlewareFunc
		status int
		code   string
	}{
		{"BodyLimit", middleware.BodyLimit("1000B"), http.StatusRequestEntityTooLarge, usher.CodePayloadTooLarge},
		{"a type that is refused", failing(echo.ErrUnsupportedMediaType), http.StatusUnsupportedMediaType, ""},
		{"with an error inside", failing(echo.ErrBadRequest.WithInternal(echo.ErrRequestTimeout)), http.StatusRequestTimeout, ""},
		{"an error of usher", failing(&usher.Error{Status: http.StatusTeapot, Code: "tea"}), http.StatusTeapot, "tea"},
		{"an error without a status", failing(errors.New("private")), http.StatusBadRequest, usher.CodeBodyUnreadable},
		{"a body that is short enough", middleware.BodyLimit("1M"), http.StatusCreated, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := echo.New()
			e.HTTPErrorHandler = usherecho4.HTTPErrorHandler
			e.POST("/", func(c echo.Context) error {
				if _, err := io.ReadAll(c.Request().Body); err != nil {
					return err
				}
				return c.NoContent(http.StatusCreated)
			}, tt.outer, usherecho4.Middleware(once))
			s := httptest.NewServer(e)
			t.Cleanup(s.Close)
			for _, key := range []string{tt.name, ""} {
				// In chunks, as a length would be refused before the body is read.
				body := io.MultiReader(strings.NewReader(strings.Repeat("x", 4000)))
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
				if err != nil {
					t.Fatal(err)
				}
				if key != "" {
					r.Header.Set("Idempotency-Key", strings.ReplaceAll(key, " ", "-"))
				}
				resp, err := s.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				var got struct{ Code string }
				_ = json.NewDecoder(resp.Body).Decode(&got)
				_ = resp.Body.Close()
				if key == "" && tt.code == usher.CodeBodyUnreadable {
					continue // which only a middleware that reads the body finds
				}
				if resp.StatusCode != tt.status || got.Code != tt.code {
					t.Errorf("key %q: %d %s, want %d %s", key, resp.StatusCode, got.Code, tt.status, tt.code)
				}
			}
		})
	}
}

// A handler gets the errors of echo, which its own binder and error handler know.
func TestAHandlerReadsTheBodyOfEcho(t *testing.T) {
	e := echo.New()
	var got error
	pass := usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(w, r)
	})
	e.POST("/", func(c echo.Context) error {
		var v any
		got = c.Bind(&v)
		return got
	}, middleware.BodyLimit("10B"), usherecho4.Middleware(pass), usherecho4.Middleware(pass))
	r := httptest.NewRequest(http.MethodPost, "/", io.MultiReader(strings.NewReader(`"`+strings.Repeat("x", 100))))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	if he, ok := errors.AsType[*echo.HTTPError](got); !ok || he.Code != http.StatusRequestEntityTooLarge || w.Code != he.Code {
		t.Errorf("the handler got %v, the client %d", got, w.Code)
	}
}

// A body that stalls ends at its deadline through the writer of echo, too.
func TestABodyThatStallsIsRefused(t *testing.T) {
	once, err := idempotency.New(idempotency.Config{DangerouslyAllowAnonymous: true, BodyTimeout: 30 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	e := echo.New()
	e.POST("/", func(c echo.Context) error { return c.NoContent(http.StatusCreated) }, usherecho4.Middleware(once))
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	body, _ := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", "k")
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = resp.Body.Close(), body.Close()
	if resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("status %d", resp.StatusCode)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }
