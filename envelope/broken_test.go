package envelope_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/exchange"
)

var errDatabase = errors.New("db: connection lost")

// swallows is a typical recoverer: it responds with 500, even if that is too late.
func swallows(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				http.Error(w, "Internal Server Error", http.StatusInternalServerError)
			}
		}()
		next(w, r)
	}
}

// flushes flushes the header and the body that next writes.
func flushes(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		next(w, r)
		_ = http.NewResponseController(w).Flush()
	}
}

// copies is a hand-written proxy that ignores the error of the copy.
func copies(origin string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		request, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, origin, nil)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			usher.Fail(w, r, err)
			return
		}
		defer func() { _ = response.Body.Close() }()
		maps.Copy(w.Header(), response.Header)
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
	}
}

// breaking is an upstream that announces 100 bytes and breaks off after five.
func breaking(t *testing.T) string {
	return start(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writes(200, with(asJSON, "Content-Length", "100"), "[1,2]")(w, nil)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})).URL
}

// fails writes what next writes, and then fails.
func fails(err error, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		next(w, r)
		usher.Fail(w, r, err)
	}
}

// A reporter keeps the errors that OnError gets.
type reporter struct {
	mu   sync.Mutex
	errs []*usher.Error
}

func (p *reporter) onError(_ context.Context, err error) {
	e, _ := errors.AsType[*usher.Error](err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errs = append(p.errs, e)
}

func (p *reporter) reports() []*usher.Error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errs
}

// fetch returns the status and the body, and an error if the client did not get the
// whole response.
func fetch(t *testing.T, s *httptest.Server) (status int, body string, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := s.Client().Do(r)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	b, err := io.ReadAll(response.Body)
	return response.StatusCode, string(b), err
}

func TestAnIncompleteResponseNeverLooksLikeAWholeSuccess(t *testing.T) {
	upstream := breaking(t)
	origin, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(origin)
	length := func(n string) map[string]string { return with(asJSON, "Content-Length", n) }
	late := &usher.Error{Status: 503, Cause: errDatabase}
	tests := []struct {
		name     string
		handler  http.HandlerFunc
		reported error // or any, if it is nil
		silent   bool
	}{
		{name: "9 bytes declared, none written", handler: writes(200, length("9"))},
		{name: "9 bytes declared, none written, no status", handler: writes(0, length("9"))},
		{name: "9 bytes declared, white space written", handler: writes(200, length("9"), " \n")},
		{name: "5 bytes declared, 3 written", handler: writes(201, length("5"), "123")},
		{name: "5 bytes declared, 3 written and flushed", handler: flushes(writes(200, length("5"), "123"))},
		{name: "5 bytes declared, 3 written that are no JSON", handler: writes(200, length("5"), "xyz")},
		{name: "5 bytes declared, 7 written at once", handler: writes(200, length("5"), "1234567")},
		{name: "an upstream that aborts, copied by hand", handler: copies(upstream)},
		{name: "an upstream that aborts, by ReverseProxy", handler: proxy.ServeHTTP, silent: true},
		{name: "Fail after a byte", handler: fails(late, writes(200, asJSON, "12")), reported: errDatabase},
		{name: "Fail with a status below 500 after a byte", handler: fails(&usher.Error{Status: 409, Cause: errDatabase}, writes(200, asJSON, "[1,2]")), reported: errDatabase},
		{name: "Fail after a flush", handler: fails(late, flushes(writes(200, asJSON, "[1,2]"))), reported: errDatabase},
		{name: "Fail after the status", handler: fails(late, writes(200, asJSON)), reported: errDatabase},
		{name: "Fail during a body that is not wrapped", handler: fails(late, writes(200, map[string]string{"Content-Type": "text/csv"}, "a,b\n")), reported: errDatabase},
		{name: "Fail after a whole value", handler: fails(late, func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(1) }), reported: errDatabase},
		{name: "a recoverer that swallows a late panic", handler: swallows(func(w http.ResponseWriter, _ *http.Request) {
			writes(200, asJSON, `{"a":`)(w, nil)
			panic("canary")
		})},
		{name: "a recoverer that is silent", handler: func(w http.ResponseWriter, _ *http.Request) {
			defer func() { _ = recover() }()
			writes(200, asJSON, `{"a":1, `)(w, nil)
			panic("canary")
		}},
		{name: "an array without an end", handler: writes(200, asJSON, `[{"a":1}`, "\n")},
		{name: "a string without an end", handler: writes(200, asJSON, `"a`, ` `)},
		{name: "http.Error within the JSON", handler: func(w http.ResponseWriter, _ *http.Request) {
			writes(200, asJSON, `[1`)(w, nil)
			http.Error(w, "x", http.StatusBadGateway)
		}},
	}
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				var reports reporter
				env := must(envelope.Config{Shape: envelope.Data(), Wrap: true, OnError: reports.onError})
				status, body, err := fetch(t, serve(env.Wrap(tt.handler)))
				if err == nil {
					t.Errorf("a whole response: %d %s", status, body)
				}
				errs := reports.reports()
				if len(errs) == 0 && tt.silent {
					return
				}
				if len(errs) != 1 || errs[0].Status != 500 || tt.reported != nil && !errors.Is(errs[0], tt.reported) {
					t.Errorf("reported %v", errs)
				}
			})
		}
	})
}

// Where a body ends by mistake does not matter: the response breaks off, or is no JSON,
// because what comes after the data cannot close what the data has left open.
func TestAPartOfAValueIsNeverAValue(t *testing.T) {
	const value = ` {"a":[{},[ ],"]}\\\"",-1.5e3],"b":{"c":"{[\\u005d"},"d":[[null,true],false]}`
	for _, shape := range shapes {
		env := quiet(envelope.Config{Shape: shape.shape, Wrap: true})
		for _, value := range []string{value, "[" + value + ",{}]", `"\"}]\\"`, "true"} {
			for n := 1; n < len(value); n++ {
				w := httptest.NewRecorder()
				whole := func() (whole bool) {
					defer func() { whole = recover() == nil }()
					env.ServeNext(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody), writes(200, asJSON, value[:n]))
					return
				}()
				if whole && json.Valid(w.Body.Bytes()) && strings.TrimSpace(value[:n]) != "" {
					t.Errorf("%s: %s: a whole response: %s", shape.name, value[:n], w.Body)
				}
			}
		}
	}
}

// A correct length, or a response that is an error, is no reason to abort.
func TestResponsesThatOnlyLookIncompleteAreSent(t *testing.T) {
	length := func(n string) map[string]string { return with(asJSON, "Content-Length", n) }
	tests := []struct {
		name    string
		method  string
		handler http.HandlerFunc
		status  int
		body    string
	}{
		{"HEAD declares and writes nothing", http.MethodHead, writes(200, length("9")), 200, ""},
		{"HEAD declares and writes a part", http.MethodHead, writes(200, length("9"), "123"), 200, ""},
		{"204", http.MethodGet, writes(204, length("9")), 204, ""},
		{"304", http.MethodGet, writes(304, length("9")), 304, ""},
		{"HEAD writes a part", http.MethodHead, writes(200, asJSON, `{"a"`), 200, ""},
		{"an end and white space", http.MethodGet, writes(200, asJSON, ` [`, `1]`, " \n", "\t"), 200, "{\"data\":[1] \n\t}"},
		{"a number", http.MethodGet, writes(200, asJSON, "1", "2"), 200, `{"data":12}`},
		{"0 bytes declared, none written", http.MethodGet, writes(200, length("0")), 200, `{"data":null}`},
		{"more than declared, after all of it", http.MethodGet, writes(200, length("2"), "12", "34"), 200, `{"data":12}`},
		{"a length that is no number", http.MethodGet, writes(200, length("x"), "12"), 200, `{"data":12}`},
		{
			"an error that breaks off is an error, without its text", http.MethodGet,
			writes(402, map[string]string{"Content-Type": "text/plain", "Content-Length": "40"}, "card num"),
			402, `{"error":{"code":"payment_required","message":"Payment Required"}}`,
		},
		{
			"Fail after an error", http.MethodGet,
			fails(&usher.Error{Status: 409}, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "m", http.StatusPaymentRequired) }),
			402, `{"error":{"code":"payment_required","message":"m"}}`,
		},
		{
			"an error after an error", http.MethodGet,
			func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "m", http.StatusPaymentRequired)
				w.WriteHeader(500)
			},
			402, `{"error":{"code":"payment_required","message":"m"}}`,
		},
		{
			"an error after something that nobody got", http.MethodGet,
			func(w http.ResponseWriter, r *http.Request) {
				exchange.From(r.Context()).Break(errDatabase)
				http.Error(w, "m", http.StatusPaymentRequired)
			},
			402, `{"error":{"code":"payment_required","message":"m"}}`,
		},
		{
			"a status of success after the first byte", http.MethodGet,
			func(w http.ResponseWriter, _ *http.Request) { writes(200, asJSON, "1")(w, nil); w.WriteHeader(201) },
			200, `{"data":1}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := do(t, start(t, wrapData.Wrap(tt.handler)), tt.method, "/")
			wantStatus(t, got, tt.status)
			if got.body != tt.body {
				t.Errorf("body %s, want %s", got.body, tt.body)
			}
		})
	}
}

// A failure also aborts the connection without Wrap, and through another envelope.
func TestFailAfterTheFirstByteAbortsInEveryEnvelope(t *testing.T) {
	h := fails(errDatabase, writes(200, asJSON, "12"))
	quiet := envelope.Config{OnError: func(context.Context, error) {}}
	within := must(quiet).Wrap(h)
	other := must(envelope.Config{Shape: envelope.Typed()})
	stacks := map[string]http.Handler{
		"not wrapping":           within,
		"an envelope within one": must(envelope.Config{Wrap: true}).Wrap(within),
		"another responder": must(quiet).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h(w, usher.WithResponder(r, other))
		})),
		"http.TimeoutHandler around it": http.TimeoutHandler(within, 1<<40, ""),
	}
	for name, stack := range stacks {
		t.Run(name, func(t *testing.T) {
			if status, body, err := fetch(t, start(t, stack)); err == nil {
				t.Errorf("a whole response: %d %s", status, body)
			}
		})
	}
}

// What is between two envelopes may have responded before the inner one begins.
func TestAnInnerEnvelopeWritesNoSecondBody(t *testing.T) {
	inner := map[string]http.HandlerFunc{
		"Fail":    func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, &usher.Error{Status: 409}) },
		"Value":   func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(1) },
		"a panic": func(http.ResponseWriter, *http.Request) { panic("canary") },
	}
	for name, h := range inner {
		for _, wrap := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				within := quiet(envelope.Config{Wrap: wrap}).Wrap(h)
				s := start(t, quiet(envelope.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					http.Error(w, "m", http.StatusPaymentRequired)
					within.ServeHTTP(w, r)
				})))
				status, body, err := fetch(t, s)
				if err == nil && (status != 402 || body != "m\n" || name == "a panic") {
					t.Errorf("a whole response: %d %q", status, body)
				}
			})
		}
	}
}

// A client that disconnects early is no fault of the service.
func TestAClientThatLeavesIsNotReported(t *testing.T) {
	var reports reporter
	left, done := make(chan struct{}), make(chan struct{})
	env := must(envelope.Config{Wrap: true, OnError: reports.onError}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		flushes(writes(200, with(asJSON, "Content-Length", "1000"), "[1"))(w, r)
		close(left)
		<-r.Context().Done()
	}))
	s := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		env.ServeHTTP(w, r)
	}))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	<-left
	_ = response.Body.Close()
	<-done
	if errs := reports.reports(); len(errs) > 0 {
		t.Errorf("reported %v", errs)
	}
}

// The deadline of a middleware outside the envelope is no client that leaves: what it breaks
// off is reported.
func TestATimeThatEndsIsReported(t *testing.T) {
	begins := writes(200, asJSON, "[1")
	handlers := map[string]http.HandlerFunc{
		"Fail":   fails(context.DeadlineExceeded, begins),
		"no end": begins,
	}
	for name, h := range handlers {
		t.Run(name, func(t *testing.T) {
			var reports reporter
			env := must(envelope.Config{Wrap: true, OnError: reports.onError}).Wrap(h)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithTimeout(r.Context(), -1)
				defer cancel()
				env.ServeHTTP(w, r.WithContext(ctx))
			}))
			_, _, _ = fetch(t, s)
			s.Close()
			if errs := reports.reports(); len(errs) != 1 {
				t.Errorf("reported %v", errs)
			}
		})
	}
}

// The default log has the reason, and the client does not get it.
func TestTheReasonOfAnAbortIsLogged(t *testing.T) {
	log := captureLog(t)
	s := httptest.NewServer(must(envelope.Config{Wrap: true}).Wrap(fails(errDatabase, writes(200, asJSON, "12"))))
	_, body, err := fetch(t, s)
	s.Close()
	if err == nil || strings.Contains(body, "db:") {
		t.Errorf("got %q, %v", body, err)
	}
	if !strings.Contains(log.String(), errDatabase.Error()) {
		t.Errorf("log: %s", log)
	}
}

// A recoverer outside the envelope, such as gin's, may treat the panic that aborts a
// connection like any other.
func TestAnAbortThatIsRecoveredOutsideNeverLooksLikeAWholeSuccess(t *testing.T) {
	begun := writes(200, asJSON, "[1]")
	handlers := map[string]http.HandlerFunc{
		"Fail":          func(w http.ResponseWriter, r *http.Request) { begun(w, r); usher.Fail(w, r, errDatabase) },
		"a panic":       func(w http.ResponseWriter, r *http.Request) { begun(w, r); panic("canary") },
		"an abort":      func(w http.ResponseWriter, r *http.Request) { begun(w, r); panic(http.ErrAbortHandler) },
		"a late status": func(w http.ResponseWriter, r *http.Request) { begun(w, r); w.WriteHeader(500) },
		"a flush":       func(w http.ResponseWriter, r *http.Request) { flushes(begun)(w, r); usher.Fail(w, r, errDatabase) },
	}
	for _, shape := range shapes {
		env := quiet(envelope.Config{Shape: shape.shape, Wrap: true})
		for name, h := range handlers {
			if name == "a late status" && shape.shape.Before == nil {
				continue // as from the server
			}
			t.Run(shape.name+", "+name, func(t *testing.T) {
				forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
					s := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						defer func() { _ = recover() }()
						env.ServeNext(w, r, h)
					}))
					r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, http.NoBody)
					if err != nil {
						t.Fatal(err)
					}
					response, err := s.Client().Do(r)
					if err != nil {
						return
					}
					defer func() { _ = response.Body.Close() }()
					if body, err := io.ReadAll(response.Body); err == nil {
						t.Errorf("a whole response: %d %s", response.StatusCode, body)
					}
				})
			})
		}
	}
}
