// Package ratelimittest checks that a [ratelimit.Store] keeps its contract.
//
//	func TestStore(t *testing.T) {
//		ratelimittest.TestStore(t, func(t testing.TB) ratelimit.Store { return open(t) })
//	}
package ratelimittest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// TestStore runs the suite. Open returns a store for one test. Tests may share a store,
// since each uses policy names of its own.
func TestStore(t *testing.T, open func(testing.TB) ratelimit.Store) {
	for _, c := range []struct {
		name string
		test func(suite, *testing.T)
	}{
		{"a limit admits its quota and no more", suite.quota},
		{"keys and policies are counted apart", suite.apart},
		{"a refused request is charged to no policy", suite.allOrNone},
		{"the order of the policies makes no difference", suite.order},
		{"a shadow policy never refuses, and counts what fits", suite.shadow},
		{"a cost takes that many units, and one above the limit never fits", suite.cost},
		{"a cost of zero fits even if nothing is left", suite.peek},
		{"what is refunded can be used again", suite.refund},
		{"no more is refunded than was taken", suite.refundTooMuch},
		{"an adjustment takes what is left, and reports how much", suite.adjustUp},
		{"what did not fit is not refunded", suite.refundTaken},
		{"every charge of an adjustment is adjusted", suite.adjustAll},
		{"a charge of zero can require units to be left", suite.least},
		{"under a quota of zero nothing fits", suite.nothing},
		{"places of a concurrency limit are free again when refunded", suite.places},
		{"a limit may change from one decision to the next", suite.changing},
		{"a limit keeps its count when the key meets another", suite.alternating},
		{"a larger limit starts with what was used and no more", suite.larger},
		{"a violated policy reports how long to wait", suite.wait},
		{"concurrent requests take exactly the limit", suite.concurrent},
		{"overlapping decisions in any order do not deadlock", suite.overlapping},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(suite{open(t)}, t) })
	}
}

type suite struct{ store ratelimit.Store }

var (
	serial atomic.Int64
	node   = rand.Uint64()
)

// decisionOf returns a decision of charges, with an ID that no other call has.
func decisionOf(charges ...ratelimit.Charge) *ratelimit.Decision {
	d := &ratelimit.Decision{ID: ratelimit.ID{Node: node, Seq: uint64(serial.Add(1))}, Charges: charges}
	now := time.Now()
	for i := range charges {
		c := &charges[i]
		if start, end := c.Limit.Window(now); !end.IsZero() {
			c.Windows[0] = ratelimit.Window{Start: start, End: end}
			c.Windows[1].Start, c.Windows[1].End = c.Limit.Window(end)
		}
		if c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
			c.Lease = time.Minute
		}
	}
	return d
}

// charge returns a charge of one unit under a policy that no other test uses.
func charge(l ratelimit.Limit) ratelimit.Charge {
	name := fmt.Sprintf("test-%d-%d", time.Now().UnixNano(), serial.Add(1))
	return ratelimit.Charge{Policy: name, Key: ratelimit.TextKey("key"), Limit: l, Cost: 1}
}

// limits returns one limit of each algorithm, with a quota of five and a period that no
// test outlasts.
func limits() map[string]ratelimit.Limit {
	return map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(5, 1000*time.Hour, 5),
		"rolling window":  ratelimit.RollingWindow(5, time.Hour),
		"calendar window": ratelimit.CalendarWindow(5, ratelimit.Year),
		"concurrency":     ratelimit.Concurrency(5),
	}
}

func (s suite) each(t *testing.T, test func(*testing.T, ratelimit.Charge)) {
	for name, l := range limits() {
		t.Run(name, func(t *testing.T) { test(t, charge(l)) })
	}
}

func (s suite) take(t testing.TB, charges ...ratelimit.Charge) (bool, []ratelimit.Charge) {
	t.Helper()
	d := decisionOf(charges...)
	if err := s.store.Take(t.Context(), d); err != nil {
		t.Fatalf("Take: %v", err)
	}
	return d.Admitted, d.Charges
}

// wantLeft fails the test unless exactly n more units can be taken under c.
func (s suite) wantLeft(t testing.TB, c ratelimit.Charge, n int64) {
	t.Helper()
	c.Cost = 0
	_, got := s.take(t, c)
	if got[0].Remaining != n {
		t.Errorf("Remaining = %d, want %d", got[0].Remaining, n)
	}
	c.Cost = n + 1
	if ok, _ := s.take(t, c); ok {
		t.Errorf("a cost of %d is admitted, want %d to be left", n+1, n)
	}
}

// adjust fails the test unless an adjustment by cost moves this many units.
func (s suite) adjust(t testing.TB, c ratelimit.Charge, cost, moved int64) {
	t.Helper()
	c.Cost, c.Moved = cost, -99
	d := decisionOf(c)
	if err := s.store.Adjust(t.Context(), d); err != nil {
		t.Fatalf("Adjust: %v", err)
	}
	if got := d.Charges[0].Moved; got != moved {
		t.Errorf("an adjustment by %d has moved %d units, want %d", cost, got, moved)
	}
}

func (s suite) quota(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		for i := range 5 {
			ok, got := s.take(t, c)
			if !ok || got[0].Violated || got[0].Remaining != int64(4-i) {
				t.Fatalf("request %d: admitted %v, violated %v, remaining %d; want true, false, %d",
					i+1, ok, got[0].Violated, got[0].Remaining, 4-i)
			}
		}
		for range 3 {
			if ok, got := s.take(t, c); ok || !got[0].Violated || got[0].Remaining != 0 {
				t.Fatalf("over the limit: admitted %v, violated %v, remaining %d", ok, got[0].Violated, got[0].Remaining)
			}
		}
	})
}

func (s suite) apart(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		other := c
		other.Key = ratelimit.TextKey("other")
		elsewhere := charge(c.Limit)
		for range 5 {
			s.take(t, c)
		}
		s.wantLeft(t, c, 0)
		s.wantLeft(t, other, 5)
		s.wantLeft(t, elsewhere, 5)
	})
}

func (s suite) allOrNone(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		for name, l := range limits() {
			full := charge(l)
			full.Cost = 5
			s.take(t, full)
			full.Cost = 1
			ok, got := s.take(t, c, full)
			if ok || got[0].Violated || !got[1].Violated {
				t.Errorf("beside a full %s: admitted %v, violated %v and %v", name, ok, got[0].Violated, got[1].Violated)
			}
			if got[0].Remaining != 5 {
				t.Errorf("beside a full %s: Remaining = %d, want 5", name, got[0].Remaining)
			}
		}
		s.wantLeft(t, c, 5)
	})
}

func (s suite) order(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var forth, back []ratelimit.Charge
	for _, l := range limits() {
		forth = append(forth, charge(l))
	}
	for range forth {
		back = append(back, ratelimit.Charge{})
	}
	for i := range forth {
		back[len(back)-1-i] = charge(forth[i].Limit)
	}
	for range 30 {
		for i := range forth {
			forth[i].Cost = random.Int64N(3)
			back[len(back)-1-i].Cost = forth[i].Cost
		}
		ok1, _ := s.take(t, forth...)
		ok2, _ := s.take(t, back...)
		if ok1 != ok2 {
			t.Fatalf("admitted %v in one order and %v in the reverse", ok1, ok2)
		}
		for i := range forth {
			f, b := forth[i], back[len(back)-1-i]
			if f.Violated != b.Violated || f.Remaining != b.Remaining {
				t.Fatalf("%v: violated %v, remaining %d; in the other order %v, %d",
					f.Limit, f.Violated, f.Remaining, b.Violated, b.Remaining)
			}
		}
	}
}

func (s suite) shadow(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		c.Shadow = true
		beside := charge(ratelimit.RollingWindow(8, time.Hour))
		for i := range 8 {
			ok, got := s.take(t, c, beside)
			if !ok || got[0].Violated != (i >= 5) {
				t.Fatalf("request %d: admitted %v, violated %v", i+1, ok, got[0].Violated)
			}
		}
		s.wantLeft(t, beside, 0)
	})
}

func (s suite) cost(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		c.Cost = 3
		if ok, got := s.take(t, c); !ok || got[0].Remaining != 2 {
			t.Fatalf("a cost of 3: admitted %v, remaining %d", ok, got[0].Remaining)
		}
		s.wantLeft(t, c, 2)
		c.Cost = 6
		if ok, got := s.take(t, c); ok || got[0].Wait >= 0 {
			t.Errorf("a cost of 6: admitted %v, wait %v, want never", ok, got[0].Wait)
		}
	})
}

func (s suite) peek(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		c.Cost = 5
		s.take(t, c)
		c.Cost = 0
		if ok, got := s.take(t, c); !ok || got[0].Violated || got[0].Remaining != 0 {
			t.Errorf("admitted %v, violated %v, remaining %d", ok, got[0].Violated, got[0].Remaining)
		}
	})
}

func (s suite) refund(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		c.Cost = 4
		_, got := s.take(t, c)
		s.adjust(t, got[0], -3, -3)
		s.wantLeft(t, c, 4)
	})
}

func (s suite) refundTooMuch(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		_, got := s.take(t, c)
		s.adjust(t, got[0], -4, -1)
		s.wantLeft(t, c, 5)
		s.adjust(t, got[0], -1, 0)
		s.wantLeft(t, c, 5)
	})
}

func (s suite) adjustUp(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		_, got := s.take(t, c)
		s.adjust(t, got[0], 2, 2)
		s.wantLeft(t, c, 2)
		s.adjust(t, got[0], 100, 2)
		s.wantLeft(t, c, 0)
		s.adjust(t, got[0], 1, 0)
	})
}

// refundTaken settles far above what is left and then refunds it, as for a handler that
// fails in the end.
func (s suite) refundTaken(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		other := c
		other.Cost = 3
		s.take(t, other)
		_, got := s.take(t, c)
		s.adjust(t, got[0], 90, 1)
		s.wantLeft(t, c, 0)
		s.adjust(t, got[0], -1, -1)
		s.wantLeft(t, c, 1)
		s.adjust(t, got[0], -1, -1)
		s.wantLeft(t, c, 2)
	})
}

func (s suite) adjustAll(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		beside := charge(c.Limit)
		_, got := s.take(t, c, beside)
		got[0].Cost, got[1].Cost = 2, -1
		if err := s.store.Adjust(t.Context(), decisionOf(got...)); err != nil {
			t.Fatalf("Adjust: %v", err)
		}
		if got[0].Moved != 2 || got[1].Moved != -1 {
			t.Errorf("%d and %d units moved, want 2 and -1", got[0].Moved, got[1].Moved)
		}
		s.wantLeft(t, c, 2)
		s.wantLeft(t, beside, 5)
	})
}

func (s suite) least(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		c.Cost, c.MinRemaining = 0, 2
		if ok, got := s.take(t, c); !ok || got[0].Remaining != 5 {
			t.Errorf("with all left: admitted %v, remaining %d, want it to take nothing", ok, got[0].Remaining)
		}
		used := c
		used.Cost, used.MinRemaining = 4, 0
		s.take(t, used)
		if ok, got := s.take(t, c); ok || !got[0].Violated || got[0].Wait < 0 || got[0].Remaining != 1 {
			t.Errorf("with 1 left of 2: admitted %v, violated %v, wait %v, remaining %d",
				ok, got[0].Violated, got[0].Wait, got[0].Remaining)
		}
		c.MinRemaining = 1
		if ok, _ := s.take(t, c); !ok {
			t.Error("with 1 left of 1: refused")
		}
	})
}

func (s suite) nothing(t *testing.T) {
	for name, l := range map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(0, time.Hour, 5),
		"rolling window":  ratelimit.RollingWindow(0, time.Hour),
		"calendar window": ratelimit.CalendarWindow(0, ratelimit.Year),
		"concurrency":     ratelimit.Concurrency(0),
		"nothing":         ratelimit.Nothing(),
	} {
		t.Run(name, func(t *testing.T) {
			c, beside := charge(l), charge(ratelimit.RollingWindow(5, time.Hour))
			for range 2 {
				ok, got := s.take(t, c, beside)
				if ok || !got[0].Violated || got[0].Remaining != 0 || got[0].Wait >= 0 {
					t.Errorf("admitted %v, violated %v, remaining %d, wait %v, want never",
						ok, got[0].Violated, got[0].Remaining, got[0].Wait)
				}
			}
			s.wantLeft(t, beside, 5)
			c.Cost = 0
			if ok, got := s.take(t, c); !ok || got[0].Violated {
				t.Errorf("a cost of 0: admitted %v, violated %v", ok, got[0].Violated)
			}
			s.adjust(t, c, 1, 0)
			s.adjust(t, c, -1, 0)
		})
	}
}

func (s suite) places(t *testing.T) {
	c := charge(ratelimit.Concurrency(2))
	for range 50 {
		_, first := s.take(t, c)
		_, second := s.take(t, c)
		if ok, _ := s.take(t, c); ok {
			t.Fatal("a third request is admitted under a limit of two")
		}
		s.adjust(t, first[0], -1, -1)
		s.adjust(t, second[0], -1, -1)
	}
	s.wantLeft(t, c, 2)
}

func (s suite) changing(t *testing.T) {
	for name, pair := range map[string][2]ratelimit.Limit{
		"token bucket":    {ratelimit.TokenBucket(5, 1000*time.Hour, 5), ratelimit.TokenBucket(2, 1000*time.Hour, 2)},
		"rolling window":  {ratelimit.RollingWindow(5, time.Hour), ratelimit.RollingWindow(2, time.Hour)},
		"calendar window": {ratelimit.CalendarWindow(5, ratelimit.Year), ratelimit.CalendarWindow(2, ratelimit.Year)},
	} {
		t.Run(name, func(t *testing.T) {
			c := charge(pair[0])
			c.Cost = 5
			s.take(t, c)
			c.Limit = pair[1]
			s.wantLeft(t, c, 0)
		})
	}
}

func (s suite) alternating(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		if c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
			t.Skip("a concurrency limit has no window")
		}
		for name, short := range map[string]ratelimit.Limit{
			"token bucket":    ratelimit.TokenBucket(1000, time.Millisecond, 1000),
			"rolling window":  ratelimit.RollingWindow(1000, time.Millisecond),
			"calendar window": ratelimit.CalendarWindow(1000, ratelimit.Minute),
		} {
			c := charge(c.Limit)
			other := c
			other.Limit = short
			admitted := 0
			for range 8 {
				if ok, _ := s.take(t, c); ok {
					admitted++
				}
				time.Sleep(2 * time.Millisecond)
				if ok, _ := s.take(t, other); !ok {
					t.Fatalf("%s: refused though less than its quota was used", name)
				}
			}
			if admitted == 0 || admitted > 5 {
				t.Errorf("%d of 5 admitted beside a short %s", admitted, name)
			}
			s.wantLeft(t, c, 0)
		}
	})
}

func (s suite) larger(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		if c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
			t.Skip("a concurrency limit shares no use with other algorithms")
		}
		for name, large := range map[string]ratelimit.Limit{
			"token bucket":    ratelimit.TokenBucket(1000, 1000*time.Hour, 1000),
			"rolling window":  ratelimit.RollingWindow(1000, 1000*time.Hour),
			"calendar window": ratelimit.CalendarWindow(1000, ratelimit.Year),
		} {
			t.Run(name, func(t *testing.T) {
				c := charge(c.Limit)
				c.Cost = 5
				s.take(t, c)
				c.Limit = large
				s.wantLeft(t, c, 995)
			})
		}
	})
}

func (s suite) wait(t *testing.T) {
	for name, l := range map[string]ratelimit.Limit{
		"token bucket":   ratelimit.TokenBucket(2, time.Second, 1),
		"rolling window": ratelimit.RollingWindow(1, 500*time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			c := charge(l)
			s.take(t, c)
			ok, got := s.take(t, c)
			if ok || got[0].Wait <= 0 || got[0].Wait > 500*time.Millisecond {
				t.Fatalf("admitted %v, wait %v", ok, got[0].Wait)
			}
			time.Sleep(got[0].Wait)
			if ok, got := s.take(t, c); !ok {
				t.Errorf("refused after the wait, with another wait of %v", got[0].Wait)
			}
		})
	}
}

func (s suite) concurrent(t *testing.T) {
	s.each(t, func(t *testing.T, c ratelimit.Charge) {
		var admitted atomic.Int64
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 5 {
					if d := decisionOf(c); s.store.Take(t.Context(), d) != nil {
						t.Error("Take fails")
					} else if d.Admitted {
						admitted.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if n := admitted.Load(); n != 5 {
			t.Errorf("%d admitted, want 5", n)
		}
	})
}

func (s suite) overlapping(t *testing.T) {
	var all []ratelimit.Charge
	for range 5 {
		all = append(all, charge(ratelimit.RollingWindow(100, time.Hour)))
	}
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 7))
			for range 40 {
				some := append([]ratelimit.Charge(nil), all...)
				random.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
				d := decisionOf(some[:1+random.IntN(len(some))]...)
				if err := s.store.Take(t.Context(), d); err != nil {
					t.Error(err)
				}
				if d.Admitted {
					admitted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if admitted.Load() == 0 {
		t.Error("nothing was admitted")
	}
	for _, c := range all {
		c.Cost = 101
		if ok, _ := s.take(t, c); ok {
			t.Error("more than the limit was left")
		}
	}
}
