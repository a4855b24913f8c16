package ratelimit_test

import (
	"math"
	"testing"
	"time"

	"golang.org/x/time/rate"
	"pgregory.net/rapid"

	"github.com/usher-go/usher/ratelimit"
)

// A token bucket admits what a limiter of golang.org/x/time/rate admits, except within two
// microseconds of the boundary, where that limiter rounds.
func TestTokenBucketsAgreeWithRate(t *testing.T) {
	check(t, func(t *rapid.T) {
		quota := rapid.IntRange(1, 5000).Draw(t, "quota")
		per := time.Duration(rapid.Int64Range(1, 100_000_000).Draw(t, "microseconds")) * time.Microsecond
		burst := rapid.IntRange(1, 50).Draw(t, "burst")
		perSecond := float64(quota) / per.Seconds()
		oracle := rate.NewLimiter(rate.Limit(perSecond), burst)
		m := newMemory()
		for range 100 {
			pause := rapid.Float64Range(0, 3).Draw(t, "tokens earned") / perSecond
			time.Sleep(time.Duration(pause * float64(time.Second)))
			cost := rapid.IntRange(1, 1+burst/4).Draw(t, "cost")
			tokens := oracle.TokensAt(time.Now())
			want := oracle.AllowN(time.Now(), cost)
			got, err := take(m, []ratelimit.Charge{
				{Policy: "p", Limit: ratelimit.TokenBucket(quota, per, burst), Cost: int64(cost)},
			})
			if err != nil {
				t.Fatal(err)
			}
			if got == want {
				continue
			}
			if early := math.Abs(float64(cost)-tokens) / perSecond; early > 2e-6 {
				t.Fatalf("admitted %v, want %v for a cost of %d of %v tokens", got, want, cost, tokens)
			}
			return // the two have different tokens from here on
		}
	})
}
