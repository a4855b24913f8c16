package envelope_test

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/ratelimit"
)

// compress announces its encoding before the response begins, as many compressors do.
func compress(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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

// quiet returns an envelope that logs no failures.
func quiet(c envelope.Config) *envelope.Envelope {
	c.OnError = func(context.Context, error) {}
	c.OnPanic = func(*http.Request, any, []byte) {}
	return must(c)
}

// The client of get decodes a body by its Content-Encoding.
func TestEncodingOfAnOuterCompressor(t *testing.T) {
	long := strings.Repeat("a long text ", 500)
	failure := &usher.Error{Status: 409, Code: "taken", Message: "It is taken."}
	const (
		taken    = `{"error":{"code":"taken","message":"It is taken."}}`
		internal = `{"error":{"code":"internal","message":"Internal Server Error"}}`
	)
	encode := func(h http.Header) { h.Set("Content-Encoding", "br") }
	tests := []struct {
		name    string
		handler http.HandlerFunc
		status  int
		body    string
	}{
		{"plain JSON is wrapped", writes(201, asJSON, "1"), 201, `{"data":1}`},
		{"a long body has no length of its own", func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(long) }, 200, `{"data":"` + long + `"}`},
		{"text of an error is its message", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no title", 400) }, 400, `{"error":{"code":"bad_request","message":"no title"}}`},
		{"text of a failure is not shown", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "canary", 500) }, 500, internal},
		{"Fail", func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, failure) }, 409, taken},
		{"Fail after an encoding of the handler", func(w http.ResponseWriter, r *http.Request) {
			encode(w.Header())
			usher.Fail(w, r, failure)
		}, 409, taken},
		{"a panic", func(http.ResponseWriter, *http.Request) { panic("canary") }, 500, internal},
		{"a panic after an encoding of the handler", func(w http.ResponseWriter, _ *http.Request) {
			encode(w.Header())
			panic("canary")
		}, 500, internal},
		{"a failure in an encoding of the handler", writes(503, with(asJSON, "Content-Encoding", "br"), "canary"), 503, `{"error":{"code":"service_unavailable","message":"Service Unavailable"}}`},
		{"an error for which the handler takes the encoding away", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Del("Content-Encoding") // as http.ServeFile does
			http.Error(w, "no file", 404)
		}, 404, `{"error":{"code":"not_found","message":"no file"}}`},
		{"identity", writes(200, with(asJSON, "Content-Encoding", "identity"), "1"), 200, `{"data":1}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := quiet(envelope.Config{Shape: envelope.Data(), Wrap: true})
			got := get(t, start(t, compress(env.Wrap(tt.handler))), "/")
			wantStatus(t, got, tt.status)
			wantBody(t, got, tt.body)
			if !got.Uncompressed {
				t.Error("the body was not compressed")
			}
			// Without the compressor no encoding remains.
			got = get(t, start(t, env.Wrap(tt.handler)), "/")
			wantStatus(t, got, tt.status)
			wantBody(t, got, tt.body)
			if v := got.Header.Get("Content-Encoding"); v != "" && v != "identity" {
				t.Errorf("Content-Encoding is %s without a compressor", v)
			}
		})
	}
}

// The writer of [usher.Authenticate] does not encode what passes through it.
func TestEncodingOfTheHandlerIsRemovedInsideAuthenticate(t *testing.T) {
	taken := &usher.Error{Status: 409, Code: "taken", Message: "It is taken."}
	fail := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		usher.Fail(w, r, taken)
	})
	auth := usher.Authenticate(usher.Optional(nobody{}))
	counting, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "failures", Limit: ratelimit.RollingWindow(1000, time.Hour), Key: ratelimit.ByAddress(),
		Count: func(status int) bool { return status >= 400 },
	}}})
	if err != nil {
		t.Fatal(err)
	}
	env := quiet(envelope.Config{Shape: envelope.Data(), Wrap: true})
	for name, h := range map[string]http.Handler{
		"alone":                 auth.Wrap(fail),
		"twice":                 auth.Wrap(auth.Wrap(fail)),
		"outside a limit":       auth.Wrap(counting.Wrap(fail)),
		"inside a limit":        counting.Wrap(auth.Wrap(fail)),
		"inside of an envelope": auth.Wrap(env.Wrap(fail)),
	} {
		t.Run(name, func(t *testing.T) {
			got := get(t, start(t, env.Wrap(h)), "/")
			wantStatus(t, got, 409)
			wantBody(t, got, `{"error":{"code":"taken","message":"It is taken."}}`)
			if v := got.Header.Get("Content-Encoding"); v != "" {
				t.Errorf("Content-Encoding is %s", v)
			}
		})
	}
}

// nobody is an authenticator that finds no credential.
type nobody struct{}

func (nobody) Authenticate(*http.Request) (*usher.Principal, error) {
	return nil, usher.ErrNoCredential
}

// An encoding that the handler applies to its own body passes, even if an outer
// middleware has announced another one.
func TestEncodingOfTheHandlerPasses(t *testing.T) {
	outer := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			next.ServeHTTP(w, r)
		})
	}
	env := quiet(envelope.Config{Wrap: true})
	got := get(t, start(t, outer(env.Wrap(writes(200, with(asJSON, "Content-Encoding", "br"), "br")))), "/")
	wantStatus(t, got, 200)
	wantHeader(t, got, "Content-Encoding", "br")
	if got.body != "br" {
		t.Errorf("body %q", got.body)
	}
}

// A compressor between the envelope and a failing handler compresses what the envelope
// writes.
func TestEncodingOfAnInnerCompressorStaysOnFail(t *testing.T) {
	env := quiet(envelope.Config{Shape: envelope.Data(), Wrap: true})
	fail := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		usher.Fail(w, r, &usher.Error{Status: 409, Code: "taken", Message: strings.Repeat("It is taken. ", 300)})
	})
	got := get(t, start(t, env.Wrap(compress(fail))), "/")
	wantStatus(t, got, 409)
	if !got.Uncompressed || !strings.HasPrefix(got.body, `{"error":{"code":"taken"`) {
		t.Errorf("body %q", got.body)
	}
}

// The compressed text of a failure is of no use to operators.
func TestAnEncodedBodyIsNotTheTextOfAFailure(t *testing.T) {
	for status, handler := range map[int]http.Handler{
		500: compress(writes(500, nil, "canary")),
		502: writes(502, with(asJSON, "Content-Encoding", "br"), "\x1b\x02canary"),
	} {
		reported := make(chan string, 1)
		env, err := envelope.New(envelope.Config{Wrap: true, OnError: func(_ context.Context, err error) { reported <- err.Error() }})
		if err != nil {
			t.Fatal(err)
		}
		wantStatus(t, get(t, start(t, env.Wrap(handler)), "/"), status)
		if text := <-reported; !strings.Contains(text, "encoded") || strings.Contains(text, "canary") || strings.Contains(text, "\x1f\x8b") {
			t.Errorf("%d: OnError got %q", status, text)
		}
	}
}

// lazy delays the status until the body begins, as gin's writer does.
type lazy struct {
	http.ResponseWriter
	status int
	sent   bool
}

func (w *lazy) WriteHeader(status int) { w.status = status }

func (w *lazy) Write(p []byte) (int, error) {
	if !w.sent && w.status != 0 {
		w.ResponseWriter.WriteHeader(w.status)
	}
	w.sent = true
	return w.ResponseWriter.Write(p)
}

// A Content-Length that is set after the status, as gin-contrib/gzip does, is that of
// another body.
func TestLateLengthIsNotThatOfTheShape(t *testing.T) {
	env := quiet(envelope.Config{Shape: envelope.Data(), Wrap: true})
	for name, h := range map[string]http.HandlerFunc{
		"an error": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no", 400)
			w.Header().Set("Content-Length", "3")
		},
		"a success": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(200)
			w.Header().Set("Content-Length", "1")
			_, _ = io.WriteString(w, "1")
		},
		"a success without data": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(201)
			w.Header().Set("Content-Length", "0")
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := get(t, start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				env.ServeNext(&lazy{ResponseWriter: w}, r, h)
			})), "/")
			if !strings.HasPrefix(got.body, "{") || !strings.HasSuffix(got.body, "}") {
				t.Errorf("body %q", got.body)
			}
		})
	}
}
