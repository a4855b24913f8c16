package peers_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/NYTimes/gziphandler"
	gingzip "github.com/gin-contrib/gzip"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	chimiddleware "github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/handlers"
	"github.com/klauspost/compress/gzhttp"
	"github.com/labstack/echo/v4"
	echo4middleware "github.com/labstack/echo/v4/middleware"
	echo5 "github.com/labstack/echo/v5"
	echo5middleware "github.com/labstack/echo/v5/middleware"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherecho"
	"github.com/usher-go/usher/adapters/usherecho4"
	"github.com/usher-go/usher/adapters/ushergin"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// A compressor serves h with its own middleware outside some of usher's and inside
// others.
type compressor func(outer, inner []usher.Middleware, h http.Handler) http.Handler

var compressors = map[string]compressor{
	"ten lines":           byWrapping(tenLines),
	"gorilla/handlers":    byWrapping(handlers.CompressHandler),
	"klauspost gzhttp":    byWrapping(func(h http.Handler) http.Handler { return gzhttp.GzipHandler(h) }),
	"NYTimes/gziphandler": byWrapping(gziphandler.GzipHandler),
	"chi Compress": func(outer, inner []usher.Middleware, h http.Handler) http.Handler {
		r := chi.NewRouter()
		for _, m := range outer {
			r.Use(m.Wrap)
		}
		r.Use(chimiddleware.Compress(5))
		for _, m := range inner {
			r.Use(m.Wrap)
		}
		r.Handle("/*", h)
		return r
	},
	"gin-contrib/gzip": func(outer, inner []usher.Middleware, h http.Handler) http.Handler {
		gin.SetMode(gin.ReleaseMode)
		engine := gin.New()
		for _, m := range outer {
			engine.Use(ushergin.Middleware(m))
		}
		engine.Use(gingzip.Gzip(gingzip.DefaultCompression))
		for _, m := range inner {
			engine.Use(ushergin.Middleware(m))
		}
		engine.Any("/*path", gin.WrapH(h))
		return engine
	},
	"echo v4 Gzip": func(outer, inner []usher.Middleware, h http.Handler) http.Handler {
		e := echo.New()
		for _, m := range outer {
			e.Use(usherecho4.Middleware(m))
		}
		e.Use(echo4middleware.Gzip())
		for _, m := range inner {
			e.Use(usherecho4.Middleware(m))
		}
		e.Any("/*", echo.WrapHandler(h))
		return e
	},
	"echo v5 Gzip": func(outer, inner []usher.Middleware, h http.Handler) http.Handler {
		e := echo5.New()
		for _, m := range outer {
			e.Use(usherecho.Middleware(m))
		}
		e.Use(echo5middleware.Gzip())
		for _, m := range inner {
			e.Use(usherecho.Middleware(m))
		}
		e.Any("/*", echo5.WrapHandler(h))
		return e
	},
}

func byWrapping(compress func(http.Handler) http.Handler) compressor {
	return func(outer, inner []usher.Middleware, h http.Handler) http.Handler {
		return usher.Chain(outer...).Wrap(compress(usher.Chain(inner...).Wrap(h)))
	}
}

// none serves h without a compressor.
func none(outer, inner []usher.Middleware, h http.Handler) http.Handler {
	return byWrapping(func(h http.Handler) http.Handler { return h })(outer, inner, h)
}

// tenLines is a compressor as services write it themselves. It announces the
// encoding before the response is known.
func tenLines(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		defer func() { _ = zip.Close() }()
		next.ServeHTTP(zipWriter{w, zip}, r)
	})
}

type zipWriter struct {
	http.ResponseWriter
	zip io.Writer
}

func (w zipWriter) Write(p []byte) (int, error) { return w.zip.Write(p) }

const secret = "hunter2"

// service responds in every way that a compressor can break.
func service() http.Handler {
	long := strings.Repeat("a long text ", 500)
	writes := func(status int, mediaType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	fails := func(err error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, err) }
	}
	responds := func(data any) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { usher.Respond(w, r, usher.Reply{Data: data}) }
	}
	mux := http.NewServeMux()
	for path, h := range map[string]http.HandlerFunc{
		"/json":         writes(200, "application/json", `{"a":1}`),
		"/json/long":    writes(201, "application/json", `{"a":"`+long+`"}`),
		"/json/invalid": writes(422, "application/json", `{"title":"`+long+`"}`),
		"/json/failed":  writes(503, "application/json", `{"cause":"`+secret+`"}`),
		"/respond":      responds(1),
		"/respond/long": responds(long),
		"/text":         writes(200, "text/plain", long),
		"/html":         writes(200, "text/html", "<p>"+long),
		"/fail":         fails(&usher.Error{Status: 402, Code: "no_credit", Message: "No credit is left."}),
		"/fail/long":    fails(&usher.Error{Status: 409, Code: "taken", Message: long}),
		"/fail/private": fails(errors.New(secret)),
		"/error/400":    func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "There is no title.", 400) },
		"/error/500":    func(w http.ResponseWriter, _ *http.Request) { http.Error(w, secret+long, 500) },
		"/panic":        func(http.ResponseWriter, *http.Request) { panic(secret) },
		"/file":         func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/none") },
		"/several/parts": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for _, part := range []string{`["`, long, `","`, long, `"]`} {
				_, _ = io.WriteString(w, part)
			}
		},
	} {
		mux.HandleFunc(path, h)
	}
	return mux
}

// paths are those of service that differ.
var paths = []string{
	"/json", "/json/long", "/json/invalid", "/json/failed", "/respond", "/respond/long", "/text", "/html", "/fail",
	"/fail/long", "/fail/private", "/error/400", "/error/500", "/panic", "/file", "/several/parts", "/none",
}

// needsEnvelope reports whether only the envelope makes a response that a client can
// read: net/http closes the connection after a panic, and removes the encoding of
// any compressor from the errors of file servers.
func needsEnvelope(path string) bool { return path == "/panic" || path == "/file" }

// enveloped, authenticated, limited and once are the middlewares of one server.
func enveloped(t *testing.T) usher.Middleware {
	env, err := envelope.New(envelope.Config{
		Shape: envelope.Data(), Wrap: true,
		OnError: func(context.Context, error) {}, OnPanic: func(*http.Request, any, []byte) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func authenticated(*testing.T) usher.Middleware { return usher.Authenticate(byName{}) }

// byName believes the name that a caller gives itself.
type byName struct{}

func (byName) Authenticate(r *http.Request) (*usher.Principal, error) {
	if name := r.Header.Get("Caller"); name != "" {
		return &usher.Principal{ID: name}, nil
	}
	return nil, usher.ErrNoCredential
}

func limited(t *testing.T) usher.Middleware {
	l, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "bob", Key: ratelimit.ByPrincipal(), Limit: ratelimit.RollingWindow(1, time.Hour),
		Applies: func(r *http.Request) bool { return r.Header.Get("Caller") == "bob" },
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func once(t *testing.T) usher.Middleware {
	m, err := idempotency.New(idempotency.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func middlewares(t *testing.T, makers ...func(*testing.T) usher.Middleware) []usher.Middleware {
	list := make([]usher.Middleware, len(makers))
	for i, m := range makers {
		list[i] = m(t)
	}
	return list
}

// A decoded response is a response as a client decodes it by its header.
type decoded struct {
	status      int
	contentType string
	challenge   string
	replayed    string
	body        string
	err         string
}

// ask posts to s and decodes the response. It also returns its encoding.
func ask(t *testing.T, s *httptest.Server, path, encoding string, header ...string) (d decoded, contentEncoding string) {
	t.Helper()
	return request(t, s.Client(), http.MethodPost, s.URL+path, encoding, header...)
}

// request sends a request and decodes the response. It also returns its encoding.
func request(t *testing.T, c *http.Client, method, url, encoding string, header ...string) (d decoded, contentEncoding string) {
	t.Helper()
	body := ""
	if method == http.MethodPost {
		body = "{}"
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", encoding)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := c.Do(r)
	if err != nil {
		return decoded{err: "no response"}, ""
	}
	defer func() { _ = response.Body.Close() }()
	h := response.Header
	d = decoded{
		status: response.StatusCode, contentType: h.Get("Content-Type"),
		challenge: h.Get("WWW-Authenticate"), replayed: h.Get("Idempotency-Replayed"),
	}
	contentEncoding = h.Get("Content-Encoding")
	plain, err := decode(response)
	if err != nil {
		d.err = "not gzip"
		return d, contentEncoding
	}
	text, err := io.ReadAll(plain)
	if d.body = string(text); err != nil {
		d.err = err.Error()
	}
	return d, contentEncoding
}

// decode returns the body of a response without its encoding.
func decode(response *http.Response) (io.Reader, error) {
	if response.Header.Get("Content-Encoding") != "gzip" || response.Request.Method == http.MethodHead {
		return response.Body, nil
	}
	return gzip.NewReader(response.Body)
}

func startServer(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Start()
	t.Cleanup(s.Close)
	s.Client().Transport.(*http.Transport).DisableCompression = true
	return s
}

// show returns a response as text for messages.
func (d decoded) show() string {
	if len(d.body) > 100 {
		d.body = d.body[:100] + "..."
	}
	return fmt.Sprintf("%+v", d)
}

// A client decodes what it gets without a compressor, however the service responds
// and whichever middleware refuses.
func TestCompressionOutsideOfUsher(t *testing.T) {
	stacks := map[string][]func(*testing.T) usher.Middleware{
		"envelope":         {enveloped, authenticated, limited, once},
		"without envelope": {authenticated, limited, once},
		"envelope alone":   {enveloped},
		"idempotency":      {authenticated, once},
	}
	requests := [][]string{{"Caller", "ann"}, {}, {"Caller", "bob"}}
	for name, compress := range compressors {
		for stack, makers := range stacks {
			t.Run(name+"/"+stack, func(t *testing.T) {
				plain := startServer(t, none(nil, middlewares(t, makers...), service()))
				s := startServer(t, compress(nil, middlewares(t, makers...), service()))
				compressed := 0
				for _, path := range paths {
					for _, header := range requests {
						if needsEnvelope(path) && !strings.HasPrefix(stack, "envelope") {
							continue
						}
						for _, encoding := range []string{"gzip", "identity"} {
							want, _ := ask(t, plain, path, encoding, header...)
							got, contentEncoding := ask(t, s, path, encoding, header...)
							if got != want {
								t.Errorf("%s for %v and %s:\n got %s\nwant %s", path, header, encoding, got.show(), want.show())
							}
							if contentEncoding != "" && encoding == "identity" {
								t.Errorf("%s for %v is %s for a client that takes none", path, header, contentEncoding)
							}
							if contentEncoding == "gzip" {
								compressed++
							}
						}
					}
				}
				if compressed == 0 {
					t.Error("nothing was compressed")
				}
			})
		}
	}
}

// Plain responses are stored: each replay has the encoding that its own request asks
// for.
func TestReplaysInsideOfCompression(t *testing.T) {
	for name, compress := range compressors {
		for _, makers := range [][]func(*testing.T) usher.Middleware{
			{enveloped, authenticated, once},
			{authenticated, once},
		} {
			t.Run(fmt.Sprint(name, "/", len(makers)), func(t *testing.T) {
				plain := startServer(t, none(nil, middlewares(t, makers...), service()))
				s := startServer(t, compress(nil, middlewares(t, makers...), service()))
				for _, path := range paths {
					if needsEnvelope(path) {
						continue
					}
					for _, encodings := range [][]string{{"gzip", "identity"}, {"identity", "gzip"}, {"gzip", "gzip"}} {
						header := []string{"Caller", "ann", "Idempotency-Key", strings.Join(encodings, "-") + strings.ReplaceAll(path, "/", "-")}
						for i, encoding := range encodings {
							want, _ := ask(t, plain, path, encoding, header...)
							got, contentEncoding := ask(t, s, path, encoding, header...)
							if got != want {
								t.Errorf("%s, request %d of %v:\n got %s\nwant %s", path, i+1, encodings, got.show(), want.show())
							}
							if contentEncoding != "" && encoding == "identity" {
								t.Errorf("%s, request %d of %v is %s", path, i+1, encodings, contentEncoding)
							}
						}
					}
				}
			})
		}
	}
}

// The envelope does not change responses that are compressed inside it. The client
// can decode each of them, a retry gets it again, a refusal has the shape, and no
// response shows the text of a failure.
func TestCompressionInsideOfTheEnvelope(t *testing.T) {
	all := []func(*testing.T) usher.Middleware{enveloped, authenticated, limited, once}
	for name, compress := range compressors {
		for n := 1; n <= len(all); n++ {
			t.Run(fmt.Sprintf("%s inside of %d", name, n), func(t *testing.T) {
				s := startServer(t, compress(middlewares(t, all[:n]...), middlewares(t, all[n:]...), service()))
				for _, path := range paths {
					if needsEnvelope(path) {
						continue // and it directly around: a compressor completes its body at a panic
					}
					for _, encoding := range []string{"gzip", "identity"} {
						refused, _ := ask(t, s, path, encoding)
						checkInside(t, refused, path+" of nobody for "+encoding, true)
						got, _ := ask(t, s, path, encoding, "Caller", "ann")
						shaped := got.status >= 500 || strings.HasPrefix(path, "/fail")
						checkInside(t, got, path+" for "+encoding, shaped)

						key := []string{"Caller", "ann", "Idempotency-Key", encoding + strings.ReplaceAll(path, "/", "-")}
						first, _ := ask(t, s, path, encoding, key...)
						checkInside(t, first, path+" with a key for "+encoding, shaped)
						again, _ := ask(t, s, path, encoding, key...)
						checkInside(t, again, path+" once more for "+encoding, shaped)
						if again.replayed == "true" {
							if again.replayed = ""; again != first {
								t.Errorf("the replay of %s for %s:\n got %s\nwant %s", path, encoding, again.show(), first.show())
							}
						}
					}
				}
			})
		}
	}
}

func checkInside(t *testing.T, got decoded, what string, shaped bool) {
	t.Helper()
	if got.err != "" {
		t.Errorf("%s cannot be decoded: %s", what, got.show())
	}
	if strings.Contains(got.body, secret) {
		t.Errorf("%s reveals what is private: %s", what, got.show())
	}
	if shaped && !strings.HasPrefix(got.body, `{"error":{`) {
		t.Errorf("%s has no shape: %s", what, got.show())
	}
}
