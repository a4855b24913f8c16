package hostile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/examples/internal/contract"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/ratelimit"
)

// hostileText holds what breaks careless encoders and pages.
const hostileText = "\"quotes\" \\ </script><script>alert(1)</script> \u2028\u2029 \xff\xfe \x00\x1f &"

func failing(err error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, err) })
}

func route(path string, h http.Handler) web.Route {
	return web.Route{Method: "GET", Pattern: path, Handler: h}
}

var responses = []attack{
	{"E01 a hostile message is valid JSON in every shape, and inert in a page", nil, nil, func(c *contract.Client, given *target) {
		for name, shape := range map[string]envelope.Shape{
			"standard": envelope.Standard(), "data": envelope.Data(), "typed": envelope.Typed(),
			"detail": envelope.Detail(), "problem": envelope.Problem(""), "bare": envelope.Bare(),
		} {
			s := newTarget(c.TB, settings{shape: shape, routes: []web.Route{route("/e", failing(&usher.Error{
				Status: 400, Code: hostileText, Message: hostileText, Param: hostileText,
				Fields: []usher.Field{{Name: hostileText, Message: hostileText}},
			}))}})
			a := contract.Serve(c.TB, given.router.Mount(s.App()), c.Over).Get("/e").HasStatus(400).Has("X-Content-Type-Options", "nosniff")
			if !json.Valid([]byte(a.Text)) {
				c.TB.Errorf("%s: no JSON: %q", name, a.Text)
			}
			for _, raw := range []string{"</script", "\u2028", "\u2029", "\xff", "\x00"} {
				if strings.Contains(a.Text, raw) {
					c.TB.Errorf("%s: the body holds %q: %q", name, raw, a.Text)
				}
			}
			if !strings.Contains(a.Text, `\"quotes\"`) {
				c.TB.Errorf("%s: the message is missing: %q", name, a.Text)
			}
		}
	}},
	{"E02 metadata cuts and escapes the URL, hides secrets and keeps to the real address", nil, nil, func(c *contract.Client, _ *target) {
		a := c.Get("/"+strings.Repeat("a", 8<<10), "X-Forwarded-For: 203.0.113.9").HasStatus(404)
		if url := a.Member("metadata.url"); len(url) > 3<<10 {
			c.TB.Errorf("the URL has %d bytes", len(url))
		}
		if ip := a.Member("metadata.ip"); ip != "127.0.0.1" {
			c.TB.Errorf("the address is %s", ip)
		}
		const canary = "s3cr3t-canary"
		for _, query := range []string{"api_key=", "apikey=", "API-KEY=", "access_token=", "password=", "x=1&token=", "client_secret=", "code=", "%61pi_key="} {
			a := c.Get("/nowhere?" + query + canary).HasStatus(404)
			if strings.Contains(a.Text, canary) {
				c.TB.Errorf("%s is repeated: %s", query, a.Text)
			}
		}
		a = c.Get("/x%0d%0aSet-Cookie:%20a=b?<script>=%22").HasStatus(404).Lacks("Set-Cookie")
		if !json.Valid([]byte(a.Text)) || strings.Contains(a.Text, "<script>") {
			c.TB.Errorf("the body is %s", a.Text)
		}
	}},
	{"E02 a method of 10 000 letters is cut", bytesOnly, nil, func(c *contract.Client, _ *target) {
		a := c.Raw(strings.Repeat("A", 10_000) + " /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if len(a.Text) > 1<<10 || !json.Valid([]byte(a.Text)) {
			c.TB.Errorf("the body is %s", contract.Cut(a.Text))
		}
	}},
	{"E05 a panic before the status is one envelope, after it and by http.ErrAbortHandler the connection ends", nil,
		func(c *settings) {
			writes := func(before string, v any) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					if before != "" {
						_, _ = io.WriteString(w, before)
					}
					panic(v)
				})
			}
			c.routes = []web.Route{
				web.Handle("POST", "/before", nil, writes("", "acme_live_secret")),
				web.Handle("POST", "/after", nil, writes(`{"a":`, "acme_live_secret")),
				web.Handle("POST", "/whole", nil, writes(`{"a":1}`, "acme_live_secret")),
				web.Handle("POST", "/large", nil, writes(`["`+strings.Repeat("a", 100<<10), "acme_live_secret")),
				web.Handle("POST", "/abort", nil, writes("", http.ErrAbortHandler)),
				web.Handle("POST", "/abort-after", nil, writes(`{"a":`, http.ErrAbortHandler)),
			}
		}, func(c *contract.Client, _ *target) {
			c.Post("/before", "{}").Enveloped(500, "Internal Server Error", "")
			for _, path := range []string{"/after", "/whole", "/large", "/abort", "/abort-after"} {
				a, err := c.Try("POST", path, "{}")
				if err == nil {
					c.TB.Errorf("%s looks whole: %d %s", path, a.StatusCode, contract.Cut(a.Text))
				} else if a != nil && json.Valid([]byte(a.Text)) {
					c.TB.Errorf("%s: what came is valid: %s", path, contract.Cut(a.Text))
				}
			}
			c.Post("/before", "{}").Enveloped(500, "Internal Server Error", "")
		}},
	{"E06 HEAD, 204, 304 and 103 have no body", nil, bodiless, func(c *contract.Client, _ *target) {
		get := c.Get("/json").Enveloped(200, "OK", `{"a":1}`)
		head := c.Do("HEAD", "/json", "").Is(200, "").Has("Content-Type", get.Header.Get("Content-Type"))
		if n := head.ContentLength; n != -1 && n != get.ContentLength {
			c.TB.Errorf("Content-Length is %d", n)
		}
		c.Do("HEAD", "/nowhere", "").Is(404, "")
		c.Get("/204").Is(204, "").Lacks("Content-Length", "Content-Type")
		c.Get("/304").Is(304, "").Has("ETag", `W/"1"`)

		var early []int
		ctx := httptrace.WithClientTrace(c.TB.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { early = append(early, code); return nil },
		})
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+"/103", nil)
		if err != nil {
			c.TB.Fatal(err)
		}
		a, err := c.Send(r)
		if err != nil {
			c.TB.Fatal(err)
		}
		a.Enveloped(200, "OK", `{"a":1}`)
		if !slices.Equal(early, []int{103}) {
			c.TB.Errorf("early statuses %v", early)
		}
	}},
	{"E06 responses without a body leave a connection in step", bytesOnly, bodiless, func(c *contract.Client, _ *target) {
		keep := func(method, path string) string { return method + " " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }
		all := keep("HEAD", "/json") + keep("GET", "/204") + keep("GET", "/304") + keep("HEAD", "/nowhere")
		statuses := c.Pipeline(all+request("/json"), "HEAD", "GET", "GET", "HEAD", "GET")
		if !slices.Equal(statuses, []int{200, 204, 304, 404, 200}) {
			c.TB.Errorf("statuses %v", statuses)
		}
	}},
	{"E08 the error of a store, a query or a handler is never in a response", nil,
		func(c *settings) {
			private := fmt.Errorf("select: %w", errPrivate)
			c.routes = []web.Route{
				route("/error", failing(private)),
				route("/wrapped", failing(&usher.Error{Status: 409, Code: "conflict", Message: "Taken.", Cause: private})),
				route("/text", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, private.Error(), 500) })),
				route("/json", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(503)
					_ = json.NewEncoder(w).Encode(map[string]string{"error": private.Error()})
				})),
				route("/panic", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(private) })),
			}
		}, func(c *contract.Client, s *target) {
			key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
			failure := errPrivate
			s.store.failure.Store(&failure)
			for path, want := range map[string]int{"/error": 500, "/wrapped": 409, "/text": 500, "/json": 503, "/panic": 500, "/notes": 503} {
				silent(c.Get(path, "X-API-Key: "+key).HasStatus(want))
			}
			silent(c.Get("/api-keys", web.AsAda).HasStatus(503).Has("Retry-After", "1"))
			silent(c.Post("/api-keys", `{"name":"k"}`, web.AsAda).HasStatus(503))
		}},
	{"E08 the error of the store of limits is never in a response, and admits nobody", nil,
		func(c *settings) {
			c.limits.Store, c.limits.OnStoreFailure = failingLimits{}, ratelimit.FailClosed
		}, func(c *contract.Client, s *target) {
			silent(c.Get("/notes").HasStatus(503).Has("Retry-After", "1"))
			if n := s.served.Load(); n != 0 {
				c.TB.Error("the handler ran")
			}
		}},
}

func bodiless(c *settings) {
	data := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "7")
		_, _ = io.WriteString(w, `{"a":1}`)
	}
	c.routes = []web.Route{
		route("/json", http.HandlerFunc(data)),
		route("/204", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })),
		route("/304", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `W/"1"`)
			w.WriteHeader(304)
		})),
		route("/103", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(103)
			data(w, r)
		})),
	}
}

var errPrivate = errors.New(`pq: password authentication failed for user "acme" at 10.0.0.7 (SQLSTATE 28P01)`)

// silent checks that a response contains nothing of errPrivate.
func silent(a *contract.Response) {
	a.Client.TB.Helper()
	text := a.Text + fmt.Sprint(a.Header)
	for _, word := range []string{"pq:", "password", "10.0.0.7", "SQLSTATE", "select", "goroutine", ".go:"} {
		if strings.Contains(text, word) {
			a.Client.TB.Errorf("%s: the response contains %q: %s", a.Sent, word, text)
		}
	}
}

type failingLimits struct{ ratelimit.Store }

func (failingLimits) Take(context.Context, *ratelimit.Decision) error   { return errPrivate }
func (failingLimits) Adjust(context.Context, *ratelimit.Decision) error { return errPrivate }
