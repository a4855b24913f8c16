package idempotency_test

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A client that stops at any byte of its request runs nothing, and the key is free for a
// complete one.
func TestAClientThatStopsAtAnyByteRunsNothing(t *testing.T) {
	calls := new(counting)
	memory := newMemory(t, idempotency.MemoryConfig{})
	h := newMiddleware(t, idempotency.Config{Store: memory, BodyTimeout: 100 * time.Millisecond, DangerouslyAllowAnonymous: true}).Wrap(calls)
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	defer s.Close()
	for form, body := range map[string]string{
		"length":  "Content-Length: 20\r\n\r\n0123456789abcdefghij",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n",
		"expect":  "Expect: 100-continue\r\nContent-Length: 20\r\n\r\n0123456789abcdefghij",
	} {
		request := func(key string) string {
			return "POST / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: " + key + "\r\n" + body
		}
		send := func(request string, closing bool) (response string) {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, _ = io.WriteString(conn, request)
			if closing {
				_ = conn.(*net.TCPConn).CloseWrite()
			}
			_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
			r := bufio.NewReader(conn)
			for {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					return err.Error()
				}
				_ = resp.Body.Close()
				if resp.StatusCode == 100 {
					continue
				}
				return fmt.Sprint(resp.StatusCode, " close ", resp.Close)
			}
		}
		whole := request(form)
		head := strings.Index(whole, "\r\n\r\n") + 4
		before := calls.n.Load()
		var all sync.WaitGroup
		for at := head; at < len(whole); at++ {
			for _, closing := range []bool{true, false} {
				all.Go(func() {
					got := send(whole[:at], closing)
					if closing && !strings.HasPrefix(got, "400") && !strings.Contains(got, "EOF") || !closing && got != "408 close true" {
						t.Errorf("%s, cut at %d of %d, closing %v: %s", form, at, len(whole), closing, got)
					}
				})
			}
		}
		all.Wait()
		if n := calls.n.Load(); n != before {
			t.Errorf("%s: %d incomplete requests ran", form, n-before)
		}
		if got := send(whole, false); got != "201 close false" {
			t.Errorf("%s: the complete request got %s", form, got)
		}
	}
}

// A stream of HTTP/2 that stalls ends alone: the others of its connection go on.
func TestAStreamThatStallsLeavesTheConnectionAlone(t *testing.T) {
	calls := new(counting)
	h := newMiddleware(t, idempotency.Config{BodyTimeout: 100 * time.Millisecond}).Wrap(calls)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, usher.WithPrincipal(r, alice))
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	send := func(key string, body io.Reader) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
		if err != nil {
			t.Error(err)
			return 0
		}
		r.Header.Set("Idempotency-Key", key)
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Error(err)
			return 0
		}
		defer func() { _ = resp.Body.Close() }()
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.ProtoMajor != 2 {
			t.Error(resp.Proto)
		}
		return resp.StatusCode
	}
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			r, w := io.Pipe()
			defer func() { _ = w.Close() }()
			go func() { _, _ = io.WriteString(w, strings.Repeat("x", i)) }()
			if got := send(fmt.Sprint(i), r); got != 408 {
				t.Errorf("a stalled stream got %d", got)
			}
			if got := send(fmt.Sprint(i), strings.NewReader("x")); got != 201 {
				t.Errorf("the complete request got %d", got)
			}
		})
	}
	all.Wait()
	calls.want(t, 50)
}
