package apikey_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// A wire is the management API on a real socket, as one caller sees it.
type wire struct {
	t   *testing.T
	srv *httptest.Server
}

// newWire serves the keys of m to p.
func newWire(t *testing.T, c apikey.HandlerConfig, p *usher.Principal) wire {
	t.Helper()
	h, err := apikey.NewHandler(c)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, usher.WithPrincipal(r, p))
	}))
	t.Cleanup(srv.Close)
	return wire{t, srv}
}

// do sends a request and returns the status and the decoded body.
func (c wire) do(method, target, body string) (int, any) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.srv.URL+target, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.srv.Client().Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	var v any
	if len(text) > 0 {
		if err := json.Unmarshal(text, &v); err != nil {
			c.t.Fatalf("%s %s: %d %q: %v", method, target, resp.StatusCode, text, err)
		}
	}
	return resp.StatusCode, v
}

// list returns the keys that the list shows.
func (c wire) list() []any {
	c.t.Helper()
	status, v := c.do("GET", "/", "")
	if status != http.StatusOK {
		c.t.Fatalf("list: %d %v", status, v)
	}
	return asList(v)
}

// member returns the value at this path of names in a decoded body.
func member(v any, path ...string) any {
	for _, name := range path {
		object, _ := v.(map[string]any)
		v = object[name]
	}
	return v
}

// invalidFields returns the names of the fields that a decoded failure names.
func invalidFields(v any) string {
	var names []string
	for _, f := range asList(member(v, "errors")) {
		names = append(names, member(f, "field").(string))
	}
	return strings.Join(names, " ")
}
