package jwtauth_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
)

// A page elsewhere makes the browser of a user send the cookie with the user's token.
func TestPagesOfOtherOriginsCannotUseACookie(t *testing.T) {
	responses := new(publisher)
	responses.Say(active(nil))
	trusted := []string{"https://app.example"}
	for name, a := range map[string]usher.Authenticator{
		"a Verifier": verifier(t, func(c *jwtauth.Config) { c.Cookie, c.TrustedOrigins = "session", trusted }),
		"an Introspection": introspection(t, responses, func(c *jwtauth.IntrospectionConfig) {
			c.Cookie, c.TrustedOrigins = "session", trusted
		}),
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(usher.Authenticate(a).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Upgrade") != "" {
					w.Header().Set("Connection", "Upgrade")
					w.Header().Set("Upgrade", "websocket")
					w.WriteHeader(http.StatusSwitchingProtocols)
				}
			})))
			defer server.Close()
			text := opaque
			if name == "a Verifier" {
				text = good()
			}
			cookie, own := "Cookie: session="+text, "Origin: "+server.URL
			const evil, cross = "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"
			for _, tt := range []struct {
				want   int
				method string
				header []string
			}{
				{200, "GET", []string{cookie, evil, cross}},
				{200, "HEAD", []string{cookie, evil, cross}},
				{403, "POST", []string{cookie, evil, cross}},
				{403, "PUT", []string{cookie, evil, cross}},
				{403, "DELETE", []string{cookie, evil}},
				{403, "MOVE", []string{cookie, evil}},
				{403, "POST", []string{cookie, cross}},
				{403, "POST", []string{cookie, "Origin: null"}},
				{403, "POST", []string{cookie, "Origin: https://blog.example", "Sec-Fetch-Site: same-site"}},
				{403, "POST", []string{"Cookie: session=x", evil, cross}},
				{403, "POST", []string{cookie + "; session=x", evil, cross}},
				{403, "POST", []string{cookie, "Authorization: Basic eA==", evil, cross}},
				{200, "POST", []string{cookie, own, "Sec-Fetch-Site: same-origin"}},
				{200, "POST", []string{cookie, own}},
				{200, "POST", []string{cookie}},
				{200, "POST", []string{cookie, "Sec-Fetch-Site: none"}},
				{200, "POST", []string{cookie, "Origin: https://app.example", cross}},
				{200, "POST", []string{"Authorization: Bearer " + text, evil, cross}},
				{400, "POST", []string{"Authorization: Bearer " + text, cookie, evil, cross}},
				{401, "POST", []string{evil, cross}},
				{403, "GET", []string{cookie, evil, cross, "Connection: Upgrade", "Upgrade: websocket"}},
				{403, "GET", []string{cookie, evil, "Connection: Upgrade", "Upgrade: websocket"}},
				{403, "GET", []string{cookie, "Origin: null", "Connection: Upgrade", "Upgrade: websocket"}},
				{101, "GET", []string{cookie, own, "Connection: Upgrade", "Upgrade: websocket"}},
				{101, "GET", []string{cookie, "Origin: https://app.example", cross, "Connection: Upgrade", "Upgrade: websocket"}},
				{101, "GET", []string{cookie, "Connection: Upgrade", "Upgrade: websocket"}},
			} {
				if got := statusFor(t, server, tt.method, tt.header); got != tt.want {
					t.Errorf("%s %q: %d, want %d", tt.method, tt.header, got, tt.want)
				}
			}
		})
	}
}

// statusFor sends a request on a connection of its own, and returns the status of the
// response.
func statusFor(t *testing.T, server *httptest.Server, method string, header []string) int {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Length: 0\r\n\r\n", method, server.Listener.Addr(), strings.Join(header, "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// A proxy adds the token to the requests of every page, because it has a cookie itself.
func TestPagesOfOtherOriginsCannotUseTheTokenOfAProxy(t *testing.T) {
	v := verifier(t, func(c *jwtauth.Config) { c.Header, c.TrustedOrigins = assertion, []string{"https://app.example"} })
	for _, tt := range []struct {
		method, origin, site string
		want                 int
	}{
		{"GET", "https://evil.example", "cross-site", 200},
		{"POST", "https://evil.example", "cross-site", 403},
		{"POST", "https://evil.example", "", 403},
		{"POST", "null", "", 403},
		{"POST", "https://app.example", "cross-site", 200},
		{"POST", "https://api.example", "same-origin", 200},
		{"POST", "", "", 200},
	} {
		for _, text := range []string{good(), "x.y.z"} {
			r := httptest.NewRequestWithContext(t.Context(), tt.method, "https://api.example/", nil)
			r.Header = http.Header{assertion: {text}}
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			if tt.site != "" {
				r.Header.Set("Sec-Fetch-Site", tt.site)
			}
			want := tt.want
			if want == 200 && text != good() {
				want = 401
			}
			if got := respond(t, v, r).Code; got != want {
				t.Errorf("%s from %q, %q: %d, want %d", tt.method, tt.origin, tt.site, got, want)
			}
		}
	}
}

func TestTheCauseOfACrossOriginRequestIsReported(t *testing.T) {
	v := verifier(t, func(c *jwtauth.Config) { c.Cookie = "session" })
	r := httptest.NewRequest(http.MethodPost, "https://api.example/", nil)
	r.Header = http.Header{"Cookie": {"session=" + good()}, "Sec-Fetch-Site": {"cross-site"}}
	w := respond(t, v, r)
	if w.Code != 403 || !strings.Contains(w.Body.String(), usher.CodeCrossOriginRequest) || w.Header()["Www-Authenticate"] != nil {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	_, err := v.Authenticate(r)
	if e, ok := errors.AsType[*usher.Error](err); !ok || !strings.Contains(e.Cause.Error(), "cross_origin: cross-origin request detected from Sec-Fetch-Site header") {
		t.Errorf("%v", err)
	}
}
