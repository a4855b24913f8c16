package ushergin_test

import (
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/adaptertest"
	"github.com/usher-go/usher/adapters/ushergin"
)

// hook is a middleware that passes on a writer of its own.
type hook struct{}

func (hook) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { hook{}.ServeNext(w, r, next) })
}

func (hook) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	next.ServeHTTP(&adaptertest.Writer{Inner: w}, r)
}

// serve serves GET /items/7 behind middlewares.
func serve(t *testing.T, handler gin.HandlerFunc, middlewares ...gin.HandlerFunc) *httptest.ResponseRecorder {
	t.Helper()
	engine := gin.New()
	engine.Use(middlewares...)
	engine.GET("/items/:id", handler)
	w := httptest.NewRecorder()
	engine.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/items/7", nil))
	return w
}

func TestWriterIsWhatGinExpects(t *testing.T) {
	check := func(t *testing.T, c *gin.Context, status, size int, written bool) {
		t.Helper()
		if w := c.Writer; w.Status() != status || w.Size() != size || w.Written() != written {
			t.Errorf("status %d, size %d, written %t; want %d, %d, %t", w.Status(), w.Size(), w.Written(), status, size, written)
		}
	}
	w := serve(t, func(c *gin.Context) {
		check(t, c, 200, -1, false)
		c.Status(202)
		c.Status(-1) // as Context.SSEvent does
		check(t, c, 202, -1, false)
		_, _ = c.Writer.Write([]byte("abc"))
		check(t, c, 202, 3, true)
		c.Status(500)
		check(t, c, 202, 3, true)
		_, _ = c.Writer.WriteString("def")
		check(t, c, 202, 6, true)
		if _, _, err := c.Writer.Hijack(); err == nil {
			t.Error("hijacked after a body")
		}
		if c.Writer.Pusher() != nil {
			t.Error("pushes, which the server cannot")
		}
		inner := c.Writer.(interface{ Unwrap() http.ResponseWriter }).Unwrap()
		if _, ok := inner.(*adaptertest.Writer); !ok {
			t.Errorf("unwraps to a %T", inner)
		}
	}, ushergin.Middleware(hook{}))
	if w.Code != 202 || w.Body.String() != "abcdef" {
		t.Errorf("status %d, body %s", w.Code, w.Body)
	}
}

// funcWriter cannot be compared.
type funcWriter struct {
	gin.ResponseWriter
	before func()
}

func (w funcWriter) WriteString(s string) (int, error) {
	w.before()
	return w.ResponseWriter.WriteString(s)
}

func TestWriterThatCannotBeCompared(t *testing.T) {
	native := func(c *gin.Context) {
		c.Writer = funcWriter{c.Writer, func() { c.Header("Before", "yes") }}
	}
	w := serve(t, func(c *gin.Context) { _, _ = c.Writer.WriteString("ok") }, native, ushergin.Middleware(usher.Chain()))
	if w.Code != 200 || w.Body.String() != "ok" || w.Header().Get("Before") != "yes" {
		t.Errorf("status %d, body %s, header %v", w.Code, w.Body, w.Header())
	}
}

func TestErrors(t *testing.T) {
	private := errors.New("private")
	public := &usher.Error{Status: 409, Code: "taken"}
	tests := []struct {
		name    string
		handler gin.HandlerFunc
		status  int
		body    string // a part of it
	}{
		{"no error, no response of Errors", func(*gin.Context) {}, 200, ""},
		{"an error of usher is sent", func(c *gin.Context) { _ = c.Error(public) }, 409, `"code":"taken"`},
		{"also if it is wrapped", func(c *gin.Context) { _ = c.Error(errors.Join(private, public)) }, 409, `"code":"taken"`},
		{"any other error is 500", func(c *gin.Context) { _ = c.Error(private) }, 500, `"code":"internal"`},
		{"or the status that the handler has set", func(c *gin.Context) { c.Status(400); _ = c.Error(private) }, 400, `"status":400`},
		{"if that is one of an error", func(c *gin.Context) { c.Status(201); _ = c.Error(private) }, 500, `"code":"internal"`},
		{"an error of usher outranks the status", func(c *gin.Context) { c.Status(400); _ = c.Error(public) }, 409, `"code":"taken"`},
		{"the last error counts", func(c *gin.Context) { _ = c.Error(private); _ = c.Error(public) }, 409, `"code":"taken"`},
		{"what was written stays", func(c *gin.Context) { c.String(200, "written"); _ = c.Error(public) }, 200, "written"},
		{"what was sent without a body stays", func(c *gin.Context) { _ = c.AbortWithError(400, private) }, 400, ""},
	}
	for _, tt := range tests {
		for _, outside := range [][]gin.HandlerFunc{nil, {ushergin.Middleware(hook{})}} {
			t.Run(tt.name, func(t *testing.T) {
				w := serve(t, tt.handler, append(outside, ushergin.Errors)...)
				body := w.Body.String()
				if w.Code != tt.status || !strings.Contains(body, tt.body) || tt.body == "" && body != "" {
					t.Errorf("%d %s, want %d and %s", w.Code, body, tt.status, tt.body)
				}
				if strings.Contains(body, "private") {
					t.Errorf("the body has the private error: %s", body)
				}
			})
		}
	}
}

// A gin.Context has the values of the request's context only if the engine is configured
// that way.
func TestPrincipalOfGin(t *testing.T) {
	for _, fallback := range []bool{false, true} {
		engine := gin.New()
		engine.ContextWithFallback = fallback
		engine.GET("/", func(c *gin.Context) {
			c.Request = usher.WithPrincipal(c.Request, &usher.Principal{ID: "ann"})
			if p, ok := ushergin.PrincipalFrom(c); !ok || p.ID != "ann" {
				t.Errorf("PrincipalFrom returns %q, %t", p.ID, ok)
			}
			if _, ok := usher.PrincipalFrom(c); ok != fallback {
				t.Errorf("PrincipalFrom finds one: %t, with ContextWithFallback %t", ok, fallback)
			}
		})
		engine.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	}
}

// Gin middlewares that copy the request leave the files of forms behind, unless one of
// usher's middlewares is outside them.
func TestFormsOfNativeCopiesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	engine := gin.New()
	engine.Use(ushergin.Middleware(hook{}), func(c *gin.Context) { c.Request = c.Request.WithContext(c.Request.Context()) })
	engine.POST("/", func(c *gin.Context) {
		_, err := c.MultipartForm()
		if n := files(t, dir); err != nil || n != 1 {
			t.Errorf("%d files while the handler runs: %v", n, err)
		}
	})
	engine.MaxMultipartMemory = 1
	s := httptest.NewServer(engine)

	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, err := form.CreateFormFile("file", "a.bin")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = file.Write(make([]byte, 64<<10))
	_ = form.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, &body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", form.FormDataContentType())
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	s.Close()
	if n := files(t, dir); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

func files(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestNilMiddlewarePanics(t *testing.T) {
	for name, mount := range map[string]func(){
		"Middleware": func() { ushergin.Middleware(nil) },
		"Adapt":      func() { ushergin.Adapt(nil) },
		"Func":       func() { ushergin.Middleware(usher.MiddlewareFunc(nil)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s takes nil", name)
				}
			}()
			mount()
		}()
	}
}

// This test checks what the package documentation states about gin itself.
func TestGinIsAsDocumented(t *testing.T) {
	engine := gin.New()
	engine.Use(ushergin.Errors)
	ran := 0
	engine.Group("/group", func(*gin.Context) { ran++ }).POST("/bind", func(c *gin.Context) {
		var v struct{}
		_ = c.BindJSON(&v)
		c.Header("Late", "yes")
	})
	engine.GET("/address", func(c *gin.Context) { c.String(200, c.ClientIP()) })
	call := func(method, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader("no JSON"))
		r.Header.Set("X-Forwarded-For", "1.2.3.4")
		w := httptest.NewRecorder()
		engine.ServeHTTP(w, r)
		return w
	}

	if call("GET", "/group/none"); ran != 0 {
		t.Error("a middleware of a group runs for what no route matches")
	}
	if w := call("POST", "/group/bind"); ran != 1 || w.Code != 400 || w.Body.Len() != 0 || w.Result().Header.Get("Late") != "" {
		t.Errorf("BindJSON does not send its status at once: %d %s", w.Code, w.Body)
	}
	if w := call("GET", "/address"); w.Body.String() != "1.2.3.4" {
		t.Errorf("ClientIP trusts not every peer, but returns %s", w.Body)
	}
}

// TestWriterAllocs counts the cost of a middleware that passes on another writer.
func TestWriterAllocs(t *testing.T) {
	adaptertest.SkipUnderRace(t)
	count := func(middlewares ...gin.HandlerFunc) float64 {
		engine := gin.New()
		engine.Use(middlewares...)
		engine.GET("/", func(c *gin.Context) { c.Status(204) })
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		return testing.AllocsPerRun(1000, func() { engine.ServeHTTP(w, r) })
	}
	// One is the writer of the middleware, the other that of the adapter.
	if n := count(ushergin.Middleware(hook{})) - count(); n != 2 {
		t.Errorf("%v allocations, want 2", n)
	}
}

// TestErrorsAllocs counts the cost of Errors for a request without errors. It includes
// gin's map of keys, which other middlewares share.
func TestErrorsAllocs(t *testing.T) {
	adaptertest.SkipUnderRace(t)
	count := func(middlewares ...gin.HandlerFunc) float64 {
		engine := gin.New()
		engine.Use(middlewares...)
		engine.GET("/", func(c *gin.Context) { c.Status(204) })
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		return testing.AllocsPerRun(1000, func() { engine.ServeHTTP(w, r) })
	}
	if n := count(ushergin.Errors) - count(); n > 2 {
		t.Errorf("%v allocations, want 2", n)
	}
	key := func(c *gin.Context) { c.Set("key", true) }
	if n := count(key, ushergin.Errors) - count(key); n > 0 {
		t.Errorf("%v allocations beside another key, want none", n)
	}
}

func BenchmarkMiddleware(b *testing.B) {
	pass := usher.Chain()
	for _, bb := range []struct {
		name        string
		middlewares []gin.HandlerFunc
	}{
		{"none", nil},
		{"native", []gin.HandlerFunc{func(c *gin.Context) { c.Next() }}},
		{"usher", []gin.HandlerFunc{ushergin.Middleware(pass)}},
		{"usher with a writer", []gin.HandlerFunc{ushergin.Middleware(hook{})}},
		{"foreign", []gin.HandlerFunc{ushergin.Adapt(pass.Wrap)}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			engine := gin.New()
			engine.Use(bb.middlewares...)
			engine.GET("/", func(c *gin.Context) { c.Status(204) })
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
			b.ReportAllocs()
			for b.Loop() {
				engine.ServeHTTP(w, r)
			}
		})
	}
}

// A handler that succeeds too late, or whose client has gone, must write its status: in
// gin even a 200, which is the default there.
func TestAStatusThatTheHandlerHasSetIsAResponse(t *testing.T) {
	for name, test := range map[string]struct {
		handler gin.HandlerFunc
		status  int
	}{
		"nothing":     {func(*gin.Context) {}, http.StatusGatewayTimeout},
		"200":         {func(c *gin.Context) { c.Status(http.StatusOK) }, http.StatusOK},
		"201":         {func(c *gin.Context) { c.Status(http.StatusCreated) }, http.StatusCreated},
		"201 and 200": {func(c *gin.Context) { c.Status(http.StatusCreated); c.Status(http.StatusOK) }, http.StatusOK},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := gin.New()
			deadline := usher.Deadline(time.Second, &usher.Error{Status: http.StatusGatewayTimeout})
			e.Use(ushergin.Middleware(deadline), ushergin.Middleware(usher.Authenticate(anyone{})))
			e.GET("/", func(c *gin.Context) {
				time.Sleep(time.Minute)
				test.handler(c)
			})
			w := httptest.NewRecorder()
			e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			if w.Code != test.status {
				t.Errorf("%s after the deadline: status %d, want %d", name, w.Code, test.status)
			}
		})
	}
}

type anyone struct{}

func (anyone) Authenticate(*http.Request) (*usher.Principal, error) {
	return &usher.Principal{ID: "ann"}, nil
}
