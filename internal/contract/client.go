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

// A client calls one server.
type client struct {
	tb       testing.TB
	url      string
	ip       string // that the server sees
	http     *http.Client
	over     transport
	dial     func() (net.Conn, error)
	listener *listener // of a server in memory
}

// An answer is what a client got.
type answer struct {
	*http.Response
	c    *client
	what string // the request, for messages
	url  string // its path and query
	body string
}

// try sends a request with header lines such as "X-API-Key: 1", and may be called
// from any goroutine.
func (c *client) try(method, path, body string, header ...string) (*answer, error) {
	var reader io.Reader = http.NoBody
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(c.tb.Context(), method, c.url+path, reader)
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
	return c.send(r)
}

func (c *client) send(r *http.Request) (*answer, error) {
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if c.over == http2 && resp.ProtoMajor != 2 {
		c.tb.Errorf("answered over %s", resp.Proto)
	}
	b, err := io.ReadAll(resp.Body)
	a := &answer{resp, c, r.Method + " " + cut(r.URL.RequestURI()), r.URL.RequestURI(), string(b)}
	if err != nil {
		return a, fmt.Errorf("read the body: %w", err)
	}
	return a, nil
}

func (c *client) do(method, path, body string, header ...string) *answer {
	c.tb.Helper()
	a, err := c.try(method, path, body, header...)
	if err != nil {
		c.tb.Fatalf("%s %s: %v", method, cut(path), err)
	}
	return a
}

func (c *client) get(path string, header ...string) *answer {
	c.tb.Helper()
	return c.do(http.MethodGet, path, "", header...)
}

func (c *client) post(path, body string, header ...string) *answer {
	c.tb.Helper()
	return c.do(http.MethodPost, path, body, header...)
}

func (c *client) delete(path string, header ...string) *answer {
	c.tb.Helper()
	return c.do(http.MethodDelete, path, "", header...)
}

// admitted sends n requests that must all have the status.
func (c *client) admitted(n, status int, path string, header ...string) {
	c.tb.Helper()
	for i := range n {
		if a := c.get(path, header...); a.StatusCode != status {
			c.tb.Fatalf("request %d of %d: status %d, want %d: %s", i+1, n, a.StatusCode, status, a.body)
		}
	}
}

// raw sends the bytes of a request as they are, over a connection of its own.
func (c *client) raw(request string) *answer {
	c.tb.Helper()
	conn, err := c.dial()
	if err != nil {
		c.tb.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = io.WriteString(conn, request) }() // the server may answer before it has read all
	line, _, _ := strings.Cut(request, "\r\n")
	method, _, _ := strings.Cut(line, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		c.tb.Fatalf("%s: %v", cut(line), err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.tb.Fatalf("%s: read the body: %v", cut(line), err)
	}
	return &answer{resp, c, cut(line), "", string(b)}
}

// pipeline sends several requests as they are over one connection and returns the
// statuses of the answers, which are for these methods.
func (c *client) pipeline(requests string, methods ...string) (statuses []int) {
	c.tb.Helper()
	conn, err := c.dial()
	if err != nil {
		c.tb.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = io.WriteString(conn, requests) }()
	reader := bufio.NewReader(conn)
	for _, method := range methods {
		resp, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil {
			c.tb.Fatalf("after %v: %v", statuses, err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			c.tb.Fatalf("after %v: %v", statuses, err)
		}
		statuses = append(statuses, resp.StatusCode)
	}
	return statuses
}

// cut keeps messages short.
func cut(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

// is checks the status, and the whole body byte for byte, in which placeholders
// such as <time> stand for what cannot be foretold.
func (a *answer) is(status int, body string) *answer {
	a.c.tb.Helper()
	a.status(status)
	if !matches(body, a.body) {
		a.c.tb.Errorf("%s: body\n got %s\nwant %s", a.what, cut(a.body), body)
	}
	if a.body != "" && strings.Contains(a.Header.Get("Content-Type"), "json") && !json.Valid([]byte(a.body)) {
		a.c.tb.Errorf("%s: the body is no JSON: %s", a.what, cut(a.body))
	}
	return a
}

func (a *answer) status(status int) *answer {
	a.c.tb.Helper()
	if a.StatusCode != status {
		a.c.tb.Errorf("%s: status %d, want %d: %s", a.what, a.StatusCode, status, cut(a.body))
	}
	return a
}

// has checks that a field has one line with this value, which may hold
// placeholders.
func (a *answer) has(name, value string) *answer {
	a.c.tb.Helper()
	if got := a.Header.Values(name); len(got) != 1 || !matches(value, got[0]) {
		a.c.tb.Errorf("%s: %s is %q, want %q", a.what, name, got, value)
	}
	return a
}

// lacks checks that the answer has none of these fields.
func (a *answer) lacks(names ...string) *answer {
	a.c.tb.Helper()
	for _, name := range names {
		if got := a.Header.Values(name); len(got) > 0 {
			a.c.tb.Errorf("%s: %s is %q, want none", a.what, name, got)
		}
	}
	return a
}

// same checks that two answers are the same bytes with the same header fields,
// apart from those that differ from one request to the next.
func (a *answer) same(b *answer) {
	a.c.tb.Helper()
	if a.StatusCode != b.StatusCode || still(a.body) != still(b.body) {
		a.c.tb.Errorf("%s and %s differ\n  %d %s\n  %d %s", a.what, b.what, a.StatusCode, a.body, b.StatusCode, b.body)
	}
	if ha, hb := fields(a), fields(b); !maps.EqualFunc(ha, hb, slices.Equal) {
		a.c.tb.Errorf("%s and %s have different header fields\n  %v\n  %v", a.what, b.what, ha, hb)
	}
}

func fields(a *answer) http.Header {
	h := a.Header.Clone()
	for _, name := range []string{"Date", "X-Request-Id", "X-Ratelimit-Remaining", "X-Ratelimit-Reset", "Ratelimit", "Content-Length"} {
		h.Del(name)
	}
	return h
}

// still returns a body without its moving parts.
func still(body string) string { return moving.ReplaceAllString(body, "_") }

var moving = regexp.MustCompile(`"(execution_time_ms|timestamp|url|request_id)":("[^"]*"|\d+)`)

// member returns the member of the body at a path such as "data.key.id", as JSON,
// or as text if it is a string.
func (a *answer) member(path string) string {
	a.c.tb.Helper()
	raw := json.RawMessage(a.body)
	for name := range strings.SplitSeq(path, ".") {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil || object[name] == nil {
			a.c.tb.Fatalf("%s: no member %s in %s", a.what, path, cut(a.body))
		}
		raw = object[name]
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// placeholders are what may stand in an expected text.
var placeholders = map[string]string{
	"<n>":       `[0-9]+`,
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
