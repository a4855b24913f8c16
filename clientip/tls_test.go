package clientip_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
)

// admits reports whether RequireTLS lets r through behind m.
func admits(m usher.Middleware, r *http.Request) bool {
	return through(usher.Chain(m, clientip.RequireTLS()), r) != nil
}

// X02: a client cannot claim to use TLS.
func TestRequireTLS(t *testing.T) {
	const (
		visitor = "198.51.100.7:4000"
		xff     = "X-Forwarded-For"
		xfp     = "X-Forwarded-Proto"
		fwd     = "Forwarded"
	)
	trusting := clientip.Config{TrustedProxies: proxies}
	standard := clientip.Config{TrustedProxies: proxies, Header: fwd}
	tests := map[string]struct {
		config clientip.Config
		peer   string
		direct bool // over TLS
		header http.Header
		want   bool
	}{
		"plain":                                 {trusting, visitor, false, nil, false},
		"TLS":                                   {trusting, visitor, true, nil, true},
		"a client claims https":                 {trusting, visitor, false, http.Header{xfp: {"https"}, fwd: {"for=1.2.3.4;proto=https"}}, false},
		"a client claims https in Forwarded":    {standard, visitor, false, http.Header{xfp: {"https"}, fwd: {"for=1.2.3.4;proto=https"}}, false},
		"a client over TLS claims http":         {trusting, visitor, true, http.Header{xfp: {"http"}, fwd: {"for=1.2.3.4;proto=http"}}, true},
		"no trusted proxy, a peer claims https": {clientip.Config{}, proxy, false, http.Header{xfp: {"https"}}, false},
		"a Unix socket is not a trusted proxy":  {trusting, "@", false, http.Header{xfp: {"https"}}, false},
		"a Unix socket that is trusted":         {clientip.Config{DangerouslyTrustAnyPeer: true}, "@", false, http.Header{xfp: {"https"}}, true},
		"a call of the proxy itself, plain":     {trusting, proxy, false, nil, false},
		"a call of the proxy itself, TLS":       {trusting, proxy, true, nil, true},
		"a proxy states https":                  {trusting, proxy, false, http.Header{xff: {client}, xfp: {"https"}}, true},
		"the case of a scheme does not matter":  {trusting, proxy, false, http.Header{xfp: {"HTTPS"}}, true},
		"blanks around it":                      {trusting, proxy, false, http.Header{xfp: {" https\t"}}, true},
		"a WebSocket":                           {trusting, proxy, false, http.Header{xfp: {"wss"}}, true},
		"a plain WebSocket":                     {trusting, proxy, false, http.Header{xfp: {"ws"}}, false},
		"a proxy states http":                   {trusting, proxy, false, http.Header{xff: {client}, xfp: {"http"}}, false},
		"a proxy states http over its own TLS":  {trusting, proxy, true, http.Header{xff: {client}, xfp: {"http"}}, false},
		"a proxy states https over its own TLS": {trusting, proxy, true, http.Header{xff: {client}, xfp: {"https"}}, true},
		"a proxy that forwards and states none": {trusting, proxy, true, http.Header{xff: {client}}, false},
		"https only in the other field":         {trusting, proxy, false, http.Header{xff: {client}, fwd: {"for=" + client + ";proto=https"}}, false},
		"other fields do not count": {
			trusting, proxy, false, http.Header{"X-Forwarded-Ssl": {"on"}, "Front-End-Https": {"on"}, "X-Url-Scheme": {"https"}, "X-Forwarded-Scheme": {"https"}, "X-Forwarded-Port": {"443"}}, false,
		},

		"two proxies state https":         {trusting, proxy, false, http.Header{xfp: {"https, https"}}, true},
		"in two lines":                    {trusting, proxy, false, http.Header{xfp: {"https", "https"}}, true},
		"http to the right":               {trusting, proxy, false, http.Header{xfp: {"https, http"}}, false},
		"http to the left":                {trusting, proxy, false, http.Header{xfp: {"http, https"}}, false},
		"http in the other line":          {trusting, proxy, false, http.Header{xfp: {"https", "http"}}, false},
		"an empty field":                  {trusting, proxy, false, http.Header{xfp: {""}}, false},
		"an empty element":                {trusting, proxy, false, http.Header{xfp: {"https,"}}, false},
		"an empty line":                   {trusting, proxy, false, http.Header{xfp: {"https", ""}}, false},
		"32 proxies":                      {trusting, proxy, false, http.Header{xfp: {strings.Repeat("https,", 31) + "https"}}, true},
		"33 proxies":                      {trusting, proxy, false, http.Header{xfp: {strings.Repeat("https,", 32) + "https"}}, false},
		"33 lines":                        {trusting, proxy, false, http.Header{xfp: slicesRepeat("https", 33)}, false},
		"an overlong line":                {trusting, proxy, false, http.Header{xfp: {strings.Repeat(" ", 512) + "https"}}, false},
		"quotes":                          {trusting, proxy, false, http.Header{xfp: {`"https"`}}, false},
		"a word that begins with https":   {trusting, proxy, false, http.Header{xfp: {"https http"}}, false},
		"a URL":                           {trusting, proxy, false, http.Header{xfp: {"https://"}}, false},
		"a letter that folds to an s":     {trusting, proxy, false, http.Header{xfp: {"http\u017f"}}, false},
		"Forwarded agrees":                {trusting, proxy, false, http.Header{xfp: {"https"}, fwd: {"for=" + client + ";proto=https"}}, true},
		"Forwarded has no scheme":         {trusting, proxy, false, http.Header{xfp: {"https"}, fwd: {"for=" + client}}, true},
		"Forwarded contradicts":           {trusting, proxy, false, http.Header{xfp: {"https"}, fwd: {"for=" + client + ";proto=http"}}, false},
		"one address in a field, and one": {clientip.Config{TrustedProxies: proxies, Header: "X-Real-IP"}, proxy, false, http.Header{"X-Real-Ip": {client}, xfp: {"https"}}, true},
		"one address in a field alone":    {clientip.Config{TrustedProxies: proxies, Header: "X-Real-IP"}, proxy, true, http.Header{"X-Real-Ip": {client}}, false},

		"Forwarded: https":                        {standard, proxy, false, http.Header{fwd: {"for=" + client + ";proto=https"}}, true},
		"Forwarded: quoted and in capitals":       {standard, proxy, false, http.Header{fwd: {"PROTO=\"HTTPS\"; For=" + client}}, true},
		"Forwarded: http":                         {standard, proxy, false, http.Header{fwd: {"for=" + client + ";proto=http"}}, false},
		"Forwarded: http over TLS of its own":     {standard, proxy, true, http.Header{fwd: {"for=" + client + ";proto=http"}}, false},
		"Forwarded: no scheme":                    {standard, proxy, true, http.Header{fwd: {"for=" + client}}, false},
		"Forwarded: two schemes":                  {standard, proxy, false, http.Header{fwd: {"for=" + client + ";proto=https;proto=https"}}, false},
		"Forwarded: no address":                   {standard, proxy, false, http.Header{fwd: {"proto=https"}}, false},
		"Forwarded: an obfuscated address":        {standard, proxy, false, http.Header{fwd: {"for=_x;proto=https"}}, false},
		"Forwarded: two addresses":                {standard, proxy, false, http.Header{fwd: {"for=" + client + ";for=" + client + ";proto=https"}}, false},
		"Forwarded: a plain hop behind the proxy": {standard, proxy, false, http.Header{fwd: {"for=" + client + ";proto=https, for=10.0.0.2;proto=http"}}, true},
		"Forwarded: plain before the proxy":       {standard, proxy, false, http.Header{fwd: {"for=" + client + ";proto=http, for=10.0.0.2;proto=https"}}, false},
		"Forwarded: a claim to the left":          {standard, proxy, false, http.Header{fwd: {"for=" + evil + ";proto=https, for=" + client + ";proto=http"}}, false},
		"Forwarded: a claim of plain to the left": {standard, proxy, false, http.Header{fwd: {"for=" + evil + ";proto=http, for=" + client + ";proto=https"}}, true},
		"Forwarded: a proxy calls, TLS":           {standard, proxy, false, http.Header{fwd: {"for=10.0.0.4;proto=https, for=10.0.0.3;proto=http"}}, true},
		"Forwarded: a broken walk":                {standard, proxy, false, http.Header{fwd: {"for=" + client + ";proto=https, for=10.0.0.2;proto=https;x"}}, false},
		"Forwarded: too many elements":            {standard, proxy, false, http.Header{fwd: {strings.Repeat("for=10.0.0.2;proto=https,", 33) + "for=10.0.0.3;proto=https"}}, false},
		"Forwarded: X-Forwarded-Proto alone":      {standard, proxy, false, http.Header{xfp: {"https"}}, false},
		"Forwarded: X-Forwarded-Proto agrees":     {standard, proxy, false, http.Header{fwd: {"for=" + client + ";proto=https"}, xfp: {"https"}}, true},
		"Forwarded: X-Forwarded-Proto contradicts": {
			standard, proxy, false, http.Header{fwd: {"for=" + client + ";proto=https"}, xfp: {"http"}}, false,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := request(tt.peer, "")
			if tt.direct {
				r.TLS = new(tls.ConnectionState)
			}
			r.Header = tt.header
			if got := admits(newResolver(t, tt.config), r); got != tt.want {
				t.Errorf("admitted: %v", got)
			}
		})
	}
}

func TestRequireTLSWithoutAResolver(t *testing.T) {
	nothing := usher.Chain()
	r := request(proxy, "X-Forwarded-Proto", "https")
	if admits(nothing, r) || admits(nothing, usher.Track(r)) {
		t.Error("a header field counts, although the proxy is not trusted")
	}
	r.TLS = new(tls.ConnectionState)
	if !admits(nothing, r) || !admits(nothing, usher.Track(r)) {
		t.Error("a request over TLS is refused")
	}
}

func TestWithAddrChangesNothingAboutTLS(t *testing.T) {
	behind := newResolver(t, clientip.Config{TrustedProxies: proxies})
	addr := clientip.Of(request("192.0.2.1:80", ""))
	for _, proto := range []string{"http", "https"} {
		r := clientip.WithAddr(through(behind, request(proxy, "X-Forwarded-Proto", proto)), addr)
		if got := admits(usher.Chain(), r); got != (proto == "https") {
			t.Errorf("%s within a Resolver: admitted: %v", proto, got)
		}
	}
	r := request(proxy, "")
	if admits(usher.Chain(), clientip.WithAddr(r, addr)) {
		t.Error("a plain request is admitted")
	}
	r.TLS = new(tls.ConnectionState)
	if !admits(usher.Chain(), clientip.WithAddr(r, addr)) {
		t.Error("a request over TLS is refused")
	}
}

func TestTheRefusalOfAPlainRequest(t *testing.T) {
	called := false
	h := clientip.RequireTLS().Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	r := httptest.NewRequest(http.MethodGet, "http://api.example/?key=k", nil)
	r.Header.Set("Authorization", "Bearer secret-of-the-caller")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if called || w.Code != http.StatusForbidden {
		t.Fatalf("status %d, and the handler was called: %v", w.Code, called)
	}
	var body struct{ Code string }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Code != usher.CodeTLSRequired {
		t.Errorf("the code is %q (%v)", body.Code, err)
	}
	for _, name := range []string{"Location", "Refresh", "Upgrade", "Strict-Transport-Security", "Www-Authenticate"} {
		if values := w.Header()[name]; values != nil {
			t.Errorf("%s: %q", name, values)
		}
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control: %q", got)
	}
	if strings.Contains(w.Body.String(), "secret-of-the-caller") {
		t.Error("the body repeats the credential")
	}
}

// fetch sends one request and returns its status and the protocol of the response.
func fetch(t *testing.T, c *http.Client, url string, header http.Header) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		body = nil
	}
	return fmt.Sprint(resp.StatusCode, " ", resp.Proto, " ", string(body))
}

// server starts a server for h, over TLS with HTTP/2 if secure.
func server(t *testing.T, h http.Handler, secure bool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	if secure {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func TestRequireTLSOverSockets(t *testing.T) {
	nobody := newResolver(t, clientip.Config{})
	loopback := newResolver(t, clientip.Config{TrustedProxies: []string{"127.0.0.1", "::1"}})
	connections := make(map[string]int) // the requests over each one, which come one by one
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, clientip.Of(r)) })
	stack := func(res *clientip.Resolver) http.Handler {
		h := usher.Chain(res, clientip.RequireTLS()).Wrap(app)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			connections[r.RemoteAddr]++
			h.ServeHTTP(w, r)
		})
	}
	honest := http.Header{"X-Forwarded-Proto": {"http"}}
	spoofed := http.Header{"X-Forwarded-Proto": {"https"}, "Forwarded": {"for=203.0.113.66;proto=https"}, "X-Forwarded-For": {"203.0.113.66"}}

	t.Run("direct", func(t *testing.T) {
		plain, secure := server(t, stack(nobody), false), server(t, stack(nobody), true)
		if got := fetch(t, plain.Client(), plain.URL, spoofed); got != "403 HTTP/1.1 " {
			t.Errorf("plain: %s", got)
		}
		if got := fetch(t, secure.Client(), secure.URL, http.Header{"X-Forwarded-Proto": {"http"}}); got != "200 HTTP/2.0 127.0.0.1" {
			t.Errorf("over TLS: %s", got)
		}
	})

	// Both front ends share the connections of one transport to the application, so
	// requests that came over TLS and in plain text follow each other on one of them.
	for _, backend := range []string{"plain", "TLS"} {
		t.Run("a proxy that reuses connections, "+backend, func(t *testing.T) {
			clear(connections)
			application := server(t, stack(loopback), backend == "TLS")
			target, err := url.Parse(application.URL)
			if err != nil {
				t.Fatal(err)
			}
			front := &httputil.ReverseProxy{
				Transport: application.Client().Transport,
				Rewrite: func(p *httputil.ProxyRequest) {
					p.SetURL(target)
					p.SetXForwarded() // replaces what the client has sent
					p.Out.Header["Forwarded"] = p.In.Header["Forwarded"]
				},
			}
			plain, secure := server(t, front, false), server(t, front, true)
			for i := range 3 {
				if got := fetch(t, plain.Client(), plain.URL, spoofed); got != "403 HTTP/1.1 " {
					t.Errorf("plain, %d: %s", i, got)
				}
				if got := fetch(t, secure.Client(), secure.URL, honest); got != "200 HTTP/2.0 127.0.0.1" {
					t.Errorf("over TLS, %d: %s", i, got)
				}
			}
			// Forwarded is not what the proxy writes, so it may contradict, and does not help.
			if got := fetch(t, secure.Client(), secure.URL, http.Header{"Forwarded": {"for=203.0.113.66;proto=http"}}); got != "403 HTTP/2.0 " {
				t.Errorf("a contradiction: %s", got)
			}
			if len(connections) != 1 {
				t.Errorf("the connections of the proxy were not reused: %v", connections)
			}
		})
	}
}
