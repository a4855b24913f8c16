package usherecho4_test

import (
	"bytes"
	stdcontext "context"
	"errors"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherecho4"
	"github.com/usher-go/usher/envelope"
)

// newEnvelope returns a middleware that replaces the writer and the request.
func newEnvelope(t testing.TB) usher.Middleware {
	env, err := envelope.New(envelope.Config{Wrap: true, OnError: func(stdcontext.Context, error) {}})
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// The innermost adapter calls the error handler, and echo calls it once more with the
// error that all adapters return. The adapters in between do not call it.
func TestErrorHandlerIsCalledForTheFirstCaptureOnly(t *testing.T) {
	env, calls := newEnvelope(t), 0
	e := echo.New()
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		calls++
		usherecho4.HTTPErrorHandler(err, c)
	}
	e.Use(usherecho4.Middleware(env), usherecho4.Middleware(env), usherecho4.Adapt(env.Wrap))
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/none", nil))
	if w.Code != http.StatusNotFound || calls != 2 {
		t.Errorf("status %d after %d calls, want 404 after 2", w.Code, calls)
	}
}

func TestErrorIsReturnedOutwards(t *testing.T) {
	want := echo.NewHTTPError(http.StatusTeapot, "no coffee")
	var got error
	e := echo.New()
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			got = next(c)
			return got
		}
	})
	e.Use(usherecho4.Middleware(newEnvelope(t)))
	e.GET("/", func(echo.Context) error { return want })
	e.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	if !errors.Is(got, want) {
		t.Errorf("the outer middleware got %v", got)
	}
}

// A middleware that depends on the response needs it when the error reaches the
// middleware.
func TestErrorsAreTranslatedInside(t *testing.T) {
	for _, inside := range []bool{true, false} {
		e := echo.New()
		e.HTTPErrorHandler = usherecho4.HTTPErrorHandler
		use := []echo.MiddlewareFunc{translate, usherecho4.Middleware(newEnvelope(t))}
		want := http.StatusInternalServerError
		if inside {
			slices.Reverse(use)
			want = http.StatusConflict
		}
		e.GET("/", func(echo.Context) error { return errTaken }, use...)
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if w.Code != want {
			t.Errorf("inside %t: status %d, want %d", inside, w.Code, want)
		}
	}
}

var errTaken = errors.New("taken")

// translate maps errors of the service to errors of echo.
func translate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		err := next(c)
		if errors.Is(err, errTaken) {
			return echo.NewHTTPError(http.StatusConflict, "taken")
		}
		return err
	}
}

func TestNoRouteIsKnownInPre(t *testing.T) {
	e := echo.New()
	pattern := patternOf{"unset"}
	e.Pre(usherecho4.Middleware(&pattern))
	e.GET("/items/:id", func(echo.Context) error { return nil })
	mux := http.NewServeMux()
	mux.Handle("/", e)
	mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/items/7", nil))
	if pattern.found != "" {
		t.Errorf("pattern %q", pattern.found)
	}
}

// patternOf is a middleware that records the pattern that it finds.
type patternOf struct{ found string }

func (p *patternOf) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.ServeNext(w, r, next) })
}

func (p *patternOf) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	p.found = r.Pattern
	next.ServeHTTP(w, r)
}

// The status is the same as on echo's own context.
func TestStatusBeforeAnythingIsWritten(t *testing.T) {
	e := echo.New()
	e.Use(usherecho4.Middleware(newEnvelope(t)))
	var status int
	e.GET("/", func(c echo.Context) error {
		status = context{c}.Progress().Status
		return nil
	})
	e.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	if status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

// A native echo middleware that copies the request need not restore it.
func TestFormReachesTheRequestOfTheServer(t *testing.T) {
	e := echo.New()
	e.Use(usherecho4.Middleware(newEnvelope(t)), func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			c.SetRequest(r.WithContext(stdcontext.WithoutCancel(r.Context())))
			return next(c)
		}
	})
	e.POST("/", func(c echo.Context) error {
		_, err := c.MultipartForm()
		return err
	})
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	if err := form.WriteField("a", "b"); err != nil {
		t.Fatal(err)
	}
	_ = form.Close()
	r := httptest.NewRequest(http.MethodPost, "/", &body)
	r.Header.Set("Content-Type", form.FormDataContentType())
	e.ServeHTTP(httptest.NewRecorder(), r)
	if r.MultipartForm == nil || r.MultipartForm.Value["a"][0] != "b" {
		t.Errorf("the server finds %v", r.MultipartForm)
	}
}

// This is why limits by address do not use the RealIP of echo.
func TestRealIP(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "203.0.113.9:1000"
	r.Header.Set("X-Forwarded-For", "198.51.100.1")
	e := echo.New()
	if got := e.NewContext(r, nil).RealIP(); got != "198.51.100.1" {
		t.Errorf("by default %s", got)
	}
	e.IPExtractor = echo.ExtractIPDirect()
	if got := e.NewContext(r, nil).RealIP(); got != "203.0.113.9" {
		t.Errorf("by ExtractIPDirect %s", got)
	}
}

func TestNilPanics(t *testing.T) {
	for name, wrap := range map[string]func(){
		"Middleware": func() { usherecho4.Middleware(nil) },
		"Adapt":      func() { usherecho4.Adapt(nil) },
		"Func":       func() { usherecho4.Middleware(usher.MiddlewareFunc(nil)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("a step that is not there was mounted")
				}
			}()
			wrap()
		})
	}
}
