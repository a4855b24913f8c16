package envelope_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/oteltest"
)

func TestPanicBeforeTheStatusIsOneError(t *testing.T) {
	tests := map[string]http.HandlerFunc{
		"at once":           func(http.ResponseWriter, *http.Request) { panic("canary") },
		"after early hints": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); panic(errors.New("canary")) },
		"nil":               func(http.ResponseWriter, *http.Request) { panic(nil) },
		"while encoding":    func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(panicking{}) },
		"impossible status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(1000) },
		"impossible, as 0":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(0) },
		"in TimeoutHandler": http.TimeoutHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("canary") }), 1<<40, "").ServeHTTP,
		"with a header set": func(w http.ResponseWriter, _ *http.Request) {
			for name, value := range map[string]string{
				"Content-Type": "text/html", "Content-Length": "3", "Content-Encoding": "gzip", "Etag": `"v"`, "Location": "/x",
				"Cache-Control": "public, max-age=600", "Content-Range": "bytes 0-1/3", "Trailer": "X-Sum", "Repr-Digest": "d",
				"Expires": "Thu, 01 Jan 2099 00:00:00 GMT", "Last-Modified": "Thu, 01 Jan 2020 00:00:00 GMT",
			} {
				w.Header().Set(name, value)
			}
			panic("canary")
		},
	}
	for name, h := range tests {
		t.Run(name, func(t *testing.T) {
			for _, wrap := range []bool{false, true} {
				panics := 0
				env := must(envelope.Config{
					Shape: envelope.Data(), Wrap: wrap,
					OnPanic: func(*http.Request, any, []byte) { panics++ },
					OnError: func(context.Context, error) { t.Error("OnError got a panic") },
				})
				got := get(t, start(t, env.Wrap(h)), "/")
				wantStatus(t, got, 500)
				wantBody(t, got, `{"error":{"code":"internal","message":"Internal Server Error"}}`)
				wantHeader(t, got, "Content-Type", "application/json")
				for _, field := range []string{"Content-Encoding", "Etag", "Location", "Content-Range", "Repr-Digest", "Expires", "Last-Modified"} {
					wantHeader(t, got, field, "")
				}
				if v := got.Header.Get("Cache-Control"); v != "no-store" {
					t.Errorf("Cache-Control: %s", v)
				}
				if len(got.Trailer) > 0 {
					t.Errorf("trailer %v", got.Trailer)
				}
				if panics != 1 {
					t.Errorf("%d panics reported", panics)
				}
			}
		})
	}
}

type panicking struct{}

func (panicking) MarshalJSON() ([]byte, error) { panic("canary") }

func TestPanicAfterTheStatusAbortsTheConnection(t *testing.T) {
	tests := map[string]http.HandlerFunc{
		"after a little wrapped JSON": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"a":1}`)
			panic("canary")
		},
		"after a lot of wrapped JSON": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `"`+strings.Repeat("x", 1<<20)+`"`)
			panic("canary")
		},
		"after an error as text": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "x", 400)
			panic("canary")
		},
		"after an explicit response": func(w http.ResponseWriter, r *http.Request) {
			envelope.For(w, r).Value(1)
			panic("canary")
		},
		"after a flush": func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).Flush()
			panic("canary")
		},
		"http.ErrAbortHandler at once": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		for name, h := range tests {
			t.Run(name, func(t *testing.T) {
				reported := make(chan any, 1)
				env := must(envelope.Config{Shape: envelope.Data(), Wrap: true, OnPanic: func(_ *http.Request, v any, _ []byte) { reported <- v }})
				s := serve(env.Wrap(h))
				r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
				resp, err := s.Client().Do(r)
				if err == nil {
					var body []byte
					body, err = io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if err == nil {
						t.Errorf("a whole response: %d %s", resp.StatusCode, body)
					}
				}
				if name == "http.ErrAbortHandler at once" {
					if len(reported) != 0 {
						t.Error("http.ErrAbortHandler was reported")
					}
					return
				}
				if v := <-reported; v != "canary" {
					t.Errorf("reported %v", v)
				}
			})
		}
	})
}

// captureLog collects the default log until the test ends.
func captureLog(t *testing.T) *bytes.Buffer {
	t.Helper()
	var buf bytes.Buffer
	previous := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&buf, nil)))
	t.Cleanup(func() { slog.SetDefault(previous) })
	return &buf
}

// find panics with v, some functions below a handler.
func find(v any) { panic(v) }

type brokenError struct{}

func (brokenError) Error() string { panic("no text") }

// A foundError is no error of the runtime, although it says so.
type foundError string

func (e foundError) Error() string { return string(e) }
func (foundError) RuntimeError()   {}

// A panic after Hijack does not disturb who has the connection now.
func TestAPanicLeavesAHijackedConnectionAlone(t *testing.T) {
	for _, env := range []*envelope.Envelope{quiet(envelope.Config{}), quiet(envelope.Config{Wrap: true})} {
		var serverLog strings.Builder
		panicked := make(chan struct{})
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(panicked)
			env.ServeNext(w, r, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				go func() {
					<-panicked
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
					_ = conn.Close()
				}()
				panic("canary")
			}))
		}))
		s.Config.ErrorLog = log.New(&serverLog, "", 0)
		s.Start()
		if got := get(t, s, "/"); got.body != "late" || serverLog.Len() > 0 {
			t.Errorf("body %q, and the server complains: %s", got.body, &serverLog)
		}
		s.Close()
	}
}

// An operator sees in the log what happened and where: the text of what is a text, but not
// the fields of other values, and the functions of the program, not those of the server.
func TestLogOfAPanicIsReadable(t *testing.T) {
	type name string
	tests := []struct {
		name  string
		value any
		text  string
	}{
		{"a string", "no such note", "no such note"},
		{"a named string", name("no such note"), "no such note"},
		{"an error", errors.New("db: connection lost"), "db: connection lost"},
		{"an error without a text", brokenError{}, "envelope_test.brokenError"},
		{"a number", 7, "7"},
		{"a status", time.Second, "1s"},
		{"a fraction", 0.5, "0.5"},
		{"a struct", struct{ Key string }{"canary"}, "struct { Key string }"},
		{"a pointer", &struct{ Key string }{"canary"}, "*struct { Key string }"},
		{"a slice", []byte("canary"), "[]uint8"},
		{"nothing", nil, "panic called with nil argument"},
		{"a long text", strings.Repeat("x ", 5000), strings.Repeat("x ", 512)},
		{"a long word", strings.Repeat("x", 2000), "string"},
		{"an API key", "bad key acme_live_eyc9HscsevdHD7SbRPQdGHyb4u3VuYGGO5VyXUsH6Ob23a33e!", "bad key REDACTED!"},
		{"a token", errors.New("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2ln: expired"), "jwt REDACTED: expired"},
		{"a path", "open /var/lib/notes/attachments/index.db: no such file", "open /var/lib/notes/attachments/index.db: no such file"},
		{"bytes that are no text", "a\xffb", "a\uFFFDb"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			record := logOfPanic(t, func(w http.ResponseWriter, r *http.Request) { find(tt.value) })
			if record.Panic != tt.text {
				t.Errorf("panic %q, want %q", record.Panic, tt.text)
			}
			if len(record.Stack) < 2 || len(record.Stack) > 16 ||
				!strings.HasPrefix(record.Stack[0], "envelope_test.find envelope/panic_test.go:") ||
				!strings.HasPrefix(record.Stack[1], "envelope_test.TestLogOfAPanicIsReadable.") {
				t.Errorf("stack %q", record.Stack)
			}
			if strings.Contains(strings.Join(record.Stack, " "), "envelope.(*Envelope)") {
				t.Errorf("functions outside of the handler: %q", record.Stack)
			}
			if record.Route != "GET /notes/{id}" || record.RequestID == "" || record.Method != http.MethodGet {
				t.Errorf("request %+v", record)
			}
		})
	}
	t.Run("a fault that the runtime finds", func(t *testing.T) {
		record := logOfPanic(t, func(_ http.ResponseWriter, r *http.Request) { _ = r.URL.Path[100:] })
		if !strings.Contains(record.Panic, "slice bounds out of range [100:") || !strings.Contains(record.Stack[0], "envelope/panic_test.go:") {
			t.Errorf("record %+v", record)
		}
	})
	t.Run("a nil map, a nil pointer", func(t *testing.T) {
		record := logOfPanic(t, func(http.ResponseWriter, *http.Request) { var u *usher.Reply; u.Status = 1 })
		if !strings.Contains(record.Panic, "nil pointer") || !strings.Contains(record.Stack[0], "envelope/panic_test.go:") {
			t.Errorf("record %+v", record)
		}
	})
	t.Run("a recursion", func(t *testing.T) {
		var descend func(n int)
		descend = func(n int) {
			if n == 0 {
				find("too deep")
			}
			descend(n - 1)
		}
		record := logOfPanic(t, func(http.ResponseWriter, *http.Request) { descend(50) })
		if len(record.Stack) != 16 || !strings.HasPrefix(record.Stack[0], "envelope_test.find ") {
			t.Errorf("stack %q", record.Stack)
		}
	})
	t.Run("a panic that was recovered and thrown again", func(t *testing.T) {
		record := logOfPanic(t, func(http.ResponseWriter, *http.Request) {
			defer func() { panic(recover()) }()
			find("first")
		})
		if record.Panic != "first" || !strings.HasPrefix(record.Stack[0], "envelope_test.find ") {
			t.Errorf("record %+v", record)
		}
	})
}

// No secret that this module knows of reaches the log, however it stands in the text of a
// panic: keys of every format, tokens, cookies, keys of idempotency, secrets of webhooks and
// peppers. What an operator reads stays.
func TestLogOfAPanicHasNoCredential(t *testing.T) {
	const base64Key = "q7RkX0pW/3ZbT9mVhLd/Yc2Nf8sG+uJe1oAiQw5xB/4="
	raw := []byte("\x01\x7f\xfe canary\x00\"0123456789abcdef")
	tests := []struct{ name, text, want string }{
		{"a native key", "acme_live_eyc9HscsevdHD7SbRPQdGHyb4u3VuYGGO5VyXUsH6Ob23a33e", "REDACTED"},
		{"a split key", "acme_q7RkX0pW3ZbT9mVh.Ld-Yc2Nf8sG_uJe1oAiQw5xB4q7RkX0pW3ZbT9mVhLdYc", "REDACTED"},
		{"the shortest key", "no account of q7RkX0pW3ZbT9mVh", "no account of REDACTED"},
		{"a key in JSON", `bad body {"key":"q7RkX0pW3ZbT9mVh","id":7}`, `bad body {"key":"REDACTED","id":7}`},
		{"a key in a URL", "https://api.example.com/v1/notes?key=q7RkX0pW3ZbT9mVh&page=2", "https://api.example.com/v1/notes?REDACTED&page=2"},
		{"a key as part of a path", "/v1/keys/q7rkx0pw3zbt9mvh/use", "/v1/keys/REDACTED/use"},
		{"a bearer token", "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2ln", "Bearer REDACTED"},
		{"a cookie", "__Host-session=q7RkX0pW3ZbT; Path=/", "REDACTED; Path=/"},
		{"a UUID as an idempotency key", "key 8e03978e-40d5-43e8-bc93-6894a57f9324", "key REDACTED"},
		{"a secret of a webhook", "whsec_" + base64Key, "REDACTED"},
		{"base64", base64Key, "REDACTED"},
		{"base64 in JSON", strings.ReplaceAll(base64Key, "/", `\/`), "REDACTED"},
		{"base64 in a URL", url.QueryEscape(base64Key), "REDACTED"},
		{"a pepper in hex", fmt.Sprintf("%x", raw), "REDACTED"},
		{"a pepper in hex with spaces", fmt.Sprintf("pepper % x", raw), "pepper REDACTED"},
		{"a pepper in hex with colons", "pepper 01:7f:fe:20:63:61:6e:61:72:79", "pepper REDACTED"},
		{"a pepper as numbers", fmt.Sprintf("pepper %v", raw), "pepper [REDACTED]"},
		{"a pepper in Go", fmt.Sprintf("pepper %#v", raw), "pepper []byte{REDACTED}"},
		{"a key at the cut", strings.Repeat("x ", 500) + "key acme_live_eyc9HscsevdHD7SbRPQdGHyb4u3VuYGGO5Vy", strings.Repeat("x ", 500) + "key "},
		{"a key after a quote at the cut", strings.Repeat("x ", 505) + `"q7RkX0pW3ZbT9mVh"`, strings.Repeat("x ", 505) + `"`},
		{"numbers of a card", "card 4242424242424242", "card REDACTED"},

		{"an address", "dial tcp 192.168.100.100:54321: connect: refused", "dial tcp 192.168.100.100:54321: connect: refused"},
		{"a time", "after 2026-11-28T09:20:27Z", "after 2026-11-28T09:20:27Z"},
		{"a URL", `Post "https://api.example.com/v1/charges": EOF`, `Post "https://api.example.com/v1/charges": EOF`},
		{"a path with a number", "/srv/notes-2/attachments/index-7.db", "/srv/notes-2/attachments/index-7.db"},
		{"a list", "rows 1, 2, 3", "rows 1, 2, 3"},
		{"a code", "duplicate key violates notes_pkey (SQLSTATE 23505)", "duplicate key violates notes_pkey (SQLSTATE 23505)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, v := range []any{tt.text, errors.New(tt.text), foundError(tt.text)} {
				record := logOfPanic(t, func(http.ResponseWriter, *http.Request) { find(v) })
				if record.Panic != tt.want {
					t.Errorf("panic %q, want %q", record.Panic, tt.want)
				}
			}
		})
	}
}

type panicRecord struct {
	Method, Route, Panic string
	RequestID            string `json:"request_id"`
	Stack                []string
}

// logOfPanic returns what is logged of a handler that panics.
func logOfPanic(t *testing.T, h http.HandlerFunc) (record panicRecord) {
	t.Helper()
	var buf bytes.Buffer
	previous := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(&buf, nil)))
	defer slog.SetDefault(previous)
	mux := http.NewServeMux()
	mux.Handle("GET /notes/{id}", h)
	must(envelope.Config{}).Wrap(mux).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/notes/7?api_key=canary", nil))
	if err := json.Unmarshal(buf.Bytes(), &record); err != nil {
		t.Fatalf("not one record: %v: %s", err, buf.String())
	}
	if strings.Contains(buf.String(), "canary") {
		t.Errorf("the log has the key: %s", buf.String())
	}
	return record
}

// An outer recoverer gets the value, and the client gets the 500 in the shape of the service,
// whether the recoverer stops the panic, passes it on or is not there.
func TestPassPanics(t *testing.T) {
	value := errors.New("db: connection lost")
	panics := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(value) })
	late := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"a":1`)
		panic(value)
	})
	abort := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	tests := []struct {
		name    string
		handler http.Handler
		got     any  // what the recoverer gets
		whole   bool // the client gets the 500
	}{
		{"before the status", panics, value, true},
		{"after a part of the body", late, value, false},
		{"an abort", abort, http.ErrAbortHandler, false},
	}
	recoverers := map[string]func(seen chan<- any, next http.Handler) http.Handler{
		"stops": func(seen chan<- any, next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() { seen <- recover(); w.WriteHeader(http.StatusInternalServerError) }()
				next.ServeHTTP(w, r)
			})
		},
		"passes on": func(seen chan<- any, next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() { v := recover(); seen <- v; panic(v) }()
				next.ServeHTTP(w, r)
			})
		},
	}
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		for how, recoverer := range recoverers {
			for _, tt := range tests {
				if tt.name == "an abort" && how == "stops" {
					continue // what it then sends is its own
				}
				t.Run(tt.name+", "+how, func(t *testing.T) {
					env := must(envelope.Config{
						Shape: envelope.Data(), Wrap: true, PassPanics: true,
						OnPanic: func(_ *http.Request, v any, _ []byte) { t.Errorf("OnPanic got %v, too", v) },
					})
					seen := make(chan any, 1)
					s := serve(recoverer(seen, env.Wrap(tt.handler)))
					s.Config.ErrorLog = log.New(io.Discard, "", 0)
					status, body, err := fetch(t, s)
					if v := <-seen; v != tt.got {
						t.Errorf("the recoverer got %v, want %v", v, tt.got)
					}
					const whole = `{"error":{"code":"internal","message":"Internal Server Error"}}`
					if tt.whole && how == "passes on" && s.EnableHTTP2 {
						err = nil // the server resets the stream behind the whole body
					}
					if tt.whole && (err != nil || status != 500 || body != whole) || !tt.whole && err == nil {
						t.Errorf("the client got %d %s, %v", status, body, err)
					}
				})
			}
		}
	})
}

func TestOnErrorGetsWhatIsNotSent(t *testing.T) {
	cause := errors.New("db: connection refused")
	tests := []struct {
		name     string
		err      error
		reported bool
	}{
		{"an error of the service", &usher.Error{Status: 503, Cause: cause}, true},
		{"any other error", cause, true},
		{"an error without a status", &usher.Error{Cause: cause}, true},
		{"an error of the client", &usher.Error{Status: 404, Cause: cause}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got error
			env := must(envelope.Config{OnError: func(_ context.Context, err error) { got = err }})
			w := httptest.NewRecorder()
			env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, tt.err) })).
				ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			if errors.Is(got, cause) != tt.reported {
				t.Errorf("reported %v", got)
			}
			if strings.Contains(w.Body.String(), "refused") {
				t.Errorf("the cause was sent: %s", w.Body)
			}
		})
	}
	t.Run("by default failures with a cause are logged, and every 500", func(t *testing.T) {
		log := captureLog(t)
		for _, e := range []*usher.Error{
			{Status: 500}, {Status: 500, Cause: cause}, {Status: 502, Cause: cause}, {Status: 503, Cause: cause}, {Status: 504, Cause: cause},
			{Status: 503}, {Status: 404, Cause: cause},
		} {
			must(envelope.Config{}).Wrap(failing(e)).
				ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
		}
		if n, causes := strings.Count(log.String(), "\n"), strings.Count(log.String(), "connection refused"); n != 5 || causes != 4 {
			t.Errorf("%d lines, %d causes: %s", n, causes, log)
		}
	})
}

func TestOnErrorGetsTheRouteAndTheContextOfTheRequest(t *testing.T) {
	tests := map[string]struct{ pattern, method, want string }{
		"a pattern with a method":    {"GET /notes/{id}", http.MethodGet, "envelope: GET /notes/{id}: 500 internal: db: connection lost"},
		"a pattern without a method": {"/notes/{id}", http.MethodPut, "envelope: PUT /notes/{id}: 500 internal: db: connection lost"},
		"a router without patterns":  {"", http.MethodGet, "envelope: GET: 500 internal: db: connection lost"},
		"a very long method":         {"", strings.Repeat("M", 5000), "envelope: " + strings.Repeat("M", 32) + ": 500 internal: db: connection lost"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var id string
			var got error
			env := must(envelope.Config{RequestID: fromHeader, OnError: func(ctx context.Context, err error) { id, got = envelope.RequestID(ctx), err }})
			var h http.Handler = failing(&usher.Error{Code: usher.CodeInternal, Cause: errDatabase})
			if tt.pattern != "" {
				mux := http.NewServeMux()
				mux.Handle(tt.pattern, h)
				h = mux
			}
			r := httptest.NewRequest(http.MethodGet, "/notes/7?token=secret", nil)
			r.Method = tt.method
			r.Header.Set("X-Request-Id", "r-1")
			env.Wrap(h).ServeHTTP(httptest.NewRecorder(), r)
			if got == nil || got.Error() != tt.want || id != "r-1" {
				t.Errorf("reported %v for request %q", got, id)
			}
			if e, ok := errors.AsType[*usher.Error](got); !ok || !errors.Is(e, errDatabase) {
				t.Error("the report does not wrap the error")
			}
		})
	}
}

func TestTheLogOfAFailureHasTheRequest(t *testing.T) {
	log := captureLog(t)
	mux := http.NewServeMux()
	mux.Handle("GET /notes/{id}", failing(&usher.Error{Code: usher.CodeInternal, Cause: errDatabase}))
	r := httptest.NewRequest(http.MethodGet, "/notes/7?token=canary", nil)
	r.Header.Set("X-Request-Id", "r-1")
	must(envelope.Config{RequestID: fromHeader}).Wrap(mux).ServeHTTP(httptest.NewRecorder(), r)
	for _, want := range []string{
		`msg="envelope: request failed"`, "method=GET", `route="GET /notes/{id}"`, "request_id=r-1", `error="500 internal: db: connection lost"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %s: %s", want, log)
		}
	}
	if strings.Contains(log.String(), "canary") {
		t.Errorf("the log has the query: %s", log)
	}
}

func TestDataThatCannotBeEncodedIsAnError(t *testing.T) {
	var reported error
	env := must(envelope.Config{Shape: envelope.Data(), OnError: func(_ context.Context, err error) { reported = err }})
	got := get(t, start(t, env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Created("/x", map[string]any{"a": func() {}})
	}))), "/")
	wantStatus(t, got, 500)
	wantBody(t, got, `{"error":{"code":"internal","message":"Internal Server Error"}}`)
	wantHeader(t, got, "Location", "")
	if reported == nil {
		t.Error("the fault was not reported")
	}
}

func TestPanicsAreCounted(t *testing.T) {
	var meter oteltest.Meter
	previous := otel.GetMeterProvider()
	otel.SetMeterProvider(&meter)
	t.Cleanup(func() { otel.SetMeterProvider(previous) })
	t.Run("on the global provider", func(t *testing.T) { testPanicsAreCounted(t, &meter, nil) })
	var own oteltest.Meter
	t.Run("on the provider of the Config", func(t *testing.T) { testPanicsAreCounted(t, &own, &own) })
}

func testPanicsAreCounted(t *testing.T, meter *oteltest.Meter, provider metric.MeterProvider) {
	h := must(envelope.Config{
		MeterProvider: provider, OnPanic: func(*http.Request, any, []byte) {},
	}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			w.WriteHeader(200)
		}
		panic("x")
	}))
	for _, path := range []string{"/", "/late", "/late"} {
		func() {
			defer func() {
				err, _ := recover().(error)
				if errors.Is(err, http.ErrAbortHandler) != (path == "/late") {
					t.Errorf("%s panicked with %v", path, err)
				}
			}()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
		}()
	}
	got := map[string]int64{}
	for _, c := range meter.Counts() {
		outcome, _ := c.Attributes.Value("usher.envelope.panic.outcome")
		got[c.Name+" "+outcome.AsString()] = c.Value
	}
	want := map[string]int64{"usher.envelope.panics responded": 1, "usher.envelope.panics aborted": 2}
	if diff := compare.Diff(want, got); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}
