package nodes

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// endings pauses the server while requests end, so no response can have waited for it.
func endings(t *testing.T, s Server) {
	for _, c := range []struct {
		name    string
		timeout time.Duration // of the node
		pause   time.Duration // after all responses
	}{
		{"shorter than the timeout", patience, 0},
		{"longer than the timeout", 500 * time.Millisecond, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) { pausedEndings(t, s, c.timeout, c.pause) })
	}
}

func pausedEndings(t *testing.T, s Server, timeout, pause time.Duration) {
	const running = 64
	places := counts(unique("places"), ratelimit.Concurrency(running))
	charged := counts(unique("charged"), ratelimit.RollingWindow(1000, time.Hour))
	charged.Count = func(status int) bool { return status == http.StatusOK }
	reserved := counts(unique("reserved"), ratelimit.TokenBucket(1, 24*time.Hour, 1000))
	reserved.Settle = true
	var reports atomic.Int64
	policies := []ratelimit.Policy{places, charged, reserved}
	patient := node(t, s.Open(t), nil, policies...)
	l := node(t, s.Open(t), func(c *ratelimit.Config) {
		c.StoreTimeout = timeout
		c.OnError = func(context.Context, error) { reports.Add(1) }
	}, policies...)
	var begun, ended sync.WaitGroup
	over := make(chan struct{})
	for i := range running {
		begun.Add(1)
		ended.Go(func() {
			handle := func(w http.ResponseWriter, _ *http.Request) {
				begun.Done()
				<-over
				if i%2 == 0 {
					w.WriteHeader(http.StatusNotFound)
				}
			}
			// The timeout may be too short for connections that are new.
			for request(l, 1, handle) >= http.StatusTooManyRequests {
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	begun.Wait()
	reports.Store(0)
	before := runtime.NumGoroutine()
	resume := s.Pause()
	close(over)
	ended.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Shutdown(ctx); err == nil {
		t.Error("Shutdown returns nil while the server is paused")
	}
	time.Sleep(pause)
	if n := runtime.NumGoroutine() - before; n > 8*running {
		t.Errorf("%d more goroutines for %d requests that end", n, running)
	}
	resume()
	end(t, l)
	eventually(t, "places are not free", func() bool { return peek(t, patient)[0].Remaining == running })
	u := peek(t, patient)
	// A refund that has failed may be charged still, but what was reserved is charged once.
	if most, least := 1000-running/2, 1000-running; u[1].Remaining > int64(most) || u[1].Remaining < int64(least) ||
		pause == 0 && u[1].Remaining != int64(most) {
		t.Errorf("%d are left, want %d, or if refunds have failed at least %d", u[1].Remaining, most, least)
	}
	if u[2].Remaining != 1000-running {
		t.Errorf("%d are left, want %d", u[2].Remaining, 1000-running)
	}
	if reports.Load() > 0 != (pause > 0) {
		t.Errorf("%d failures are reported", reports.Load())
	}
	eventually(t, "goroutines are left", func() bool { return runtime.NumGoroutine() < before })
}

// anchors moves the clocks of the stores to the end of a window. The nodes are in the window
// before it, or in that after it.
func anchors(t *testing.T, s Server) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	limit := ratelimit.CalendarWindow(10, ratelimit.Month).In(zone).
		From(time.Date(2024, time.January, 31, 8, 30, 0, 0, zone))
	_, ends := limit.Window(time.Now())
	var now atomic.Int64
	now.Store(ends.UnixMicro() - 1)
	open := func() ratelimit.Store {
		store := s.Open(t)
		s.SetClock(store, func() time.Time { return time.UnixMicro(now.Load()) })
		return store
	}
	counted := counts(unique("anchor"), limit)
	counted.Count = func(status int) bool { return status == http.StatusOK }
	reserving := settled(unique("anchor-held"), limit)
	a, b := node(t, open(), nil, counted), node(t, open(), nil, counted)
	c, d := node(t, open(), nil, reserving), node(t, open(), nil, reserving)
	across := func(l *ratelimit.Limiter, cost int, status int, next func()) {
		code := request(l, cost, func(w http.ResponseWriter, _ *http.Request) {
			next()
			w.WriteHeader(status)
		})
		if code != status {
			t.Errorf("status %d, want %d", code, status)
		}
	}
	across(a, 1, http.StatusNotFound, func() {
		across(c, 4, http.StatusOK, func() {
			if !allow(t, b, 9) || allow(t, b, 1) || allow(t, a, 1) || allow(t, d, 7) || !allow(t, d, 6) {
				t.Error("the window has not ten units")
			}
			wantLeft(t, 0, a, b, c, d)
			now.Add(1)
			wantLeft(t, 10, a, b)
			wantLeft(t, 6, c, d)
			if !allow(t, b, 3) || !allow(t, d, 2) {
				t.Error("the next window has no units")
			}
		})
		end(t, c)
		wantLeft(t, 4, c, d) // charged when it has ended, in the next window
	})
	end(t, a)
	wantLeft(t, 7, a, b) // charged before the window began, so not refunded in it
}
