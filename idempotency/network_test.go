package idempotency_test

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
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// forProtocols runs f with servers of both protocols.
func forProtocols(t *testing.T, f func(t *testing.T, serve func(http.Handler) *httptest.Server)) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(protocol, func(t *testing.T) {
			f(t, func(h http.Handler) *httptest.Server {
				s := httptest.NewUnstartedServer(h)
				if protocol == "HTTP/2" {
					s.EnableHTTP2 = true
					s.StartTLS()
				} else {
					s.Start()
				}
				t.Cleanup(s.Close)
				return s
			})
		})
	}
}

// asAlice authenticates every request as alice.
func asAlice(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, usher.WithPrincipal(r, alice))
	})
}

// A reply is what a client got.
type reply struct {
	status int
	header http.Header
	text   string
}

func (r reply) replayed() bool { return r.header.Get("Idempotency-Replayed") == "true" }

// send posts body with the key.
func send(t *testing.T, s *httptest.Server, key string, body io.Reader) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", key)
	return roundTrip(t, s, r)
}

func roundTrip(t *testing.T, s *httptest.Server, r *http.Request) reply {
	t.Helper()
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(text)}
}

// P10: a body reaches the handler as it was sent, however it was sent.
func TestBodiesArriveByteForByte(t *testing.T) {
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		var got []byte
		var length int64
		s := serve(asAlice(newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var err error
			if got, err = io.ReadAll(r.Body); err != nil {
				t.Error(err)
			}
			length = r.ContentLength
			if n, err := r.Body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("after the end: %d, %v", n, err)
			}
			w.WriteHeader(201)
		}))))
		for _, n := range []int{0, 1, 511, 512, 513, 4096, 65_535, 65_536, 65_537, 1 << 20} {
			body := make([]byte, n)
			for i := range body {
				body[i] = byte(i * 7)
			}
			for name, reader := range map[string]io.Reader{
				"with a length": bytes.NewReader(body),
				"in chunks":     onlyReader{bytes.NewReader(body)},
				"in small ones": onlyReader{&pieces{rest: body, size: 1 + n/9}},
			} {
				got = nil
				key := fmt.Sprint(strings.ReplaceAll(name, " ", "-"), n)
				if first := send(t, s, key, reader); first.status != 201 || !bytes.Equal(got, body) {
					t.Errorf("%d bytes %s: status %d, %d bytes arrived", n, name, first.status, len(got))
				}
				if strings.HasPrefix(name, "with") && length != int64(n) {
					t.Errorf("%d bytes %s: ContentLength %d", n, name, length)
				}
				// A retry is the same request, however it is sent.
				if again := send(t, s, key, bytes.NewReader(body)); !again.replayed() {
					t.Errorf("%d bytes %s: the retry got %d", n, name, again.status)
				}
			}
		}
	})
}

type onlyReader struct{ io.Reader }

// pieces returns few bytes at a time.
type pieces struct {
	rest []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.size)], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// P10: a body above the cap is refused before it is read.
func TestABodyAboveTheCapIsRefused(t *testing.T) {
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		calls := new(counting)
		s := serve(asAlice(newMiddleware(t, idempotency.Config{MaxBody: 1000}).Wrap(calls)))
		if got := send(t, s, "fits", strings.NewReader(strings.Repeat("x", 1000))); got.status != 201 {
			t.Errorf("1000 bytes: %d", got.status)
		}
		for name, body := range map[string]io.Reader{
			"announced": strings.NewReader(strings.Repeat("x", 1001)),
			"chunked":   onlyReader{strings.NewReader(strings.Repeat("x", 1001))},
		} {
			got := send(t, s, name, body)
			if got.status != 413 || !strings.Contains(got.text, usher.CodePayloadTooLarge) {
				t.Errorf("%s: %d %s", name, got.status, got.text)
			}
		}
		calls.want(t, 1)
	})
}

// endless is a body that counts what was read of it.
type endless struct{ read atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.read.Add(int64(len(p)))
	return len(p), nil
}
func (e *endless) Close() error { return nil }

func TestAGigabyteIsNotRead(t *testing.T) {
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
	for _, length := range []int64{1 << 30, -1} {
		body := new(endless)
		w := do(h, post("/", "", func(r *http.Request) { r.Body, r.ContentLength = body, length }))
		wantFailure(t, w, 413, usher.CodePayloadTooLarge)
		if n := body.read.Load(); n > 4<<20 || length > 0 && n > 0 {
			t.Errorf("length %d: %d bytes were read", length, n)
		}
	}
	calls.want(t, 0)
}

func TestAnOuterLimitIsA413(t *testing.T) {
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
	w := httptest.NewRecorder()
	r := post("/", strings.Repeat("x", 100))
	r.Body = http.MaxBytesReader(w, r.Body, 10)
	h.ServeHTTP(w, r)
	wantFailure(t, w, 413, usher.CodePayloadTooLarge)
	calls.want(t, 0)
}

// P10: 1 byte a second.
func TestASlowBodyIsRefusedAndHoldsNoKey(t *testing.T) {
	calls := new(counting)
	s := httptest.NewServer(asAlice(newMiddleware(t, idempotency.Config{BodyTimeout: 30 * time.Millisecond}).Wrap(calls)))
	t.Cleanup(s.Close)
	slow, w := io.Pipe()
	go func() {
		for range 100 {
			if _, err := w.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	// The client closes the pipe once it has the response.
	got := send(t, s, "k", slow)
	if got.status != 408 || !strings.Contains(got.text, usher.CodeBodyTimeout) {
		t.Errorf("got %d %s", got.status, got.text)
	}
	calls.want(t, 0)
	if got := send(t, s, "k", strings.NewReader("quick")); got.status != 201 {
		t.Errorf("the retry got %d", got.status)
	}
}

func TestABodyThatBreaksOffIsRefused(t *testing.T) {
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
	broken := io.MultiReader(strings.NewReader("half"), errReader{})
	w := do(h, post("/", "", func(r *http.Request) { r.Body = io.NopCloser(broken) }))
	wantFailure(t, w, 400, usher.CodeBodyUnreadable)
	if strings.Contains(w.Body.String(), "secret") {
		t.Errorf("the cause is shown: %s", w.Body)
	}
	calls.want(t, 0)
	if w := do(h, post("/", "whole")); w.Code != 201 {
		t.Errorf("the retry got %d", w.Code)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("secret") }

func TestExpectContinue(t *testing.T) {
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		calls := new(counting)
		s := serve(asAlice(newMiddleware(t, idempotency.Config{MaxBody: 1000}).Wrap(calls)))
		s.Client().Transport.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
		for _, c := range []struct {
			name      string
			keys      []string
			length    int
			status    int
			continued bool
		}{
			{"a valid request gets 100 Continue", []string{"k"}, 1000, 201, true},
			{"a retry too, as its body is compared", []string{"k"}, 1000, 201, true},
			{"a bad key is refused before the body", []string{"a", "b"}, 1000, 400, false},
			{"a large body is refused before it is sent", []string{"l"}, 1001, 413, false},
		} {
			continued := false
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { continued = true }})
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, strings.NewReader(strings.Repeat("x", c.length)))
			if err != nil {
				t.Fatal(err)
			}
			r.Header["Idempotency-Key"] = c.keys
			r.Header.Set("Expect", "100-continue")
			got := roundTrip(t, s, r)
			if got.status != c.status || continued != c.continued {
				t.Errorf("%s: status %d, continued %v", c.name, got.status, continued)
			}
		}
		calls.want(t, 1)
	})
}

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

func dial(t *testing.T, s *httptest.Server) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return conn
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

// The server removes the temporary files of a form only from its own request, with or
// without an outer middleware of this module, with a claim or without one.
func TestFormsAreHandedBack(t *testing.T) {
	const form = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\nfile\r\n--b--\r\n"
	for _, c := range []struct {
		name   string
		caller func(*http.Request)
		fails  bool // the store fails
	}{
		{"inside another middleware", as(alice), false},
		{"as the outermost", anonymous, false},
		{"while the store fails", as(alice), true},
		{"as the outermost, while the store fails", anonymous, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := newHookedStore(t)
			if c.fails {
				store.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
					return idempotency.Record{}, errors.New("down")
				}
			}
			h := newMiddleware(t, idempotency.Config{
				Store: store, DangerouslyAllowAnonymous: true, DangerouslyFailOpen: true, OnError: func(context.Context, error) {},
			}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if err := r.ParseMultipartForm(1); err != nil {
					t.Error(err)
				}
			}))
			r := post("/", form, c.caller, func(r *http.Request) { r.Header.Set("Content-Type", "multipart/form-data; boundary=b") })
			do(h, r)
			if r.MultipartForm == nil {
				t.Fatal("the form is lost")
			}
			_ = r.MultipartForm.RemoveAll()
		})
	}
}

// Bodies of all sizes arrive as they were sent, whether their length is announced or not,
// even at the sizes of buffers.
func TestBodiesOfAllSizesArrive(t *testing.T) {
	var got []byte
	h := newMiddleware(t, idempotency.Config{MaxBody: 4 << 20}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
	}))
	for _, announced := range []bool{true, false} {
		for _, near := range []int{512, 4 << 10, 64 << 10, 128 << 10, 1 << 20, 3 << 20} {
			for size := near - 1; size <= near+1; size++ {
				sent := strings.Repeat("x", size-1) + "y"
				r := post("/", sent, key(fmt.Sprintf("%d-%t", size, announced)))
				if !announced {
					r.ContentLength = -1
				}
				if w := do(h, r); w.Code != http.StatusOK || string(got) != sent {
					t.Fatalf("%d bytes, announced %t: %d, %d bytes arrived", size, announced, w.Code, len(got))
				}
			}
		}
	}
}

// A buffer doubles, and grows beyond what is announced only by the byte that shows the
// end.
func TestRoomForABody(t *testing.T) {
	for _, c := range []struct {
		have, announced int64
		want            int
	}{
		{0, -1, 512}, {100, -1, 512}, {4096, -1, 4096},
		{0, 10, 11}, {4096, 5000, 905}, {4096, 1 << 20, 4096}, {5000, 5000, 1},
		{5000, 10, 5000}, // more came than was announced
	} {
		if got := idempotency.Room(c.have, c.announced); got != c.want {
			t.Errorf("room for %d after %d: %d, want %d", c.announced, c.have, got, c.want)
		}
	}
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
