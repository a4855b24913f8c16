package envelope_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

var (
	wrapData     = must(envelope.Config{Shape: envelope.Data(), Wrap: true})
	wrapStandard = must(envelope.Config{Wrap: true})
)

// writes returns a handler that writes a status, header lines and body pieces.
func writes(status int, header map[string]string, pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range header {
			w.Header().Set(name, value)
		}
		if status != 0 {
			w.WriteHeader(status)
		}
		for _, p := range pieces {
			_, _ = io.WriteString(w, p)
		}
	}
}

var asJSON = map[string]string{"Content-Type": "application/json"}

func with(header map[string]string, more ...string) map[string]string {
	all := maps.Clone(header)
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

func TestWrap(t *testing.T) {
	long := `"` + strings.Repeat("x", 100_000) + `"`
	tests := []struct {
		name    string
		handler http.HandlerFunc
		status  int
		body    string
		header  map[string]string
	}{
		{
			name:    "plain JSON becomes the data",
			handler: writes(0, asJSON, `{"a":1}`),
			status:  200, body: `{"data":{"a":1}}`,
			header: map[string]string{"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "Content-Length": "16"},
		},
		{
			name:    "several writes and the line feed of json.Encoder",
			handler: writes(201, asJSON, `{"a"`, `:1}`, "\n"),
			status:  201, body: "{\"data\":{\"a\":1}\n}",
		},
		{
			name:    "a stale Content-Length is removed",
			handler: writes(200, with(asJSON, "Content-Length", "7"), `{"a":1}`),
			status:  200, body: `{"data":{"a":1}}`,
			header: map[string]string{"Content-Length": "16"},
		},
		{
			name:    "a long body is not delayed, and has no length",
			handler: writes(200, with(asJSON, "Content-Length", fmt.Sprint(len(long))), long),
			status:  200, body: `{"data":` + long + `}`,
			header: map[string]string{"Content-Length": ""},
		},
		{
			name:    "white space before the data is dropped",
			handler: writes(200, asJSON, "\n", " \t", " [1]"),
			status:  200, body: `{"data":[1]}`,
		},
		{
			name:    "JSON without a body is no data",
			handler: writes(201, asJSON),
			status:  201, body: `{"data":null}`,
		},
		{
			name:    "JSON of nothing but white space is no data",
			handler: writes(202, asJSON, "\n"),
			status:  202, body: `{"data":null}`,
		},
		{
			name:    "a handler that only sets the type",
			handler: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "application/json") },
			status:  200, body: `{"data":null}`,
		},
		{
			name:    "an empty write is no data yet",
			handler: writes(200, asJSON, "", "1"),
			status:  200, body: `{"data":1}`,
		},
		{
			name:    "a charset of UTF-8 in any spelling",
			handler: writes(200, map[string]string{"Content-Type": "Application/JSON ; Charset=UTF-8"}, "1"),
			status:  200, body: `{"data":1}`,
		},
		{
			name:    "UTF-8 without its hyphen",
			handler: writes(200, map[string]string{"Content-Type": "application/json;charset=utf8"}, "1"),
			status:  200, body: `{"data":1}`,
		},
		{
			name:    "ASCII, which is UTF-8 in the shape",
			handler: writes(200, map[string]string{"Content-Type": "application/json; charset=US-ASCII"}, "1"),
			status:  200, body: `{"data":1}`,
			header: map[string]string{"Content-Type": "application/json"},
		},
		{
			name:    "a profile that mentions a charset",
			handler: writes(200, map[string]string{"Content-Type": `application/json; profile="https://a.example/charset"`}, "1"),
			status:  200, body: `{"data":1}`,
			header: map[string]string{"Content-Type": `application/json; profile="https://a.example/charset"`},
		},
		{
			name:    "a literal in pieces",
			handler: writes(200, asJSON, "n", "ull"),
			status:  200, body: `{"data":null}`,
		},
		{
			name:    "a negative number",
			handler: writes(200, asJSON, "-1"),
			status:  200, body: `{"data":-1}`,
		},
		{
			name:    "what a browser shows is no file",
			handler: writes(200, with(asJSON, "Content-Disposition", `inline; filename="attachment"`), "1"),
			status:  200, body: `{"data":1}`,
		},
		{
			name: "flushed before and within the data",
			handler: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(200)
				w.(http.Flusher).Flush()
				_, _ = io.WriteString(w, "[1")
				_ = http.NewResponseController(w).Flush()
				_, _ = io.WriteString(w, ",2]")
			},
			status: 200, body: `{"data":[1,2]}`,
		},
		{
			name:    "Accept-Ranges and digests go, what is unaffected stays",
			handler: writes(200, with(asJSON, "Accept-Ranges", "bytes", "Digest", "d", "Content-Digest", "d", "Repr-Digest", "d", "Content-MD5", "d", "Last-Modified", "L", "Vary", "V"), "1"),
			status:  200, body: `{"data":1}`,
			header: map[string]string{"Accept-Ranges": "", "Digest": "", "Content-Digest": "", "Repr-Digest": "", "Content-MD5": "", "Last-Modified": "L", "Vary": "V"},
		},
		{
			name:    "a strong tag stays strong where the added bytes are constant",
			handler: writes(200, with(asJSON, "ETag", `"v1"`), "1"),
			status:  200, body: `{"data":1}`,
			header: map[string]string{"ETag": `"v1-wrapped"`},
		},
		{
			name:    "an explicit response is not wrapped again",
			handler: func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value([]int{1}) },
			status:  200, body: `{"data":[1]}`,
		},
		{
			name:    "an explicit error is not replaced",
			handler: failing(&usher.Error{Status: 409, Code: "c", Message: "m"}),
			status:  409, body: `{"error":{"code":"c","message":"m"}}`,
		},
		{
			name:    "http.Error: its text is the message",
			handler: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such <note>", 404) },
			status:  404, body: `{"error":{"code":"not_found","message":"no such \u003cnote\u003e"}}`,
			header: map[string]string{"Content-Type": "application/json"},
		},
		{
			name:    "http.NotFound adds nothing to the status",
			handler: http.NotFound,
			status:  404, body: `{"error":{"code":"not_found","message":"Not Found"}}`,
		},
		{
			name:    "the text of a server error is not shown",
			handler: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "pq: password for app", 500) },
			status:  500, body: `{"error":{"code":"internal","message":"Internal Server Error"}}`,
		},
		{
			name:    "the JSON of a server error is not shown",
			handler: writes(502, asJSON, `{"error":"dial tcp 10.0.0.1"}`),
			status:  502, body: `{"error":{"code":"bad_gateway","message":"Bad Gateway"}}`,
		},
		{
			name:    "text in any language is a message",
			handler: writes(400, nil, "Le titre\u00a0est vide\u202f! 題名\u3000なし عنوان\u200cها \u200fשם\u200e 👩\u200d💻 co\u00adop"),
			status:  400, body: `{"error":{"code":"bad_request","message":"` + "Le titre\u00a0est vide\u202f! 題名\u3000なし عنوان\u200cها \u200fשם\u200e 👩\u200d💻 co\u00adop" + `"}}`,
		},
		{
			name:    "text that overrides the direction of text is not",
			handler: writes(400, nil, "a\u202eb"),
			status:  400, body: `{"error":{"code":"bad_request","message":"Bad Request"}}`,
		},
		{
			name:    "neither is text with an isolate",
			handler: writes(400, nil, "a\u2066b"),
			status:  400, body: `{"error":{"code":"bad_request","message":"Bad Request"}}`,
		},
		{
			name:    "text with a line separator",
			handler: writes(400, nil, "a\u2028b"),
			status:  400, body: `{"error":{"code":"bad_request","message":"Bad Request"}}`,
		},
		{
			name:    "text over several lines is not shown",
			handler: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "a\nb", 400) },
			status:  400, body: `{"error":{"code":"bad_request","message":"Bad Request"}}`,
		},
		{
			name:    "long text is not shown",
			handler: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, strings.Repeat("x", 513), 400) },
			status:  400, body: `{"error":{"code":"bad_request","message":"Bad Request"}}`,
		},
		{
			name:    "text without a type is a message as well",
			handler: writes(400, nil, "no such ", "note"),
			status:  400, body: `{"error":{"code":"bad_request","message":"no such note"}}`,
		},
		{
			name:    "HTML without a type is not",
			handler: writes(403, nil, "<html><body>no</body></html>"),
			status:  403, body: `{"error":{"code":"forbidden","message":"Forbidden"}}`,
		},
		{
			name:    "an empty error gets a body",
			handler: writes(418, nil),
			status:  418, body: `{"error":{"code":"im_a_teapot","message":"I'm a teapot"}}`,
		},
		{
			name:    "an error as plain JSON becomes the details",
			handler: writes(400, asJSON, `{"error"`, `:"bad"}`),
			status:  400, body: `{"error":{"code":"bad_request","message":"Bad Request","details":{"error":"bad"}}}`,
		},
		{
			name:    "an error as malformed JSON does not break the response",
			handler: writes(400, asJSON, `{"error":`),
			status:  400, body: `{"error":{"code":"bad_request","message":"Bad Request"}}`,
		},
		{
			name:    "an error as a lot of JSON is omitted",
			handler: writes(400, asJSON, long),
			status:  400, body: `{"error":{"code":"bad_request","message":"Bad Request"}}`,
		},
		{
			name:    "even if the first piece of it is JSON by itself",
			handler: writes(400, asJSON, "12", strings.Repeat("3", 100_000)),
			status:  400, body: `{"error":{"code":"bad_request","message":"Bad Request"}}`,
		},
		{
			name:    "a replaced 401 has a challenge",
			handler: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusUnauthorized) },
			status:  401, body: `{"error":{"code":"unauthorized","message":"no"}}`,
			header: map[string]string{"WWW-Authenticate": "Bearer"},
		},
		{
			name:    "and keeps its own",
			handler: writes(401, map[string]string{"WWW-Authenticate": `Basic realm="x"`}),
			status:  401, body: `{"error":{"code":"unauthorized","message":"Unauthorized"}}`,
			header: map[string]string{"WWW-Authenticate": `Basic realm="x"`},
		},
	}
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				got := get(t, serve(wrapData.Wrap(tt.handler)), "/")
				wantStatus(t, got, tt.status)
				wantBody(t, got, tt.body)
				for name, value := range tt.header {
					wantHeader(t, got, name, value)
				}
			})
		}
	})
}

func TestPassesUntouched(t *testing.T) {
	tests := []struct {
		name    string
		status  int
		header  map[string]string
		body    string
		wrapped *envelope.Envelope
	}{
		{name: "no content", status: 204, header: asJSON},
		{name: "not modified", status: 304, header: asJSON},
		{name: "a redirect", status: 302, header: map[string]string{"Content-Type": "text/html", "Location": "/x"}, body: "<a>"},
		{name: "a redirect with JSON", status: 307, header: with(asJSON, "Location", "/x"), body: "{}"},
		{name: "a part of a body without Content-Range", status: 206, header: asJSON, body: "{}"},
		{name: "a part of a body", status: 206, header: with(asJSON, "Content-Range", "bytes 0-1/9"), body: `{"`},
		{name: "parts of a body", status: 206, header: map[string]string{"Content-Type": "multipart/byteranges; boundary=b"}, body: "--b"},
		{name: "a part of a body with a status of 200", status: 200, header: with(asJSON, "Content-Range", "bytes 0-1/9"), body: `{"`},
		{name: "compressed JSON", status: 200, header: with(asJSON, "Content-Encoding", "br"), body: "br"},
		{name: "a compressed error", status: 400, header: with(asJSON, "Content-Encoding", "br"), body: "br"},
		{name: "JSON in another charset", status: 200, header: map[string]string{"Content-Type": "application/json; charset=utf-16"}, body: "\xff\xfe1\x00"},
		{name: "JSON in Latin-1", status: 200, header: map[string]string{"Content-Type": "application/json; charset=iso-8859-1"}, body: "1"},
		{name: "JSON that is saved as a file", status: 200, header: with(asJSON, "Content-Disposition", `Attachment; filename="a.json"`, "ETag", `"v"`), body: "{}"},
		{name: "server-sent events", status: 200, header: map[string]string{"Content-Type": "text/event-stream"}, body: "data: 1\n\n"},
		{name: "ndjson", status: 200, header: map[string]string{"Content-Type": "application/x-ndjson"}, body: "1\n2\n"},
		{name: "a json sequence", status: 200, header: map[string]string{"Content-Type": "application/json-seq"}, body: "\x1e1\n"},
		{name: "problem details", status: 400, header: map[string]string{"Content-Type": "application/problem+json"}, body: "{}"},
		{name: "a vendor type", status: 200, header: map[string]string{"Content-Type": "application/vnd.api+json"}, body: "{}"},
		{name: "gRPC", status: 200, header: map[string]string{"Content-Type": "application/grpc"}, body: "\x00"},
		{name: "multipart", status: 200, header: map[string]string{"Content-Type": "multipart/mixed; boundary=b"}, body: "--b--"},
		{name: "an HTML error", status: 500, header: map[string]string{"Content-Type": "text/html"}, body: "<html>"},
		{name: "plain text", status: 200, header: map[string]string{"Content-Type": "text/plain"}, body: "{}"},
		{name: "JSON without a type is text", status: 200, body: `{"a":1}`},
		{name: "nothing at all", status: 200},
		{
			name: "JSON of a shape with bare successes", status: 200, wrapped: must(envelope.Config{Shape: envelope.Typed(), Wrap: true}),
			header: with(asJSON, "ETag", `"v"`, "Content-Length", "2"), body: "{}",
		},
		{
			name: "a JSON error of a shape with bare successes", status: 400, wrapped: must(envelope.Config{Shape: envelope.Detail(), Wrap: true}),
			header: asJSON, body: `{"detail":"x"}`,
		},
		{name: "JSON without Wrap", status: 200, wrapped: must(envelope.Config{}), header: with(asJSON, "ETag", `"v"`), body: "{}"},
		{name: "a text error without Wrap", status: 500, wrapped: must(envelope.Config{}), header: map[string]string{"Content-Type": "text/plain"}, body: "x"},
	}
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				env := tt.wrapped
				if env == nil {
					env = wrapStandard
				}
				handler := writes(tt.status, tt.header, tt.body)
				noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
				bare, wrapped := serve(handler), serve(env.Wrap(handler))
				bare.Client().CheckRedirect, wrapped.Client().CheckRedirect = noRedirect, noRedirect
				want, got := get(t, bare, "/"), get(t, wrapped, "/")
				wantStatus(t, got, want.StatusCode)
				if got.body != want.body {
					t.Errorf("body %q, want %q", got.body, want.body)
				}
				got.Header.Del("X-Request-Id")
				got.Header.Del("Date")
				want.Header.Del("Date")
				if fmt.Sprint(got.Header) != fmt.Sprint(want.Header) {
					t.Errorf("header %v, want %v", got.Header, want.Header)
				}
			})
		}
	})
}

// An envelope around these would look whole and be no JSON.
func TestWhatIsNotJSONByItsFirstBytesPasses(t *testing.T) {
	for _, pieces := range [][]string{
		{"\ufeff{}"}, {" \n", "\t\ufeff{}"}, {")]}',\n{}"}, {"for(;;);{}"}, {"while(1);{}"}, {"&&&START&&&[]"}, {"/**/cb({})"}, {"callback({})"},
		{"next({})"}, {"true_({})", "x"}, {"nil"}, {"NaN"}, {"plain text"}, {"<html>"}, {"\x00"}, {"\xff\xfe{\x00}\x00"}, {"{\x00}\x00"}, {"\x00{\x00}"}, {"'a'"},
	} {
		s := start(t, wrapData.Wrap(writes(200, with(asJSON, "Content-Length", fmt.Sprint(len(strings.Join(pieces, "")))), pieces...)))
		if got := get(t, s, "/"); got.StatusCode != 200 || got.body != strings.Join(pieces, "") {
			t.Errorf("%q became %d %q", pieces, got.StatusCode, got.body)
		}
	}
}

func TestHeadHasTheHeaderOfGetWithoutALength(t *testing.T) {
	handler := writes(0, with(asJSON, "Content-Length", "7", "ETag", `"v"`), `{"a":1}`)
	refuse := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 400) }
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		s := serve(wrapStandard.Wrap(handler))
		head := do(t, s, http.MethodHead, "/")
		wantStatus(t, head, 200)
		wantHeader(t, head, "Content-Length", "")
		wantHeader(t, head, "Content-Type", "application/json")
		wantHeader(t, head, "ETag", `W/"v-wrapped"`)
		if full := get(t, s, "/"); full.Header.Get("ETag") != head.Header.Get("ETag") {
			t.Errorf("GET has %v, HEAD %v", full.Header, head.Header)
		}
		head = do(t, serve(wrapStandard.Wrap(http.HandlerFunc(refuse))), http.MethodHead, "/")
		wantStatus(t, head, 400)
		wantHeader(t, head, "Content-Length", "")
		wantHeader(t, head, "Content-Type", "application/json")
	})
}

func TestAnExplicitResponseToHeadHasTheLengthOfGet(t *testing.T) {
	s := start(t, wrapData.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Value([]int{1, 2})
	})))
	wantHeader(t, do(t, s, http.MethodHead, "/"), "Content-Length", "14")
	wantHeader(t, get(t, s, "/"), "Content-Length", "14")
}

// A service with bare successes documents that each error has a body.
func TestAnEmptyErrorOfJSONGetsABody(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		body    string // empty means an error of the shape
	}{
		{"no body", writes(412, asJSON), ""},
		{"an empty body", writes(412, with(asJSON, "Content-Length", "0"), ""), ""},
		{"nothing, written", func(w http.ResponseWriter, r *http.Request) {
			writes(412, asJSON)(w, r)
			_, _ = w.Write(nil)
		}, ""},
		{"a body", writes(412, with(asJSON, "Content-Length", "2"), "", "{", "}"), "{}"},
		{"a body without a length", writes(412, asJSON, "{}"), "{}"},
		{"a body that is flushed", func(w http.ResponseWriter, _ *http.Request) {
			writes(412, asJSON, "[")(w, nil)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(w, "]")
		}, "[]"},
		{"a header that is flushed", func(w http.ResponseWriter, _ *http.Request) {
			writes(412, asJSON)(w, nil)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(w, "{}")
		}, "{}"},
		{"fields after the status", func(w http.ResponseWriter, r *http.Request) {
			writes(412, asJSON)(w, r)
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "{}")
		}, "{}"},
		{"a long body", writes(412, asJSON, strings.Repeat(" ", 100_000)+"1"), strings.Repeat(" ", 100_000) + "1"},
	}
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				s := serve(must(envelope.Config{Shape: envelope.Problem(""), Wrap: true}).Wrap(tt.handler))
				got := get(t, s, "/")
				wantStatus(t, got, 412)
				if tt.body != "" {
					wantHeader(t, got, "Content-Type", "application/json")
					if got.body != tt.body {
						t.Errorf("body %.100q", got.body)
					}
					return
				}
				wantHeader(t, got, "Content-Type", "application/problem+json")
				if !json.Valid([]byte(got.body)) || !strings.Contains(got.body, `"status":412`) {
					t.Errorf("body %q", got.body)
				}
			})
		}
	})
}

// An adapter may write the error that a handler has returned once the envelope has ended.
func TestAHandlerThatWritesNothingLeavesTheResponseToOthers(t *testing.T) {
	nothing := wrapData.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	got := get(t, start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nothing.ServeHTTP(w, r)
		http.Error(w, "m", http.StatusNotFound)
	})), "/")
	wantStatus(t, got, 404)
	if got.Header.Get("X-Request-Id") == "" {
		t.Error("no request ID")
	}
}

// A handler may write no body for HEAD. The header is that of its GET all the same.
func TestHeadOfAnErrorOfJSONIsNotEmpty(t *testing.T) {
	s := start(t, must(envelope.Config{Shape: envelope.Problem(""), Wrap: true}).Wrap(writes(412, asJSON)))
	head := do(t, s, http.MethodHead, "/")
	wantStatus(t, head, 412)
	wantHeader(t, head, "Content-Type", "application/json")
}

func TestEarlyHintsAreNotTheStatus(t *testing.T) {
	hints := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { hints++; return nil },
	})
	s := start(t, wrapData.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "1")
	})))
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	if hints != 1 || resp.StatusCode != 201 || string(body) != `{"data":1}` {
		t.Errorf("%d hints, status %d, body %s", hints, resp.StatusCode, body)
	}
}

func TestEventsArriveBeforeTheHandlerEnds(t *testing.T) {
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		seen := make(chan struct{})
		s := serve(wrapStandard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: 1\n\n")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-seen:
			case <-r.Context().Done():
			}
		})))
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		close(seen)
		if err != nil || line != "data: 1\n" {
			t.Errorf("line %q, %v", line, err)
		}
	})
}

// An accepting writer makes a 202 of each 200.
type accepting struct{ http.ResponseWriter }

func (w accepting) WriteHeader(status int) {
	if status == http.StatusOK {
		status = http.StatusAccepted
	}
	w.ResponseWriter.WriteHeader(status)
}

// What has the shape keeps it, even if the status changes on the way out.
func TestAnotherStatusIsNotWrappedAgain(t *testing.T) {
	for name, next := range map[string]http.Handler{
		"of an inner envelope": wrapData.Wrap(writes(200, asJSON, "1")),
		"of Respond": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			usher.Respond(w, r, usher.Reply{Data: 1})
		}),
	} {
		t.Run(name, func(t *testing.T) {
			got := get(t, start(t, wrapData.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(accepting{w}, r)
			}))), "/")
			wantStatus(t, got, 202)
			wantBody(t, got, `{"data":1}`)
		})
	}
}

func TestTrailersArrive(t *testing.T) {
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		got := get(t, serve(wrapData.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "1")
			w.Header().Set("X-Sum", "s")
		}))), "/")
		if got.body != "1" || got.Trailer.Get("X-Sum") != "s" {
			t.Errorf("body %q, trailer %v", got.body, got.Trailer)
		}
	})
}

func TestConnectionTakenOver(t *testing.T) {
	var log strings.Builder
	s := httptest.NewUnstartedServer(wrapStandard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
	})))
	s.Config.ErrorLog = stdlog.New(&log, "", 0)
	done := make(chan struct{})
	next := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		next.ServeHTTP(w, r)
	})
	s.Start()
	t.Cleanup(s.Close)
	if got := get(t, s, "/"); got.body != "hi" {
		t.Errorf("body %q", got.body)
	}
	if <-done; log.Len() > 0 {
		t.Errorf("the server complains: %s", &log)
	}
}

// HTTP/2 has no hijacking, and the refusal still has the shape.
func TestConnectionThatCannotBeHijacked(t *testing.T) {
	s := httptest.NewUnstartedServer(wrapData.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack: %v", err)
		}
		http.Error(w, "needs HTTP/1.1", http.StatusBadRequest)
	})))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	wantBody(t, get(t, s, "/"), `{"error":{"code":"bad_request","message":"needs HTTP/1.1"}}`)
}

func TestResponseControllerReachesTheServer(t *testing.T) {
	start := start(t, wrapStandard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if err := errors.Join(c.SetReadDeadline(time.Now().Add(time.Minute)), c.SetWriteDeadline(time.Now().Add(time.Minute)), c.EnableFullDuplex()); err != nil {
			t.Error(err)
		}
		envelope.For(w, r).NoContent()
	})))
	wantStatus(t, get(t, start, "/"), 204)
}

func TestFilesOfOtherTypesPass(t *testing.T) {
	dir := t.TempDir()
	content := strings.Repeat("0123456789", 10_000)
	if err := os.WriteFile(filepath.Join(dir, "a.bin"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	got := get(t, start(t, wrapStandard.Wrap(http.FileServer(http.Dir(dir)))), "/a.bin")
	wantHeader(t, got, "Content-Length", "100000")
	if got.body != content {
		t.Errorf("%d bytes", len(got.body))
	}
}

func TestTimeoutHandler(t *testing.T) {
	timeout := func(d time.Duration, h http.HandlerFunc) http.Handler {
		return wrapData.Wrap(http.TimeoutHandler(h, d, "<h1>too slow</h1>"))
	}
	t.Run("an explicit response through it is not wrapped again", func(t *testing.T) {
		got := get(t, start(t, timeout(time.Minute, func(w http.ResponseWriter, r *http.Request) {
			envelope.For(w, r).Value([]int{1})
		})), "/")
		wantBody(t, got, `{"data":[1]}`)
	})
	t.Run("plain JSON through it is wrapped", func(t *testing.T) {
		wantBody(t, get(t, start(t, timeout(time.Minute, writes(200, asJSON, "[1]"))), "/"), `{"data":[1]}`)
	})
	t.Run("its own 503 has the shape, whatever the late handler does", func(t *testing.T) {
		late := make(chan struct{})
		done := make(chan struct{})
		s := start(t, timeout(time.Millisecond, func(w http.ResponseWriter, r *http.Request) {
			defer close(done)
			envelope.For(w, r).Message("late").Value([]int{1}) // into the void
			<-late
			envelope.For(w, r).Value(2)
			usher.Fail(w, r, &usher.Error{Status: 409})
		}))
		got := get(t, s, "/")
		close(late)
		<-done
		wantStatus(t, got, 503)
		wantBody(t, got, `{"error":{"code":"service_unavailable","message":"Service Unavailable"}}`)
	})
}

// A handler that http.TimeoutHandler has abandoned may begin its response while the 503
// is sent. It must not change the header of the 503.
func TestAnAbandonedHandlerChangesNoHeaderOfAnother(t *testing.T) {
	shape := envelope.Data()
	shape.ErrorType = "application/problem+json"
	late, sent, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	before := shape.Before
	shape.Before = func(b []byte, resp *envelope.Response) []byte {
		close(late)
		<-sent
		return before(b, resp)
	}
	timed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		go func() { <-late; cancel() }()
		http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(done)
			value(envelope.For(w, r))
		}), time.Minute, "").ServeHTTP(w, r.WithContext(ctx))
	})
	h := must(envelope.Config{Shape: shape, Wrap: true}).Wrap(timed)
	var first, last string
	s := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		values := w.Header()["Content-Type"]
		first = values[0]
		close(sent)
		<-done
		last = values[0]
	}))
	wantStatus(t, get(t, s, "/"), 503)
	if first != "application/problem+json" || last != first {
		t.Errorf("Content-Type was %q and is %q", first, last)
	}
}

func TestEnvelopeWithinAnEnvelope(t *testing.T) {
	inner := must(envelope.Config{Shape: envelope.Detail()})
	innerWraps := must(envelope.Config{Shape: envelope.Data(), Wrap: true})
	afterwards := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			switch r.URL.Path {
			case "/after":
				usher.Fail(w, r, &usher.Error{Status: 403, Code: "c", Message: "m"})
			case "/plain":
				envelope.For(w, r).Message("later")
				writes(200, asJSON, "1")(w, r)
			}
		})
	}
	tests := []struct {
		name    string
		handler http.Handler
		path    string
		body    string
	}{
		{"the inner one renders errors", inner.Wrap(failing(&usher.Error{Status: 400, Message: "m"})), "/", `{"detail":"m"}`},
		{"the inner one wraps", innerWraps.Wrap(writes(200, asJSON, "1")), "/", `{"data":1}`},
		{"the inner one replaces", innerWraps.Wrap(http.NotFoundHandler()), "/", `{"error":{"code":"not_found","message":"Not Found"}}`},
		{
			"and what it wrote stays alone", inner.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				usher.Fail(w, r, &usher.Error{Status: 400, Message: "m"})
			})), "/after", `{"detail":"m"}`,
		},
		{
			"the outer one has its message again", inner.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), "/plain",
			`{"status_code":200,"message":"later","data":1,"metadata":{"request_id":"ID","method":"GET","url":"/plain","execution_time_ms":0,"timestamp":"T"}}`,
		},
		{
			"the outer one is the responder again", inner.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), "/after",
			`{"status_code":403,"code":"c","message":"m","metadata":{"request_id":"ID","method":"GET","url":"/after","execution_time_ms":0,"timestamp":"T"}}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := get(t, start(t, wrapStandard.Wrap(afterwards(tt.handler))), tt.path)
			wantBody(t, got, tt.body)
			if id := got.Header["X-Request-Id"]; len(id) != 1 {
				t.Errorf("X-Request-Id: %q", id)
			}
		})
	}
}

func TestUntouched(t *testing.T) {
	s := start(t, wrapData.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Untouched()
		if r.URL.Path == "/fail" {
			usher.Fail(w, r, &usher.Error{Status: 409, Message: "m"})
			return
		}
		writes(400, asJSON, `{"error":"invalid_grant"}`)(w, r)
	})))
	if got := get(t, s, "/"); got.body != `{"error":"invalid_grant"}` {
		t.Errorf("body %s", got.body)
	}
	wantBody(t, get(t, s, "/fail"), `{"error":{"code":"conflict","message":"m"}}`)
}

func TestMessageOfAWrappedHandler(t *testing.T) {
	got := get(t, start(t, wrapStandard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Message("User found")
		writes(200, asJSON, "{}")(w, r)
	}))), "/")
	if !strings.HasPrefix(got.body, `{"status_code":200,"message":"User found","data":{},"metadata":`) {
		t.Errorf("body %s", got.body)
	}
}

func TestNothingIsWrittenTwice(t *testing.T) {
	tests := map[string]http.HandlerFunc{
		"a success after a success": func(w http.ResponseWriter, r *http.Request) {
			envelope.For(w, r).Value(1)
			envelope.For(w, r).Value(2)
		},
		"a success within wrapped JSON": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "1")
			envelope.For(w, r).Value(2)
		},
	}
	for name, h := range tests {
		t.Run(name, func(t *testing.T) {
			env := must(envelope.Config{Shape: envelope.Data(), Wrap: true, OnError: func(context.Context, error) {}})
			got := get(t, start(t, env.Wrap(h)), "/")
			wantStatus(t, got, 200)
			wantBody(t, got, `{"data":1}`)
		})
	}
}

// A body that is too large closes the connection, although http.MaxBytesReader does not
// recognize the wrapped writer.
func TestTooLargeBodyClosesTheConnection(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 10)); err != nil {
			usher.Fail(w, r, err)
		}
	})
	post := func(t *testing.T, s *httptest.Server) (status int, closes bool) {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader(strings.Repeat("x", 100)))
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode, resp.Close
	}
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		s := serve(wrapData.Wrap(h))
		status, closes := post(t, s)
		if status != 413 || closes == s.EnableHTTP2 {
			t.Errorf("status %d, close %t", status, closes)
		}
	})
}

func TestTheOuterRequestGetsTheRouteAndTheID(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /x/{id}", func(http.ResponseWriter, *http.Request) {})
	var pattern, id string
	outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = usher.Track(r)
		wrapStandard.ServeNext(w, r, mux)
		pattern, id = r.Pattern, envelope.RequestID(r.Context())
	})
	got := get(t, start(t, outer), "/x/1")
	if pattern != "GET /x/{id}" || id == "" || id != got.Header.Get("X-Request-Id") {
		t.Errorf("pattern %q, ID %q, header %v", pattern, id, got.Header)
	}
	if id := envelope.RequestID(context.Background()); id != "" {
		t.Errorf("ID without a request: %q", id)
	}
}

// usher.WithResponder can give part of a service another envelope.
func TestResponderWithinAnotherEnvelope(t *testing.T) {
	typed := must(envelope.Config{Shape: envelope.Typed()})
	s := start(t, wrapData.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = usher.WithResponder(r, typed)
		usher.Fail(w, r, &usher.Error{Status: 404, Message: "m"})
		usher.Fail(w, r, &usher.Error{Status: 404, Message: "twice"})
	})))
	got := get(t, s, "/")
	id := got.Header.Get("X-Request-Id")
	wantBody(t, got, `{"error":{"type":"not_found_error","code":"not_found","message":"m","request_id":"`+id+`"}}`)
}

func TestEnvelopesShareTheRequestID(t *testing.T) {
	var outer, inner string
	next := must(envelope.Config{}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		inner = envelope.RequestID(r.Context())
	}))
	got := get(t, start(t, wrapData.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer = envelope.RequestID(r.Context())
		next.ServeHTTP(w, r)
	}))), "/")
	wantHeader(t, got, "X-Request-Id", outer)
	if inner != outer {
		t.Errorf("the inner envelope has %q, the outer %q", inner, outer)
	}
}

// The server removes the temporary files of a form only from its own request.
func TestTheRequestOfTheServerGetsTheFormOfItsCopy(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b--\r\n"))
	r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	h := must(envelope.Config{OnPanic: func(*http.Request, any, []byte) {}}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.FormValue("a") != "1" {
			t.Error("no form")
		}
		panic("x")
	}))
	h.ServeHTTP(httptest.NewRecorder(), r)
	if r.MultipartForm == nil {
		t.Error("the form is lost")
	}
}

// A response with two entity tags has no valid tag to change.
func TestSeveralEntityTagsAreLeftAlone(t *testing.T) {
	tags := []string{`"a"`, `"b"`}
	h := must(envelope.Config{Wrap: true}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = jsonType
		w.Header()["Etag"] = tags
		_, _ = io.WriteString(w, "1")
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if got := w.Header()["Etag"]; !slices.Equal(got, tags) {
		t.Errorf("got %q", got)
	}
}
