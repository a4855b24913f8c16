package httpwriter_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/httpwriter"
)

// A foreign body may be in use elsewhere, by a proxy's transport for instance.
type foreign struct{ t *testing.T }

func (f foreign) Read([]byte) (int, error) {
	f.t.Error("the body is read")
	return 0, io.EOF
}

func (foreign) Close() error { return nil }

// The server itself takes care of connections that it keeps open.
func TestRefuseClosesOnlyWhatTheServerWouldBreak(t *testing.T) {
	const small, large = 10_000, 300_000
	tests := []struct {
		name   string
		length int64
		expect bool
		close  bool
		major  int
		closes bool
	}{
		{name: "no body", major: 1, close: true},
		{name: "a kept connection", length: small, major: 1},
		{name: "a kept connection and a large body", length: large, major: 1},
		{name: "a kept connection and chunks", length: -1, major: 1},
		{name: "closing after a small body", length: small, close: true, major: 1, closes: true},
		{name: "closing after a large body", length: large, close: true, major: 1, closes: true},
		{name: "closing after chunks", length: -1, close: true, major: 1, closes: true},
		{name: "100-continue and a small body", length: small, expect: true, major: 1},
		{name: "100-continue and a large body", length: large, expect: true, major: 1, closes: true},
		{name: "100-continue and chunks", length: -1, expect: true, major: 1, closes: true},
		{name: "100-continue and closing", length: small, expect: true, close: true, major: 1, closes: true},
		{name: "HTTP/2", length: large, expect: true, major: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &http.Request{ProtoMajor: tt.major, ContentLength: tt.length, Body: foreign{t}, Close: tt.close, Header: http.Header{}}
			if tt.expect {
				r.Header.Set("Expect", "100-continue")
			}
			w := httptest.NewRecorder()
			httpwriter.Refuse(w, r)
			if closes := w.Header().Get("Connection") == "close"; closes != tt.closes {
				t.Errorf("closes %v, want %v", closes, tt.closes)
			}
		})
	}
}

// A client that sends nothing of its body, on a connection that it wants closed, blocks
// no middleware and gets the response.
func TestARefusalDoesNotWaitForTheBody(t *testing.T) {
	for name, refuse := range map[string]func(http.ResponseWriter, *http.Request){
		"by Refuse": func(w http.ResponseWriter, r *http.Request) {
			httpwriter.Refuse(w, r)
			w.WriteHeader(http.StatusUnauthorized)
		},
		"by a Writer": func(w http.ResponseWriter, r *http.Request) {
			var outer httpwriter.Writer
			outer.Init(w, nil)
			outer.SetRequest(r)
			outer.WriteHeader(http.StatusUnauthorized)
		},
		"behind a writer that hides the server's": func(w http.ResponseWriter, r *http.Request) {
			httpwriter.Refuse(opaque{w}, r)
			w.WriteHeader(http.StatusUnauthorized)
		},
	} {
		t.Run(name, func(t *testing.T) {
			returned := make(chan struct{}, 1)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				refuse(w, r)
				returned <- struct{}{}
			}))
			defer s.Close()
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n")
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if <-returned; response.StatusCode != http.StatusUnauthorized {
				t.Errorf("status %d", response.StatusCode)
			}
		})
	}
}

// opaque has no Unwrap.
type opaque struct{ http.ResponseWriter }

// Nothing can make the server linger then, so the part of the body that has arrived is
// read before the server closes.
func TestABodyThatHasArrivedIsReadInsideAWriterThatHidesTheServers(t *testing.T) {
	left := make(chan int64, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httpwriter.Refuse(opaque{w}, r)
		n, _ := io.Copy(io.Discard, r.Body)
		left <- n
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer s.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader(strings.Repeat("x", 10_000)))
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	response, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if n := <-left; n != 0 {
		t.Errorf("%d bytes were left", n)
	}
}

// Each handler responds without reading the body of 10 KB.
func TestOnlyErrorsAreRefusals(t *testing.T) {
	for status, closes := range map[int]bool{200: false, 304: false, 400: true, 413: true, 500: true} {
		r := &http.Request{ProtoMajor: 1, ContentLength: 10_000, Body: foreign{t}, Close: true}
		recorder := httptest.NewRecorder()
		var w httpwriter.Writer
		w.Init(recorder, nil)
		w.SetRequest(r)
		w.WriteHeader(status)
		if got := recorder.Header().Get("Connection") == "close"; got != closes {
			t.Errorf("%d: closes %v, want %v", status, got, closes)
		}
	}
}

// A detached writer has a header of its own, so the server sees only what is passed on to
// it.
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
