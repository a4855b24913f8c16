package composition_test

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A scenario is a request, or two that are alike, of which the second response counts.
type scenario struct {
	name    string
	status  int    // of the response without a neighbour
	request string // method and path
	header  []string
	twice   bool
}

// scenarios are what all routers serve. The default caller is the writer.
var scenarios = []scenario{
	{name: "JSON", status: 200, request: "GET /json"},
	{name: "long JSON", status: 200, request: "GET /json/long"},
	{name: "HEAD", status: 200, request: "HEAD /json/long"},
	{name: "value", status: 200, request: "GET /respond"},
	{name: "text", status: 200, request: "GET /text"},
	{name: "page", status: 200, request: "GET /html"},
	{name: "file", status: 200, request: "GET /file"},
	{name: "part of a file", status: 206, request: "GET /file", header: []string{"Range", "bytes=10-19"}},
	{name: "tagged JSON", status: 200, request: "GET /tagged"},
	{name: "not modified", status: 304, request: "GET /tagged", header: []string{"If-None-Match", `W/"1"`}},
	{name: "created", status: 201, request: "POST /notes"},
	{name: "empty", status: 204, request: "DELETE /notes"},

	{name: "without a key", status: 401, request: "GET /json", header: []string{"X-API-Key", ""}},
	{name: "with a wrong key", status: 401, request: "POST /notes", header: []string{"X-API-Key", "wrong"}},
	{name: "forbidden", status: 403, request: "POST /notes", header: []string{"X-API-Key", "reader"}},
	{name: "limited", status: 429, request: "GET /json", header: []string{"Limited", "yes"}, twice: true},
	{name: "preflight", status: 401, request: "OPTIONS /notes", header: []string{
		"X-API-Key", "", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-api-key",
	}},
	{name: "no route", status: 404, request: "GET /none"},
	{name: "wrong method", status: 405, request: "PUT /json"},

	{name: "error", status: 409, request: "GET /fail"},
	{name: "long error", status: 402, request: "GET /fail/long"},
	{name: "private error", status: 500, request: "GET /private"},
	{name: "text of an error", status: 400, request: "GET /error/400"},
	{name: "text of a failure", status: 500, request: "GET /error/500"},
	{name: "JSON of an error", status: 422, request: "GET /json/422"},
	{name: "JSON of a failure", status: 503, request: "GET /json/503"},

	{name: "panic", status: 500, request: "GET /panic"},
	{name: "late panic", status: 200, request: "GET /panic/late"},

	{name: "replay", status: 201, request: "POST /notes", header: []string{"Idempotency-Key", "ENCODING"}, twice: true},
	{name: "replay in another encoding", status: 201, request: "POST /notes", header: []string{"Idempotency-Key", "shared"}, twice: true},
	{name: "replay of an error", status: 402, request: "POST /fail", header: []string{"Idempotency-Key", "failed-ENCODING"}, twice: true},

	{name: "stream", status: 200, request: "GET /events"},
	{name: "upgrade", status: 101, request: "GET /upgrade", header: []string{"Connection", "Upgrade", "Upgrade", "notes"}},
}

// encodings are what clients accept. ENCODING in a field is replaced by it.
var encodings = []string{"identity", "gzip"}

// A response is a response as its client decodes it, without what differs each time.
type response struct {
	status  int
	header  http.Header
	body    string
	broken  bool // it does not end as HTTP demands
	encoded bool
}

// origin is the origin of the page that sends the requests.
const origin = "https://app.example"

// A client sends scenarios to a service behind a router.
type client struct {
	server  *httptest.Server
	service *service
}

func newClient(t *testing.T, protocol string, s *service, h http.Handler) *client {
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if protocol == "HTTP/2" {
		server.EnableHTTP2 = true
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	server.Client().Transport.(*http.Transport).DisableCompression = true
	return &client{server, s}
}

// run sends all scenarios, each with all encodings, in one order for all servers.
func (c *client) run(t *testing.T, list []scenario) map[string]response {
	responses := make(map[string]response)
	for _, s := range list {
		for _, encoding := range encodings {
			if s.twice {
				c.do(t, s, encoding)
			}
			responses[cellName(s, encoding)] = c.do(t, s, encoding)
		}
	}
	return responses
}

// crowd sends what changes nothing in the service once more, by several clients at once.
func (c *client) crowd(t *testing.T, list []scenario, want map[string]response) {
	var clients sync.WaitGroup
	for range 3 {
		clients.Go(func() {
			for _, s := range list {
				if s.twice || s.name == "stream" || strings.HasPrefix(s.request, "POST") {
					continue
				}
				for _, encoding := range encodings {
					name := cellName(s, encoding)
					if err := compare(want[name], c.do(t, s, encoding)); err != nil {
						t.Errorf("%s, with others at once: %v", name, err)
					}
				}
			}
		})
	}
	clients.Wait()
}

func cellName(s scenario, encoding string) string { return s.name + ", " + encoding }

func (c *client) do(t *testing.T, s scenario, encoding string) response {
	t.Helper()
	method, path := cutPattern(s.request)
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader("{}")
	}
	r, err := http.NewRequestWithContext(t.Context(), method, c.server.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-API-Key", c.service.writer)
	r.Header.Set("Accept-Encoding", encoding)
	r.Header.Set("Origin", origin)
	for i := 0; i < len(s.header); i += 2 {
		r.Header.Set(s.header[i], strings.ReplaceAll(s.header[i+1], "ENCODING", encoding))
	}
	if r.Header.Get("X-API-Key") == "" {
		r.Header.Del("X-API-Key")
	} else if r.Header.Get("X-API-Key") == "reader" {
		r.Header.Set("X-API-Key", c.service.reader)
	}
	got, err := c.server.Client().Do(r)
	if err != nil {
		return response{broken: true}
	}
	defer func() { _ = got.Body.Close() }()
	return c.read(got)
}

// read reads a response to its end. It lets a stream continue once the first event has
// arrived.
func (c *client) read(got *http.Response) response {
	encoding := got.Header.Get("Content-Encoding")
	resp := response{status: got.StatusCode, header: got.Header, encoded: encoding != ""}
	body := io.Reader(got.Body)
	if encoding == "gzip" && got.Request.Method != http.MethodHead {
		zip, err := gzip.NewReader(body)
		switch {
		case err == nil:
			body = zip
		case !errors.Is(err, io.EOF): // which is an empty body
			resp.broken = true
			return resp
		}
	}
	var text strings.Builder
	buffer := make([]byte, 4096)
	for {
		n, err := body.Read(buffer)
		text.Write(buffer[:n])
		if strings.HasSuffix(text.String(), firstEvent) {
			c.service.received <- struct{}{}
		}
		if err != nil {
			resp.broken = !errors.Is(err, io.EOF)
			break
		}
	}
	select {
	case <-c.service.received: // by nobody: the events have arrived together
	default:
	}
	resp.body = text.String()
	resp.neutralize()
	return resp
}

var (
	times  = regexp.MustCompile(`"(execution_time_ms|timestamp)":("[^"]*"|[0-9.]+)`)
	digits = regexp.MustCompile(`[0-9]+`)
)

// neutralize removes what differs each time. The ID of the request is removed from the
// body, and as the logged one, only if it is the one in the header.
func (r *response) neutralize() {
	r.body = times.ReplaceAllString(r.body, `"$1":0`)
	if id := r.header["X-Request-Id"]; len(id) == 1 && len(id[0]) > 0 {
		r.body = strings.ReplaceAll(r.body, id[0], "ID")
		if logged := r.header["Logged-Id"]; slices.Equal(logged, id) {
			r.header["Logged-Id"] = []string{"ID"}
		} else if logged != nil {
			r.header["Logged-Id"] = []string{"another"}
		}
		r.header["X-Request-Id"] = []string{"ID"}
	}
	for name, values := range r.header {
		if strings.HasPrefix(name, "Ratelimit") || strings.HasPrefix(name, "X-Ratelimit") || name == "Retry-After" {
			r.header[name] = []string{digits.ReplaceAllString(strings.Join(values, ", "), "0")}
		}
	}
}

// Fields of the header that describe the encoded bytes or the connection, and those that
// a middleware of others must not add.
var (
	ofBytes = []string{"Content-Encoding", "Content-Length", "Date", "Vary"}
	ofUsher = []string{
		"Allow", "Cache-Control", "Content-Type", "Idempotency-Replayed", "Location", "Retry-After", "Www-Authenticate", "X-Request-Id",
	}
	// A compressor may change these as well, as the bytes are no longer those of the tag.
	ofIdentity = []string{"Accept-Ranges", "Etag", "Last-Modified"}
)

// compare returns how got differs from want, if it does. Fields that only got has are
// what the middleware is for, unless they are usher's.
func compare(want, got response) error {
	if got.status != want.status || got.broken != want.broken {
		return fmt.Errorf("status is %s, want %s", got.line(), want.line())
	}
	if got.body != want.body && !want.broken {
		return fmt.Errorf("body is %s, want %s", show(got.body), show(want.body))
	}
	if strings.Contains(got.body, secret) && !strings.Contains(want.body, secret) {
		return fmt.Errorf("body reveals %s: %s", secret, show(got.body))
	}
	for _, name := range slices.Sorted(maps.Keys(want.header)) {
		ignored := slices.Contains(ofBytes, name) || got.encoded && slices.Contains(ofIdentity, name)
		if !ignored && !slices.Equal(got.header[name], want.header[name]) {
			return fmt.Errorf("%s is %q, want %q", name, got.header[name], want.header[name])
		}
	}
	for _, name := range ofUsher {
		if !slices.Equal(got.header[name], want.header[name]) {
			return fmt.Errorf("%s is %q, want %q", name, got.header[name], want.header[name])
		}
	}
	vary := strings.ToLower(strings.Join(got.header["Vary"], ", "))
	for _, value := range want.header["Vary"] {
		for name := range strings.SplitSeq(value, ",") {
			if !strings.Contains(vary, strings.ToLower(strings.TrimSpace(name))) {
				return fmt.Errorf("Vary is %q, want %q", got.header["Vary"], want.header["Vary"])
			}
		}
	}
	return nil
}

// line returns how the response begins and ends.
func (r response) line() string {
	if r.broken {
		return fmt.Sprint(r.status, ", broken off")
	}
	return fmt.Sprint(r.status)
}

func show(text string) string {
	if len(text) > 100 {
		return fmt.Sprintf("%q...%q (%d bytes)", text[:40], text[len(text)-40:], len(text))
	}
	return fmt.Sprintf("%q", text)
}

func cutPattern(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	return method, path
}
