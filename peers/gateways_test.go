package peers_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzhttp"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// compressing are directives for an nginx that compresses what it passes on.
const compressing = `gzip on;
gzip_proxied any;
gzip_min_length 1;
gzip_types application/json text/plain;
location / {
	proxy_http_version 1.1;
	proxy_set_header Connection "";
	proxy_pass http://BACKEND;
}`

// http10 is an nginx as it is without proxy_http_version.
const http10 = "nginx, HTTP/1.0"

// gateways starts gateways before a backend, as their manuals show, and returns their
// addresses.
func gateways(t *testing.T, backend string) map[string]string {
	t.Helper()
	compression := []string{"compression algo gzip", "compression type application/json text/plain text/html"}
	return map[string]string{
		http10:                 nginx(t, backend, "location / { proxy_pass http://BACKEND; }"),
		"nginx, compressing":   nginx(t, backend, compressing),
		"haproxy":              haproxy(t, backend),
		"haproxy, compressing": haproxyWith(t, backend, compression...),
		"varnish":              varnish(t, backend),
		"varnish, compressing": varnishWith(t, backend, "sub vcl_backend_response { set beresp.do_gzip = beresp.http.Content-Type ~ \"json|plain\"; }"),
		"ReverseProxy":         serve(t, reverseProxy(backend)),
		"nginx, documented":    nginx(t, backend, documented(t, "nginx")),
		"haproxy, documented":  haproxyWith(t, backend, documented(t, "haproxy")),
		"varnish, documented":  varnishWith(t, backend, documented(t, "vcl")),
		"three of them":        varnish(t, nginx(t, haproxy(t, backend), compressing)),
	}
}

// documented returns the configuration for a gateway that docs/gateways.md shows.
func documented(t *testing.T, language string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/gateways.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(page), "```"+language+"\n")
	block, _, closed := strings.Cut(after, "```\n")
	if !found || !closed {
		t.Fatalf("docs/gateways.md has no configuration for %s", language)
	}
	return block
}

// reverseProxy returns the proxy of net/http before a backend.
func reverseProxy(backend string) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: backend})
			r.SetXForwarded()
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
}

// seconds are what two responses to the same request may differ in.
var seconds = regexp.MustCompile(`"retry_after":\d+`)

// A client gets through each gateway what it gets without one, however the service
// responds, whichever middleware refuses, and with or without a compressor.
func TestGatewaysPassTheWholeStackOn(t *testing.T) {
	stack := middlewares(t, enveloped, authenticated, limited, once)
	inside := usher.Chain(stack...).Wrap(service())
	plain := startServer(t, inside)
	compressed := startServer(t, gzhttp.GzipHandler(inside))
	client := plain.Client()
	get := func(method, address, path, encoding string, header ...string) (decoded, string) {
		t.Helper()
		d, contentEncoding := request(t, client, method, "http://"+address+path, encoding, header...)
		d.body = seconds.ReplaceAllString(d.body, `"retry_after":N`)
		return d, contentEncoding
	}
	_, _ = get("POST", plain.Listener.Addr().String(), "/json", "identity", "Caller", "bob") // which is all that he has
	callers := map[string][]string{"ann": {"Caller", "ann"}, "nobody": {}, "bob": {"Caller", "bob"}}
	for backend, s := range map[string]string{"plain": plain.Listener.Addr().String(), "compressed": compressed.Listener.Addr().String()} {
		for gateway, address := range gateways(t, s) {
			t.Run(gateway+", "+backend, func(t *testing.T) {
				encoded := 0
				for _, path := range paths {
					for caller, header := range callers {
						for _, method := range []string{"GET", "POST", "HEAD"} {
							want, _ := get(method, plain.Listener.Addr().String(), path, "identity", header...)
							for _, encoding := range []string{"gzip", "identity"} {
								got, contentEncoding := get(method, address, path, encoding, header...)
								if got != want {
									t.Errorf("%s %s of %s for %s:\n got %s\nwant %s", method, path, caller, encoding, got.show(), want.show())
								}
								if contentEncoding != "" && encoding == "identity" {
									t.Errorf("%s %s is %s for a client that takes none", method, path, contentEncoding)
								}
								if contentEncoding == "gzip" {
									encoded++
								}
							}
						}
					}
					key := []string{"Caller", "ann", "Idempotency-Key", strings.NewReplacer("/", "-", " ", "-", ",", "").Replace(gateway + backend + path)}
					first, _ := get("POST", address, path, "gzip", key...)
					again, _ := get("POST", address, path, "identity", key...)
					again.replayed = ""
					if first.status < 500 && again != first {
						t.Errorf("the retry of %s:\n got %s\nwant %s", path, again.show(), first.show())
					}
				}
				if (encoded > 0) != (backend == "compressed" || strings.Contains(gateway, "compressing") || gateway == "three of them") {
					t.Errorf("%d responses were compressed", encoded)
				}
			})
		}
	}
}

// curl --compressed decodes what a browser would, directly and through each gateway.
func TestCurlDecodesWhatGatewaysCompress(t *testing.T) {
	curl := program(t, "curl")
	stack := middlewares(t, enveloped, authenticated, limited, once)
	backend := startServer(t, usher.Chain(stack...).Wrap(service())).Listener.Addr().String()
	addresses := gateways(t, backend)
	addresses["direct"] = backend
	direct := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer direct.CloseIdleConnections()
	for name, address := range addresses {
		t.Run(name, func(t *testing.T) {
			for _, path := range paths {
				want, _ := request(t, direct, http.MethodGet, "http://"+backend+path, "identity", "Caller", "ann")
				out, err := exec.CommandContext(t.Context(), curl, "--compressed", "-sS", "-H", "Caller: ann", "-w", "%{http_code}%{content_type}",
					"http://"+address+path).Output()
				if text := want.body + strconv.Itoa(want.status) + want.contentType; err != nil || string(out) != text {
					t.Errorf("%s: %v\n got %.200q\nwant %.200q", path, err, out, text)
				}
			}
		})
	}
}

// A response that breaks off is whole JSON through no gateway, and the client notices the
// end of the connection too, unless the gateway speaks HTTP/1.0 to the server: there the end
// of a connection is the end of a response.
func TestGatewaysPassOnThatAResponseHasBrokenOff(t *testing.T) {
	long := strings.Repeat("a long text ", 10_000)
	broken := map[string]http.HandlerFunc{
		"a panic after a part": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `["`+long+`"`)
			_ = http.NewResponseController(w).Flush()
			panic("late")
		},
		"Fail after a value": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `["`+long+`"]`)
			usher.Fail(w, r, io.ErrUnexpectedEOF)
		},
		"fewer bytes than declared": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", strconv.Itoa(len(long)+100))
			_, _ = io.WriteString(w, `["`+long+`"]`)
		},
	}
	backend := startServer(t, enveloped(t).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		broken[r.URL.Query().Get("by")](w, r)
	}))).Listener.Addr().String()
	for gateway, address := range gateways(t, backend) {
		for name := range broken {
			for _, encoding := range []string{"identity", "gzip"} {
				got, _ := request(t, http.DefaultClient, http.MethodGet, "http://"+address+"/?by="+url.QueryEscape(name), encoding)
				noticed := got.err != "" || got.status >= 500
				if !noticed && (json.Valid([]byte(got.body)) || gateway != http10) {
					t.Errorf("%s, %s, %s: %s looks complete", name, gateway, encoding, got.show())
				}
			}
		}
	}
}

// The ID that a gateway gives a request, in the format of its manual, is the only one: in the
// header and the body of the response, in the log of the service, and at a service behind it
// that has an envelope too. What the client sends as its ID is not used.
func TestARequestKeepsTheIDOfTheGateway(t *testing.T) {
	fromGateway := func(c envelope.Config) usher.Middleware {
		c.Wrap, c.RequestID = true, envelope.RequestIDFromHeader("X-Request-Id")
		return usher.Must(envelope.New(c))
	}
	seen := make(chan string, 1)
	behind := serve(t, fromGateway(envelope.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- envelope.RequestID(r.Context())
		usher.Respond(w, r, usher.Reply{Data: 1})
	})))
	logged := make(chan string, 1)
	service := fromGateway(envelope.Config{ForwardRequestID: true, OnError: func(ctx context.Context, _ error) { logged <- envelope.RequestID(ctx) }})
	proxy := reverseProxy(behind)
	backend := serve(t, service.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "of the handler")
		if r.URL.Path == "/behind" {
			proxy.ServeHTTP(w, r)
			return
		}
		usher.Fail(w, r, io.ErrUnexpectedEOF)
	})))
	for name, address := range map[string]string{
		"nginx": nginx(t, backend, `location / {
			proxy_set_header X-Request-Id $request_id;
			add_header X-Gateway-Id $request_id always;
			proxy_pass http://BACKEND;
		}`),
		"haproxy": haproxyWith(t, backend, `unique-id-format %{+X}o\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid`,
			"http-request set-header X-Request-Id %[unique-id]", "http-response set-header X-Gateway-Id %[unique-id]"),
		"varnish": varnishWith(t, backend, `sub vcl_recv { set req.http.X-Request-Id = req.xid; }
			sub vcl_deliver { set resp.http.X-Gateway-Id = req.http.X-Request-Id; }`),
	} {
		t.Run(name, func(t *testing.T) {
			for path, inside := range map[string]chan string{"/": logged, "/behind": seen} {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+path, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("X-Request-Id", "of-the-client")
				response, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(response.Body)
				_ = response.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				id, got := response.Header.Get("X-Gateway-Id"), response.Header.Values("X-Request-Id")
				if id == "" || len(got) != 1 || got[0] != id || !strings.Contains(string(body), `"request_id":"`+id+`"`) {
					t.Errorf("%s: the ID is %q, the header has %q, and the body is %s", path, id, got, body)
				}
				if got := <-inside; got != id {
					t.Errorf("%s: the ID inside is %q, want %q", path, got, id)
				}
			}
		})
	}
}
