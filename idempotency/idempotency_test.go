package idempotency_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

func TestADuplicateGetsTheFirstResponse(t *testing.T) { // KK-19

	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
	first := do(h, post("/orders?a=1", `{"n":1}`))
	if first.Code != 201 || first.Body.String() != `{"execution":1,"body":"{\"n\":1}"}` {
		t.Fatalf("the first response is %d %s", first.Code, first.Body)
	}
	if mark, ok := first.Header()["Idempotency-Replayed"]; ok {
		t.Errorf("the first response is marked %q", mark)
	}
	for range 3 {
		again := do(h, post("/orders?a=1", `{"n":1}`))
		wantReplay(t, again, first)
		if got := again.Header().Get("Content-Type"); got != "application/json" {
			t.Errorf("Content-Type: %q", got)
		}
	}
	calls.want(t, 1)
}

func TestOnlyTheSameRequestIsADuplicate(t *testing.T) {
	bob := &usher.Principal{ID: "bob", Kind: usher.KindAPIKey}
	with := func(h, v string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(h, v) }
	}
	pattern := func(p string) func(*http.Request) {
		return func(r *http.Request) { r.Pattern = p }
	}
	method := func(m string) func(*http.Request) { return func(r *http.Request) { r.Method = m } }
	const replay, apart, reused = 201, 201, 422
	for _, c := range []struct {
		name       string
		request    *http.Request
		status     int
		executions int64 // with the first
	}{
		{"the same", post("/o/1?a=1", "x"), replay, 1},
		{"the key as a string of RFC 8941", post("/o/1?a=1", "x", key(`"k"`)), replay, 1},
		{"other parameters of the media type", post("/o/1?a=1", "x", with("Content-Type", "Application/JSON; charset=utf-8")), replay, 1},
		{"header fields that are not compared", post("/o/1?a=1", "x", with("User-Agent", "b")), replay, 1},
		{"P01: another principal", post("/o/1?a=1", "x", as(bob)), apart, 2},
		{"P01: the same ID of another kind", post("/o/1?a=1", "x", as(&usher.Principal{ID: "alice", Kind: usher.KindJWT})), apart, 2},
		{"P02: another method", post("/o/1?a=1", "x", method("PATCH")), apart, 2},
		{"P02: another route", post("/o/1?a=1", "x", pattern("POST /other")), apart, 2},
		{"another key", post("/o/1?a=1", "x", key("K")), apart, 2},
		{"P02: another query", post("/o/1?a=2", "x"), reused, 1},
		{"P02: another path on the same route", post("/o/2?a=1", "x"), reused, 1},
		{"P02: another path in escapes", post("/o%2f1?a=1", "x"), reused, 1},
		{"P02: a query that is a part of the path", post("/o/1%3Fa=1", "x"), reused, 1},
		{"P03: another body", post("/o/1?a=1", "y"), reused, 1},
		{"P03: a longer body", post("/o/1?a=1", "xx"), reused, 1},
		{"P03: no body", post("/o/1?a=1", ""), reused, 1},
		{"another media type", post("/o/1?a=1", "x", with("Content-Type", "text/plain")), reused, 1},
		{"no media type", post("/o/1?a=1", "x", func(r *http.Request) { r.Header.Del("Content-Type") }), reused, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := new(counting)
			h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
			first := do(h, post("/o/1?a=1", "x"))
			w := do(h, c.request)
			if w.Code != c.status {
				t.Errorf("status %d, want %d", w.Code, c.status)
			}
			calls.want(t, c.executions)
			switch {
			case c.status == reused:
				wantFailure(t, w, 422, usher.CodeIdempotencyKeyReused) // KK-21
				var e struct{ Param string }
				if _ = json.Unmarshal(w.Body.Bytes(), &e); e.Param != "Idempotency-Key" {
					t.Errorf("param %q", e.Param)
				}
			case c.executions == 1:
				wantReplay(t, w, first)
			default:
				if _, marked := w.Header()["Idempotency-Replayed"]; marked || w.Body.String() == first.Body.String() {
					t.Errorf("got %s, the response to another request", w.Body)
				}
			}
		})
	}
}

func TestKeys(t *testing.T) {
	long := strings.Repeat("k", 255)
	for _, c := range []struct {
		name   string
		values []string
		status int
	}{
		{"one character", []string{"a"}, 201},
		{"a UUID", []string{"8e03978e-40d5-43e8-bc93-6894a57f9324"}, 201},
		{"all visible punctuation", []string{"!#$%&'()*+,-./:;<=>?@[]^_`{|}~\\\""}, 201},
		{"255 bytes", []string{long}, 201},
		{"255 bytes in quotes", []string{`"` + long + `"`}, 201},
		{"an escape in quotes", []string{`"a\"b\\c"`}, 201},
		{"KK-23: 256 bytes", []string{long + "k"}, 400},
		{"KK-23: 256 bytes in quotes", []string{`"` + long + `k"`}, 400},
		{"KK-23: 900 KiB", []string{strings.Repeat("k", 900<<10)}, 400},
		{"KK-23: empty", []string{""}, 400},
		{"KK-23: an empty string", []string{`""`}, 400},
		{"KK-23: two lines", []string{"a", "b"}, 400},
		{"KK-23: two equal lines", []string{"a", "a"}, 400},
		{"two lines in one", []string{"a, b"}, 400},
		{"two strings in one line", []string{`"a", "b"`}, 400},
		{"a space", []string{"a b"}, 400},
		{"a space in quotes", []string{`"a b"`}, 201},
		{"a tab in quotes", []string{"\"a\tb\""}, 400},
		{"a control character", []string{"a\x01"}, 400},
		{"DEL", []string{"a\x7f"}, 400},
		{"UTF-8", []string{"schlüssel"}, 400},
		{"one quote", []string{`"`}, 400},
		{"no end", []string{`"abc`}, 400},
		{"a quote within", []string{`"a"b"`}, 400},
		{"an unknown escape", []string{`"a\n"`}, 400},
		{"an escape at the end", []string{`"a\"`}, 400},
		{"parameters", []string{`"a";p=1; q="x";*r=:aGk=:;s=?1;t=a/b;u=-1.5;v=@7;w=%"%c3%bc"`}, 201},
		{"a parameter without a name", []string{`"a";`}, 400},
		{"a parameter without a value", []string{`"a";p=`}, 400},
		{"a parameter with a text that does not end", []string{`"a";p="x`}, 400},
		{"a space before a parameter", []string{`"a" ;p`}, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := new(counting)
			w := do(newMiddleware(t, idempotency.Config{}).Wrap(calls), post("/", "", key(c.values...)))
			if w.Code != c.status {
				t.Errorf("status %d, want %d", w.Code, c.status)
			}
			if c.status == 400 {
				wantFailure(t, w, 400, usher.CodeIdempotencyKeyInvalid)
				calls.want(t, 0)
			}
		})
	}
}

func TestAKeyInAnotherFieldOrTrailerIsNone(t *testing.T) {
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
	for range 2 {
		do(h, post("/", "", func(r *http.Request) {
			r.Header = http.Header{"Idempotency_key": {"k"}, "X-Idempotency-Key": {"k"}}
			r.Trailer = http.Header{"Idempotency-Key": {"k"}}
		}))
	}
	calls.want(t, 2)
}

func TestRequestsThatPassWithoutAClaim(t *testing.T) { // KK-24

	withoutKey := func(r *http.Request) { r.Header.Del("Idempotency-Key") }
	for name, r := range map[string]func() *http.Request{
		"no key": func() *http.Request { return post("/", "x", withoutKey) },
		"GET":    func() *http.Request { return post("/", "", func(r *http.Request) { r.Method = "GET" }) },
		"DELETE": func() *http.Request { return post("/", "", func(r *http.Request) { r.Method = "DELETE" }) },
	} {
		t.Run(name, func(t *testing.T) {
			calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
				if e := idempotency.From(r.Context()); e != nil {
					t.Error("the request has an Execution")
				}
			}}
			h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
			for range 2 {
				if w := do(h, r()); w.Code != 200 {
					t.Errorf("status %d", w.Code)
				}
			}
			calls.want(t, 2)
		})
	}
}

func TestARequiredKey(t *testing.T) {
	calls := new(counting)
	optional := newMiddleware(t, idempotency.Config{})
	required := optional.Require().Wrap(calls)
	withoutKey := func(r *http.Request) { r.Header.Del("Idempotency-Key") }
	wantFailure(t, do(required, post("/", "", withoutKey)), 400, usher.CodeIdempotencyKeyMissing)
	calls.want(t, 0)
	first := do(optional.Wrap(calls), post("/", ""))
	wantReplay(t, do(required, post("/", "")), first)
	if w := do(optional.Wrap(calls), post("/", "", withoutKey)); w.Code != 201 {
		t.Errorf("where the key is optional: %d", w.Code)
	}
	if w := do(required, post("/", "", withoutKey, func(r *http.Request) { r.Method = "GET" })); w.Code != 201 {
		t.Errorf("GET: %d", w.Code)
	}
}

func TestNestedMiddlewaresClaimTheKeyOnce(t *testing.T) {
	calls := new(counting)
	inner := newMiddleware(t, idempotency.Config{Required: true}).Wrap(calls)
	h := newMiddleware(t, idempotency.Config{}).Wrap(inner)
	first := do(h, post("/", "a"))
	wantReplay(t, do(h, post("/", "a")), first)
	calls.want(t, 1)
	wantFailure(t, do(h, post("/", "", func(r *http.Request) { r.Header.Del("Idempotency-Key") })), 400, usher.CodeIdempotencyKeyMissing)
}

func TestAnotherHeaderAndOtherMethods(t *testing.T) {
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{Header: "x-request-key", Methods: []string{"PUT"}}).Wrap(calls)
	put := func(r *http.Request) { r.Method = "PUT"; r.Header = http.Header{"X-Request-Key": {"1"}} }
	first := do(h, post("/", "", put))
	wantReplay(t, do(h, post("/", "", put)), first)
	do(h, post("/", "", func(r *http.Request) { r.Header = http.Header{"X-Request-Key": {"1"}} }))
	calls.want(t, 2)
	w := do(h, post("/", "", put, func(r *http.Request) { r.Header["X-Request-Key"] = []string{""} }))
	if !strings.Contains(w.Body.String(), `"param":"X-Request-Key"`) {
		t.Errorf("got %s", w.Body)
	}
}

func TestDiscoveryPublishesThePolicy(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{Methods: []string{"PUT", "POST"}, Wait: time.Second, TTL: 36*time.Hour + 90*time.Second})
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	w := do(m.Discovery(), r)
	want := `{"header":"Idempotency-Key","required":false,"methods":["POST","PUT"],"max_length":255,` +
		`"key_forms":[{"form":"raw","pattern":"^[!#-~][!-~]{0,254}$"},{"form":"rfc9651_string","pattern":"^[ -~]{1,255}$"}],` +
		`"key_restricted":false,` +
		`"lifetime":"PT36H1M30S","max_body_bytes":1048576,` +
		`"fingerprint":["method","host","path","query","media_type","content_encoding","body"],"in_flight":"wait","wait":"PT1S",` +
		`"replay_header":"Idempotency-Replayed",` +
		`"statuses":{"released":[401,403,405,408,409,425,429,501,503],"unknown":[500,502,504,505,506,507,508,510,511]},` +
		`"errors":[{"status":400,"code":"idempotency_key_invalid","retry":false},` +
		`{"status":400,"code":"body_unreadable","retry":true},` +
		`{"status":401,"code":"missing_credential","retry":false},` +
		`{"status":408,"code":"body_timeout","retry":true},` +
		`{"status":409,"code":"idempotency_in_progress","retry":true},` +
		`{"status":409,"code":"idempotency_outcome_unknown","retry":false},` +
		`{"status":409,"code":"idempotency_response_not_kept","retry":false},` +
		`{"status":413,"code":"payload_too_large","retry":false},` +
		`{"status":422,"code":"idempotency_key_reused","retry":false},` +
		`{"status":429,"code":"idempotency_too_many_keys","retry":true},` +
		`{"status":500,"code":"idempotency_record_unreadable","retry":false},` +
		`{"status":503,"code":"idempotency_record_unreadable","retry":true},` +
		`{"status":503,"code":"idempotency_unavailable","retry":true}]}`
	if w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("got %d %s\nwant %s", w.Code, w.Body, want)
	}
	if h := w.Header(); h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "public, max-age=3600" {
		t.Errorf("got %v", h)
	}
	again := r.Clone(t.Context())
	again.Header.Set("If-None-Match", w.Header().Get("Etag"))
	if w := do(m.Discovery(), again); w.Code != 304 || w.Body.Len() != 0 {
		t.Errorf("known already: %d %s", w.Code, w.Body)
	}
	again.Method = http.MethodHead
	again.Header.Del("If-None-Match")
	if w := do(m.Discovery(), again); w.Code != 200 || w.Header().Get("Etag") == "" {
		t.Errorf("HEAD: %d, ETag %q", w.Code, w.Header().Get("Etag"))
	}
	r.Method = http.MethodPost
	if w := do(m.Require().Discovery(), r); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
	r.Method = http.MethodGet
	if w := do(m.Require().Discovery(), r); !strings.Contains(w.Body.String(), `"required":true`) {
		t.Errorf("got %s", w.Body)
	}
}

// T9: a process whose clock is wrong does no harm.
func TestNoTimeOfACallerReachesAStore(t *testing.T) {
	var look func(at string, typ reflect.Type)
	look = func(at string, typ reflect.Type) {
		if typ == reflect.TypeFor[time.Time]() {
			t.Errorf("%s is a time", at)
		}
		if typ.Kind() == reflect.Struct {
			for field := range typ.Fields() {
				look(at+"."+field.Name, field.Type)
			}
		}
	}
	for method := range reflect.TypeFor[idempotency.Store]().Methods() {
		for in := range method.Type.Ins() {
			look(method.Name, in)
		}
		for out := range method.Type.Outs() {
			look(method.Name, out)
		}
	}
}
