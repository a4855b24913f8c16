package usherredis_test

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/usherredis"
)

// A fraction is a number of microseconds.
type fraction = *big.Rat

func whole(n int64) fraction { return new(big.Rat).SetInt64(n) }

// up rounds up.
func up(f fraction) int64 {
	n, rest := new(big.Int).DivMod(f.Num(), f.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		n.Add(n, big.NewInt(1))
	}
	return n.Int64()
}

// The script computes with doubles, so its results and what it stores are compared with
// those of fractions, for limits whose products exceed 2^53 by far.
func TestBucketsAreExactForTheLargestNumbers(t *testing.T) {
	const (
		most    = 1_000_000_000
		tenYear = 10 * 365 * 24 * time.Hour
	)
	s := servers.Redis(t)
	client := connect(t, s.Addr)
	l := open(t, s.Addr, "orders").Limits()
	begin := time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	now := begin
	usherredis.SetClock(l, func() time.Time { return time.UnixMicro(now) })
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range 300 {
		quota := most - random.Int64N(1000)
		per := tenYear - time.Duration(random.Int64N(int64(tenYear/time.Microsecond)/2))*time.Microsecond
		burst := most - random.Int64N(1000)
		// Now and then a pause is one part shorter than a whole number of units takes.
		const unit = 300_000
		almost := i%2 == 0
		if almost {
			per = time.Duration(quota*unit+1) * time.Microsecond
		}
		limit := ratelimit.TokenBucket(int(quota), per, int(burst))
		one := big.NewRat(per.Microseconds(), quota) // the time in which a unit is earned
		span := func(n int64) fraction { return new(big.Rat).Mul(whole(n), one) }
		missing := whole(0) // the time until the bucket is full

		c := charge("p", limit, 0)
		c.Key = ratelimit.TextKey(time.Duration(serial.Add(1)).String())
		digest := c.Key.Digest()
		key := "{orders}:limit:p:" + string(digest[:])
		for range 6 {
			c.Cost = random.Int64N(burst) + 1
			got := take(t, l, c).Charges[0]

			// used is the least number that takes as long to earn.
			used := up(new(big.Rat).Quo(missing, one))
			over := new(big.Rat).Add(missing, span(c.Cost))
			over.Sub(over, span(burst))
			fits := over.Sign() <= 0
			remaining, reset := burst-used, int64(0)
			if used > 0 {
				reset = up(new(big.Rat).Sub(missing, span(used-1)))
			}
			wait := time.Duration(0)
			if fits {
				if remaining -= c.Cost; reset == 0 {
					reset = up(one)
				}
				missing.Add(missing, span(c.Cost))
			} else {
				wait = time.Duration(up(over)) * time.Microsecond
			}
			if got.Violated == fits || got.Remaining != remaining || got.Reset != time.Duration(reset)*time.Microsecond || got.Wait != wait {
				t.Fatalf("seed %d, %v, cost %d: violated %v, remaining %d, reset %v, wait %v; want %v, %d, %d us, %v",
					seed, limit, c.Cost, got.Violated, got.Remaining, got.Reset, got.Wait, !fits, remaining, reset, wait)
			}
			if fits {
				const script = "return cmsgpack.unpack(redis.call('GET', KEYS[1]))[2]"
				m := do(t, client, "EVAL", script, "1", key)
				state, err := m.ToArray()
				if err != nil || len(state) != 4 {
					t.Fatalf("%d values: %v", len(state), err)
				}
				full, _ := state[2].ToInt64()
				part, _ := state[3].ToInt64()
				stored := new(big.Rat).Add(whole(full-now), big.NewRat(part, quota))
				if stored.Cmp(missing) != 0 {
					t.Fatalf("seed %d, %v: the bucket is full in %v us, want %v", seed, limit, stored, missing)
				}
			}
			pause := random.Int64N(1_000_000_000_000)
			if almost {
				pause -= pause % unit
			}
			now += pause
			if missing.Sub(missing, whole(pause)); missing.Sign() < 0 {
				missing = whole(0)
			}
		}
		now = begin
	}
}

// An overdrawn bucket lacks more than its burst, up to all that is earned in ten times the
// longest period.
func TestOverdraftsAreExactForTheLargestNumbers(t *testing.T) {
	const (
		most    = 1_000_000_000
		longest = 36_600 * 24 * time.Hour
	)
	s := servers.Redis(t)
	client := connect(t, s.Addr)
	l := open(t, s.Addr, "orders").Limits()
	begin := time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	now := begin
	usherredis.SetClock(l, func() time.Time { return time.UnixMicro(now) })
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range 200 {
		quota := 1 + random.Int64N([]int64{1, 1000, most}[i%3])
		per := time.Duration(1+random.Int64N([]int64{1, 1e6, 3650 * 86400 * 1e6}[i/3%3])) * time.Microsecond
		one := big.NewRat(per.Microseconds(), quota)
		span := func(n int64) fraction { return new(big.Rat).Mul(whole(n), one) }
		bearable := new(big.Rat).Quo(whole(longest.Microseconds()), one)
		limited := new(big.Int).Quo(bearable.Num(), bearable.Denom())
		highest := int64(most)
		if limited.IsInt64() {
			highest = min(highest, limited.Int64())
		}
		burst := 1 + random.Int64N(min(highest, 1_000_000))
		limit := ratelimit.TokenBucket(int(quota), per, int(burst))

		c := charge("p", limit, 0)
		c.Key = ratelimit.TextKey(time.Duration(serial.Add(1)).String())
		c.Overdraw = true
		digest := c.Key.Digest()
		key := "{orders}:limit:p:" + string(digest[:])
		missing := whole(0)
		for range 8 {
			used := up(new(big.Rat).Quo(missing, one))
			c.Cost = random.Int64N(2*most) + 1
			want := min(c.Cost, highest-used)
			if random.IntN(3) == 0 {
				c.Cost = -1 - random.Int64N(used+2)
				want = max(c.Cost, -used)
			}
			if moved := adjust(t, l, c); moved != want {
				t.Fatalf("seed %d, %v: an adjustment by %d of %d has moved %d, want %d", seed, limit, c.Cost, used, moved, want)
			}
			if missing.Add(missing, span(want)); missing.Sign() < 0 {
				missing = whole(0)
			}
			if missing.Sign() > 0 {
				const script = "return cmsgpack.unpack(redis.call('GET', KEYS[1]))[2]"
				m := do(t, client, "EVAL", script, "1", key)
				state, err := m.ToArray()
				if err != nil || len(state) < 4 {
					t.Fatalf("%d values: %v", len(state), err)
				}
				full, _ := state[2].ToInt64()
				part, _ := state[3].ToInt64()
				stored := new(big.Rat).Add(whole(full-now), big.NewRat(part, quota))
				if stored.Cmp(missing) != 0 {
					t.Fatalf("seed %d, %v: the bucket is full in %v us, want %v", seed, limit, stored, missing)
				}
			}

			before := now
			now += random.Int64N(1 + random.Int64N(1+min(up(missing), 300_000_000_000_000)))
			if missing.Sub(missing, whole(now-before)); missing.Sign() < 0 {
				missing = whole(0)
			}
			used = up(new(big.Rat).Quo(missing, one))
			remaining, reset := max(burst-used, 0), int64(0)
			if used > 0 {
				reset = up(new(big.Rat).Sub(missing, span(min(used, burst)-1)))
			}
			wait := time.Duration(0)
			if over := new(big.Rat).Add(missing, span(1)); remaining == 0 {
				wait = time.Duration(up(over.Sub(over, span(burst)))) * time.Microsecond
			}
			peek := decision(c)
			peek.Charges[0].Cost, peek.Peek = 1, true
			if err := l.Take(t.Context(), peek); err != nil {
				t.Fatal(err)
			}
			got := peek.Charges[0]
			if got.Violated != (remaining == 0) || got.Remaining != remaining || got.Reset != time.Duration(reset)*time.Microsecond || got.Wait != wait {
				t.Fatalf("seed %d, %v, %d used: violated %v, remaining %d, reset %v, wait %v; want %d, %d us, %v",
					seed, limit, used, got.Violated, got.Remaining, got.Reset, got.Wait, remaining, reset, wait)
			}
		}
		now = begin
	}
}
