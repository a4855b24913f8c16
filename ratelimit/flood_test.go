package ratelimit_test

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// use returns what is left for a key after it has sent a cost, and whether it is admitted.
func use(t testing.TB, m *ratelimit.Memory, key string, l ratelimit.Limit, cost int64) (left int64, admitted bool) {
	t.Helper()
	d := ratelimit.Decision{Charges: []ratelimit.Charge{{Policy: "p", Key: ratelimit.TextKey(key), Limit: l, Cost: cost}}}
	if err := m.Take(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	return d.Charges[0].Remaining, d.Admitted
}

// leftOf returns what is left for a key, without adding it.
func leftOf(t testing.TB, m *ratelimit.Memory, key string, l ratelimit.Limit) int64 {
	t.Helper()
	d := ratelimit.Decision{Peek: true, Charges: []ratelimit.Charge{{Policy: "p", Key: ratelimit.TextKey(key), Limit: l}}}
	if err := m.Take(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	return d.Charges[0].Remaining
}

var fivePerHour = map[string]ratelimit.Limit{
	"token bucket":    ratelimit.TokenBucket(5, time.Hour, 5),
	"rolling window":  ratelimit.RollingWindow(5, time.Hour),
	"calendar window": ratelimit.CalendarWindow(5, ratelimit.Year),
}

// TestFlood invents far more keys than the store keeps, of which each sends one request:
// 10^6 by default, 10^7 with USHER_SOAK=1.
func TestFlood(t *testing.T) {
	const capacity = 65_536
	keys := 1_000_000
	switch {
	case os.Getenv("USHER_SOAK") != "":
		keys = 10_000_000
	case testing.Short():
		keys = 300_000
	}
	for name, l := range fivePerHour {
		t.Run(name, func(t *testing.T) {
			start := heap()
			m := memoryOf(t, capacity)
			for range 5 {
				use(t, m, "offender", l, 1)
			}
			var full uint64
			refused := 0
			for i := range keys {
				if _, ok := use(t, m, fmt.Sprintf("invented-%d", i), l, 1); !ok {
					refused++
				}
				if i == keys/2 {
					full = heap()
				}
			}
			end := heap()
			t.Logf("%d keys: %d refused; %d in the store; %d bytes a key",
				keys, refused, m.Len("p"), (int64(end)-int64(start))/capacity)
			if _, ok := use(t, m, "offender", l, 1); ok {
				t.Error("the offender has bought a fresh start")
			}
			if refused > 0 {
				t.Errorf("%d of %d new keys were refused their first request", refused, keys)
			}
			if n := m.Len("p"); n > capacity || n < capacity*99/100 {
				t.Errorf("%d keys in the store, want nearly %d", n, capacity)
			}
			if end > full+full/8+1<<20 {
				t.Errorf("the heap grew from %d to %d", full, end)
			}
			if n := (int64(end) - int64(start)) / capacity; n <= 0 || name == "token bucket" && n > 96 {
				t.Errorf("%d bytes a key, want at most 96", n)
			}
		})
	}
}

// heap returns the size of the heap once a collection frees nothing more: what pools and
// finalizers had of earlier tests takes several.
func heap() uint64 {
	var s runtime.MemStats
	for last := uint64(math.MaxUint64); ; last = s.HeapAlloc {
		runtime.GC()
		runtime.ReadMemStats(&s)
		if s.HeapAlloc >= last-last/1000 {
			return s.HeapAlloc
		}
	}
}

// TestAFloodThatSpends invents keys that each use up their limit. Clients that were there
// before get nothing back, and each new client has its first request admitted.
func TestAFloodThatSpends(t *testing.T) {
	const capacity, clients = 65_536, 1000
	requests := []int{1_000_000, 5_000_000}
	if testing.Short() {
		requests = requests[:1]
	}
	for _, name := range []string{"token bucket", "calendar window"} {
		t.Run(name, func(t *testing.T) {
			l := fivePerHour[name]
			m := memoryOf(t, capacity)
			// Of the early clients, the n-th has used n%6.
			early := func(n int) string { return fmt.Sprint("early-", n) }
			for n := range clients {
				use(t, m, early(n), l, int64(n%6))
			}
			sent := 0
			for _, want := range requests {
				for ; sent < want; sent += 5 {
					key := fmt.Sprint("invented-", sent)
					for range 5 {
						use(t, m, key, l, 1)
					}
					if sent%50_000 == 0 {
						if n := leftOf(t, m, early(5), l); n > 0 {
							t.Fatalf("after %d requests a client that has used up its limit has %d left", sent, n)
						}
					}
				}
				admitted, units := 0, 0
				for n := range clients {
					key := fmt.Sprintf("new-%d-%d", want, n)
					if _, ok := use(t, m, key, l, 1); ok {
						admitted++
					}
					units += int(leftOf(t, m, key, l))
				}
				fresh := 0
				for n := range clients {
					if int(leftOf(t, m, early(n), l)) > 5-n%6 {
						fresh++
					}
				}
				t.Logf("after %d requests: %d of %d new clients admitted, who have %d of %d more left",
					want, admitted, clients, units, 4*clients)
				if admitted < clients {
					t.Errorf("after %d requests: %d of %d new clients refused", want, clients-admitted, clients)
				}
				if fresh > 0 {
					t.Errorf("after %d requests: %d of %d early clients have more left than before", want, fresh, clients)
				}
			}
		})
	}
}

// Many goroutines invent keys, ask for their usage and reset them, while others come back.
func TestAFloodFromManySides(t *testing.T) {
	for name, l := range fivePerHour {
		t.Run(name, func(t *testing.T) {
			m := memoryOf(t, 64)
			use(t, m, "offender", l, 5)
			var admitted atomic.Int64
			var wg sync.WaitGroup
			for n := range 8 {
				wg.Go(func() {
					for i := range 500 {
						key := fmt.Sprint("invented-", n, "-", i)
						use(t, m, key, l, int64(i%6))
						leftOf(t, m, fmt.Sprint("invented-", n+1, "-", i), l)
						if i%8 == 0 {
							if err := m.Reset(t.Context(), []ratelimit.Counter{{Policy: "p", Key: ratelimit.TextKey(key)}}); err != nil {
								t.Error(err)
							}
						}
						if _, ok := use(t, m, "offender", l, 1); ok {
							admitted.Add(1)
						}
						if n := m.Len("p"); n > 64 {
							t.Errorf("%d keys in 64 places", n)
						}
					}
				})
			}
			wg.Wait()
			if n := admitted.Load(); n > 0 {
				t.Errorf("%d requests of a key that has used up its limit are admitted", n)
			}
		})
	}
}

// The debts of a flood end with its window.
func TestNewKeysRecoverAfterAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryOf(t, 64)
		l := ratelimit.RollingWindow(2, time.Minute)
		refused := 0
		for i := range 2000 {
			for range 2 {
				if _, ok := use(t, m, fmt.Sprint(i), l, 1); !ok {
					refused++
				}
			}
		}
		if refused == 0 {
			t.Fatal("the flood met no limit")
		}
		time.Sleep(time.Minute)
		for i := range 32 {
			if n := leftOf(t, m, fmt.Sprint("late", i), l); n != 2 {
				t.Fatal("a new key pays for a flood that is over")
			}
		}
	})
}

// fullSet returns a Memory with a single set, of 8 places, that remembers 4 debts and has
// forgotten whose a fifth is. All these keys have used up their limit; it returns those that
// are not forgotten.
func fullSet(t *testing.T, l ratelimit.Limit) (m *ratelimit.Memory, keys []string) {
	m = memoryOf(t, 8)
	for i := range 13 {
		keys = append(keys, fmt.Sprint("offender-", i))
		if n, ok := use(t, m, keys[i], l, l.Quota()); !ok || n != 0 {
			t.Fatalf("%s: admitted %v, %d left", keys[i], ok, n)
		}
	}
	return m, slices.Delete(keys, 11, 12)
}

// The debt of a bucket whose key was evicted is paid off at the rate of the bucket.
func TestTheDebtOfABucketFades(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.TokenBucket(10, 10*time.Hour, 10)
		m, keys := fullSet(t, l)
		for hours := range int64(10) {
			for _, key := range keys {
				if n := leftOf(t, m, key, l); n != hours {
					t.Errorf("%s has %d left after %d hours", key, n, hours)
				}
			}
			// An unknown key may be one of those that the set has forgotten, but is not locked out.
			if n := leftOf(t, m, "unknown", l); n != max(hours, 1) {
				t.Errorf("an unknown key has %d left after %d hours", n, hours)
			}
			time.Sleep(time.Hour)
		}
	})
}

// A first request fits, whatever it costs, if the limit ever admits it.
func TestTheFirstRequestOfAnUnknownKeyFits(t *testing.T) {
	for name, l := range fivePerHour {
		for _, cost := range []int64{1, 2, 5} {
			m, _ := fullSet(t, l)
			if n, ok := use(t, m, "unknown", l, cost); !ok || n != 0 {
				t.Errorf("%s: a cost of %d: admitted %v, %d left", name, cost, ok, n)
			}
			if _, ok := use(t, m, "unknown", l, 1); ok {
				t.Errorf("%s: after a cost of %d: admitted again", name, cost)
			}
		}
	}
}

// Of the keys of a set, the one that has used the least share of its limit makes room for a
// new one. While the set remembers those that had to leave, what they have used stays exact;
// later nobody has more left than before.
func TestTheKeyThatHasUsedLeastIsEvicted(t *testing.T) {
	for name, l := range fivePerHour {
		t.Run(name, func(t *testing.T) {
			m := memoryOf(t, 8)
			for i := range 8 {
				use(t, m, fmt.Sprint("old-", i), l, int64(2+i%4))
			}
			for i := range 100 {
				use(t, m, fmt.Sprint("new-", i), l, 1)
				if n := m.Len("p"); n != 8 {
					t.Fatalf("%d keys are kept", n)
				}
				for k := range 8 {
					n, want := leftOf(t, m, fmt.Sprint("old-", k), l), int64(3-k%4)
					if n > want || i < 4 && n != want {
						t.Fatalf("after %d new keys, %d are left of a key with %d", i+1, n, want)
					}
				}
			}
		})
	}
}

// Shares count, not units: a small plan that is used up outlives large ones.
func TestALimitedKeyOutlivesLargerPlans(t *testing.T) {
	m := memoryOf(t, 8)
	small, large := ratelimit.RollingWindow(2, time.Hour), ratelimit.RollingWindow(1000, time.Hour)
	use(t, m, "small", small, 2)
	for i := range 100 {
		use(t, m, fmt.Sprint("large-", i), large, 900)
		if n := leftOf(t, m, "small", small); n != 0 {
			t.Fatalf("%d left of the small plan after %d large ones", n, i)
		}
	}
}

// Half as many keys as places nearly always find one, since no client chooses the set of
// a key.
func TestKeysFindPlaces(t *testing.T) {
	m := memoryOf(t, 65_536)
	for i := range 32_768 {
		use(t, m, fmt.Sprint("10.0.", i), fivePerHour["token bucket"], 1)
	}
	if n := m.Len("p"); n < 32_768*98/100 {
		t.Errorf("%d of 32768 keys are kept", n)
	}
}

func TestSixtyFourGoroutinesAdmitExactlyTheLimit(t *testing.T) {
	for name, l := range map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(1000, 1000*time.Hour, 1000),
		"rolling window":  ratelimit.RollingWindow(1000, time.Hour),
		"calendar window": ratelimit.CalendarWindow(1000, ratelimit.Year),
	} {
		t.Run(name, func(t *testing.T) {
			h := limiterOf(t, forAll("p", l)).Wrap(ok)
			var admitted atomic.Int64
			var wg sync.WaitGroup
			for range 64 {
				wg.Go(func() {
					for range 50 {
						if do(h).Code == http.StatusOK {
							admitted.Add(1)
						}
					}
				})
			}
			wg.Wait()
			if n := admitted.Load(); n != 1000 {
				t.Errorf("%d admitted, want 1000", n)
			}
		})
	}
}

// TestOverlappingCombinationsCannotDeadlock runs limiters that have policies in
// common, in different orders, on the same keys.
func TestOverlappingCombinationsCannotDeadlock(t *testing.T) {
	policy := func(i int) ratelimit.Policy {
		return forAll(fmt.Sprint("p", i), ratelimit.RollingWindow(1_000_000, time.Hour))
	}
	base := limiterOf(t, policy(0), policy(1))
	a := must(t)(base.With(policy(2), policy(3)))
	b := must(t)(a.With(policy(4)))
	c := must(t)(base.With(policy(6), policy(5)))
	d := must(t)(base.Only(policy(7)))
	handlers := []http.Handler{
		base.Wrap(ok), a.Wrap(ok), b.Wrap(ok), c.Wrap(ok), d.Wrap(ok),
		base.Wrap(b.Wrap(ok)), c.Wrap(a.Wrap(ok)), base.Wrap(d.Wrap(ok)),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for _, h := range handlers {
			for range 4 {
				wg.Go(func() {
					for range 200 {
						do(h)
					}
				})
			}
		}
		wg.Wait()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		buf := make([]byte, 1<<16)
		t.Fatalf("dead-lock:\n%s", buf[:runtime.Stack(buf, true)])
	}
}
