package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// After RetryAfter there is room, and not much earlier.
func TestRetryAfterIsTrue(t *testing.T) {
	for _, c := range []struct {
		name  string
		fill  func(u usage) (owner int, err error)
		want  error
		exact bool // not earlier
	}{
		{"one owner at three quarters", func(u usage) (int, error) {
			_, err := u.claims(1, 0, 100_000)
			return 1, err
		}, idempotency.ErrOwnerFull, true},
		{"an owner at its share, in a full store", func(u usage) (int, error) {
			_, _ = u.claims(1, 0, share/idempotency.RecordBytes)
			time.Sleep(time.Minute)
			_, _ = u.claims(2, 0, 100_000)
			time.Sleep(time.Minute)
			for i := range 10 {
				_, _ = u.claims(3+i, 0, 100_000)
			}
			_, err := u.claims(1, 1000, 1)
			return 1, err
		}, idempotency.ErrOwnerFull, true},
		{"an owner above its share, in a full store", func(u usage) (int, error) {
			for i := range 50 {
				_, _ = u.claims(1, 100*i, 50)
				time.Sleep(10 * time.Second)
			}
			for i := range 100 {
				_, _ = u.claims(2+i, 0, 100_000)
			}
			_, err := u.claims(1, 100_000, 1)
			return 1, err
		}, idempotency.ErrOwnerFull, false}, // others leave room as well
		{"a known owner in a full store", func(u usage) (int, error) {
			_, _ = u.claims(1000, 0, 1)
			time.Sleep(time.Second)
			for i := range 100 {
				_, _ = u.claims(1+i, 0, 100_000)
			}
			_, err := u.claims(1000, 1, 1)
			return 1000, err
		}, usher.ErrFull, true},
		{"a new owner in a full store", func(u usage) (int, error) {
			for i := range 100 {
				_, _ = u.claims(1+i, 0, 100_000)
				time.Sleep(time.Second)
			}
			_, err := u.claims(1000, 0, 1)
			return 1000, err
		}, usher.ErrFull, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUsage(t)
				owner, err := c.fill(u)
				left := u.retryAfter(err, c.want)
				if left > time.Hour+time.Second {
					t.Errorf("RetryAfter = %v, although all records expire within an hour", left)
				}
				if time.Sleep(left - time.Second); c.exact {
					if _, err := u.claims(owner, 1_000_000, 1); !errors.Is(err, c.want) {
						t.Errorf("a second earlier: %v", err)
					}
				}
				time.Sleep(time.Second)
				if _, err := u.claims(owner, 2_000_000, 1); err != nil {
					t.Errorf("after %v: %v", left, err)
				}
			})
		})
	}
}

func TestLimitsAsClientsSeeThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := new(counting)
		u := newUsage(t)
		h := newMiddleware(t, idempotency.Config{Store: u.Memory, OnError: func(context.Context, error) {}}).Wrap(calls)
		first := do(h, post("/", strings.Repeat("x", 1000), key("1")))
		// Others fill the store, and only claims are left.
		_, _ = u.claims(1, 0, 100_000)
		time.Sleep(20 * time.Minute)
		for i := range 100 {
			_, _ = u.claims(2+i, 0, 100_000)
		}
		wantFailure(t, do(h, post("/", strings.Repeat("x", 1000), key("1"))), 409, usher.CodeIdempotencyResponseNotKept)
		if first.Code != 201 {
			t.Errorf("the first client got %d", first.Code)
		}
		w := do(h, post("/", "", key("2")))
		wantFailure(t, w, 503, usher.CodeIdempotencyUnavailable)
		if after := w.Header().Get("Retry-After"); after != "2401" { // 40 minutes and a tick
			t.Errorf("Retry-After: %s", after)
		}
		calls.want(t, 1)

		// One caller beyond its share, all of it claims that stay.
		busy := newUsage(t)
		h = newMiddleware(t, idempotency.Config{Store: busy.Memory, Profile: idempotency.ProfileDefault}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
		}))
		for i := range 100_000 {
			if w = do(h, post("/", "", key(fmt.Sprint(i)))); w.Code == 429 {
				break
			}
		}
		wantFailure(t, w, 429, usher.CodeIdempotencyTooManyKeys)
		if after := w.Header().Get("Retry-After"); after != "86401" {
			t.Errorf("Retry-After: %s", after)
		}
	})
}

// Requests in flight do not make RetryAfter untrue, and nobody knows when they end.
func TestRetryAfterWithRequestsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUsage(t)
		leave := make(chan struct{})
		h := newMiddleware(t, idempotency.Config{Store: u.Memory, Wait: idempotency.NoWait}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Slow") != "" {
				<-leave
			}
			w.WriteHeader(500)
		}))
		slow := func(r *http.Request) { r.Header.Set("Slow", "yes") }
		for i := range 100 {
			go do(h, post("/", "", key(fmt.Sprint("slow", i)), slow))
		}
		synctest.Wait()
		for owner, err := 1, error(nil); !errors.Is(err, usher.ErrFull); owner++ {
			_, err = u.claims(owner, 0, 100_000)
		}
		// Alice is above her share only by requests in flight.
		w := do(h, post("/", "", key("more")))
		wantFailure(t, w, 429, usher.CodeIdempotencyTooManyKeys)
		if after := w.Header().Get("Retry-After"); after != "" {
			t.Errorf("Retry-After: %s, although nobody knows", after)
		}
		close(leave) // they become records of 24 hours
		synctest.Wait()
		w = do(h, post("/", "", key("more")))
		if after := w.Header().Get("Retry-After"); after != "86401" {
			t.Errorf("Retry-After: %q", after)
		}
	})
}

// Evictions are reported with their number, not each, and are counted.
func TestEvictionsAreReportedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, name := range []string{"one middleware", "two middlewares"} {
			var reports []string
			meter := newMeter()
			u := newUsage(t)
			c := idempotency.Config{Store: u.Memory, MeterProvider: meter, OnError: func(_ context.Context, err error) {
				if !errors.Is(err, usher.ErrFull) {
					t.Errorf("OnError got %v", err)
				}
				reports = append(reports, err.Error())
			}}
			large := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 4000)) })
			all := []http.Handler{newMiddleware(t, c).Wrap(large)}
			if name == "two middlewares" {
				all = append(all, newMiddleware(t, c).Wrap(large))
			}
			const requests = 1000 // 100 a second
			for i := range requests {
				do(all[i%len(all)], post("/", "", key(fmt.Sprint(i))))
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(time.Second)
			do(all[0], post("/", "", key("last")))
			if len(reports) < 5 || len(reports) > 11 {
				t.Errorf("%s: %d reports in 10 seconds: %q", name, len(reports), reports)
			}
			sum := 0
			for _, r := range reports {
				var n int
				if _, err := fmt.Sscanf(r, "idempotency: %d responses", &n); err != nil {
					t.Error(err)
				}
				sum += n
			}
			evicted := 0
			for i := range requests {
				if w := do(all[0], post("/", "", key(fmt.Sprint(i)))); w.Code == 409 {
					evicted++
				}
			}
			var counted int64
			for _, c := range meter.Counts() {
				if c.Name == "usher.idempotency.evictions" {
					counted += c.Value
				}
			}
			if sum != evicted || counted != int64(evicted) {
				t.Errorf("%s: %d are reported and %d counted, want %d", name, sum, counted, evicted)
			}
		}
	})
}
