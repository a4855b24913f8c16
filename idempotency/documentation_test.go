package idempotency_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
)

const (
	page = "https://api.example.com/docs/idempotency?lang=en"
	link = "<" + page + `>; rel="describedby"`
)

// refusing is all that this package refuses a request with.
var refusing = []struct {
	code    string
	status  int
	config  func(*idempotency.Config)
	store   func(*hookedStore)
	before  bool // a request with the key has been executed
	handler http.HandlerFunc
	request []func(*http.Request)
}{
	{code: usher.CodeIdempotencyKeyMissing, status: 400,
		config:  func(c *idempotency.Config) { c.Required = true },
		request: []func(*http.Request){key()}},
	{code: usher.CodeIdempotencyKeyInvalid, status: 400, request: []func(*http.Request){key("a b")}},
	{code: usher.CodeBodyUnreadable, status: 400, request: []func(*http.Request){bodyOf(errReader{})}},
	{code: usher.CodeMissingCredential, status: 401, request: []func(*http.Request){anonymous}},
	{code: usher.CodeBodyTimeout, status: 408,
		config:  func(c *idempotency.Config) { c.BodyTimeout = time.Nanosecond },
		request: []func(*http.Request){bodyOf(&drip{})}},
	{code: usher.CodeIdempotencyInProgress, status: 409,
		config: func(c *idempotency.Config) { c.Wait = idempotency.NoWait },
		store: func(s *hookedStore) {
			s.claim = func(_ context.Context, c idempotency.Claim) (idempotency.Record, error) {
				return idempotency.Record{State: idempotency.StateClaimed, Fingerprint: c.Fingerprint}, nil
			}
		}},
	{code: usher.CodeIdempotencyOutcomeUnknown, status: 409, before: true,
		handler: func(http.ResponseWriter, *http.Request) { panic("x") }},
	{code: usher.CodeIdempotencyResponseNotKept, status: 409, before: true,
		handler: func(_ http.ResponseWriter, r *http.Request) {
			idempotency.From(r.Context()).SetOutcome(idempotency.Forget)
		}},
	{code: usher.CodePayloadTooLarge, status: 413, config: func(c *idempotency.Config) { c.MaxBody = 1 }},
	{code: usher.CodeIdempotencyKeyReused, status: 422, before: true,
		request: []func(*http.Request){func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }}},
	{code: usher.CodeIdempotencyTooManyKeys, status: 429, store: claimFails(idempotency.ErrOwnerFull)},
	{code: usher.CodeIdempotencyRecordUnreadable, status: 500, store: claimFails(usher.ErrCorrupt)},
	{code: usher.CodeIdempotencyUnavailable, status: 503, store: claimFails(errDown)},
}

func bodyOf(reader io.Reader) func(*http.Request) {
	return func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(reader), -1 }
}

func claimFails(err error) func(*hookedStore) {
	return func(s *hookedStore) {
		s.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) { return idempotency.Record{}, err }
	}
}

// A drip is a body that arrives byte by byte.
type drip struct{}

func (*drip) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	p[0] = 'x'
	return 1, nil
}

// Every refusal links to the documentation, in every shape, and leaves other links.
func TestEveryRefusalLinksToTheDocumentation(t *testing.T) {
	shapes := map[string]*envelope.Shape{"none": nil}
	for name, shape := range map[string]envelope.Shape{
		"standard": envelope.Standard(), "data": envelope.Data(), "typed": envelope.Typed(), "detail": envelope.Detail(),
		"problem": envelope.Problem(""), "problem with a prefix": envelope.Problem("https://example.org/problems/"), "bare": envelope.Bare(),
	} {
		shapes[name] = &shape
	}
	for _, c := range refusing {
		for name, shape := range shapes {
			for _, documented := range []bool{true, false} {
				t.Run(c.code+", documented "+map[bool]string{true: "yes", false: "no"}[documented]+", envelope "+name, func(t *testing.T) {
					store := newHookedStore(t)
					config := idempotency.Config{Store: store, OnError: func(context.Context, error) {}}
					if c.config != nil {
						c.config(&config)
					}
					if c.store != nil {
						store.set(c.store)
					}
					if documented {
						config.Documentation = page
					}
					h := newMiddleware(t, config).Wrap(&counting{next: c.handler})
					if shape != nil {
						env, err := envelope.New(envelope.Config{Shape: *shape, Wrap: true, OnError: func(context.Context, error) {}, OnPanic: func(*http.Request, any, []byte) {}})
						if err != nil {
							t.Fatal(err)
						}
						h = env.Wrap(h)
					}
					inner := h
					h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("Link", `</terms>; rel="license"`)
						inner.ServeHTTP(w, r)
					})
					if c.before {
						if w := do(h, post("/", "")); w.Header().Get("Link") != `</terms>; rel="license"` {
							t.Errorf("a response that is no refusal has the links %q", w.Header()["Link"])
						}
					}
					w := do(h, post("/", "body", c.request...))
					if c.before {
						w = do(h, post("/", "", c.request...))
					}
					if w.Code != c.status {
						t.Fatalf("got %d %s, want %d", w.Code, w.Body, c.status)
					}
					want := []string{`</terms>; rel="license"`}
					if documented {
						want = append(want, link)
					}
					if got := w.Header()["Link"]; !slices.Equal(got, want) {
						t.Errorf("got the links %q, want %q", got, want)
					}
					wantType(t, w, name, c.code, documented)
				})
			}
		}
	}
}

// wantType fails the test unless the type of a problem is that of the documentation.
func wantType(t *testing.T, w *httptest.ResponseRecorder, shape, code string, documented bool) {
	t.Helper()
	if shape != "none" && !strings.HasPrefix(shape, "problem") {
		if bytes.Contains(w.Body.Bytes(), []byte("api.example.com")) {
			t.Errorf("got %s", w.Body)
		}
		return
	}
	want := "about:blank"
	if shape == "problem with a prefix" {
		want = "https://example.org/problems/" + code
	}
	if documented {
		want = page + "#" + code
	}
	var problem struct{ Type, Code string }
	if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || problem.Type != want || problem.Code != code {
		t.Errorf("got %s, want the type %s", w.Body, want)
	}
}

// What other packages refuse keeps its own type, even if it comes out of the body of a
// request with a key.
func TestAProblemOfAnotherPackageKeepsItsType(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{Documentation: page})
	for _, c := range []struct {
		err  *usher.Error
		want string
	}{
		{&usher.Error{Status: 415, Code: "no_brotli"}, "about:blank"},
		{&usher.Error{Status: 402, Code: "no_credit", Type: "https://example.org/credit"}, "https://example.org/credit"},
		{&usher.Error{Status: 413, Code: usher.CodePayloadTooLarge, Type: "https://example.org/large"}, "https://example.org/large"},
	} {
		w := do(m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, c.err) })), post("/", "", key(c.err.Code)))
		wantTypeAndLink(t, w, c.err.Status, c.want, "")
		w = do(m.Wrap(new(counting)), post("/", "", bodyOf(iotest.ErrReader(c.err))))
		wantTypeAndLink(t, w, c.err.Status, c.want, link)
	}
}

func wantTypeAndLink(t *testing.T, w *httptest.ResponseRecorder, status int, kind, link string) {
	t.Helper()
	if w.Code != status || w.Header().Get("Link") != link || !strings.Contains(w.Body.String(), `"type":"`+kind+`"`) {
		t.Errorf("got %d %s with the link %q, want %d with the type %q and the link %q", w.Code, w.Body, w.Header().Get("Link"), status, kind, link)
	}
}

func TestDocumentationIsAURL(t *testing.T) {
	for text, valid := range map[string]bool{
		"": true, "https://example.com": true, "http://localhost:8080/docs": true, page: true, "HTTPS://example.com/%C3%A4": true,
		"example.com/docs": false, "/docs": false, "ftp://example.com": false, "https://": false, "https:/docs": false,
		"https://example.com/#keys": false, "https://example.com/#": false, "https://example.com/a b": false,
		"https://example.com/>; rel=next, <": false, `https://example.com/"`: false, "https://example.com/\u00e4": false,
		"https://example.com/\r\nX: 1": false, "mailto:docs@example.com": false, "javascript:alert(1)": false,
	} {
		_, err := idempotency.New(idempotency.Config{Documentation: text})
		fault, _ := errors.AsType[*usher.ConfigError](err)
		if valid != (err == nil) || !valid && (fault == nil || fault.Field != "idempotency.Config.Documentation") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// The policy of a service differs with its Config.
func TestDiscoveryFollowsTheConfig(t *testing.T) {
	type policy struct {
		InFlight string `json:"in_flight"`
		Wait     string
		Statuses map[string][]int
		Errors   []struct {
			Status int
			Code   string
			Retry  bool
		}
		Documentation string
	}
	discover := func(m *idempotency.Middleware) (p policy) {
		t.Helper()
		w := do(m.Discovery(), httptest.NewRequest(http.MethodGet, "/", nil))
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	has := func(p policy, code string) bool {
		for _, e := range p.Errors {
			if e.Code == code {
				return true
			}
		}
		return false
	}
	standard := discover(newMiddleware(t, idempotency.Config{}))
	if standard.InFlight != "wait" || standard.Wait != "PT5S" || standard.Documentation != "" ||
		has(standard, usher.CodeIdempotencyKeyMissing) || !has(standard, usher.CodeMissingCredential) {
		t.Errorf("by default: %+v", standard)
	}
	for _, c := range refusing {
		known := c.code == usher.CodeIdempotencyKeyMissing
		for _, e := range standard.Errors {
			known = known || e.Code == c.code && e.Status == c.status
		}
		if !known {
			t.Errorf("%d %s is not published", c.status, c.code)
		}
	}
	var reported []error
	special := discover(newMiddleware(t, idempotency.Config{
		Wait: idempotency.NoWait, Documentation: page, Required: true, DangerouslyAllowAnonymous: true,
		OnError: func(_ context.Context, err error) { reported = append(reported, err) },
		Profile: func(status int) idempotency.Outcome {
			switch status {
			case 200:
				return idempotency.KeepStatus
			case 201:
				return idempotency.Forget
			case 400:
				panic("bug")
			case 503:
				return 0
			}
			return idempotency.Keep
		},
	}))
	if special.InFlight != "conflict" || special.Wait != "" || special.Documentation != page ||
		!has(special, usher.CodeIdempotencyKeyMissing) || has(special, usher.CodeMissingCredential) {
		t.Errorf("otherwise: %+v", special)
	}
	if s := special.Statuses; !slices.Equal(s["released"], []int{405, 503}) || !slices.Equal(s["unknown"], []int{400}) ||
		!slices.Equal(s["status_only"], []int{200}) || !slices.Equal(s["forgotten"], []int{201}) {
		t.Errorf("the statuses are %v", s)
	}
	if len(reported) != 1 {
		t.Errorf("OnError got %v", reported)
	}
}

// The published patterns are those of the keys that are accepted.
func TestDiscoveryPublishesTheFormatOfKeys(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{})
	var p struct {
		Forms []struct{ Form, Pattern string } `json:"key_forms"`
	}
	w := do(m.Discovery(), httptest.NewRequest(http.MethodGet, "/", nil))
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || len(p.Forms) != 2 {
		t.Fatalf("%v: %s", err, w.Body)
	}
	keys := []string{
		"", " ", "a", "!", "#", "~", "a b", " a", "a ", "a\"b", "\"", "\\", "a\\b", "ab,cd", "a\tb", "a\x7f", "\u00e4",
		"8e03978e-40d5-43e8-bc93-6894a57f9324", strings.Repeat("x", 255), strings.Repeat("x", 256),
	}
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	for _, f := range p.Forms {
		pattern := regexp.MustCompile(f.Pattern)
		for _, text := range keys {
			field := text
			if f.Form == "rfc9651_string" {
				field = `"` + quote.Replace(text) + `"`
			}
			got := do(m.Wrap(new(counting)), post("/", "", key(field)))
			if accepted := got.Code == 201; accepted != pattern.MatchString(text) {
				t.Errorf("%s %q: got %d, and the pattern is %s", f.Form, text, got.Code, f.Pattern)
			}
		}
	}
	restricted := newMiddleware(t, idempotency.Config{ValidKey: idempotency.IsUUID})
	if w := do(restricted.Discovery(), httptest.NewRequest(http.MethodGet, "/", nil)); !strings.Contains(w.Body.String(), `"key_restricted":true`) {
		t.Errorf("got %s", w.Body)
	}
}

// A commit that has lost its claim is refused as a request in progress is.
func TestACommitThatLostItsClaimLinksToTheDocumentation(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status int
		link   string
	}{
		"lost":      {idempotency.ErrLost, 409, link},
		"its error": {errDown, 500, ""},
	} {
		t.Run(name, func(t *testing.T) {
			store := newHookedStore(t)
			m := newMiddleware(t, idempotency.Config{Store: store, Documentation: page, OnError: func(context.Context, error) {}})
			w := do(m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := idempotency.From(r.Context()).Commit(r.Context(), func(context.Context, idempotency.Completion) error { return c.err }, nil); err != nil {
					t.Error(err)
				}
				w.WriteHeader(201)
			})), post("/", ""))
			if w.Code != c.status || w.Header().Get("Link") != c.link || strings.Contains(w.Body.String(), page) != (c.link != "") {
				t.Errorf("got %d %s with %v", w.Code, w.Body, w.Header())
			}
		})
	}
}
