package adaptertest

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"
)

// A transport is how client and server are connected: by TCP over loopback.
type transport string

const (
	http1 transport = "HTTP1"
	http2 transport = "HTTP2" // with TLS
)

// A client calls a server of its own.
type client struct {
	b    *bench
	url  string
	http *http.Client
	addr net.Addr
	// stop closes the server and returns when its last request has ended.
	stop func()
}

// serve starts a server for app.
func (b *bench) serve(app App) *client {
	b.Helper()
	return b.serveHandler(b.router.Handler(b, app))
}

func (b *bench) serveHandler(h http.Handler) *client {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if b.over == http2 {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	b.Cleanup(s.Close)
	c := s.Client()
	c.Timeout = 20 * time.Second
	c.Transport.(*http.Transport).DisableCompression = true
	return &client{b, s.URL, c, s.Listener.Addr(), s.Close}
}

// A response is a response as a client received it.
type response struct {
	status int
	header http.Header
	body   string
}

// try sends a request with header lines such as "Caller: ann". It may be called
// from any goroutine.
func (c *client) try(method, path, body string, header ...string) (response, error) {
	resp, err := c.open(method, path, body, header...)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(text)}, err
}

// open is try for a body that the caller reads and closes.
func (c *client) open(method, path, body string, header ...string) (*http.Response, error) {
	var reader io.Reader = http.NoBody
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(c.b.Context(), method, c.url+path, reader)
	if err != nil {
		return nil, err
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	resp, err := c.http.Do(r)
	if err == nil && c.b.over == http2 && resp.ProtoMajor != 2 {
		c.b.Errorf("the response came over %s", resp.Proto)
	}
	return resp, err
}

// do is try for requests that must get a response.
func (c *client) do(method, path, body string, header ...string) response {
	c.b.Helper()
	a, err := c.try(method, path, body, header...)
	if err != nil {
		c.b.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (c *client) get(path string, header ...string) response {
	c.b.Helper()
	return c.do(http.MethodGet, path, "", header...)
}
