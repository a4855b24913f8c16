package idempotency_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// P08: 103 and a stream reach the first client at once.
func TestInformationalResponsesAndStreamsPass(t *testing.T) {
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		seen := make(chan bool)
		s := serve(asAlice(newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: 1\n\n")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-seen
			fmt.Fprint(w, "data: 2\n\n")
		}))))
		hints := 0
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			if code == http.StatusEarlyHints {
				hints++
			}
			return nil
		}})
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Idempotency-Key", "k")
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		lines := bufio.NewReader(resp.Body)
		if line, err := lines.ReadString('\n'); line != "data: 1\n" || err != nil {
			t.Errorf("the first event is %q, %v", line, err)
		}
		// The key is spent before the stream has ended.
		if got := send(t, s, "k", http.NoBody); got.status != 409 || !strings.Contains(got.text, usher.CodeIdempotencyResponseNotKept) {
			t.Errorf("a retry got %d %s", got.status, got.text)
		}
		close(seen)
		if rest, err := io.ReadAll(lines); string(rest) != "\ndata: 2\n\n" || err != nil || hints != 1 {
			t.Errorf("the rest is %q, %v; %d early hints", rest, err, hints)
		}
	})
}

// T10: a client that disconnects at any point leaves either nothing or a whole record.
func TestAClientThatDisconnectsAtAnyPoint(t *testing.T) {
	const size = 8 << 10
	body := strings.Repeat("b", size)
	calls := new(counting)
	calls.next = func(w http.ResponseWriter, r *http.Request) {
		got, err := io.ReadAll(r.Body)
		if err != nil || string(got) != body {
			t.Errorf("the handler got %d bytes, %v", len(got), err)
		}
		_, _ = io.WriteString(w, strings.Repeat("a", size))
	}
	done := make(chan struct{}, 1)
	once := newMiddleware(t, idempotency.Config{}).Wrap(calls)
	s := httptest.NewServer(asAlice(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			select {
			case done <- struct{}{}:
			default:
			}
		}()
		once.ServeHTTP(w, r)
	})))
	t.Cleanup(s.Close)
	wantRetried := func(what, key string, executions int64) {
		t.Helper()
		got := send(t, s, key, strings.NewReader(body))
		if got.status != 200 || len(got.text) != size {
			t.Errorf("%s: the retry got %d and %d bytes", what, got.status, len(got.text))
		}
		if n := calls.n.Swap(0); n != executions {
			t.Errorf("%s: %d executions, want %d", what, n, executions)
		}
	}
	request := func(key string) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s\r\nIdempotency-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
			s.Listener.Addr(), key, size, body)
	}
	for at := 0; at < size; at += 1 << 10 {
		key := fmt.Sprint("request-", at)
		text := request(key)
		conn := dial(t, s)
		fmt.Fprint(conn, text[:len(text)-size+at])
		_ = conn.Close()
		<-done
		wantRetried(fmt.Sprint("disconnected after ", at, " bytes of the request"), key, 1)
		<-done
	}
	for at := 0; at <= size; at += 1 << 10 {
		key := fmt.Sprint("response-", at)
		conn := dial(t, s)
		fmt.Fprint(conn, request(key))
		if _, err := io.CopyN(io.Discard, conn, int64(at)); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		<-done
		wantRetried(fmt.Sprint("disconnected after ", at, " bytes of the response"), key, 1)
		<-done
	}
}

// T10 for HTTP/2, where the client resets the stream.
func TestAClientThatResetsItsStream(t *testing.T) {
	calls := new(counting)
	entered, gone, returned := make(chan struct{}), make(chan struct{}), make(chan struct{})
	calls.next = func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-gone
		if err := r.Context().Err(); err != nil {
			t.Errorf("the work ended with its client: %v", err)
		}
		w.WriteHeader(201)
		fmt.Fprint(w, "done")
	}
	once := newMiddleware(t, idempotency.Config{}).Wrap(calls)
	s := httptest.NewUnstartedServer(asAlice(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Retry") == "" {
			stop := context.AfterFunc(r.Context(), func() { close(gone) })
			defer stop()
		}
		once.ServeHTTP(w, r)
		if calls.n.Load() == 1 && r.Header.Get("Retry") == "" {
			close(returned)
		}
	})))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-entered
		cancel()
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", "k")
	if resp, err := s.Client().Do(r); err == nil {
		_ = resp.Body.Close()
		t.Fatal("the client has got a response")
	}
	<-returned
	retry, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	retry.Header.Set("Idempotency-Key", "k")
	retry.Header.Set("Retry", "1")
	got := roundTrip(t, s, retry)
	if got.status != 201 || got.text != "done" || !got.replayed() {
		t.Errorf("the retry got %d %s", got.status, got.text)
	}
	calls.want(t, 1)
}

// A response that breaks off is never replayed as a whole one.
func TestACutResponseIsNotReplayed(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half of it")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(upstream.Close)
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		for _, c := range []struct {
			name    string
			handler http.HandlerFunc
			whole   bool // for the first client
			retry   string
		}{
			{"an upstream that breaks off", func(w http.ResponseWriter, r *http.Request) {
				req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, upstream.URL, r.Body)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := upstream.Client().Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = resp.Body.Close() }()
				w.Header()["Content-Length"] = resp.Header["Content-Length"]
				w.WriteHeader(resp.StatusCode)
				_, _ = io.Copy(w, resp.Body)
			}, false, unknown},
			{"a length and no body", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "9")
				w.WriteHeader(http.StatusOK)
			}, false, unknown},
			{"a body that is too long at once", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "5")
				if n, err := fmt.Fprint(w, "123456"); n != 0 || !errors.Is(err, http.ErrContentLength) {
					t.Errorf("%d bytes were taken, %v", n, err)
				}
			}, false, unknown},
			{"a body that goes on for too long", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "5")
				for _, piece := range []string{"123", "45", "6"} {
					fmt.Fprint(w, piece)
				}
			}, true, unknown},
			{"a body as long as declared", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "5")
				fmt.Fprint(w, "12345")
			}, true, replays},
		} {
			t.Run(c.name, func(t *testing.T) {
				calls := &counting{next: c.handler}
				s := serve(asAlice(newMiddleware(t, idempotency.Config{}).Wrap(calls)))
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader("body"))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Idempotency-Key", "k")
				resp, err := s.Client().Do(r)
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					_ = resp.Body.Close()
				}
				if (err == nil) != c.whole {
					t.Errorf("the first client has %v", err)
				}
				wantRetried(t, s, calls, c.retry)
			})
		}
	})
}

// Whatever a handler calls on its Execution, the outcome depends only on its response and
// on SetOutcome.
func TestAHandlerCannotReachTheHooksOfItsResponseWriter(t *testing.T) {
	for name, call := range map[string]func(any){
		"Release": func(e any) {
			if e, ok := e.(interface{ Release(hijacked bool) }); ok {
				e.Release(false)
			}
		},
		"Head": func(e any) {
			if e, ok := e.(interface{ Head(status int) }); ok {
				e.Head(http.StatusOK)
			}
		},
		"Body": func(e any) {
			if e, ok := e.(interface {
				Body(inner http.ResponseWriter, p []byte) (int, error)
			}); ok {
				_, _ = e.Body(httptest.NewRecorder(), []byte("lost"))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			calls := new(counting)
			calls.next = func(w http.ResponseWriter, r *http.Request) {
				call(idempotency.From(r.Context()))
				if calls.n.Load() == 1 {
					http.Error(w, "try again", http.StatusServiceUnavailable)
					return
				}
				fmt.Fprint(w, "done")
			}
			s := httptest.NewServer(asAlice(newMiddleware(t, idempotency.Config{}).Wrap(calls)))
			t.Cleanup(s.Close)
			if first := send(t, s, "k", nil); first.status != 503 || first.text != "try again\n" {
				t.Errorf("the first request got %d %q", first.status, first.text)
			}
			if again := send(t, s, "k", nil); again.status != 200 || again.text != "done" {
				t.Errorf("the retry got %d %q, want a second execution", again.status, again.text)
			}
		})
	}
}
