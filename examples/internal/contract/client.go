package contract

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// A Client calls one server.
type Client struct {
	TB       testing.TB
	URL      string
	IP       string // that the server sees
	HTTP     *http.Client
	Over     Transport
	dial     func() (net.Conn, error)
	listener *listener // of a server in memory
}

// A Response is what a client received.
type Response struct {
	*http.Response
	Client *Client
	Sent   string // the request, for messages
	Text   string // the body
	url    string // path and query of the request
}

// Try sends a request with header lines such as "X-API-Key: 1", and may be called
// From any goroutine.
func (c *Client) Try(method, path, body string, header ...string) (*Response, error) {
	var reader io.Reader = http.NoBody
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(c.TB.Context(), method, c.URL+path, reader)
	if err != nil {
		return nil, err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	return c.Send(r)
}

// Send sends a request, and may be called from any goroutine.
func (c *Client) Send(r *http.Request) (*Response, error) {
	resp, err := c.HTTP.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if c.Over == HTTP2 && resp.ProtoMajor != 2 {
		c.TB.Errorf("the response came over %s", resp.Proto)
	}
	b, err := io.ReadAll(resp.Body)
	a := &Response{resp, c, r.Method + " " + Cut(r.URL.RequestURI()), string(b), r.URL.RequestURI()}
	if err != nil {
		return a, fmt.Errorf("read the body: %w", err)
	}
	return a, nil
}

// Do sends a request with header lines.
func (c *Client) Do(method, path, body string, header ...string) *Response {
	c.TB.Helper()
	a, err := c.Try(method, path, body, header...)
	if err != nil {
		c.TB.Fatalf("%s %s: %v", method, Cut(path), err)
	}
	return a
}

// Get sends a GET request with header lines.
func (c *Client) Get(path string, header ...string) *Response {
	c.TB.Helper()
	return c.Do(http.MethodGet, path, "", header...)
}

// Post sends a POST request with header lines.
func (c *Client) Post(path, body string, header ...string) *Response {
	c.TB.Helper()
	return c.Do(http.MethodPost, path, body, header...)
}

// Delete sends a DELETE request with header lines.
func (c *Client) Delete(path string, header ...string) *Response {
	c.TB.Helper()
	return c.Do(http.MethodDelete, path, "", header...)
}

// Admitted sends n requests that must all have the status.
func (c *Client) Admitted(n, status int, path string, header ...string) {
	c.TB.Helper()
	for i := range n {
		if a := c.Get(path, header...); a.StatusCode != status {
			c.TB.Fatalf("request %d of %d: status %d, want %d: %s", i+1, n, a.StatusCode, status, a.Text)
		}
	}
}

// Raw sends the bytes of a request as they are, over a connection of its own.
func (c *Client) Raw(request string) *Response {
	c.TB.Helper()
	conn, err := c.dial()
	if err != nil {
		c.TB.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = io.WriteString(conn, request) }() // the server may respond before it has read everything
	line, _, _ := strings.Cut(request, "\r\n")
	method, _, _ := strings.Cut(line, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		c.TB.Fatalf("%s: %v", Cut(line), err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.TB.Fatalf("%s: read the body: %v", Cut(line), err)
	}
	return &Response{resp, c, Cut(line), string(b), ""}
}

// Pipeline sends several requests as they are over one connection and returns the
// statuses of the responses, which are for these methods.
func (c *Client) Pipeline(requests string, methods ...string) (statuses []int) {
	c.TB.Helper()
	conn, err := c.dial()
	if err != nil {
		c.TB.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = io.WriteString(conn, requests) }()
	reader := bufio.NewReader(conn)
	for _, method := range methods {
		resp, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil {
			c.TB.Fatalf("after %v: %v", statuses, err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			c.TB.Fatalf("after %v: %v", statuses, err)
		}
		statuses = append(statuses, resp.StatusCode)
	}
	return statuses
}

// Cut keeps messages short.
func Cut(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

// Is checks the status, and the whole body byte for byte, in which placeholders
// such as <time> stand for what differs from run to run.
func (a *Response) Is(status int, body string) *Response {
	a.Client.TB.Helper()
	a.HasStatus(status)
	if !matches(body, a.Text) {
		a.Client.TB.Errorf("%s: body\n got %s\nwant %s", a.Sent, Cut(a.Text), body)
	}
	if a.Text != "" && strings.Contains(a.Header.Get("Content-Type"), "json") && !json.Valid([]byte(a.Text)) {
		a.Client.TB.Errorf("%s: the body is not JSON: %s", a.Sent, Cut(a.Text))
	}
	return a
}

// HasStatus checks the status alone.
func (a *Response) HasStatus(status int) *Response {
	a.Client.TB.Helper()
	if a.StatusCode != status {
		a.Client.TB.Errorf("%s: status %d, want %d: %s", a.Sent, a.StatusCode, status, Cut(a.Text))
	}
	return a
}

// Enveloped checks the response to be the standard envelope with this data; empty
// data means none.
func (a *Response) Enveloped(status int, message, data string) *Response {
	a.Client.TB.Helper()
	if data != "" {
		data = `,"data":` + data
	}
	return a.EnvelopedWith(status, message, data)
}

// EnvelopedWith checks the response to be the standard envelope with these members
// between message and metadata.
func (a *Response) EnvelopedWith(status int, message, members string) *Response {
	a.Client.TB.Helper()
	url := strings.ReplaceAll(a.url, "&", `\u0026`)
	return a.Is(status, fmt.Sprintf(
		`{"status_code":%d,"message":"%s"%s,"metadata":{"method":"%s","url":"%s","execution_time_ms":<ms>,"ip":"%s","timestamp":"<time>"}}`,
		status, message, members, a.Request.Method, url, a.Client.IP)).Has("Content-Type", "application/json")
}

// Has checks that a field has one line with this value, which may hold
// placeholders.
func (a *Response) Has(name, value string) *Response {
	a.Client.TB.Helper()
	if got := a.Header.Values(name); len(got) != 1 || !matches(value, got[0]) {
		a.Client.TB.Errorf("%s: %s is %q, want %q", a.Sent, name, got, value)
	}
	return a
}

// Lacks checks that the response has none of these fields.
func (a *Response) Lacks(names ...string) *Response {
	a.Client.TB.Helper()
	for _, name := range names {
		if got := a.Header.Values(name); len(got) > 0 {
			a.Client.TB.Errorf("%s: %s is %q, want none", a.Sent, name, got)
		}
	}
	return a
}

// Same checks that two responses are the same bytes with the same header fields,
// apart from those that differ from one request to the next.
func (a *Response) Same(b *Response) {
	a.Client.TB.Helper()
	if a.StatusCode != b.StatusCode || still(a.Text) != still(b.Text) {
		a.Client.TB.Errorf("%s and %s differ\n  %d %s\n  %d %s", a.Sent, b.Sent, a.StatusCode, a.Text, b.StatusCode, b.Text)
	}
	if ha, hb := fields(a), fields(b); !maps.EqualFunc(ha, hb, slices.Equal) {
		a.Client.TB.Errorf("%s and %s have different header fields\n  %v\n  %v", a.Sent, b.Sent, ha, hb)
	}
}

func fields(a *Response) http.Header {
	h := a.Header.Clone()
	for _, name := range []string{"Date", "X-Request-Id", "X-Ratelimit-Remaining", "X-Ratelimit-Reset", "Ratelimit", "Content-Length"} {
		h.Del(name)
	}
	return h
}

// still returns a body without the parts that differ from one request to the next.
func still(body string) string { return moving.ReplaceAllString(body, "_") }

var moving = regexp.MustCompile(`"(execution_time_ms|timestamp|url|request_id)":("[^"]*"|\d+)`)

// Member returns the member of the body at a path such as "data.key.id", as JSON,
// or as text if it is a string.
func (a *Response) Member(path string) string {
	a.Client.TB.Helper()
	raw := json.RawMessage(a.Text)
	for name := range strings.SplitSeq(path, ".") {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil || object[name] == nil {
			a.Client.TB.Fatalf("%s: no member %s in %s", a.Sent, path, Cut(a.Text))
		}
		raw = object[name]
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// Bearer returns the header line that carries a bearer token.
func Bearer(text string) string { return "Authorization: Bearer " + text }

// placeholders are the placeholders of expected texts, and what they match.
var placeholders = map[string]string{
	"<n>":       `[0-9]+`,
	"<ms>":      `[1-9][0-9]*`,
	"<time>":    `[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z`,
	"<instant>": `[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|\+00:00)`,
	"<id>":      `[A-Za-z0-9]{22}`,
	"<request>": `req-[0-9a-z]{16}`,
	"<16>":      `[A-Za-z0-9_-]{16}`,
	"<43>":      `[A-Za-z0-9_-]{43}`,
	"<44>":      `[A-Za-z0-9_-]{44}`,
	"<4>":       `[A-Za-z0-9_-]{4}`,
	"<5>":       `[A-Za-z0-9_-]{5}`,
	"<jwt>":     `[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+`,
	"<token>":   `[A-Za-z0-9_-]{86}`,
}

var placeholder = regexp.MustCompile(`<[a-z0-9]+>`)

// matches reports whether got is want.
func matches(want, got string) bool {
	var pattern strings.Builder
	pattern.WriteString(`\A`)
	for want != "" {
		at := placeholder.FindStringIndex(want)
		if at == nil {
			break
		}
		pattern.WriteString(regexp.QuoteMeta(want[:at[0]]))
		text := want[at[0]:at[1]]
		if p, ok := placeholders[text]; ok {
			text = p
		} else {
			text = regexp.QuoteMeta(text)
		}
		pattern.WriteString(text)
		want = want[at[1]:]
	}
	pattern.WriteString(regexp.QuoteMeta(want) + `\z`)
	return regexp.MustCompile(pattern.String()).MatchString(got)
}
