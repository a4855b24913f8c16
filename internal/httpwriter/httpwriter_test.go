package httpwriter_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/httpwriter"
)

var _ interface {
	http.ResponseWriter
	http.Flusher
	http.Hijacker
	http.Pusher
	io.ReaderFrom
	io.StringWriter
	FlushError() error
	Unwrap() http.ResponseWriter
	CloseNotify() <-chan bool
} = (*httpwriter.Writer)(nil)

// A spy is a hook that records its calls and writes bodies in upper case.
type spy struct {
	calls  []string
	detach *httpwriter.Writer
}

func (s *spy) Head(status int) {
	s.calls = append(s.calls, fmt.Sprint("head ", status))
	if s.detach != nil {
		s.detach.Detach()
	}
}

func (s *spy) Body(inner http.ResponseWriter, p []byte) (int, error) {
	if n := len(s.calls); n == 0 || s.calls[n-1] != "body" {
		s.calls = append(s.calls, "body")
	}
	return inner.Write(bytes.ToUpper(p))
}

func (s *spy) Release(hijacked bool) { s.calls = append(s.calls, fmt.Sprint("release ", hijacked)) }

// serve runs f behind a Writer with hook on a real server and returns the response.
func serve(t *testing.T, http2 bool, hook httpwriter.Hook, f func(w *httpwriter.Writer, r *http.Request)) (int, string) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var writer httpwriter.Writer
		writer.Init(w, hook)
		if s, ok := hook.(*spy); ok && s.detach != nil {
			s.detach = &writer
		}
		f(&writer, r)
	}))
	if s.EnableHTTP2 = http2; http2 {
		s.StartTLS()
	} else {
		s.Start()
	}
	defer s.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestWriter(t *testing.T) {
	big := strings.Repeat("x", 100_000)
	tests := []struct {
		name   string
		write  func(w *httpwriter.Writer)
		status int
		body   string
		calls  []string // with a hook
	}{
		{"nothing", func(*httpwriter.Writer) {}, 0, "", nil},
		{"a status", func(w *httpwriter.Writer) { w.WriteHeader(201) }, 201, "", []string{"head 201"}},
		{
			"an informational status is not the status",
			func(w *httpwriter.Writer) { w.WriteHeader(103); w.WriteHeader(201) },
			201, "", []string{"head 201"},
		},
		{"a body commits to 200", func(w *httpwriter.Writer) { _, _ = w.Write([]byte("abc")) }, 200, "abc", []string{"head 200", "body"}},
		{"a string", func(w *httpwriter.Writer) { _, _ = io.WriteString(w, "abc") }, 200, "abc", []string{"head 200", "body"}},
		{"a long string", func(w *httpwriter.Writer) { _, _ = w.WriteString(big) }, 200, big, []string{"head 200", "body"}},
		{"an empty write commits", func(w *httpwriter.Writer) { _, _ = w.Write(nil) }, 200, "", []string{"head 200", "body"}},
		{"a reader", func(w *httpwriter.Writer) { _, _ = io.Copy(w, strings.NewReader("abc")) }, 200, "abc", []string{"head 200", "body"}},
		{"a long reader", func(w *httpwriter.Writer) { _, _ = w.ReadFrom(strings.NewReader(big)) }, 200, big, []string{"head 200", "body"}},
		{
			"a long reader after a status",
			func(w *httpwriter.Writer) { w.WriteHeader(202); _, _ = w.ReadFrom(strings.NewReader(big)) },
			202, big, []string{"head 202", "body"},
		},
		{
			"an empty reader does not commit",
			func(w *httpwriter.Writer) { _, _ = w.ReadFrom(strings.NewReader("")); w.WriteHeader(404) },
			404, "", []string{"head 404"},
		},
		{
			"Flush commits, then goes on",
			func(w *httpwriter.Writer) { w.Flush(); _, _ = w.Write([]byte("a")) },
			200, "a", []string{"head 200", "release false", "body"},
		},
		{
			"FlushError of a response controller",
			func(w *httpwriter.Writer) {
				if err := http.NewResponseController(w).Flush(); err != nil {
					panic(err)
				}
			}, 200, "", []string{"head 200", "release false"},
		},
	}
	for _, http2 := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("http2=%t/%s", http2, tt.name), func(t *testing.T) {
				for _, hook := range []*spy{nil, {}} {
					var status int
					var n int64
					run := func(w *httpwriter.Writer, _ *http.Request) {
						tt.write(w)
						status, n = w.Status(), w.Bytes()
					}
					var sent int
					var body string
					want := tt.body
					if hook == nil {
						sent, body = serve(t, http2, nil, run)
					} else {
						sent, body = serve(t, http2, hook, run)
						want = strings.ToUpper(want)
						if !slices.Equal(hook.calls, tt.calls) {
							t.Errorf("hook was called with %q, want %q", hook.calls, tt.calls)
						}
					}
					if status != tt.status || tt.status != 0 && sent != tt.status {
						t.Errorf("status %d, sent %d, want %d", status, sent, tt.status)
					}
					if body != want || n != int64(len(want)) {
						t.Errorf("%d bytes counted, body of %d, want %d", n, len(body), len(want))
					}
				}
			})
		}
	}
}

func TestADetachedHookIsNotCalledAgain(t *testing.T) {
	hook := &spy{detach: new(httpwriter.Writer)}
	_, body := serve(t, false, hook, func(w *httpwriter.Writer, _ *http.Request) {
		_, _ = io.Copy(w, strings.NewReader(strings.Repeat("x", 1000)))
		w.Flush()
	})
	if body != strings.Repeat("x", 1000) || !slices.Equal(hook.calls, []string{"head 200"}) {
		t.Errorf("hook was called with %q, body %q", hook.calls, body)
	}
}

// counting counts how much the server was given in one go.
type counting struct {
	http.ResponseWriter
	readFrom int64
}

func (c *counting) ReadFrom(src io.Reader) (int64, error) {
	n, err := c.ResponseWriter.(io.ReaderFrom).ReadFrom(src)
	c.readFrom += n
	return n, err
}

func TestFilesReachTheServersReadFrom(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.bin")
	if err := os.WriteFile(name, bytes.Repeat([]byte("x"), 50_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, hook := range []httpwriter.Hook{nil, &spy{detach: new(httpwriter.Writer)}} {
		_, body := serve(t, false, nil, func(w *httpwriter.Writer, r *http.Request) {
			inner := &counting{ResponseWriter: w.Unwrap()}
			var outer httpwriter.Writer
			outer.Init(inner, hook)
			if s, ok := hook.(*spy); ok {
				s.detach = &outer
			}
			http.ServeFile(&outer, r, name)
			if inner.readFrom != 50_000 || outer.Bytes() != 50_000 {
				t.Errorf("%d of %d bytes in one go", inner.readFrom, outer.Bytes())
			}
		})
		if len(body) != 50_000 {
			t.Errorf("body of %d bytes", len(body))
		}
	}
}

func TestHijack(t *testing.T) {
	hook := &spy{}
	sent, body := serve(t, false, hook, func(w *httpwriter.Writer, _ *http.Request) {
		conn, rw, err := w.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 299 Mine\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
		_ = rw.Flush()
		if !w.Hijacked() || w.Status() != 0 {
			t.Errorf("hijacked %t, status %d", w.Hijacked(), w.Status())
		}
	})
	if sent != 299 || body != "hi" || !slices.Equal(hook.calls, []string{"release true"}) {
		t.Errorf("%d %q, hook was called with %q", sent, body, hook.calls)
	}
}

func TestResponseControllerReachesTheServer(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		_, _ = serve(t, http2, &spy{}, func(w *httpwriter.Writer, _ *http.Request) {
			c := http.NewResponseController(w)
			if err := errors.Join(c.SetReadDeadline(time.Now().Add(time.Minute)), c.SetWriteDeadline(time.Now().Add(time.Minute))); err != nil {
				t.Error(err)
			}
			if err := c.EnableFullDuplex(); err != nil && !http2 {
				t.Error(err)
			}
		})
	}
}

// bare is a writer that can do nothing else.
type bare struct {
	header http.Header
	body   bytes.Buffer
}

func (b *bare) Header() http.Header         { return b.header }
func (b *bare) WriteHeader(int)             {}
func (b *bare) Write(p []byte) (int, error) { return b.body.Write(p) }

func TestWhatTheInnerWriterCannotDoIsReported(t *testing.T) {
	inner := &bare{header: make(http.Header)}
	var w httpwriter.Writer
	w.Init(inner, nil)
	if _, _, err := w.Hijack(); !errors.Is(err, http.ErrNotSupported) || w.Hijacked() {
		t.Errorf("Hijack: %v", err)
	}
	if err := w.Push("/", nil); !errors.Is(err, http.ErrNotSupported) {
		t.Errorf("Push: %v", err)
	}
	if err := w.FlushError(); !errors.Is(err, http.ErrNotSupported) {
		t.Errorf("FlushError: %v", err)
	}
	if err := http.NewResponseController(&w).SetReadDeadline(time.Time{}); !errors.Is(err, http.ErrNotSupported) {
		t.Errorf("SetReadDeadline: %v", err)
	}
	select {
	case <-w.CloseNotify():
		t.Error("CloseNotify fired")
	default:
	}
	for _, hook := range []httpwriter.Hook{nil, &spy{}} {
		w.Init(inner, hook)
		inner.body.Reset()
		_, _ = w.WriteString("A")
		n, err := w.ReadFrom(strings.NewReader(strings.Repeat("B", 1000)))
		if n != 1000 || err != nil || inner.body.Len() != 1001 || w.Bytes() != 1001 {
			t.Errorf("ReadFrom: %d, %v, body of %d, %d counted", n, err, inner.body.Len(), w.Bytes())
		}
	}
}

// able is a writer whose abilities are behind another Unwrap.
type able struct{ *bare }

func (able) Push(string, *http.PushOptions) error { return errors.New("pushed") }
func (able) CloseNotify() <-chan bool {
	c := make(chan bool, 1)
	c <- true
	return c
}
func (able) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errors.New("taken") }

type hiding struct{ inner http.ResponseWriter }

func (h hiding) Header() http.Header         { return h.inner.Header() }
func (h hiding) WriteHeader(int)             {}
func (h hiding) Write(p []byte) (int, error) { return len(p), nil }
func (h hiding) Unwrap() http.ResponseWriter { return h.inner }

func TestAbilitiesAreFoundThroughUnwrap(t *testing.T) {
	var w httpwriter.Writer
	w.Init(hiding{able{&bare{header: make(http.Header)}}}, nil)
	if err := w.Push("/", nil); err == nil || err.Error() != "pushed" {
		t.Errorf("Push: %v", err)
	}
	if !<-w.CloseNotify() {
		t.Error("CloseNotify did not fire")
	}
	if _, _, err := w.Hijack(); err == nil || err.Error() != "taken" || w.Hijacked() {
		t.Errorf("Hijack: %v, hijacked %t", err, w.Hijacked())
	}
}

func TestImpossibleStatusIsNotTheStatus(t *testing.T) {
	_, _ = serve(t, false, nil, func(w *httpwriter.Writer, _ *http.Request) {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the server accepts the status")
				}
			}()
			w.WriteHeader(1000)
		}()
		if w.Status() != 0 {
			t.Errorf("status %d", w.Status())
		}
	})
}

// failing is a writer whose connection is gone.
type failing struct{ bare }

func (*failing) Write(p []byte) (int, error) { return len(p) / 2, context.Canceled }

func TestShortWritesAreCountedAndReported(t *testing.T) {
	for _, hook := range []httpwriter.Hook{nil, &spy{}} {
		var w httpwriter.Writer
		w.Init(&failing{bare{header: make(http.Header)}}, hook)
		if n, err := w.WriteString("abcd"); n != 2 || !errors.Is(err, context.Canceled) || w.Bytes() != 2 {
			t.Errorf("a short write: %d, %v, %d counted", n, err, w.Bytes())
		}
		if n, err := w.ReadFrom(strings.NewReader("abcd")); n != 2 || !errors.Is(err, context.Canceled) || w.Bytes() != 4 {
			t.Errorf("a short write: %d, %v, %d counted", n, err, w.Bytes())
		}
	}
}

func TestSwitchingProtocolsIsTheStatus(t *testing.T) {
	hook := &spy{}
	var w httpwriter.Writer
	w.Init(&bare{header: make(http.Header)}, hook)
	w.WriteHeader(http.StatusSwitchingProtocols)
	if w.Status() != 101 || !slices.Equal(hook.calls, []string{"head 101"}) {
		t.Errorf("status %d, hook was called with %q", w.Status(), hook.calls)
	}
}

// After Defer only the hook reaches the inner writer, even for what the handler writes
// twice, and what would need the connection fails.
func TestADeferredResponseReachesOnlyTheHook(t *testing.T) {
	inner := httptest.NewRecorder()
	hook := new(collecting)
	var w httpwriter.Writer
	w.Init(inner, hook)
	w.Defer()
	w.WriteHeader(103)
	w.WriteHeader(201)
	w.WriteHeader(500)
	if n, err := io.WriteString(&w, "abc"); n != 3 || err != nil {
		t.Errorf("WriteString: %d, %v", n, err)
	}
	if _, err := w.ReadFrom(strings.NewReader("def")); err != nil {
		t.Error(err)
	}
	if err := http.NewResponseController(&w).Flush(); !errors.Is(err, httpwriter.ErrDeferred) {
		t.Errorf("Flush: %v", err)
	}
	if _, _, err := w.Hijack(); !errors.Is(err, httpwriter.ErrDeferred) || w.Hijacked() {
		t.Errorf("Hijack: %v", err)
	}
	if want := []string{"head 201", "release false", "release true"}; !slices.Equal(hook.calls, want) || hook.String() != "abcdef" {
		t.Errorf("the hook got %q and %q", hook.calls, hook.String())
	}
	if w.Status() != 201 || w.LateError() != 500 || w.Bytes() != 6 {
		t.Errorf("status %d, late error %d, %d bytes", w.Status(), w.LateError(), w.Bytes())
	}
	if inner.Code != 200 || inner.Body.Len() > 0 || inner.Flushed {
		t.Errorf("the inner writer got %d %q", inner.Code, inner.Body)
	}
}

// A collecting hook keeps what is written.
type collecting struct {
	spy
	bytes.Buffer
}

func (c *collecting) Body(_ http.ResponseWriter, p []byte) (int, error) { return c.Write(p) }
