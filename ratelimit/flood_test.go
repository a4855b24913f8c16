package ratelimit_test

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// TestFlood invents far more keys than the store keeps: 10^6 by default, 10^7
// with USHER_SOAK=1.
func TestFlood(t *testing.T) {
	const capacity = 65_536
	keys := 1_000_000
	if os.Getenv("USHER_SOAK") != "" {
		keys = 10_000_000
	}
	for name, l := range map[string]ratelimit.Limit{
		"token bucket":   ratelimit.TokenBucket(5, time.Hour, 5),
		"rolling window": ratelimit.RollingWindow(5, time.Hour),
	} {
		t.Run(name, func(t *testing.T) {
			m := memoryOf(t, capacity)
			take := func(key string) bool {
				c := []ratelimit.Charge{{Policy: "p", Key: ratelimit.TextKey(key), Limit: l, Cost: 1}}
				admitted, err := take(t.Context(), m, c)
				if err != nil {
					t.Fatal(err)
				}
				return admitted
			}
			for range 5 {
				take("offender")
			}
			var admitted, late int
			var full uint64
			for i := range keys {
				ok := take(fmt.Sprintf("invented-%d", i))
				if ok {
					admitted++
				}
				if ok && i >= keys-capacity {
					late++
				}
				if i == 4*capacity {
					full = heap()
				}
			}
			end := heap()
			t.Logf("%d keys: %d admitted, of the last %d: %d; %d in the store; heap %.1f MB after %d keys, %.1f MB at the end",
				keys, admitted, capacity, late, m.Len("p"), float64(full)/1e6, 4*capacity, float64(end)/1e6)
			if take("offender") {
				t.Error("the offender has bought a fresh start")
			}
			if n := m.Len("p"); n > capacity {
				t.Errorf("%d keys in the store, want at most %d", n, capacity)
			}
			if end > full+full/4+1<<20 {
				t.Errorf("the heap grew from %d to %d", full, end)
			}
			// As many keys as fit have a fresh allowance, and the slots of the others admit
			// their limit: some requests, but not all.
			if admitted < capacity || admitted > 2*5*capacity+capacity {
				t.Errorf("%d of %d new keys admitted", admitted, keys)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// The debts of a flood end with its window.
func TestNewKeysRecoverAfterAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryOf(t, 64)
		take := func(key string) bool {
			c := []ratelimit.Charge{{
				Policy: "p", Key: ratelimit.TextKey(key),
				Limit: ratelimit.RollingWindow(2, time.Minute), Cost: 1,
			}}
			admitted, err := take(t.Context(), m, c)
			if err != nil {
				t.Fatal(err)
			}
			return admitted
		}
		refused := 0
		for i := range 2000 {
			if !take(fmt.Sprint(i)) {
				refused++
			}
		}
		if refused == 0 {
			t.Fatal("the flood met no limit")
		}
		time.Sleep(time.Minute)
		for i := range 32 {
			if !take(fmt.Sprint("late", i)) {
				t.Fatal("a new key pays for a flood that is over")
			}
		}
	})
}

// The debt of a bucket whose key was dropped is paid off at the rate of the bucket.
func TestTheDebtOfABucketFades(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryOf(t, 1)
		left := func(key string, cost int64) int64 {
			c := []ratelimit.Charge{{
				Policy: "p", Key: ratelimit.TextKey(key), Limit: ratelimit.TokenBucket(10, 10*time.Hour, 10), Cost: cost,
			}}
			if _, err := take(t.Context(), m, c); err != nil {
				t.Fatal(err)
			}
			return c[0].Remaining
		}
		left("offender", 10)
		if n := left("next", 0); n != 0 {
			t.Errorf("%d left for the next key at once, want 0", n)
		}
		time.Sleep(5 * time.Hour)
		if n := left("later", 0); n != 5 {
			t.Errorf("%d left for a later key, want 5", n)
		}
	})
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
