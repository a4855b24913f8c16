package envelope_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// served returns a handler that serves JSON as files are served.
func served(etag string, modified time.Time) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if etag != "" {
			w.Header().Set("ETag", etag)
		}
		http.ServeContent(w, r, "", modified, strings.NewReader(`{"a":1}`))
	})
}

func TestConditionsApplyToTheTagOfTheHandler(t *testing.T) {
	const standard, data = `W/"v1-wrapped"`, `"v1-wrapped"`
	tests := []struct {
		name   string
		env    *envelope.Envelope
		header string
		status int
		etag   string
	}{
		{"a strong tag is weak where the added bytes change", wrapStandard, "X: 1", 200, standard},
		{"and strong where they do not", wrapData, "X: 1", 200, data},
		{"not modified", wrapStandard, "If-None-Match: " + standard, 304, standard},
		{"not modified, and strong", wrapData, "If-None-Match: " + data, 304, data},
		{"not modified, for a compressed copy", wrapData, "If-None-Match: W/" + data, 304, data},
		{"not modified, among others", wrapStandard, `If-None-Match: "a,b", ` + standard + `, W/"c"`, 304, standard},
		{"modified", wrapStandard, `If-None-Match: W/"v0-wrapped"`, 200, standard},
		{"the handler's own tag", wrapStandard, `If-None-Match: "v1"`, 304, `"v1"`},
		{"If-Match", wrapData, "If-Match: " + data, 200, data},
		{"If-Match with a tag that had to become weak", wrapStandard, `If-Match: "v0", ` + standard, 200, standard},
		{"If-Match with an old tag", wrapStandard, `If-Match: W/"v0-wrapped"`, 412, ""},
		{"If-Match with the handler's own tag", wrapStandard, `If-Match: "v1"`, 200, standard},
		{"no list of tags", wrapStandard, `If-None-Match: v1-wrapped"`, 200, standard},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, h := range []http.Handler{
				tt.env.Wrap(served(`"v1"`, time.Time{})),
				must(envelope.Config{}).Wrap(tt.env.Wrap(served(`"v1"`, time.Time{}))),
				tt.env.Wrap(tt.env.Wrap(served(`"v1"`, time.Time{}))),
			} {
				got := get(t, start(t, h), "/", tt.header)
				wantStatus(t, got, tt.status)
				wantHeader(t, got, "ETag", tt.etag)
				wantHeader(t, got, "Accept-Ranges", "")
			}
		})
	}
	t.Run("a weak tag has no mark", func(t *testing.T) {
		got := get(t, start(t, wrapData.Wrap(served(`W/"v1"`, time.Time{}))), "/", `If-None-Match: W/"v1"`)
		wantStatus(t, got, 304)
		wantHeader(t, got, "ETag", `W/"v1"`)
	})
	t.Run("the request of the server stays as it is", func(t *testing.T) {
		for _, track := range []bool{false, true} {
			r := httptest.NewRequest(http.MethodGet, "/a.json", nil)
			r.Header.Set("If-None-Match", data)
			r.Header.Set("Range", "bytes=0-")
			if track {
				r = usher.Track(r)
			}
			wrapData.Wrap(served(`"v1"`, time.Time{})).ServeHTTP(httptest.NewRecorder(), r)
			if r.Header.Get("If-None-Match") != data || r.Header.Get("Range") == "" {
				t.Errorf("header %v", r.Header)
			}
		}
	})
}

// A client that has lost its connection asks for the rest, as curl -C, wget -c and
// browsers do, and joins it with what it has. The result is the whole or an error.
func TestAResumedDownloadIsNeverBroken(t *testing.T) {
	modified := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	dir := t.TempDir()
	for name, content := range map[string]string{"a.json": `{"a":"` + strings.Repeat("x", 100) + `"}`, "a.txt": strings.Repeat("y", 100)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
	files := http.FileServer(http.Dir(dir))
	compressed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		served(`"v1"`, modified).ServeHTTP(w, r)
	})
	tests := []struct {
		name    string
		handler http.Handler
		path    string
		status  int // of the rest
	}{
		{"a file of JSON", files, "/a.json", 200},
		{"a file of text", files, "/a.txt", 206},
		{"JSON with a tag", served(`"v1"`, time.Time{}), "/export", 200},
		{"JSON with a weak tag", served(`W/"v1"`, time.Time{}), "/export", 200},
		{"JSON with a date", served("", modified), "/export", 400},
		{"JSON without validators", served("", time.Time{}), "/export", 400},
		{"JSON that passes", compressed, "/export", 206},
		{"a document of a standard", served(`"v1"`, time.Time{}), "/.well-known/x", 206},
	}
	for _, tt := range tests {
		for _, env := range []*envelope.Envelope{wrapData, must(envelope.Config{Shape: cacheable(), Wrap: true})} {
			t.Run(tt.name, func(t *testing.T) {
				s := start(t, env.Wrap(tt.handler))
				whole := get(t, s, tt.path)
				wantStatus(t, whole, 200)
				header := []string{"Range: bytes=5-"}
				if v := whole.Header.Get("ETag"); v != "" {
					header = append(header, "If-Range: "+v)
				} else if v := whole.Header.Get("Last-Modified"); v != "" {
					header = append(header, "If-Range: "+v)
				}
				rest := get(t, s, tt.path, header...)
				wantStatus(t, rest, tt.status)
				joined := rest.body
				if rest.StatusCode == 206 {
					joined = whole.body[:5] + rest.body
				}
				if rest.StatusCode < 400 && joined != whole.body {
					t.Errorf("joined to %q, want %q", joined, whole.body)
				}
				if rest = get(t, s, tt.path, header[0]); rest.StatusCode == 206 && whole.body[:5]+rest.body != whole.body {
					t.Errorf("without a validator joined to %q, want %q", whole.body[:5]+rest.body, whole.body)
				}
				if rest.StatusCode >= 400 && !json.Valid([]byte(rest.body)) {
					t.Errorf("body %q", rest.body)
				}
				head := do(t, s, http.MethodHead, tt.path, header[0])
				wantStatus(t, head, rest.StatusCode)
			})
		}
	}
	t.Run("a file that ends inside of a range", func(t *testing.T) {
		got := get(t, start(t, wrapStandard.Wrap(served("", time.Time{}))), "/", "Range: bytes=99-")
		wantStatus(t, got, 416)
		wantHeader(t, got, "Content-Range", "bytes */7")
		if !strings.HasPrefix(got.body, `{"status_code":416,`) {
			t.Errorf("body %s", got.body)
		}
	})
	t.Run("several ranges", func(t *testing.T) {
		for _, header := range []string{"Range: bytes=0-1,5-6", "Range: bytes=0-1, 5-", "Range: bytes=0-1,"} {
			got := get(t, start(t, wrapData.Wrap(served(`"v1"`, modified))), "/export", header)
			wantStatus(t, got, 200)
			wantHeader(t, got, "Content-Type", "application/json")
			wantHeader(t, got, "ETag", `"v1-wrapped"`)
			if got.body != `{"data":{"a":1}}` {
				t.Errorf("%s: body %q", header, got.body)
			}
		}
	})
	t.Run("a page of a list is no part of bytes", func(t *testing.T) {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				t.Error("the handler does not see Range")
			}
			writes(206, with(asJSON, "Content-Range", "items 0-1/9"), "[1]")(w, r)
		})
		got := get(t, start(t, wrapData.Wrap(h)), "/", "Range: items=0-1,3-4")
		wantStatus(t, got, 206)
		if got.body != "[1]" {
			t.Errorf("body %s", got.body)
		}
	})
	t.Run("a part that is flushed", func(t *testing.T) {
		h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Range", "bytes 5-6/7")
			w.WriteHeader(http.StatusPartialContent)
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "1}")
		})
		got := get(t, start(t, wrapData.Wrap(h)), "/", "Range: bytes=5-")
		wantStatus(t, got, 400)
		wantHeader(t, got, "Content-Range", "")
		wantBody(t, got, `{"error":{"code":"bad_request","message":"This resource has no ranges of bytes. Request all of it."}}`)
	})
}

// cacheable is Standard without what differs from response to response.
func cacheable() envelope.Shape {
	shape := envelope.Data()
	shape.Constant = false
	return shape
}
