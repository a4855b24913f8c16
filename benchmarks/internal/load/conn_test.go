package load_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/benchmarks/internal/load"
)

const raw = "POST /notes HTTP/1.1\r\nHost: test\r\nIdempotency-Key: 0000000000000000\r\nContent-Length: 4\r\n\r\nnote"

// connect returns n connections to a server of h that send want.
func connect(t *testing.T, n int, want load.Request, h http.HandlerFunc) []load.Sender {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	senders := make([]load.Sender, n)
	for i := range senders {
		conn, err := load.Dial(t.Context(), server.Listener.Addr().String(), want)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		senders[i] = conn
	}
	return senders
}

func TestConnSendsAFreshKeyEachTimeOverOneConnection(t *testing.T) {
	var mu sync.Mutex
	keys, clients := map[string]int{}, map[string]int{}
	senders := connect(t, 1, load.Request{Raw: []byte(raw), Fresh: "0000000000000000", Status: 201}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		keys[r.Header.Get("Idempotency-Key")+string(body)]++
		clients[r.RemoteAddr]++
		w.WriteHeader(201)
	})
	for range 10 {
		if err := senders[0].Send(); err != nil {
			t.Fatal(err)
		}
	}
	if len(keys) != 10 || len(clients) != 1 {
		t.Errorf("%d keys and bodies over %d connections, want 10 over 1: %v", len(keys), len(clients), keys)
	}
	for key := range keys {
		if len(key) != len("0000000000000000note") || !strings.HasSuffix(key, "note") {
			t.Errorf("key and body %q", key)
		}
	}
}

func TestConnReportsAWrongResponse(t *testing.T) {
	wrong := errors.New("wrong body")
	body := func(b []byte) error {
		if string(b) != "right" {
			return wrong
		}
		return nil
	}
	for name, tt := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"none":   {200, "right", ""},
		"status": {429, "right", "load: status 429, want 200"},
		"body":   {200, "left", wrong.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			senders := connect(t, 1, load.Request{Raw: []byte(raw), Status: 200, Body: body}, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			err := senders[0].Send()
			if got := text(err); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	if _, err := load.Dial(t.Context(), "127.0.0.1:1", load.Request{Raw: []byte(raw), Fresh: "1"}); err == nil {
		t.Error("no error although the fresh part is not in the request")
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// The handler counts what arrives: as much as was due, although it holds all of it up
// for a while in the middle.
func TestOpenOverTheLoopback(t *testing.T) {
	const total = 400
	stall := make(chan struct{})
	var mu sync.Mutex
	n := 0
	senders := connect(t, 4, load.Request{Raw: []byte(raw), Status: 200}, func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n == total/2 {
			time.AfterFunc(200*time.Millisecond, func() { close(stall) })
			<-stall
		}
	})
	r := load.Open(t.Context(), senders, 1000, total, load.Pause)
	if n != total || r.Sent != total || r.Failed != 0 {
		t.Errorf("%d arrived, %d sent, %d failed (%v); want %d without failure", n, r.Sent, r.Failed, r.Err, total)
	}
	if p := time.Duration(r.Latency.ValueAtPercentile(99.9)); p < 190*time.Millisecond {
		t.Errorf("p99.9 %v hides a stall of 200 ms", p)
	}
	// The stall kept 200 requests waiting, not only the one that it met.
	if p := time.Duration(r.Latency.ValueAtPercentile(75)); p < 50*time.Millisecond {
		t.Errorf("p75 %v: the requests that waited were not counted", p)
	}
}
