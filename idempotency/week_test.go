package idempotency_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/race"
)

// statusSink is a response writer that keeps the status only.
type statusSink struct {
	header http.Header
	status int
}

func (s *statusSink) Header() http.Header         { return s.header }
func (s *statusSink) Write(p []byte) (int, error) { return len(p), nil }
func (s *statusSink) WriteHeader(status int)      { s.status = status }

// The zero Config lasts: with 5 requests a second for a week nobody is refused, and all fits
// into 192 MiB. Small responses are replayed for 24 hours, larger ones for as long as there
// is room.
func TestAWeekOfRequests(t *testing.T) {
	for _, c := range []struct {
		callers, bytes int
		replayed       time.Duration // so long
		// Of a short test: until records expire, or are evicted.
		hours     int
		perSecond int
	}{
		{1, 100, 24 * time.Hour, 25, 1},
		{100, 100, 24 * time.Hour, 1, 5},
		{1, 4000, time.Hour, 3, 5},
		{100, 4000, 90 * time.Minute, 3, 5},
	} {
		if soak {
			c.hours, c.perSecond = 7*24, 5
		} else if race.Enabled && c.bytes == 100 {
			c.hours = 1
		}
		perSecond := c.perSecond
		length := time.Duration(c.hours) * time.Hour
		t.Run(fmt.Sprintf("%d callers, %d bytes", c.callers, c.bytes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := bytes.Repeat([]byte("x"), c.bytes)
				runs := 0
				before := heap()
				evictions := 0
				h := newMiddleware(t, idempotency.Config{OnError: func(_ context.Context, err error) {
					if evictions++; c.bytes == 100 {
						t.Errorf("after %d requests: %v", runs, err)
					}
				}}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					runs++
					w.Header()["Content-Type"] = []string{"application/json"}
					w.WriteHeader(http.StatusCreated)
					_, _ = w.Write(body)
				}))
				requests := make([]*http.Request, c.callers)
				for i := range requests {
					requests[i] = usher.WithPrincipal(post("/orders", "", anonymous), &usher.Principal{ID: strconv.Itoa(i)})
				}
				w := &statusSink{header: make(http.Header)}
				do := func(n int) int {
					clear(w.header)
					r := requests[n%len(requests)]
					r.Body = io.NopCloser(bytes.NewReader(body[:100]))
					r.Header["Idempotency-Key"] = []string{strconv.Itoa(n)}
					h.ServeHTTP(w, r)
					return w.status
				}
				total := int(length/time.Second) * perSecond
				for n := range total {
					if status := do(n); status != http.StatusCreated {
						t.Fatalf("request %d gets %d", n, status)
					}
					if n%perSecond == 0 {
						time.Sleep(time.Second)
					}
					if n%(total/4) == total/4-1 && !race.Enabled {
						if took := heap() - before; took > 192<<20 {
							t.Fatalf("after %d requests, %d bytes are in use", n, took)
						}
					}
				}
				if runs != total {
					t.Errorf("%d of %d ran", runs, total)
				}
				// A retry, long after its request.
				for _, ago := range []time.Duration{0, time.Minute, 30 * time.Minute, c.replayed - time.Minute} {
					n := total - 1 - int(ago/time.Second)*perSecond
					if n < 0 {
						continue
					}
					if status := do(n); status != http.StatusCreated || w.header.Get("Idempotency-Replayed") != "true" {
						t.Errorf("after %v, a retry gets %d", ago, status)
					}
				}
				if (evictions == 0) != (c.bytes == 100) {
					t.Errorf("%d evictions are reported", evictions)
				}
				if runs != total {
					t.Errorf("%d retries ran", runs-total)
				}
			})
		})
	}
}
