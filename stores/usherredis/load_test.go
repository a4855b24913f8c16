package usherredis_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/ratelimit"
)

// limiter returns a limiter of one policy over a Redis of its own, with a timeout that a
// loaded machine keeps.
func limiter(t testing.TB, addr string, l ratelimit.Limit) *ratelimit.Limiter {
	t.Helper()
	lim, err := ratelimit.New(ratelimit.Config{
		Store:          open(t, addr, newPrefix()).Limits(),
		StoreTimeout:   time.Minute,
		OnStoreFailure: ratelimit.FailClosed,
		Policies:       []ratelimit.Policy{{Name: "p", Key: ratelimit.Global(), Limit: l}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return lim
}

// trips returns how many scripts and other commands of limits the server has executed.
func trips(t testing.TB, addr string) float64 {
	t.Helper()
	m := must(t, addr, "INFO", "commandstats")
	text, err := m.ToString()
	if err != nil {
		t.Fatal(err)
	}
	return stat(text, "evalsha", "calls") + stat(text, "eval", "calls")
}

// Callers that wait for the same key share the calls of the server, and take exactly what
// there is.
func TestCallersOfOneKeyShareTrips(t *testing.T) {
	const (
		callers = 64
		each    = 200
		quota   = 10_000
		most    = 0.1 // calls of the server for each decision
	)
	for name, limit := range map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(1, 24*time.Hour, quota),
		"rolling window":  ratelimit.RollingWindow(quota, time.Hour),
		"calendar window": ratelimit.CalendarWindow(quota, ratelimit.Year),
	} {
		t.Run(name, func(t *testing.T) {
			s := servers.Redis(t)
			l := limiter(t, s.Addr, limit)
			key := ratelimit.TextKey("somebody")
			if _, err := l.Peek(t.Context(), key); err != nil { // the server gets the script
				t.Fatal(err)
			}
			must(t, s.Addr, "CONFIG", "RESETSTAT")
			var all sync.WaitGroup
			var admitted atomic.Int64
			for range callers {
				all.Go(func() {
					for range each {
						_, err := l.Allow(t.Context(), 1, key)
						var refused *ratelimit.RefusedError
						switch {
						case err == nil:
							admitted.Add(1)
						case !errors.As(err, &refused):
							t.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			per := trips(t, s.Addr) / (callers * each)
			t.Logf("%.3f calls of the server for each decision", per)
			if per > most {
				t.Errorf("%.3f calls of the server for each decision, want at most %v", per, most)
			}
			if n := admitted.Load(); n != quota {
				t.Errorf("%d admitted, want %d", n, quota)
			}
		})
	}
}

// BenchmarkDecisions compares decisions of a limiter with the least that a server can do
// for one: to count.
func BenchmarkDecisions(b *testing.B) {
	s := servers.Redis(b)
	allow := func(b *testing.B, key func(caller int64) ratelimit.Key) func(int64) error {
		l := limiter(b, s.Addr, ratelimit.TokenBucket(1e9, time.Second, 1e9))
		return func(caller int64) error {
			_, err := l.Allow(context.Background(), 1, key(caller))
			return err
		}
	}
	keys := make([]ratelimit.Key, 1024)
	for i := range keys {
		keys[i] = ratelimit.TextKey(fmt.Sprint("caller ", i))
	}
	for _, c := range []struct {
		name string
		make func(*testing.B) func(caller int64) error
	}{
		{"one key", func(b *testing.B) func(int64) error {
			return allow(b, func(int64) ratelimit.Key { return keys[0] })
		}},
		{"a key each", func(b *testing.B) func(int64) error {
			return allow(b, func(caller int64) ratelimit.Key { return keys[caller%1024] })
		}},
		{"INCR", func(b *testing.B) func(int64) error {
			client := connect(b, s.Addr)
			return func(int64) error { return client.Do(context.Background(), client.B().Incr().Key("n").Build()).Error() }
		}},
	} {
		for _, callers := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("%s/callers=%d", strings.ReplaceAll(c.name, " ", "-"), callers), func(b *testing.B) {
				decide := c.make(b)
				if err := decide(0); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				must(b, s.Addr, "CONFIG", "RESETSTAT")
				if callers == 1 {
					for b.Loop() {
						if err := decide(0); err != nil {
							b.Error(err)
						}
					}
				} else {
					var caller atomic.Int64
					b.SetParallelism(callers / runtime.GOMAXPROCS(0))
					b.RunParallel(func(pb *testing.PB) {
						own := caller.Add(1)
						for pb.Next() {
							if err := decide(own); err != nil {
								b.Error(err)
							}
						}
					})
				}
				if n := trips(b, s.Addr); n > 0 {
					b.ReportMetric(n/float64(b.N), "trips/op")
				}
			})
		}
	}
}
