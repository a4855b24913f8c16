package httpwriter_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher/internal/httpwriter"
)

// A counted body counts what is read of it.
type counted struct {
	io.Reader
	read int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += n
	return n, err
}

func (*counted) Close() error { return nil }

// The server itself sees to the connections that it keeps.
func TestRefuseClosesOnlyWhatTheServerWouldBreak(t *testing.T) {
	const small, large = 10_000, 300_000
	tests := []struct {
		name   string
		size   int // what comes
		length int64
		expect bool
		close  bool
		major  int
		closes bool
		reads  int
	}{
		{name: "no body", major: 1, close: true},
		{name: "a kept connection", size: small, length: small, major: 1},
		{name: "a kept connection and a large body", size: large, length: large, major: 1},
		{name: "a kept connection and chunks", size: large, length: -1, major: 1},
		{name: "closing after a small body", size: small, length: small, close: true, major: 1, reads: small},
		{name: "closing after a body that breaks off", size: small - 1, length: small, close: true, major: 1, closes: true, reads: small - 1},
		{name: "closing after a large body", size: large, length: large, close: true, major: 1, closes: true},
		{name: "closing after chunks", size: large, length: -1, close: true, major: 1},
		{name: "100-continue and a small body", size: small, length: small, expect: true, major: 1},
		{name: "100-continue and a large body", size: large, length: large, expect: true, major: 1, closes: true},
		{name: "100-continue and chunks", size: small, length: -1, expect: true, major: 1, closes: true},
		{name: "100-continue and closing", size: small, length: small, expect: true, close: true, major: 1, closes: true},
		{name: "HTTP/2", size: large, length: large, expect: true, major: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var source io.Reader = strings.NewReader(strings.Repeat("x", tt.size))
			if int64(tt.size) < tt.length {
				source = io.MultiReader(source, broken{})
			}
			body := &counted{Reader: source}
			r := &http.Request{ProtoMajor: tt.major, ContentLength: tt.length, Body: body, Close: tt.close, Header: http.Header{}}
			if tt.expect {
				r.Header.Set("Expect", "100-continue")
			}
			w := httptest.NewRecorder()
			httpwriter.Refuse(w, r)
			if closes := w.Header().Get("Connection") == "close"; closes != tt.closes {
				t.Errorf("closes %v, want %v", closes, tt.closes)
			}
			if body.read != tt.reads {
				t.Errorf("read %d bytes, want %d", body.read, tt.reads)
			}
		})
	}
}

// A handler that has closed the body had mostly read it.
func TestABodyThatIsClosedHasBeenRead(t *testing.T) {
	r := &http.Request{ProtoMajor: 1, ContentLength: 10, Body: closed{}, Close: true}
	w := httptest.NewRecorder()
	httpwriter.Refuse(w, r)
	if w.Header().Get("Connection") != "" {
		t.Error("the server waits for a body that has come")
	}
}

type closed struct{ io.Closer }

func (closed) Read([]byte) (int, error) { return 0, http.ErrBodyReadAfterClose }

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Each handler responds without reading the body of 10 KB.
func TestOnlyErrorsAreRefusals(t *testing.T) {
	for status, reads := range map[int]int{200: 0, 304: 0, 400: 10_000, 413: 10_000, 500: 10_000} {
		body := &counted{Reader: strings.NewReader(strings.Repeat("x", 10_000))}
		r := &http.Request{ProtoMajor: 1, ContentLength: 10_000, Body: body, Close: true}
		var w httpwriter.Writer
		w.Init(httptest.NewRecorder(), nil)
		w.SetRequest(r)
		w.WriteHeader(status)
		if body.read != reads {
			t.Errorf("%d: read %d bytes, want %d", status, body.read, reads)
		}
	}
}

// A detached writer has a header of its own, so that the server learns of nothing
// that it is not told.
type detached struct{ http.ResponseWriter }

func (detached) Header() http.Header           { return http.Header{} }
func (d detached) Unwrap() http.ResponseWriter { return d.ResponseWriter }

func TestLeaveUnreadReachesTheServerThroughWriters(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var inner, outer httpwriter.Writer
		inner.Init(w, nil)
		outer.Init(detached{&inner}, nil)
		if r.URL.Path == "/leave" {
			httpwriter.LeaveUnread(&outer, r)
		}
		_, _ = io.WriteString(&outer, "x")
	}))
	defer s.Close()
	for path, closes := range map[string]bool{"/": false, "/leave": true} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.Close != closes {
			t.Errorf("%s: closes %v, want %v", path, resp.Close, closes)
		}
	}
}
