package ratelimit_test

import (
	"math/big"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

var soak = os.Getenv("USHER_SOAK") != ""

// seedOf returns the seed of a random test, which USHER_SEED sets.
func seedOf(t *testing.T) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("USHER_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("USHER_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("USHER_SEED=%d", seed)
	return seed
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// TestTokenBucketsAreExact compares 20,000 random charges, or a million with USHER_SOAK=1,
// with integers of any size: none may differ.
func TestTokenBucketsAreExact(t *testing.T) {
	charges := 20_000
	if soak {
		charges = 1_000_000
	}
	random := rand.New(rand.NewPCG(seedOf(t), 1))
	const perBubble = 100
	for range charges / perBubble {
		synctest.Test(t, func(t *testing.T) {
			b := newExactBucket(random)
			m := newMemory()
			slept := time.Duration(0)
			for range perBubble {
				if pause := b.pause(random); slept+pause < 50*365*24*time.Hour {
					time.Sleep(pause)
					slept += pause
					b.sleep(pause)
				}
				if wrong := b.step(t, random, m); wrong != "" {
					t.Fatalf("%v: %s", b.limit, wrong)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}

// An exactBucket counts nanoseconds times the quota: a token is earned in per of them.
type exactBucket struct {
	limit              ratelimit.Limit
	quota, per, burst  *big.Int
	missing, mostTaken *big.Int
}

func newExactBucket(r *rand.Rand) *exactBucket {
	most := int64(1_000_000_000)
	upTo := func(n int64) int64 { return 1 + r.Int64N(n) }
	quota := pick(r, 1, 2, 7, 1000, 999_999_937, most, upTo(100), upTo(most))
	per := time.Duration(pick(r, 1, 3, 1_000_000, 1_234_567, 60_000_000, int64(10*366*24*time.Hour/1000), upTo(1e6), upTo(3e14))) * time.Microsecond
	days := new(big.Int).Mul(big.NewInt(int64(36_600*24*time.Hour)), big.NewInt(quota))
	longest := min(most, new(big.Int).Div(days, big.NewInt(int64(per))).Int64()-1)
	if !new(big.Int).Div(days, big.NewInt(int64(per))).IsInt64() {
		longest = most
	}
	burst := min(pick(r, 1, 2, 5, 1000, most, upTo(most)), longest)
	l := ratelimit.TokenBucket(int(quota), per, int(burst))
	debt := new(big.Int).Div(days, big.NewInt(int64(per)))
	if debt.Cmp(big.NewInt(most)) > 0 {
		debt = big.NewInt(most)
	}
	return &exactBucket{l, big.NewInt(quota), big.NewInt(int64(per)), big.NewInt(burst), new(big.Int), debt}
}

// pause draws a time in which nothing, about a token, or about all of them are earned.
func (b *exactBucket) pause(r *rand.Rand) time.Duration {
	token := time.Duration(new(big.Int).Div(b.per, b.quota).Int64())
	all := time.Duration(new(big.Int).Div(b.missing, b.quota).Int64())
	return max(pick(r, 0, 0, 1, token, token+1, 2*token-1, all, all+1, time.Duration(r.Int64N(int64(all)+1)), time.Duration(r.Int64N(int64(token)*3+2))), 0)
}

func (b *exactBucket) sleep(d time.Duration) {
	earned := new(big.Int).Mul(big.NewInt(int64(d)), b.quota)
	if b.missing.Sub(b.missing, earned).Sign() < 0 {
		b.missing.SetInt64(0)
	}
}

func ceil(x, y *big.Int) *big.Int {
	q, m := new(big.Int).DivMod(x, y, new(big.Int))
	if m.Sign() > 0 {
		q.Add(q, big.NewInt(1))
	}
	return q
}

func (b *exactBucket) span(n *big.Int) *big.Int { return new(big.Int).Mul(n, b.per) }

func (b *exactBucket) used() int64 { return ceil(b.missing, b.per).Int64() }

// step makes a call of m and describes how its results differ.
func (b *exactBucket) step(t *testing.T, r *rand.Rand, m *ratelimit.Memory) string {
	burst := b.burst.Int64()
	left := max(burst-b.used(), 0)
	cost := pick(r, 0, 1, 1, 1, 2, left, left+1, burst, burst+1, 1+r.Int64N(burst))
	c := ratelimit.Charge{Policy: "p", Limit: b.limit, Cost: cost}
	if r.IntN(4) == 0 {
		return b.adjust(t, r, m, c)
	}
	violated := cost > left
	var reset, wait time.Duration
	if used := b.used(); used > 0 {
		rest := new(big.Int).Sub(b.missing, b.span(big.NewInt(min(used, burst)-1)))
		reset = time.Duration(ceil(rest, b.quota).Int64())
	}
	switch {
	case violated && cost > burst:
		wait = -1
	case violated:
		over := new(big.Int).Add(b.missing, b.span(big.NewInt(cost-burst)))
		wait = time.Duration(ceil(over, b.quota).Int64())
	default:
		left -= cost
		if b.missing.Add(b.missing, b.span(big.NewInt(cost))); reset == 0 && cost > 0 {
			reset = time.Duration(ceil(b.per, b.quota).Int64())
		}
	}
	d := ratelimit.Decision{Charges: []ratelimit.Charge{c}}
	if err := m.Take(t.Context(), &d); err != nil {
		return err.Error()
	}
	if c = d.Charges[0]; c.Violated != violated || c.Remaining != left || c.Reset != reset || c.Wait != wait {
		return "a cost of " + strconv.FormatInt(cost, 10) + ": " + describe(c.Violated, c.Remaining, c.Reset, c.Wait) +
			", want " + describe(violated, left, reset, wait)
	}
	return ""
}

func describe(violated bool, left int64, reset, wait time.Duration) string {
	return "violated " + strconv.FormatBool(violated) + ", remaining " + strconv.FormatInt(left, 10) +
		", reset " + reset.String() + ", wait " + wait.String()
}

func (b *exactBucket) adjust(t *testing.T, r *rand.Rand, m *ratelimit.Memory, c ratelimit.Charge) string {
	c.Cost = pick(r, c.Cost, -c.Cost, -1)
	c.Overdraw = r.IntN(3) == 0
	used, most := b.used(), b.burst.Int64()
	if c.Overdraw {
		most = b.mostTaken.Int64()
	}
	moved := max(min(c.Cost, max(most-used, 0)), -used)
	if b.missing.Add(b.missing, b.span(big.NewInt(moved))); b.missing.Sign() < 0 {
		b.missing.SetInt64(0)
	}
	d := ratelimit.Decision{Charges: []ratelimit.Charge{c}}
	if err := m.Adjust(t.Context(), &d); err != nil {
		return err.Error()
	}
	if got := d.Charges[0].Moved; got != moved {
		return "an adjustment by " + strconv.FormatInt(c.Cost, 10) + " has moved " + strconv.FormatInt(got, 10) +
			", want " + strconv.FormatInt(moved, 10)
	}
	return ""
}
