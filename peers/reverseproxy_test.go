package peers_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/ratelimit"
)

// A gateway written with usher and the proxy of net/http responds as a service with the same
// middlewares does, whether the service behind it has an envelope or not.
func TestAReverseProxyInsideOfUsher(t *testing.T) {
	whole := []func(*testing.T) usher.Middleware{enveloped, authenticated, limited, once}
	plain := serve(t, service())
	shaped := serve(t, enveloped(t).Wrap(service()))
	for name, tt := range map[string]struct {
		service, gateway http.Handler
		different        []string // what a service without an envelope does itself
	}{
		"the gateway has the envelope": {
			usher.Chain(middlewares(t, whole...)...).Wrap(service()),
			usher.Chain(middlewares(t, whole...)...).Wrap(reverseProxy(plain)),
			[]string{"/fail", "/fail/long", "/fail/private", "/panic"},
		},
		"the service has the envelope": {
			usher.Chain(middlewares(t, authenticated, limited, once, enveloped)...).Wrap(service()),
			usher.Chain(middlewares(t, authenticated, limited, once)...).Wrap(reverseProxy(shaped)), nil,
		},
		"both have it": {
			usher.Chain(middlewares(t, whole...)...).Wrap(service()),
			usher.Chain(middlewares(t, whole...)...).Wrap(envelope.Untouched(reverseProxy(shaped))), nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			want, got := startServer(t, tt.service), startServer(t, tt.gateway)
			for _, path := range paths {
				if slices.Contains(tt.different, path) {
					continue
				}
				for _, header := range [][]string{{"Caller", "ann"}, {}, {"Caller", "bob"}} {
					for _, method := range []string{"GET", "POST", "HEAD"} {
						want, _ := request(t, want.Client(), method, want.URL+path, "identity", header...)
						got, _ := request(t, got.Client(), method, got.URL+path, "identity", header...)
						if want != got {
							t.Errorf("%s %s for %v:\n got %s\nwant %s", method, path, header, got.show(), want.show())
						}
					}
				}
			}
		})
	}
}

// What HTTP has besides a body passes through a gateway with all middlewares: interim
// responses, trailers, ranges, and responses that break off.
func TestAGatewayPassesOnWhatIsNoBody(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "1")
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "Checksum")
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "1")
		w.Header().Set("Checksum", "abc")
		w.Header().Set(http.TrailerPrefix+"Late", "def")
	})
	mux.HandleFunc("/range", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
	})
	mux.HandleFunc("/body", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.Copy(w, r.Body)
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `[1,`)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	upstream := httptest.NewServer(mux)
	defer upstream.Close()
	stack := usher.Chain(middlewares(t, enveloped, authenticated, limited, once)...)
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP2 %t", http2), func(t *testing.T) {
			s := httptest.NewUnstartedServer(stack.Wrap(reverseProxy(upstream.Listener.Addr().String())))
			s.EnableHTTP2 = http2
			s.StartTLS()
			defer s.Close()
			type response struct {
				status  int
				body    string
				header  http.Header
				trailer http.Header
				interim []int
				err     error
			}
			send := func(method, path string, body io.Reader, header ...string) (got response) {
				t.Helper()
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
					Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
						got.interim = append(got.interim, code)
						return nil
					},
				})
				r, err := http.NewRequestWithContext(ctx, method, s.URL+path, body)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Caller", "ann")
				for i := 0; i < len(header); i += 2 {
					r.Header.Set(header[i], header[i+1])
				}
				resp, err := s.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = resp.Body.Close() }()
				text, err := io.ReadAll(resp.Body)
				got.status, got.header, got.trailer, got.body, got.err = resp.StatusCode, resp.Header, resp.Trailer, string(text), err
				return got
			}
			if got := send("GET", "/hints", nil); got.status != 200 || !slices.Equal(got.interim, []int{103}) || !strings.HasPrefix(got.body, `{"data":1`) {
				t.Errorf("hints: %+v", got)
			}
			got := send("GET", "/trailers", nil)
			if got.trailer.Get("Checksum") != "abc" || got.trailer.Get("Late") != "def" || got.body != "1" {
				t.Errorf("trailers: %+v", got)
			}
			if got := send("GET", "/range", nil, "Range", "bytes=3-5", "If-Range", `"v1"`); got.status != 206 || got.body != "345" || got.header.Get("Content-Range") != "bytes 3-5/10" {
				t.Errorf("range: %+v", got)
			}
			if got := send("GET", "/range", nil, "If-None-Match", `"v1"`); got.status != 304 || got.body != "" {
				t.Errorf("not modified: %+v", got)
			}
			if got := send("POST", "/body", strings.NewReader("abc"), "Expect", "100-continue"); got.status != 200 || got.body != "abc" {
				t.Errorf("body: %+v", got)
			}
			if got := send("GET", "/broken", nil); got.err == nil {
				t.Errorf("a broken response looks complete: %+v", got)
			}
		})
	}
}

// A WebSocket or another upgrade passes through a gateway with all middlewares, in both
// directions, and uses its place under a concurrency limit until it ends.
func TestAGatewayPassesUpgradesOn(t *testing.T) {
	upstream := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "echo")
		w.WriteHeader(http.StatusSwitchingProtocols)
		c, both, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = io.Copy(c, both)
	}))
	places := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "upgrades", Key: ratelimit.ByPrincipal(), Limit: ratelimit.Concurrency(1),
	}}}))
	stack := append(middlewares(t, enveloped, authenticated), places, once(t))
	gateway := serve(t, usher.Chain(stack...).Wrap(reverseProxy(upstream)))
	for front, address := range map[string]string{
		"direct":       gateway,
		"ReverseProxy": serve(t, reverseProxy(gateway)),
		"haproxy":      haproxy(t, gateway),
		"nginx": nginx(t, gateway, `location / {
			proxy_http_version 1.1;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection upgrade;
			proxy_pass http://BACKEND;
		}`),
	} {
		t.Run(front, func(t *testing.T) {
			connect := func(caller string) (status string, c net.Conn, r *bufio.Reader) {
				t.Helper()
				c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: h\r\nCaller: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", caller)
				r = bufio.NewReader(c)
				resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet}) //nolint:bodyclose // c ends it.
				if err != nil {
					t.Fatal(err)
				}
				return resp.Status, c, r
			}
			status, c, r := connect(front)
			if !strings.HasPrefix(status, "101") {
				t.Fatal(status)
			}
			for _, line := range []string{"one\n", "two\n"} {
				_, _ = io.WriteString(c, line)
				if got, err := r.ReadString('\n'); got != line {
					t.Fatalf("%q, %v", got, err)
				}
			}
			if status, _, _ := connect(front); !strings.HasPrefix(status, "429") {
				t.Errorf("a second one: %s", status)
			}
			if status, _, _ := connect(""); !strings.HasPrefix(status, "401") {
				t.Errorf("without a caller: %s", status)
			}
			_ = c.Close()
			deadline := time.Now().Add(10 * time.Second)
			for status, c, _ = connect(front); strings.HasPrefix(status, "429") && time.Now().Before(deadline); {
				status, c, _ = connect(front)
			}
			if _ = c.Close(); !strings.HasPrefix(status, "101") {
				t.Errorf("after the first: %s", status)
			}
		})
	}
}

// Each server of a path through several has its policies in the standard fields.
func TestRateLimitFieldsOfSeveralServersStayApart(t *testing.T) {
	limit := func(name string, quota int) usher.Middleware {
		return usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
			Name: name, Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(quota, time.Hour),
		}}}))
	}
	inner := serve(t, limit("service", 1).Wrap(served))
	outer := startServer(t, limit("gateway", 10).Wrap(reverseProxy(inner)))
	for n, want := range []struct {
		status int
		fields []string
	}{
		{200, []string{`"gateway";r=9`, `"service";r=0`}},
		{429, []string{`"gateway";r=8`, `"service";r=0`}},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, outer.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := outer.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		got := resp.Header.Values("RateLimit")
		for i := range got {
			got[i], _, _ = strings.Cut(got[i], ";t=")
		}
		if resp.StatusCode != want.status || !slices.Equal(got, want.fields) ||
			len(resp.Header.Values("Retry-After")) > 1 || len(resp.Header.Values("RateLimit-Policy")) != 2 {
			t.Errorf("request %d: %d %q", n, resp.StatusCode, resp.Header)
		}
	}
}
