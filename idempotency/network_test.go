package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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

func dial(t *testing.T, s *httptest.Server) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return conn
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
