package envelope_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/compare"
)

var shapes = []struct {
	name  string
	shape envelope.Shape
}{
	{"standard", envelope.Standard()},
	{"data", envelope.Data()},
	{"typed", envelope.Typed()},
	{"detail", envelope.Detail()},
	{"problem", envelope.Problem("https://api.example.com/problems/")},
	{"bare", envelope.Bare()},
}

// fromHeader uses the ID that a client has chosen.
var fromHeader = envelope.RequestIDFromHeader("X-Request-Id")

// must returns the envelope of c, which must have no fault.
func must(c envelope.Config) *envelope.Envelope {
	e, err := envelope.New(c)
	if err != nil {
		panic(err)
	}
	return e
}

// forProtocols runs f with servers of both protocols.
func forProtocols(t *testing.T, f func(t *testing.T, serve func(http.Handler) *httptest.Server)) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(protocol, func(t *testing.T) {
			f(t, func(h http.Handler) *httptest.Server {
				s := httptest.NewUnstartedServer(h)
				if protocol == "HTTP/2" {
					s.EnableHTTP2 = true
					s.StartTLS()
				} else {
					s.Start()
				}
				t.Cleanup(s.Close)
				return s
			})
		})
	}
}

// start serves h on the loopback.
func start(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// A reply is a response as a client got it.
type reply struct {
	*http.Response
	body string
}

// do sends a request with header lines such as "X-Request-Id: 1".
func do(t *testing.T, s *httptest.Server, method, path string, header ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read the body: %v", err)
	}
	return reply{resp, string(body)}
}

func get(t *testing.T, s *httptest.Server, path string, header ...string) reply {
	t.Helper()
	return do(t, s, http.MethodGet, path, header...)
}

// moving are the parts of a response that differ each time.
var moving = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`"execution_time_ms":\d+`), `"execution_time_ms":0`},
	{regexp.MustCompile(`"metadata":{"request_id":"[0-9a-hjkmnp-tv-z]{16}"`), `"metadata":{"request_id":"ID"`},
	{regexp.MustCompile(`"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`), `"timestamp":"T"`},
}

// still returns body with its moving parts fixed.
func still(body string) string {
	for _, m := range moving {
		body = m.pattern.ReplaceAllString(body, m.with)
	}
	return body
}

// wantBody fails the test unless the body is valid JSON and equals want, apart from
// the moving parts.
func wantBody(t *testing.T, got reply, want string) {
	t.Helper()
	if !json.Valid([]byte(got.body)) {
		t.Errorf("body is not JSON: %q", got.body)
	}
	if diff := compare.Diff(want, still(got.body)); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
}

func wantStatus(t *testing.T, got reply, want int) {
	t.Helper()
	if got.StatusCode != want {
		t.Errorf("status %d, want %d", got.StatusCode, want)
	}
}

func wantHeader(t *testing.T, got reply, name, want string) {
	t.Helper()
	if v := strings.Join(got.Header[http.CanonicalHeaderKey(name)], " | "); v != want {
		t.Errorf("%s: %q, want %q", name, v, want)
	}
}
