package idempotency_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// stalling is a body of which some bytes arrive, and then no more until the client closes
// it.
type stalling struct {
	io.Reader
	io.Closer
}

func newStalling(n int) stalling {
	r, _ := io.Pipe()
	return stalling{io.MultiReader(strings.NewReader(strings.Repeat("x", n)), r), r}
}

// A body of which nothing, a part or all but the end arrives is refused in time, by
// BodyTimeout or by an earlier deadline of the server. It holds no key.
func TestABodyThatStallsIsRefused(t *testing.T) {
	for _, limit := range []struct {
		name        string
		bodyTimeout time.Duration
		readTimeout time.Duration
	}{
		{"BodyTimeout", 50 * time.Millisecond, 0},
		{"BodyTimeout before ReadTimeout", 50 * time.Millisecond, time.Hour},
		{"ReadTimeout", 0, 200 * time.Millisecond},
	} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %t", limit.name, http2), func(t *testing.T) {
				t.Parallel()
				calls := new(counting)
				s := httptest.NewUnstartedServer(asAlice(newMiddleware(t, idempotency.Config{BodyTimeout: limit.bodyTimeout}).Wrap(calls)))
				s.Config.ReadTimeout = limit.readTimeout
				if s.EnableHTTP2 = http2; http2 {
					s.StartTLS()
				} else {
					s.Start()
				}
				t.Cleanup(s.Close)
				for _, c := range []struct{ length, n int }{{100, 0}, {100, 1}, {100, 50}, {-1, 0}, {-1, 50}} {
					r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, newStalling(c.n))
					if err != nil {
						t.Fatal(err)
					}
					r.ContentLength = int64(c.length)
					r.Header.Set("Idempotency-Key", "k")
					got := roundTrip(t, s, r)
					_ = r.Body.Close()
					if got.status != 408 || !strings.Contains(got.text, usher.CodeBodyTimeout) {
						t.Errorf("%d of %d bytes: got %d %s", c.n, c.length, got.status, got.text)
					}
				}
				calls.want(t, 0)
				if got := send(t, s, "k", strings.NewReader("quick")); got.status != 201 {
					t.Errorf("the retry got %d", got.status)
				}
			})
		}
	}
}

// The rest of a body that is too slow could be taken for the next request.
func TestTheConnectionOfABodyThatStallsIsClosed(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(asAlice(newMiddleware(t, idempotency.Config{BodyTimeout: 30 * time.Millisecond}).Wrap(new(counting))))
	t.Cleanup(s.Close)
	conn := dial(t, s)
	defer func() { _ = conn.Close() }()
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nIdempotency-Key: k\r\nContent-Length: 100\r\n\r\nhalf", s.Listener.Addr())
	text := bufio.NewReader(conn)
	resp, err := http.ReadResponse(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 408 || !resp.Close {
		t.Errorf("status %d, Connection: close %t", resp.StatusCode, resp.Close)
	}
	if rest, err := io.ReadAll(text); len(rest) > 0 || err != nil {
		t.Errorf("after the response: %q, %v; want the end", rest, err)
	}
}

// The server does not wait for the rest of a body that is too slow before it responds, and
// the client gets the response although it is still sending.
func TestTheRestOfASlowBodyIsLeftUnread(t *testing.T) {
	for _, c := range []struct {
		name  string
		body  io.Reader
		major int
		close string
	}{
		{"one byte a second", onlyReader{&everySecond{}}, 1, "close"},
		{"a deadline of the server", &failing{nil, os.ErrDeadlineExceeded}, 1, "close"},
		{"a limit of another middleware", &failing{nil, codedError(408)}, 1, "close"},
		{"a stream of HTTP/2, which ends alone", &failing{nil, os.ErrDeadlineExceeded}, 2, ""},
		{"a body that broke off", &failing{nil, io.ErrUnexpectedEOF}, 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newMiddleware(t, idempotency.Config{BodyTimeout: 5 * time.Second}).Wrap(new(counting))
				w := do(h, post("/", "", func(r *http.Request) {
					r.Body, r.ContentLength, r.ProtoMajor = io.NopCloser(c.body), 100, c.major
				}))
				if got := w.Header().Get("Connection"); w.Code < 400 || got != c.close {
					t.Errorf("%d, Connection %q, want %q", w.Code, got, c.close)
				}
			})
		})
	}
}

// everySecond is a body of which one byte arrives every second.
type everySecond struct{}

func (everySecond) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return copy(p[:1], "x"), nil
}

// BodyTimeout ends with the body: the handler may run for longer, and the connection
// serves the next request.
func TestABodyThatArrivesLeavesItsConnectionAlone(t *testing.T) {
	t.Parallel()
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		const limit = 300 * time.Millisecond
		calls := new(counting)
		calls.next = func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
				t.Error(context.Cause(r.Context()))
			case <-time.After(limit + limit/5):
			}
			w.WriteHeader(http.StatusCreated)
		}
		h := newMiddleware(t, idempotency.Config{BodyTimeout: limit}).Wrap(calls)
		s := serve(asAlice(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			if err := r.Context().Err(); err != nil {
				t.Errorf("the context of the request has ended before its response: %v", err)
			}
		})))
		for i := range 2 {
			if got := send(t, s, fmt.Sprint("k", i), strings.NewReader("body")); got.status != 201 {
				t.Errorf("request %d got %d", i, got.status)
			}
		}
	})
}

// A connWriter records the read deadlines that are set.
type connWriter struct {
	*httptest.ResponseRecorder
	set   []time.Time
	ended chan struct{}
	slow  time.Duration // how long a call takes
}

func (w *connWriter) SetReadDeadline(d time.Time) error {
	close(w.ended)
	time.Sleep(w.slow)
	w.set = append(w.set, d)
	return nil
}

// A wrapping is a writer around the server's.
type wrapping struct{ http.ResponseWriter }

func (w wrapping) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// The server, or an outer handler, may have set a deadline that cannot be restored.
func TestDeadlinesOfOthersStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newMiddleware(t, idempotency.Config{BodyTimeout: time.Second}).Wrap(new(counting))
		late := &connWriter{httptest.NewRecorder(), nil, make(chan struct{}), time.Second}
		h.ServeHTTP(wrapping{wrapping{late}}, post("/", "", func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(untilEnded(late.ended)), 100
		}))
		if late.Code != 408 || len(late.set) != 1 || !late.set[0].Before(time.Now()) {
			t.Errorf("a body that stalls: %d, deadlines %v; want one that has passed", late.Code, late.set)
		}
		inTime := &connWriter{httptest.NewRecorder(), nil, make(chan struct{}), time.Second}
		h.ServeHTTP(wrapping{inTime}, post("/", "body"))
		time.Sleep(time.Minute)
		if inTime.Code != 201 || len(inTime.set) != 0 {
			t.Errorf("a body in time: %d, deadlines %v; want none", inTime.Code, inTime.set)
		}
	})
}

// untilEnded is a body that stalls until its connection is given a deadline.
type untilEnded chan struct{}

func (u untilEnded) Read([]byte) (int, error) {
	<-u
	return 0, os.ErrDeadlineExceeded
}

// A body that ends at the very moment at which its time is up has used its connection up.
func TestABodyThatArrivesAsItsTimeIsUpIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := new(counting)
		h := newMiddleware(t, idempotency.Config{BodyTimeout: time.Second}).Wrap(calls)
		w := &connWriter{httptest.NewRecorder(), nil, make(chan struct{}), time.Second}
		h.ServeHTTP(w, post("/", "", func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(justTooLate(w.ended)), 4
		}))
		wantFailure(t, w.ResponseRecorder, 408, usher.CodeBodyTimeout)
		if len(w.set) != 1 {
			t.Error("the connection may be used after its handler has returned")
		}
		calls.want(t, 0)
	})
}

type justTooLate chan struct{}

func (j justTooLate) Read(p []byte) (int, error) {
	<-j
	return copy(p, "body"), io.EOF
}

// codedError has a status, as the errors of echo v5.
type codedError int

func (e codedError) Error() string   { return "secret" }
func (e codedError) StatusCode() int { return int(e) }

// timeoutError may be a timeout, as errors of connections.
type timeoutError bool

func (timeoutError) Error() string   { return "secret" }
func (e timeoutError) Timeout() bool { return bool(e) }

// What refuses a body while it is read determines the status, whatever it is: a limit, a
// decompressor, the server. What else it says is not for the client.
func TestAnErrorOfTheBodyKeepsItsStatus(t *testing.T) {
	own := &usher.Error{Status: 415, Code: "unknown_coding", Message: "Use gzip."}
	for _, c := range []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{"without a status", errors.New("secret"), 400, usher.CodeBodyUnreadable},
		{"a body that broke off", io.ErrUnexpectedEOF, 400, usher.CodeBodyUnreadable},
		{"a wrapped end, which is none", fmt.Errorf("secret: %w", io.EOF), 400, usher.CodeBodyUnreadable},
		{"of usher", own, 415, "unknown_coding"},
		{"of usher, wrapped", fmt.Errorf("secret: %w", own), 415, "unknown_coding"},
		{"a nil one of usher", (*usher.Error)(nil), 400, usher.CodeBodyUnreadable},
		{"of net/http", fmt.Errorf("secret: %w", &http.MaxBytesError{Limit: 1}), 413, usher.CodePayloadTooLarge},
		{"413", codedError(413), 413, usher.CodePayloadTooLarge},
		{"413, wrapped", fmt.Errorf("secret: %w", codedError(413)), 413, usher.CodePayloadTooLarge},
		{"408", codedError(408), 408, usher.CodeBodyTimeout},
		{"400", codedError(400), 400, usher.CodeBodyUnreadable},
		{"415", codedError(415), 415, ""},
		{"502", codedError(502), 502, ""},
		{"a status that is none of an error", codedError(200), 400, usher.CodeBodyUnreadable},
		{"no status at all", codedError(0), 400, usher.CodeBodyUnreadable},
		{"beyond all statuses", codedError(600), 400, usher.CodeBodyUnreadable},
		{"a timeout", timeoutError(true), 408, usher.CodeBodyTimeout},
		{"a timeout of the system", fmt.Errorf("secret: %w", os.ErrDeadlineExceeded), 408, usher.CodeBodyTimeout},
		{"no timeout", timeoutError(false), 400, usher.CodeBodyUnreadable},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := new(counting)
			h := newMiddleware(t, idempotency.Config{}).Wrap(calls)
			w := do(h, post("/", "", func(r *http.Request) {
				r.Body, r.ContentLength = io.NopCloser(&failing{[]byte("half"), c.err}), -1
			}))
			wantFailure(t, w, c.status, c.code)
			if bytes.Contains(w.Body.Bytes(), []byte("secret")) {
				t.Errorf("the cause is shown: %s", w.Body)
			}
			calls.want(t, 0)
			if w := do(h, post("/", "whole")); w.Code != 201 {
				t.Errorf("the retry got %d", w.Code)
			}
		})
	}
}

// failing is a body that fails after rest.
type failing struct {
	rest []byte
	err  error
}

func (f *failing) Read(p []byte) (int, error) {
	if n := copy(p, f.rest); n > 0 {
		f.rest = f.rest[n:]
		return n, nil
	}
	return 0, f.err
}
