package idempotency_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/race"
)

// sink is a response writer that costs nothing.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(int)             {}

// bench sends requests with a body of size bytes to a handler that
// responds with as many.
type bench struct {
	handler http.Handler
	request *http.Request
	body    io.ReadCloser
	reader  *bytes.Reader
	content []byte
	writer  sink
	n       int
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

func newBench(tb testing.TB, size int, bare bool) *bench {
	tb.Helper()
	b := &bench{content: bytes.Repeat([]byte("x"), size), writer: sink{http.Header{}}}
	response := bytes.Clone(b.content)
	buf := make([]byte, 4096)
	b.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := r.Body.Read(buf); err != nil {
				break
			}
		}
		w.Header()["Content-Type"] = []string{"application/json"}
		_, _ = w.Write(response)
	})
	if !bare {
		store := newMemory(tb, idempotency.MemoryConfig{MaxBytes: 32 << 30})
		b.handler = newMiddleware(tb, idempotency.Config{Store: store}).Wrap(b.handler)
	}
	b.reader = bytes.NewReader(b.content)
	b.body = readCloser{b.reader}
	// An outer authentication has made the one copy of the request.
	b.request = usher.WithPrincipal(post("/orders", "", anonymous), alice)
	b.request.ContentLength = int64(size)
	return b
}

func (b *bench) do(key []string) {
	clear(b.writer.header)
	b.reader.Reset(b.content)
	b.request.Body = b.body
	b.request.Header["Idempotency-Key"] = key
	b.handler.ServeHTTP(&b.writer, b.request)
}

func (b *bench) first() {
	b.n++
	b.do([]string{strconv.Itoa(b.n)})
}

func TestAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations are not exact under the race detector")
	}
	again := []string{"again"}
	get := newBench(t, 100, false)
	get.request.Method = http.MethodGet
	noKey := newBench(t, 100, false)
	replay, large := newBench(t, 100, false), newBench(t, 16<<10, false)
	first, bare := newBench(t, 100, false), newBench(t, 100, true)
	for _, c := range []struct {
		name string
		run  func()
		most float64
	}{
		{"the bare handler", func() { bare.do(again) }, 1},
		{"a method that does not count", func() { get.do(again) }, 1},
		{"a request without a key", func() { noKey.do(nil) }, 1},
		{"a replay", func() { replay.do(again) }, 2},
		{"a replay of 16 KiB", func() { large.do(again) }, 4},
		{"a first request, handler and store included", first.first, 5},
	} {
		c.run()
		if n := testing.AllocsPerRun(200, c.run); n > c.most {
			t.Errorf("%s: %v allocations, want at most %v", c.name, n, c.most)
		} else {
			t.Logf("%s: %v", c.name, n)
		}
	}
}

func BenchmarkMiddleware(b *testing.B) {
	for _, size := range []int{100, 16 << 10} {
		b.Run(fmt.Sprintf("bare/%d", size), func(b *testing.B) {
			x := newBench(b, size, true)
			b.ReportAllocs()
			for b.Loop() {
				x.first()
			}
		})
		b.Run(fmt.Sprintf("first/%d", size), func(b *testing.B) {
			x := newBench(b, size, false)
			b.ReportAllocs()
			for b.Loop() {
				// Storing everything forever would measure the garbage collector.
				if x.n%10_000 == 9_999 {
					b.StopTimer()
					n := x.n
					x = newBench(b, size, false)
					x.n = n
					b.StartTimer()
				}
				x.first()
			}
		})
		b.Run(fmt.Sprintf("replay/%d", size), func(b *testing.B) {
			x := newBench(b, size, false)
			key := []string{"again"}
			x.do(key)
			b.ReportAllocs()
			for b.Loop() {
				x.do(key)
			}
		})
	}
	b.Run("without a key", func(b *testing.B) {
		x := newBench(b, 100, false)
		b.ReportAllocs()
		for b.Loop() {
			x.do(nil)
		}
	})
	b.Run("conflict", func(b *testing.B) {
		store := newMemory(b, idempotency.MemoryConfig{})
		entered, leave := make(chan struct{}), make(chan struct{})
		h := newMiddleware(b, idempotency.Config{Store: store, Wait: idempotency.NoWait}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(entered)
			<-leave
		}))
		go do(h, post("/", strings.Repeat("x", 100)))
		<-entered
		defer close(leave)
		w := sink{http.Header{}}
		r := post("/", "")
		b.ReportAllocs()
		for b.Loop() {
			clear(w.header)
			r.Body = io.NopCloser(strings.NewReader(strings.Repeat("x", 100)))
			h.ServeHTTP(&w, r)
		}
	})
}
