package peers_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
)

// hopByHop is the claim of a client that asks proxies to remove the fields that they add.
const hopByHop = "a hop-by-hop name"

// A client behind each proxy is what that proxy reports, whatever the client claims.
func TestAProxyReportsTheClient(t *testing.T) {
	const client = "127.0.0.2" // no trusted proxy, unlike the loopback address of the proxies
	addressOf := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, clientip.Of(r).String())
	})
	resolved := func(c clientip.Config) http.Handler { return usher.Must(clientip.New(c)).Wrap(addressOf) }
	trusted := []string{"127.0.0.1"}
	tcp := serve(t, resolved(clientip.Config{TrustedProxies: trusted}))
	rfc7239 := serve(t, resolved(clientip.Config{TrustedProxies: trusted, Header: "forwarded"}))
	realIP := serve(t, resolved(clientip.Config{TrustedProxies: trusted, Header: "x-real-ip"}))
	socket := serveUnix(t, resolved(clientip.Config{TrustedProxies: []string{"unix"}}))
	anyPeer := serveUnix(t, resolved(clientip.Config{DangerouslyTrustAnyPeer: true}))

	appends := "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
	fronts := map[string]string{
		"varnish":                varnish(t, tcp),
		"varnish before varnish": varnish(t, varnish(t, tcp)),
		"nginx":                  nginx(t, tcp, "location / { "+appends+" proxy_pass http://BACKEND; }"),
		"nginx, Unix socket":     nginx(t, "unix:"+socket, "location / { "+appends+" proxy_pass http://BACKEND; }"),
		"nginx, trusted as any":  nginx(t, "unix:"+anyPeer, "location / { "+appends+" proxy_pass http://BACKEND; }"),
		"nginx, X-Real-IP":       nginx(t, realIP, "location / { proxy_set_header X-Real-IP $remote_addr; proxy_pass http://BACKEND; }"),
		"haproxy":                haproxyWith(t, tcp, "option forwardfor"),
		"haproxy, Forwarded":     haproxyWith(t, rfc7239, "http-request add-header Forwarded for=%[src]"),
		"haproxy before nginx":   haproxyWith(t, nginx(t, tcp, "location / { "+appends+" proxy_pass http://BACKEND; }"), "option forwardfor"),
		"varnish before haproxy": varnish(t, haproxyWith(t, tcp, "option forwardfor")),
		"nginx before haproxy":   nginx(t, haproxyWith(t, tcp, "option forwardfor"), "location / { "+appends+" proxy_pass http://BACKEND; }"),
	}
	claims := map[string][][2]string{
		"nothing":           {},
		"an address":        {{"X-Forwarded-For", "203.0.113.9"}, {"Forwarded", "for=203.0.113.9"}, {"X-Real-IP", "203.0.113.9"}},
		"a trusted proxy":   {{"X-Forwarded-For", "203.0.113.9, 127.0.0.1"}, {"Forwarded", "for=203.0.113.9, for=127.0.0.1"}, {"X-Real-IP", "127.0.0.1"}},
		"several lines":     {{"X-Forwarded-For", "203.0.113.9"}, {"x-forwarded-for", "203.0.113.8"}, {"X-FORWARDED-FOR", "127.0.0.1"}, {"Forwarded", "for=203.0.113.9"}, {"forwarded", "for=203.0.113.8"}},
		"an open quotation": {{"Forwarded", `for="203.0.113.9`}, {"X-Forwarded-For", `"203.0.113.9`}},
		"empty elements":    {{"X-Forwarded-For", ",,"}, {"Forwarded", ",,"}, {"X-Real-IP", ""}},
		"a mapped proxy":    {{"X-Forwarded-For", "203.0.113.9, ::ffff:127.0.0.1"}, {"Forwarded", `for=203.0.113.9, for="[::ffff:127.0.0.1]"`}},
		"another field":     {{"X_Forwarded_For", "203.0.113.9"}, {"True-Client-IP", "203.0.113.9"}, {"X-Client-IP", "203.0.113.9"}, {"Via", "203.0.113.9"}},
		hopByHop:            {{"Connection", "X-Forwarded-For, X-Real-IP, Forwarded"}, {"X-Forwarded-For", "203.0.113.9"}},
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	for front, address := range fronts {
		for claim, fields := range claims {
			t.Run(front+", "+claim, func(t *testing.T) {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/"+strings.ReplaceAll(claim, " ", "-"), http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range fields {
					r.Header[f[0]] = append(r.Header[f[0]], f[1])
				}
				r.Header.Set("Cache-Control", "no-cache")
				r.Header["Cookie"] = []string{"pass=1"} // so that Varnish does not keep the response
				response, err := transport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = response.Body.Close() }()
				body, err := io.ReadAll(response.Body)
				// Varnish itself refuses to remove the field that it adds.
				if response.StatusCode == http.StatusBadRequest && claim == hopByHop {
					return
				}
				if err != nil || string(body) != client {
					t.Errorf("got %d %q, %v, want %s", response.StatusCode, body, err, client)
				}
			})
		}
	}
}

// A server on a Unix socket believes only its peers there, and a client that its proxy
// cannot name, or names beside a claim, is unknown.
func TestAProxyThatReportsNobody(t *testing.T) {
	h := func(c clientip.Config) http.Handler {
		return usher.Must(clientip.New(c)).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, clientip.String(r))
		}))
	}
	socket := serveUnix(t, h(clientip.Config{TrustedProxies: []string{"unix"}}))
	tcp := serve(t, h(clientip.Config{TrustedProxies: []string{"unix"}}))
	added := serve(t, h(clientip.Config{TrustedProxies: []string{"127.0.0.1"}, Header: "X-Real-IP"}))
	chain := nginx(t, "unix:"+socket, "location / { proxy_set_header X-Forwarded-For unix:; proxy_pass http://BACKEND; }")
	for name, tt := range map[string]struct{ address, want string }{
		"nginx to a Unix socket, for a peer of another": {chain, "unknown"},
		"nginx to TCP, which is not trusted":            {nginx(t, tcp, "location / { proxy_set_header X-Forwarded-For $remote_addr; proxy_pass http://BACKEND; }"), "127.0.0.1"},
		"haproxy adds a line beside the claim":          {haproxyWith(t, added, "http-request add-header X-Real-IP %[src]"), "unknown via 127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+tt.address+"/", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Real-IP", "203.0.113.9")
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			if err != nil || string(body) != tt.want {
				t.Errorf("got %d %q, %v, want %s", response.StatusCode, body, err, tt.want)
			}
		})
	}
}

// RequireTLS admits what a proxy has received over TLS, over HTTP/2 too, and nothing
// else, whatever the client claims.
func TestRequireTLSBehindProxies(t *testing.T) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	require := func(c clientip.Config) string {
		c.TrustedProxies = []string{"127.0.0.1"}
		return serve(t, usher.Chain(usher.Must(clientip.New(c)), clientip.RequireTLS()).Wrap(ok))
	}
	xff, rfc7239 := require(clientip.Config{}), require(clientip.Config{Header: "Forwarded"})
	cert := certificate(t)
	location := "location / { proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; proxy_pass http://BACKEND; }"
	states := "option forwardfor\n\thttp-request set-header X-Forwarded-Proto https if { ssl_fc }\n\thttp-request set-header X-Forwarded-Proto http unless { ssl_fc }"
	secureNginx, secureHaproxy, secureForwarded := freeAddress(t), freeAddress(t), freeAddress(t)
	plain := map[string]string{
		"nginx":              nginx(t, xff, "listen "+secureNginx+" ssl http2; ssl_certificate "+cert+"; ssl_certificate_key "+cert+"; "+location),
		"haproxy":            haproxyWith(t, xff, states, "bind "+secureHaproxy+" ssl crt "+cert+" alpn h2,http/1.1"),
		"haproxy, Forwarded": haproxyWith(t, rfc7239, "http-request add-header Forwarded for=%[src];proto=https if { ssl_fc }\n\thttp-request add-header Forwarded for=%[src];proto=http unless { ssl_fc }", "bind "+secureForwarded+" ssl crt "+cert+" alpn h2,http/1.1"),
		"haproxy, appending": haproxyWith(t, xff, "option forwardfor\n\thttp-request add-header X-Forwarded-Proto http unless { ssl_fc }"),
		"haproxy, no scheme": haproxyWith(t, xff, "option forwardfor\n\thttp-request del-header X-Forwarded-Proto"),
		"varnish":            varnish(t, nginx(t, xff, location)),
	}
	secure := map[string]string{"nginx": secureNginx, "haproxy": secureHaproxy, "haproxy, Forwarded": secureForwarded}
	claims := map[string][][2]string{
		"nothing":       {},
		"https":         {{"X-Forwarded-Proto", "https"}, {"Forwarded", "for=127.0.0.2;proto=https"}},
		"several":       {{"X-Forwarded-Proto", "https"}, {"x-forwarded-proto", "https"}, {"Forwarded", "for=127.0.0.2;proto=https, for=127.0.0.1;proto=https"}},
		"other names":   {{"X-Forwarded-Ssl", "on"}, {"Front-End-Https", "on"}, {"X-Url-Scheme", "https"}, {"X_Forwarded_Proto", "https"}},
		hopByHop:        {{"Connection", "X-Forwarded-Proto, Forwarded, X-Forwarded-For"}, {"X-Forwarded-Proto", "https"}},
		"an open quote": {{"Forwarded", `for=127.0.0.2;proto="https`}, {"X-Forwarded-Proto", `"https`}},
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}
	status := func(t *testing.T, url string, http2 bool, fields [][2]string) int {
		t.Helper()
		transport := &http.Transport{
			DialContext: dialer.DialContext, ForceAttemptHTTP2: http2,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a certificate of this test
		}
		defer transport.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fields {
			if http2 && f[0] == "Connection" {
				continue
			}
			r.Header[f[0]] = append(r.Header[f[0]], f[1])
		}
		response, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if http2 && response.ProtoMajor != 2 {
			t.Errorf("the protocol is %s", response.Proto)
		}
		return response.StatusCode
	}
	for claim, fields := range claims {
		for front, address := range plain {
			t.Run(front+", plain, "+claim, func(t *testing.T) {
				got := status(t, "http://"+address+"/", false, fields)
				if got != http.StatusForbidden && (got != http.StatusBadRequest || claim != hopByHop) {
					t.Errorf("got %d, want 403", got)
				}
			})
		}
	}
	for front, address := range secure {
		for _, http2 := range []bool{false, true} {
			if got := status(t, "https://"+address+"/", http2, nil); got != http.StatusOK {
				t.Errorf("%s, TLS, HTTP/2 %v: got %d, want 200", front, http2, got)
			}
		}
	}
}

// haproxyWith runs haproxy with further lines in its one section.
func haproxyWith(t *testing.T, backend string, lines ...string) string {
	t.Helper()
	address := freeAddress(t)
	start(t, address, program(t, "haproxy"), "-db", "-f", configure(t, `
defaults
	mode http
	timeout connect 5s
	timeout client 30s
	timeout server 30s
listen proxy
	bind ADDRESS
	LINES
	server backend BACKEND
`, "ADDRESS", address, "BACKEND", backend, "LINES", strings.Join(lines, "\n\t")))
	return address
}

// serveUnix serves h on a Unix socket and returns its path.
func serveUnix(t *testing.T, h http.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	serveOn(t, "unix", path, h)
	_ = os.Chmod(path, 0o666) //nolint:gosec // the proxy may run as another user
	return path
}

// certificate returns the path of a file with a certificate and its key.
func certificate(t *testing.T) string {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	pair := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	path := filepath.Join(t.TempDir(), "certificate")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
