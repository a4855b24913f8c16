package clientip_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
)

// overUnix returns r as a server on a Unix socket receives it.
func overUnix(r *http.Request) *http.Request {
	local := &net.UnixAddr{Name: "/run/app.sock", Net: "unix"}
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
}

// A server listens on a Unix socket for its proxy and on TCP for others, with one handler.
func TestOnlyThePeersOfAUnixSocketAreTrusted(t *testing.T) {
	res := newResolver(t, clientip.Config{TrustedProxies: []string{"unix"}})
	h := usher.Chain(res, clientip.RequireTLS()).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, clientip.String(r))
	}))
	path := filepath.Join(t.TempDir(), "s")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	socket := httptest.NewUnstartedServer(h)
	_ = socket.Listener.Close()
	socket.Listener = listener
	socket.Start()
	t.Cleanup(socket.Close)
	tcp := httptest.NewServer(h)
	t.Cleanup(tcp.Close)

	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	target, err := url.Parse("http://app.example")
	if err != nil {
		t.Fatal(err)
	}
	// front starts a reverse proxy before the socket.
	front := func(rewrite func(*httputil.ProxyRequest)) *httptest.Server {
		p := httptest.NewTLSServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			rewrite(r)
		}})
		t.Cleanup(p.Close)
		return p
	}
	states := front(func(r *httputil.ProxyRequest) { r.SetXForwarded() })
	appends := front(func(r *httputil.ProxyRequest) {
		r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
		r.SetXForwarded()
	})
	hides := front(func(r *httputil.ProxyRequest) {
		r.SetXForwarded()
		r.Out.Header.Set("X-Forwarded-For", "unknown")
	})
	tests := map[string]struct {
		server *httptest.Server
		status int
		want   string
	}{
		"a proxy that states the client":     {states, 200, "127.0.0.1"},
		"a proxy that appends to a claim":    {appends, 200, "127.0.0.1"},
		"a proxy that states nobody":         {hides, 200, "unknown"},
		"a TCP peer cannot claim to use TLS": {tcp, 403, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tt.server.URL, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Forwarded-For", evil)
			r.Header.Set("X-Forwarded-Proto", "https")
			response, err := tt.server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != tt.status || tt.status == 200 && string(body) != tt.want {
				t.Errorf("got %d %q, %v, want %d %q", response.StatusCode, body, err, tt.status, tt.want)
			}
		})
	}
}

func TestPeersOfUnixSockets(t *testing.T) {
	unix := clientip.Config{TrustedProxies: []string{"unix", "10.0.0.0/8"}}
	tests := map[string]struct {
		config clientip.Config
		socket bool
		peer   string
		want   string
	}{
		"a peer of a socket":                   {unix, true, "@", client},
		"one with a name":                      {unix, true, "/run/nginx.sock", client},
		"a RemoteAddr without a socket":        {unix, false, "@", "unknown"},
		"an empty one":                         {unix, false, "", "unknown"},
		"a name without a socket":              {unix, false, "unix", "unknown"},
		"a TCP peer":                           {unix, false, "192.0.2.1:80", "192.0.2.1"},
		"a TCP peer that is trusted":           {unix, false, "10.0.0.9:80", client},
		"a socket that is not listed":          {clientip.Config{TrustedProxies: []string{"10.0.0.0/8"}}, true, "@", "unknown"},
		"a socket of a server without proxies": {clientip.Config{}, true, "@", "unknown"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := request(tt.peer, "X-Forwarded-For", evil+", "+client+", 10.0.0.2")
			if tt.socket {
				r = overUnix(r)
			}
			if got := found(t, newResolver(t, tt.config), r); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Nobody who cannot be read is taken for the proxy, which a list of internal networks
// admits.
func TestAClientThatCannotBeReadIsInNoNetwork(t *testing.T) {
	internal := clientip.In(netip.MustParsePrefix("10.0.0.0/8"))
	for name, tt := range map[string]struct {
		config clientip.Config
		field  string
		lines  []string
		want   bool
	}{
		"a claim beside the proxy's own line":   {clientip.Config{Header: "X-Real-IP"}, "X-Real-IP", []string{evil, client}, false},
		"a list in a field of one address":      {clientip.Config{Header: "X-Real-IP"}, "X-Real-IP", []string{evil + ", " + client}, false},
		"an empty field":                        {clientip.Config{Header: "X-Real-IP"}, "X-Real-IP", []string{""}, false},
		"the peer of nginx on a Unix socket":    {clientip.Config{}, "X-Forwarded-For", []string{"unix:"}, false},
		"unknown":                               {clientip.Config{}, "X-Forwarded-For", []string{"unknown, 10.0.0.2"}, false},
		"an obfuscated identifier":              {clientip.Config{Header: "Forwarded"}, "Forwarded", []string{"for=_gazonk"}, false},
		"more elements than are read":           {clientip.Config{}, "X-Forwarded-For", slicesRepeat("10.0.0.2", 33), false},
		"a call of the proxy on its own behalf": {clientip.Config{}, "X-Forwarded-For", nil, true},
		"a client inside":                       {clientip.Config{}, "X-Forwarded-For", []string{"10.1.2.3"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			tt.config.TrustedProxies = proxies
			r := through(newResolver(t, tt.config), request(proxy, tt.field, tt.lines...))
			if got := internal(r); got != tt.want {
				t.Errorf("In reports %v for %s", got, clientip.String(r))
			}
		})
	}
}

// Who connects to a Unix socket chooses the name of its own end. It may be that of an
// address.
func TestAPeerOfAUnixSocketCannotBeAnAddress(t *testing.T) {
	internal := clientip.In(netip.MustParsePrefix("10.0.0.0/8"))
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %v %v", clientip.String(r), clientip.Network(r).IsValid(), internal(r))
	})
	t.Chdir(t.TempDir())
	for name, tt := range map[string]struct {
		server http.Handler
		want   string
	}{
		"without a Resolver":      {h, "unknown false false"},
		"a server with no proxy":  {newResolver(t, clientip.Config{}).Wrap(h), "unknown false false"},
		"with proxies":            {newResolver(t, clientip.Config{TrustedProxies: proxies}).Wrap(h), "unknown false false"},
		"with sockets as proxies": {newResolver(t, clientip.Config{TrustedProxies: []string{"unix"}}).Wrap(h), evil + " true false"},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", "socket")
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewUnstartedServer(tt.server)
			_ = server.Listener.Close()
			server.Listener = listener
			server.Start()
			defer server.Close()
			defer func() { _ = os.Remove("10.0.0.5:80") }()
			dialer := net.Dialer{LocalAddr: &net.UnixAddr{Name: "10.0.0.5:80", Net: "unix"}}
			transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", "socket")
			}}
			defer transport.CloseIdleConnections()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://app.example", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Forwarded-For", evil)
			response, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			if err != nil || string(body) != tt.want {
				t.Errorf("got %q, %v, want %q", body, err, tt.want)
			}
		})
	}
}
