package ratelimittest

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

func (s suite) quota(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		for i := range int64(5) {
			d := s.take(t, c)
			if got := d.Charges[0]; !d.Admitted || got.Violated || got.Remaining != 4-i || got.TakenBy != d.ID {
				t.Fatalf("request %d: admitted %v, violated %v, remaining %d, taken by %v; want true, false, %d, %v",
					i+1, d.Admitted, got.Violated, got.Remaining, got.TakenBy, 4-i, d.ID)
			}
		}
		for range 3 {
			d := s.take(t, c)
			if got := d.Charges[0]; d.Admitted || !got.Violated || got.Remaining != 0 {
				t.Fatalf("over the limit: admitted %v, violated %v, remaining %d", d.Admitted, got.Violated, got.Remaining)
			}
		}
	})
}

func (s suite) allOrNone(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		for name, l := range limits() {
			full := s.fill(t, charge(l))
			full.Cost = 1
			d := s.take(t, c, full)
			if d.Admitted || d.Charges[0].Violated || !d.Charges[1].Violated {
				t.Errorf("beside a full %s: admitted %v, violated %v and %v",
					name, d.Admitted, d.Charges[0].Violated, d.Charges[1].Violated)
			}
			if got := d.Charges[0].Remaining; got != 5 {
				t.Errorf("beside a full %s: Remaining = %d, want 5", name, got)
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
	for i := range forth {
		back = append(back, charge(forth[len(forth)-1-i].Limit))
	}
	for range 30 {
		for i := range forth {
			forth[i].Cost = random.Int64N(3)
			back[len(back)-1-i].Cost = forth[i].Cost
		}
		ok1, ok2 := s.take(t, forth...).Admitted, s.take(t, back...).Admitted
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
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		c.Shadow = true
		beside := charge(ratelimit.RollingWindow(8, time.Hour))
		for i := range 8 {
			d := s.take(t, c, beside)
			if !d.Admitted || d.Charges[0].Violated != (i >= 5) {
				t.Fatalf("request %d: admitted %v, violated %v", i+1, d.Admitted, d.Charges[0].Violated)
			}
		}
		s.wantLeft(t, beside, 0)
		if d := s.take(t, charge(c.Limit), beside); d.Admitted {
			t.Error("a policy that is not in shadow no longer refuses")
		}
	})
}

func (s suite) cost(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		c.Cost = 3
		if d := s.take(t, c); !d.Admitted || d.Charges[0].Remaining != 2 {
			t.Fatalf("a cost of 3: admitted %v, remaining %d", d.Admitted, d.Charges[0].Remaining)
		}
		s.wantLeft(t, c, 2)
		c.Cost = 6
		if d := s.take(t, c); d.Admitted || d.Charges[0].Wait >= 0 {
			t.Errorf("a cost of 6: admitted %v, wait %v, want never", d.Admitted, d.Charges[0].Wait)
		}
		c.Cost = 1_000_000_000
		if d := s.take(t, c); d.Admitted || d.Charges[0].Wait >= 0 {
			t.Errorf("a cost of 1e9: admitted %v, wait %v, want never", d.Admitted, d.Charges[0].Wait)
		}
	})
}

func (s suite) peek(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		c = s.fill(t, c)
		c.Cost = 0
		d := s.take(t, c)
		if got := d.Charges[0]; !d.Admitted || got.Violated || got.Remaining != 0 {
			t.Errorf("admitted %v, violated %v, remaining %d", d.Admitted, got.Violated, got.Remaining)
		}
	})
}

func (s suite) minRemaining(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		c.Cost, c.MinRemaining = 0, 2
		if d := s.take(t, c); !d.Admitted || d.Charges[0].Remaining != 5 {
			t.Errorf("with all left: admitted %v, remaining %d, want it to take nothing", d.Admitted, d.Charges[0].Remaining)
		}
		used := c
		used.Cost, used.MinRemaining = 4, 0
		s.take(t, used)
		d := s.take(t, c)
		if got := d.Charges[0]; d.Admitted || !got.Violated || got.Wait < 0 || got.Remaining != 1 {
			t.Errorf("with 1 left of 2: admitted %v, violated %v, wait %v, remaining %d",
				d.Admitted, got.Violated, got.Wait, got.Remaining)
		}
		c.MinRemaining = 1
		if !s.take(t, c).Admitted {
			t.Error("with 1 left of 1: refused")
		}
		c.MinRemaining = 6
		if d := s.take(t, c); d.Admitted || d.Charges[0].Wait >= 0 {
			t.Errorf("with 6 required of 5: admitted %v, wait %v, want never", d.Admitted, d.Charges[0].Wait)
		}
	})
}

func (s suite) nothing(t *testing.T) {
	each(t, map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(0, time.Hour, 5),
		"rolling window":  ratelimit.RollingWindow(0, time.Hour),
		"calendar window": ratelimit.CalendarWindow(0, ratelimit.Year),
		"concurrency":     ratelimit.Concurrency(0),
		"nothing":         ratelimit.Nothing(),
	}, func(t *testing.T, c ratelimit.Charge) {
		beside := charge(ratelimit.RollingWindow(5, time.Hour))
		for range 2 {
			d := s.take(t, c, beside)
			got := d.Charges[0]
			if d.Admitted || !got.Violated || got.Remaining != 0 || got.Wait >= 0 {
				t.Errorf("admitted %v, violated %v, remaining %d, wait %v, want never",
					d.Admitted, got.Violated, got.Remaining, got.Wait)
			}
		}
		s.wantLeft(t, beside, 5)
		c.Cost = 0
		if d := s.take(t, c); !d.Admitted || d.Charges[0].Violated {
			t.Errorf("a cost of 0: admitted %v, violated %v", d.Admitted, d.Charges[0].Violated)
		}
		s.adjust(t, c, 1, 0)
		s.adjust(t, c, -1, 0)
	})
}

func (s suite) unlimited(t *testing.T) {
	c := charge(ratelimit.Unlimited())
	c.Cost = 1_000_000_000
	for range 3 {
		if d := s.take(t, c); !d.Admitted || d.Charges[0].Violated {
			t.Fatalf("admitted %v, violated %v", d.Admitted, d.Charges[0].Violated)
		}
	}
	s.adjust(t, c, 1, 0)
	s.adjust(t, c, -1, 0)
	// What was admitted without a limit was not counted.
	s.wantLeft(t, under(c, ratelimit.RollingWindow(5, time.Hour)), 5)
}
