package ratelimit_test

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// planOf is an authenticator that accepts the plan that the request claims.
type planOf struct{}

func (planOf) Authenticate(r *http.Request) (*usher.Principal, error) {
	return &usher.Principal{ID: r.Header.Get("Plan"), Kind: usher.KindAPIKey, Owner: "acme", Plan: r.Header.Get("Plan")}, nil
}

func TestACredentialWithAShortWindowDoesNotResetALongOneOverASocket(t *testing.T) {
	p := ratelimit.Policy{
		Name: "plan", Key: ratelimit.ByOwner(), Limit: ratelimit.Nothing(),
		Plans: map[string]ratelimit.Limit{
			"slow": ratelimit.RollingWindow(10, time.Hour),
			"fast": ratelimit.RollingWindow(1000, time.Millisecond),
		},
	}
	s := httptest.NewServer(usher.Chain(usher.Authenticate(planOf{}), limiterOf(t, p)).Wrap(ok))
	defer s.Close()
	slow := 0
	for range 40 {
		if res, _ := get(t, s.URL, "Plan", "slow"); res.StatusCode == http.StatusOK {
			slow++
		}
		time.Sleep(2 * time.Millisecond) // the short window ends
		if res, _ := get(t, s.URL, "Plan", "fast"); res.StatusCode != http.StatusOK {
			t.Fatalf("the fast plan: status %d", res.StatusCode)
		}
	}
	if slow == 0 || slow > 10 {
		t.Errorf("%d admitted under 10 an hour", slow)
	}
}

func TestAnUpgradeToAnotherAlgorithmIsUsableAtOnceOverASocket(t *testing.T) {
	p := ratelimit.Policy{
		Name: "plan", Key: ratelimit.ByOwner(), Limit: ratelimit.RollingWindow(10, time.Hour),
		Plans: map[string]ratelimit.Limit{"pro": ratelimit.TokenBucket(100, time.Hour, 50)},
	}
	s := httptest.NewServer(usher.Chain(usher.Authenticate(planOf{}), limiterOf(t, p)).Wrap(ok))
	defer s.Close()
	if res, _ := get(t, s.URL); res.StatusCode != http.StatusOK {
		t.Fatalf("before the change: status %d", res.StatusCode)
	}
	res, _ := get(t, s.URL, "Plan", "pro")
	if got := res.Header.Get("RateLimit"); res.StatusCode != http.StatusOK || got[:len(`"plan";r=48;`)] != `"plan";r=48;` {
		t.Errorf("after: status %d, RateLimit %s, want 48 of 50 left", res.StatusCode, got)
	}
}

func TestAChangeOfLimitTakesWhatWasUsedAndNoMore(t *testing.T) {
	bucket, rolling, calendar := ratelimit.TokenBucket, ratelimit.RollingWindow, ratelimit.CalendarWindow
	for _, c := range []struct {
		name     string
		from, to ratelimit.Limit
		used     int64
		left     int64
	}{
		{"window to bucket", rolling(10, time.Hour), bucket(100, time.Hour, 50), 1, 49},
		{"long window to long bucket", rolling(100, 24*time.Hour), bucket(1000, 24*time.Hour, 100), 1, 99},
		{"month to bucket", calendar(1000, ratelimit.Month), bucket(1000, 24*time.Hour, 1000), 1, 999},
		{"used up, to a larger bucket", bucket(5, time.Minute, 5), bucket(20000, time.Minute, 20000), 5, 19995},
		{"used up, to a larger window", rolling(5, time.Minute), rolling(20000, time.Minute), 5, 19995},
		{"used up, to a longer window", rolling(5, time.Minute), rolling(20000, time.Hour), 5, 19995},
		{"bucket to window", bucket(5, time.Minute, 5), rolling(10, time.Minute), 5, 5},
		{"bucket to month", bucket(5, time.Minute, 5), calendar(10, ratelimit.Month), 5, 5},
		{"minute to month", calendar(5, ratelimit.Minute), calendar(10, ratelimit.Month), 5, 5},
		{"to a smaller bucket", bucket(100, time.Hour, 100), bucket(10, time.Hour, 10), 3, 7},
		{"to a smaller bucket that is used up", bucket(100, time.Hour, 100), bucket(10, time.Hour, 10), 50, 0},
		{"to a smaller window", rolling(100, time.Hour), rolling(10, time.Hour), 30, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				charge := ratelimit.Charge{Policy: "p", Limit: c.from, Cost: c.used}
				if admitted, err := take(t.Context(), m, []ratelimit.Charge{charge}); !admitted || err != nil {
					t.Fatal(admitted, err)
				}
				charge.Limit, charge.Cost = c.to, 0
				got := []ratelimit.Charge{charge}
				if _, err := take(t.Context(), m, got); err != nil || got[0].Remaining != c.left {
					t.Errorf("%d left after %d were used, want %d (%v)", got[0].Remaining, c.used, c.left, err)
				}
			})
		})
	}
}

func TestAChangeOfLimitTakesNothingThatIsOver(t *testing.T) {
	for name, from := range map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(10, 10*time.Hour, 10),
		"rolling window":  ratelimit.RollingWindow(10, 5*time.Hour),
		"calendar window": ratelimit.CalendarWindow(10, ratelimit.Hour),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				take := func(l ratelimit.Limit, cost int64) int64 {
					c := []ratelimit.Charge{{Policy: "p", Limit: l, Cost: cost}}
					if admitted, err := take(t.Context(), m, c); !admitted || err != nil {
						t.Fatal(admitted, err)
					}
					return c[0].Remaining
				}
				take(from, 4)
				time.Sleep(4 * time.Hour)
				take(from, 1)
				time.Sleep(90 * time.Minute)
				// The four have left the window, or been earned again.
				if n := take(ratelimit.RollingWindow(100, time.Hour), 0); n < 99 {
					t.Errorf("%d left, want what was used before to be over", n)
				}
			})
		})
	}
}

// A new limit, or one that was dropped for lack of room, begins with what the key has
// used under any other limit, not only under the one before it.
func TestALimitBetweenTwoOthersHidesNoUse(t *testing.T) {
	rolling, bucket := ratelimit.RollingWindow, ratelimit.TokenBucket
	day := func(n int) ratelimit.Limit { return ratelimit.CalendarWindow(n, ratelimit.Day) }
	minutes := func(from, n int) (between []ratelimit.Limit) {
		for i := range n {
			between = append(between, rolling(from+i, time.Minute))
		}
		return between
	}
	for _, c := range []struct {
		name    string
		used    ratelimit.Limit // 100 units
		between []ratelimit.Limit
		then    ratelimit.Limit
		left    int64
	}{
		{"another window", rolling(100, 24*time.Hour), minutes(10, 1), rolling(200, 24*time.Hour), 100},
		{"a shorter window", rolling(100, 24*time.Hour), minutes(10, 1), rolling(200, 12*time.Hour), 100},
		{"a calendar window", rolling(100, 24*time.Hour), minutes(10, 1), day(200), 100},
		{"a window after a calendar window", day(100), minutes(10, 1), rolling(200, time.Hour), 100},
		{"a bucket", rolling(100, 24*time.Hour), minutes(10, 1), bucket(200, 24*time.Hour, 200), 100},
		{"after a bucket", bucket(1, 24*time.Hour, 100), minutes(10, 1), rolling(200, 24*time.Hour), 100},
		{"the same window after many", rolling(100, 24*time.Hour), minutes(10, 9), rolling(100, 24*time.Hour), 0},
		{"the same calendar window after many", day(100), minutes(10, 9), day(100), 0},
		{
			"the same window after many that last as long", day(100),
			append([]ratelimit.Limit{day(101), day(102), day(103)}, minutes(10, 9)...), day(100), 0,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				left := func(l ratelimit.Limit, cost int64) int64 {
					c := []ratelimit.Charge{{Policy: "p", Limit: l, Cost: cost}}
					if _, err := take(t.Context(), m, c); err != nil {
						t.Fatal(err)
					}
					return c[0].Remaining
				}
				if n := left(c.used, 100); n != 0 {
					t.Fatalf("%d left of 100", n)
				}
				for _, l := range c.between {
					time.Sleep(time.Second)
					left(l, 0)
				}
				time.Sleep(2 * time.Minute) // the short windows are over
				left(rolling(10, time.Minute), 0)
				if n := left(c.then, 0); n != c.left {
					t.Errorf("%d left, want %d", n, c.left)
				}
			})
		})
	}
}

// A new limit begins with a short debt and a longer one, and each ends in its own time.
func TestANewLimitForgetsWhatEachOtherForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		left := func(l ratelimit.Limit, cost int64) int64 {
			c := []ratelimit.Charge{{Policy: "p", Limit: l, Cost: cost}}
			if admitted, err := take(t.Context(), m, c); !admitted || err != nil {
				t.Fatal(admitted, err)
			}
			return c[0].Remaining
		}
		long, short := ratelimit.RollingWindow(10, 24*time.Hour), ratelimit.RollingWindow(50, time.Minute)
		left(long, 10)
		time.Sleep(30 * time.Second)
		left(short, 40)
		third := ratelimit.RollingWindow(100, time.Hour)
		if n := left(third, 0); n != 50 {
			t.Errorf("%d left after 50 of 100 were used", n)
		}
		time.Sleep(time.Minute)
		if n := left(third, 0); n != 90 {
			t.Errorf("%d left once 40 were over, want 90", n)
		}
	})
}

// What a limit begins with ends at a whole microsecond in all stores, never earlier.
func TestADebtEndsAtAWholeMicrosecond(t *testing.T) {
	for name, c := range map[string]struct {
		from ratelimit.Limit
		ends time.Duration // after the store was made
	}{
		"of a rolling window": {ratelimit.RollingWindow(5, time.Second), time.Second + time.Microsecond},
		"of a token bucket":   {ratelimit.TokenBucket(3, time.Second, 3), 333_334 * time.Microsecond},
		"of a quick bucket":   {ratelimit.TokenBucket(1000, time.Second, 3), 1001 * time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				began := time.Now()
				take := func(l ratelimit.Limit, cost int64) ratelimit.Charge {
					d := &ratelimit.Decision{Charges: []ratelimit.Charge{{Policy: "p", Limit: l, Cost: cost}}}
					if err := m.Take(t.Context(), d); err != nil || !d.Admitted {
						t.Fatal(d.Admitted, err)
					}
					return d.Charges[0]
				}
				time.Sleep(500 * time.Nanosecond)
				take(c.from, 1)
				time.Sleep(100 * time.Microsecond)
				if got := take(ratelimit.RollingWindow(10, time.Hour), 0); got.Remaining != 9 || got.Reset != c.ends-time.Since(began) {
					t.Errorf("%d left, more in %v, want 9 and %v", got.Remaining, got.Reset, c.ends-time.Since(began))
				}
			})
		})
	}
}

// Each of many limits of one key counts, but they do not all stay in memory.
func TestManyLimitsOfOneKeyTakeBoundedMemory(t *testing.T) {
	m := newMemory()
	charges := make([]ratelimit.Charge, 1)
	take := func(i int) {
		charges[0] = ratelimit.Charge{Policy: "p", Limit: ratelimit.RollingWindow(5, time.Hour+time.Duration(i)), Cost: 1}
		if _, err := take(t.Context(), m, charges); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		take(i)
	}
	before := heap()
	for i := range 20_000 {
		take(i)
	}
	if after := heap(); after > before+1<<18 {
		t.Errorf("the heap grew from %d to %d bytes for one key", before, after)
	}
	runtime.KeepAlive(m)
}

func TestUnitsRefundedUnderOneLimitAreNotMintedUnderAnother(t *testing.T) {
	for name, l := range map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(3, 1000*time.Hour, 3),
		"rolling window":  ratelimit.RollingWindow(3, 1000*time.Hour),
		"calendar window": ratelimit.CalendarWindow(3, ratelimit.Year),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				used := []ratelimit.Charge{{Policy: "p", Limit: l, Cost: 3}}
				other := []ratelimit.Charge{{Policy: "p", Limit: ratelimit.RollingWindow(100, time.Hour), Cost: 1}}
				if ok, err := take(t.Context(), m, used); !ok || err != nil {
					t.Fatal(ok, err)
				}
				for range 10 {
					time.Sleep(time.Second)
					other[0].Cost = 1
					if ok, err := take(t.Context(), m, other); !ok || err != nil {
						t.Fatal(ok, err)
					}
					other[0].Cost = -1
					if err := adjust(t.Context(), m, other); err != nil {
						t.Fatal(err)
					}
				}
				used[0].Cost = 1
				if ok, _ := take(t.Context(), m, used); ok {
					t.Error("a fourth unit of three was admitted")
				}
			})
		})
	}
}

// Refunds leave nothing in memory, whether of one key or of many.
func TestRefundsDoNotGrowMemory(t *testing.T) {
	for _, c := range []struct {
		name  string
		order func(i, n int) int // which of n charges is refunded next
	}{
		{"each before the next", nil},
		{"in the order in which they came", func(i, _ int) int { return i }},
		{"the newest first", func(i, n int) int { return n - 1 - i }},
		{"in no order", func(i, n int) int { return i * 7 % n }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory()
			const inFlight = 100
			run := func() {
				pending := make([]ratelimit.Charge, inFlight)
				for i := range pending {
					pending[i] = ratelimit.Charge{Policy: "p", Limit: ratelimit.RollingWindow(inFlight, time.Hour), Cost: 1}
					if ok, err := take(t.Context(), m, pending[i:i+1]); !ok || err != nil {
						t.Fatal(ok, err)
					}
					if pending[i].Cost = -1; c.order == nil {
						_ = adjust(t.Context(), m, pending[i:i+1])
					}
				}
				for i := range pending {
					if c.order != nil {
						j := c.order(i, inFlight)
						_ = adjust(t.Context(), m, pending[j:j+1])
					}
				}
			}
			run()
			before := heap()
			for range 300 {
				run()
			}
			if after := heap(); after > before+1<<18 {
				t.Errorf("the heap grew from %d to %d bytes for one key", before, after)
			}
			left := []ratelimit.Charge{{Policy: "p", Limit: ratelimit.RollingWindow(inFlight, time.Hour)}}
			if _, err := take(t.Context(), m, left); err != nil || left[0].Remaining != inFlight || left[0].Reset != 0 {
				t.Errorf("%d left, more in %v, want %d and nothing to come (%v)", left[0].Remaining, left[0].Reset, inFlight, err)
			}
			runtime.KeepAlive(m)
		})
	}
}

func BenchmarkTwoLimitsOfOneKey(b *testing.B) {
	m := newMemory()
	var decisions [2]ratelimit.Decision
	for i := range decisions {
		decisions[i].Charges = []ratelimit.Charge{{
			Policy: "p", Key: ratelimit.TextKey("k"), Limit: ratelimit.TokenBucket(1e9, time.Second, 1e9-i), Cost: 1,
		}}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_ = m.Take(b.Context(), &decisions[i%2])
	}
}
