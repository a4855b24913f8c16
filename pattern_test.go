package usher_test

import (
	"bufio"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher"
)

// This test writes to the connection, as net/http clients send no unclean paths.
func TestPatternIsWhatTheMuxSets(t *testing.T) {
	mux := http.NewServeMux()
	for _, pattern := range []string{
		"GET /notes", "POST /notes", "GET /notes/{id}", "/any", "GET /tree/", "GET /wild/{x}/{$}", "DELETE /rest/{path...}",
		"GET api.example.com/notes", "api.example.com/", "CONNECT /tunnel", "CONNECT /proxy/{name}/", "HEAD /head", "GET /a%2Fb",
	} {
		mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
	}
	before, after := "", ""
	h := usher.Chain(
		usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(w, r)
			after = r.Pattern
		}),
		usher.Pattern(mux),
		usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			before, r.Pattern = r.Pattern, ""
			next.ServeHTTP(w, r)
		}),
	).Wrap(mux)
	server := httptest.NewServer(h)
	defer server.Close()

	tests := map[string]struct {
		line, host string
		status     int
		pattern    string
	}{
		"a route":                        {"GET /notes", "", 200, "GET /notes"},
		"a method of its own":            {"POST /notes", "", 200, "POST /notes"},
		"HEAD is served by GET":          {"HEAD /notes", "", 200, "GET /notes"},
		"a route for HEAD":               {"HEAD /head", "", 200, "HEAD /head"},
		"a method without a route":       {"PUT /notes", "", 405, ""},
		"no route":                       {"GET /none", "", 404, ""},
		"a wildcard":                     {"GET /notes/7", "", 200, "GET /notes/{id}"},
		"an escaped slash in a wildcard": {"GET /notes/7%2F8", "", 200, "GET /notes/{id}"},
		"an escaped slash in a pattern":  {"GET /a%2Fb", "", 200, "GET /a%2Fb"},
		"any method":                     {"PURGE /any?x=1", "", 200, "/any"},
		"a subtree":                      {"GET /tree/a/b", "", 200, "GET /tree/"},
		"the rest of a path":             {"DELETE /rest/a/b", "", 200, "DELETE /rest/{path...}"},
		"redirect to a subtree":          {"GET /tree", "", 307, "GET /tree/"},
		"redirect to a slash":            {"GET /wild/1", "", 307, "GET /wild/{x}/{$}"},
		"redirect of an unclean path":    {"GET //notes", "", 307, "GET /notes"},
		"redirect of dots":               {"GET /tree/../notes", "", 307, "GET /notes"},
		"redirect to nothing":            {"GET //none", "", 307, ""},
		"a host":                         {"GET /notes", "api.example.com", 200, "GET api.example.com/notes"},
		"a host with a port":             {"GET /notes", "api.example.com:8080", 200, "GET api.example.com/notes"},
		"a host for all other paths":     {"POST /notes", "api.example.com", 200, "api.example.com/"},
		"an absolute target":             {"GET http://api.example.com/notes", "other.example.com", 200, "GET api.example.com/notes"},
		"CONNECT to a path":              {"CONNECT /tunnel", "", 200, "CONNECT /tunnel"},
		"CONNECT to an unclean path":     {"CONNECT /a/../tunnel", "", 404, ""},
		// Only here ServeMux takes the pattern from a client; no handler is reached.
		"CONNECT to a redirect": {"CONNECT /proxy/a", "", 307, "/proxy/a/"},
		"CONNECT to a host":     {"CONNECT example.com:443", "example.com:443", 404, ""},
		"a server as a whole":   {"GET *", "", 400, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before, after = "not run", "not run"
			if tt.host == "" {
				tt.host = "example.com"
			}
			status, _ := sendLine(t, server, tt.line, tt.host)
			equal(t, "status", tt.status, status)
			equal(t, "before the mux", tt.pattern, before)
			equal(t, "set by the mux", tt.pattern, after)
		})
	}
}

// send sends a request with exactly this request line, and returns the status and the
// header of the response.
func sendLine(t *testing.T, server *httptest.Server, line, host string) (status int, header http.Header) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(line + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(line, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header
}

func TestPatternFunc(t *testing.T) {
	m := usher.PatternFunc(func(r *http.Request) string { return "of " + r.Method })
	for way, run := range ways {
		r := get()
		r.Pattern = "of a router around this one"
		serve(run(m, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			equal(t, way+": pattern", "of GET", r.Pattern)
		})), r)
	}
}

func TestPatternOfNilPanics(t *testing.T) {
	mustPanic(t, "usher: Pattern of a nil ServeMux", func() { usher.Pattern(nil) })
	mustPanic(t, "usher: PatternFunc of a nil function", func() { usher.PatternFunc(nil) })
}

// A client chooses how to spell a path. If the spelling leads to another route, an
// exemption by pattern does not apply, but one by path still does.
func TestAnExemptionByPatternCoversOnlyItsRoute(t *testing.T) {
	mux := http.NewServeMux()
	for _, pattern := range []string{"GET /public/info", "POST /public/info", "/{name}", "admin.example.com/", "GET /static/"} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Route", r.Pattern) })
	}
	exempt := map[string]bool{"GET /public/info": true, "GET /static/": true}
	refusing := usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		usher.Fail(w, r, &usher.Error{Status: http.StatusForbidden})
	})
	isExempt := func(r *http.Request) bool { return exempt[r.Pattern] }
	server := httptest.NewServer(usher.Chain(usher.Pattern(mux), usher.Unless(isExempt, refusing)).Wrap(mux))
	defer server.Close()

	for line, reached := range map[string]string{
		"GET /public/info":                           "GET /public/info",
		"HEAD /public/info":                          "GET /public/info",
		"GET /%70ublic/info?x":                       "GET /public/info",
		"GET /static/a%2Fb":                          "GET /static/",
		"GET /public%2Finfo":                         "",
		"GET /public%2finfo":                         "",
		"POST /public/info":                          "",
		"OPTIONS /public/info":                       "",
		"get /public/info":                           "",
		"GET /public/info/":                          "",
		"GET //public%2Finfo":                        "",
		"GET /static/../secret":                      "",
		"GET /static/%2e%2e/secret":                  "GET /static/", // as the mux routes it
		"CONNECT /static/../secret":                  "",
		"GET http://admin.example.com/public/x":      "",
		"POST http://admin.example.com/static/x":     "",
		"GET http://admin.example.com:80/static%2fx": "",
	} {
		status, header := sendLine(t, server, line, "example.com")
		if got := header.Get("Route"); got != reached || reached == "" && status == http.StatusOK {
			t.Errorf("%s: status %d, route %q reached, want %q", line, status, got, reached)
		}
	}
}
