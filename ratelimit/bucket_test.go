package ratelimit_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// However quickly a bucket earns tokens, it has no more than its burst at one instant.
func TestAFastTokenBucketIsExact(t *testing.T) {
	for _, c := range []struct {
		quota, burst int
		earned       time.Duration // until there is another token
	}{
		{600_000, 1, 1667},
		{900_000, 1, 1112},
		{1_000_000, 1, 1000},
		{3_000_000, 7, 334},
		{1_000_000_000, 1, 1},
		{1_000_000_000, 5, 1},
	} {
		t.Run(fmt.Sprintf("%d a second, burst %d", c.quota, c.burst), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				d := &ratelimit.Decision{Charges: []ratelimit.Charge{
					{Policy: "p", Limit: ratelimit.TokenBucket(c.quota, time.Second, c.burst), Cost: 1},
				}}
				admitted := func() (n int) {
					for range 100 {
						if err := m.Take(t.Context(), d); err != nil {
							t.Fatal(err)
						}
						if d.Admitted {
							n++
						}
					}
					return n
				}
				if n := admitted(); n != c.burst {
					t.Errorf("%d admitted at one instant, want %d", n, c.burst)
				}
				if w := d.Charges[0].Wait; w != c.earned {
					t.Errorf("Wait = %v, want %v", w, c.earned)
				}
				time.Sleep(c.earned - time.Nanosecond)
				if n := admitted(); n != 0 {
					t.Errorf("%d admitted a nanosecond too early", n)
				}
				time.Sleep(time.Nanosecond)
				if n := admitted(); n != 1 {
					t.Errorf("%d admitted after the wait, want 1", n)
				}
			})
		})
	}
}

// An exactBucket is a token bucket in rational numbers: the nanoseconds until it is full.
type exactBucket struct {
	quota, per, burst int64
	missing           *big.Rat
}

func (b *exactBucket) span(n int64) *big.Rat {
	span := new(big.Rat).SetFrac64(b.per, b.quota)
	return span.Mul(span, new(big.Rat).SetInt64(n))
}

// up returns the least integer that is not below x.
func up(x *big.Rat) int64 {
	q, r := new(big.Int).DivMod(x.Num(), x.Denom(), new(big.Int))
	if r.Sign() > 0 {
		q.Add(q, big.NewInt(1))
	}
	return q.Int64()
}

func (b *exactBucket) pass(d time.Duration) {
	b.add(new(big.Rat).SetInt64(-int64(d)))
}

func (b *exactBucket) add(span *big.Rat) {
	if b.missing.Add(b.missing, span); b.missing.Sign() < 0 {
		b.missing.SetInt64(0)
	}
}

func (b *exactBucket) used() int64 { return up(new(big.Rat).Quo(b.missing, b.span(1))) }

// reset returns the time until one more is left than now.
func (b *exactBucket) reset() time.Duration {
	if b.missing.Sign() == 0 {
		return 0
	}
	return time.Duration(up(new(big.Rat).Sub(b.missing, b.span(b.used()-1))))
}

func (b *exactBucket) take(cost, least int64) (violated bool, remaining int64, reset, wait time.Duration) {
	need := max(cost, least)
	missing := new(big.Rat).Sub(new(big.Rat).Add(b.missing, b.span(need)), b.span(b.burst))
	switch violated = need > 0 && missing.Sign() > 0; {
	case !violated:
		b.add(b.span(cost))
	case need > b.burst:
		wait = -1
	default:
		wait = time.Duration(up(missing))
	}
	return violated, b.burst - b.used(), b.reset(), wait
}

func (b *exactBucket) adjust(cost int64) (moved int64) {
	if cost > 0 {
		moved = min(cost, b.burst-b.used())
	} else {
		moved = max(cost, -b.used())
	}
	b.add(b.span(moved))
	return moved
}

// Random buckets agree with rational numbers in each result, after any sequence of takes,
// adjustments and waits.
func TestTokenBucketsAgreeWithRationalNumbers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	// upTo draws small and large numbers alike.
	upTo := func(n int64) int64 { return 1 + random.Int64N(1+random.Int64N(max(n>>random.IntN(30), 1))) }
	calls := 200
	if testing.Short() {
		calls = 50
	}
	for range 300 {
		b := exactBucket{upTo(1e9), 1000 * upTo(1e12), upTo(1e9), new(big.Rat)}
		l := ratelimit.TokenBucket(int(b.quota), time.Duration(b.per), int(b.burst))
		if b.span(b.burst).Cmp(new(big.Rat).SetInt64(int64(100*365*24*time.Hour))) > 0 {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			m := newMemory()
			for range calls {
				if random.IntN(3) > 0 {
					d := time.Duration(random.Int64N(1 + min(up(b.span(upTo(min(b.burst, 4)))), int64(time.Hour))))
					time.Sleep(d)
					b.pass(d)
				}
				c := ratelimit.Charge{Policy: "p", Limit: l, Cost: upTo(b.burst + 1)}
				switch random.IntN(4) {
				case 0:
					c.Cost *= 2*random.Int64N(2) - 1
					d := &ratelimit.Decision{Charges: []ratelimit.Charge{c}}
					if err := m.Adjust(t.Context(), d); err != nil {
						t.Fatal(err)
					}
					if moved := b.adjust(c.Cost); d.Charges[0].Moved != moved {
						t.Fatalf("%v, adjusted by %d: %d moved, want %d", l, c.Cost, d.Charges[0].Moved, moved)
					}
					continue
				case 1:
					c.Cost = min(c.Cost-1, 3)
					c.MinRemaining = random.Int64N(3)
				case 2:
					c.Cost = 1
				}
				d := &ratelimit.Decision{Charges: []ratelimit.Charge{c}}
				if err := m.Take(t.Context(), d); err != nil {
					t.Fatal(err)
				}
				violated, remaining, reset, wait := b.take(c.Cost, c.MinRemaining)
				got := d.Charges[0]
				if got.Violated != violated || got.Remaining != remaining || got.Reset != reset || got.Wait != wait {
					t.Fatalf("%v, a cost of %d that requires %d: violated %v, remaining %d, reset %v, wait %v; want %v, %d, %v, %v",
						l, c.Cost, c.MinRemaining, got.Violated, got.Remaining, got.Reset, got.Wait, violated, remaining, reset, wait)
				}
			}
		})
	}
}

func TestLimitsThatStoresCannotCountAreFaults(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, c := range []struct {
		name  string
		limit ratelimit.Limit
		fault string
	}{
		{"a bucket of ten years", ratelimit.TokenBucket(1, 10*year, 10), ""},
		{"a window of ten years", ratelimit.RollingWindow(1, 10*year), ""},
		{"a microsecond", ratelimit.TokenBucket(1e9, time.Microsecond, 1e9), ""},
		{"a burst that a slow bucket earns in time", ratelimit.TokenBucket(1, time.Second, 1e9), ""},
		{"a bucket of eleven years", ratelimit.TokenBucket(1, 11*year, 1), "period"},
		{"a window of eleven years", ratelimit.RollingWindow(1, 11*year), "period"},
		{"a bucket of half a microsecond", ratelimit.TokenBucket(1, 500, 1), "period"},
		{"a window of a nanosecond more than a second", ratelimit.RollingWindow(1, time.Second+1), "period"},
		{"a burst that takes more than a hundred years", ratelimit.TokenBucket(1, 5*time.Second, 1e9), "burst"},
		{"a burst that no number holds", ratelimit.TokenBucket(1, 10*year, 1e9), "burst"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{
				{Name: "p", Key: ratelimit.Global(), Limit: c.limit},
			}})
			switch {
			case c.fault == "" && err != nil:
				t.Error(err)
			case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)):
				t.Errorf("%v, want a fault of the %s", err, c.fault)
			}
		})
	}
}

// A zone has one count, however often it is loaded.
func TestACalendarIsKnownByTheNameOfItsZone(t *testing.T) {
	m := newMemory()
	for i := range 3 {
		d := &ratelimit.Decision{Charges: []ratelimit.Charge{
			{Policy: "p", Limit: ratelimit.CalendarWindow(5, ratelimit.Year).In(zone(t, "Europe/Berlin")), Cost: 1},
		}}
		if err := m.Take(t.Context(), d); err != nil || d.Charges[0].Remaining != int64(4-i) {
			t.Errorf("%d left, want %d (%v)", d.Charges[0].Remaining, 4-i, err)
		}
	}
}
