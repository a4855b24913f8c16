package usherredis_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/ratelimit"
)

func BenchmarkTake(b *testing.B) {
	s := servers.Redis(b)
	for name, limit := range map[string]ratelimit.Limit{
		"bucket":   ratelimit.TokenBucket(1e9, time.Second, 1e9),
		"rolling":  ratelimit.RollingWindow(1000, time.Hour),
		"calendar": ratelimit.CalendarWindow(1e9, ratelimit.Day),
	} {
		for _, policies := range []int{1, 3} {
			for _, callers := range []int{1, 64} {
				b.Run(fmt.Sprintf("%s/policies=%d/callers=%d", name, policies, callers), func(b *testing.B) {
					l := open(b, s.Addr, newPrefix()).Limits()
					charges := make([]ratelimit.Charge, policies)
					for i := range charges {
						charges[i] = charge(fmt.Sprint("p", i), limit, 1)
					}
					b.ReportAllocs()
					defer reportServer(b, s.Addr)()
					b.SetParallelism(max(callers/2, 1))
					run := func() {
						d := decision(append([]ratelimit.Charge(nil), charges...)...)
						if err := l.Take(b.Context(), d); err != nil {
							b.Error(err)
						}
					}
					if callers == 1 {
						for b.Loop() {
							run()
						}
						return
					}
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							run()
						}
					})
				})
			}
		}
	}
}

// reportServer reports the time that the server takes for a script.
func reportServer(b *testing.B, addr string) func() {
	must(b, addr, "CONFIG", "RESETSTAT")
	return func() {
		m := must(b, addr, "INFO", "commandstats")
		text, _ := m.ToString()
		if us := stat(text, "evalsha", "usec_per_call"); us > 0 {
			b.ReportMetric(us, "server-us/script")
		}
	}
}

// stat returns a number of a command in the reply to INFO commandstats, or 0.
func stat(text, command, name string) float64 {
	_, text, _ = strings.Cut(text, "cmdstat_"+command+":")
	text, _, _ = strings.Cut(text, "\r\n")
	_, text, _ = strings.Cut(text, name+"=")
	text, _, _ = strings.Cut(text, ",")
	n, _ := strconv.ParseFloat(text, 64)
	return n
}

func BenchmarkClaimAndFinish(b *testing.B) {
	s := servers.Redis(b)
	i := open(b, s.Addr, newPrefix()).Idempotency()
	b.ReportAllocs()
	defer reportServer(b, s.Addr)()
	for n := uint64(0); b.Loop(); n++ {
		c := newClaim()
		c.Key.Owner[0], c.Key.Owner[1], c.Key.Owner[2] = byte(n), byte(n>>8), byte(n>>16)
		win(b, i, c)
		if _, err := i.Finish(b.Context(), done(c, "a response of a few bytes")); err != nil {
			b.Error(err)
		}
	}
}
