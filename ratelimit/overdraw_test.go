package ratelimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// adjustBy adjusts c and returns how many units were moved.
func adjustBy(t testing.TB, m *ratelimit.Memory, c ratelimit.Charge, cost int64) int64 {
	t.Helper()
	c.Cost = cost
	d := ratelimit.Decision{Charges: []ratelimit.Charge{c}}
	if err := m.Adjust(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	return d.Charges[0].Moved
}

func TestAnOverdrawnBucketAdmitsNothingUntilItsDebtIsEarned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		l := ratelimit.TokenBucket(60, time.Minute, 10)
		taken := takeOne(t, m, ratelimit.Charge{Policy: "p", Limit: l, Cost: 4})
		if taken.Remaining != 6 {
			t.Fatalf("remaining %d, want 6", taken.Remaining)
		}
		over := taken
		over.Overdraw = true
		if n := adjustBy(t, m, over, 30); n != 30 {
			t.Fatalf("%d units charged, want 30", n)
		}
		// Its debt is 24 units, and one more must be earned before one is left.
		one := takeOne(t, m, ratelimit.Charge{Policy: "p", Limit: l, Cost: 1})
		if !one.Violated || one.Remaining != 0 || one.Wait != 25*time.Second || one.Reset != 25*time.Second {
			t.Errorf("violated %v, remaining %d, wait %v, reset %v; want a wait of 25s", one.Violated, one.Remaining, one.Wait, one.Reset)
		}
		ten := takeOne(t, m, ratelimit.Charge{Policy: "p", Limit: l, Cost: 10})
		if !ten.Violated || ten.Wait != 34*time.Second {
			t.Errorf("violated %v, wait %v, want 34s", ten.Violated, ten.Wait)
		}
		if n := adjustBy(t, m, taken, 5); n != 0 {
			t.Errorf("%d units charged though none are left", n)
		}
		if n := adjustBy(t, m, taken, -4); n != -4 {
			t.Errorf("%d units refunded, want 4", -n)
		}
		time.Sleep(one.Wait - 4*time.Second - time.Nanosecond)
		if c := takeOne(t, m, ratelimit.Charge{Policy: "p", Limit: l, Cost: 1}); !c.Violated {
			t.Error("admitted before the debt is earned")
		}
		time.Sleep(time.Nanosecond)
		if c := takeOne(t, m, ratelimit.Charge{Policy: "p", Limit: l, Cost: 1}); c.Violated {
			t.Error("refused after the debt is earned")
		}
	})
}

func TestADebtIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		limit ratelimit.Limit
		most  int64
	}{
		"by 1e9 units":       {ratelimit.TokenBucket(1e9, time.Second, 5), 1e9},
		"by a hundred years": {ratelimit.TokenBucket(1, 3660*24*time.Hour, 5), 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				taken := takeOne(t, m, ratelimit.Charge{Policy: "p", Limit: c.limit, Cost: 2})
				taken.Overdraw = true
				if n := adjustBy(t, m, taken, 1<<40); n != c.most-2 {
					t.Errorf("%d units charged, want %d", n, c.most-2)
				}
				if n := adjustBy(t, m, taken, 1); n != 0 {
					t.Errorf("%d more units charged", n)
				}
				got := takeOne(t, m, ratelimit.Charge{Policy: "p", Limit: c.limit, Cost: 1})
				if !got.Violated || got.Wait <= 0 || got.Reset != got.Wait {
					t.Errorf("violated %v, wait %v, reset %v", got.Violated, got.Wait, got.Reset)
				}
				time.Sleep(got.Wait)
				if takeOne(t, m, ratelimit.Charge{Policy: "p", Limit: c.limit, Cost: 1}).Violated {
					t.Error("refused after the wait")
				}
			})
		})
	}
}

func TestOnlyTokenBucketsAreOverdrawn(t *testing.T) {
	for name, l := range map[string]ratelimit.Limit{
		"rolling window":  ratelimit.RollingWindow(5, time.Hour),
		"calendar window": ratelimit.CalendarWindow(5, ratelimit.Year),
		"concurrency":     ratelimit.Concurrency(5),
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			taken := takeOne(t, m, ratelimit.Charge{Policy: "p", Limit: l, Cost: 2})
			taken.Overdraw = true
			if n := adjustBy(t, m, taken, 9); n != 3 {
				t.Errorf("%d units charged, want 3", n)
			}
		})
	}
}

// takeOne decides one charge.
func takeOne(t testing.TB, m *ratelimit.Memory, c ratelimit.Charge) ratelimit.Charge {
	t.Helper()
	d := ratelimit.Decision{Charges: []ratelimit.Charge{c}}
	if err := m.Take(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	return d.Charges[0]
}
