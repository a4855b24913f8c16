package ratelimittest

import (
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// overdraw fails the test unless an adjustment with Overdraw moves this many units.
func (s suite) overdraw(t testing.TB, c ratelimit.Charge, cost, moved int64) {
	t.Helper()
	c.Overdraw = true
	s.adjust(t, c, cost, moved)
}

func (s suite) debt(t *testing.T) {
	began := time.Now()
	c := charge(uses()["token bucket"]) // earns a unit in 200 hours
	got := s.take(t, c).Charges[0]
	wantWait := func(units time.Duration) {
		t.Helper()
		for range 2 {
			c := s.take(t, c).Charges[0]
			if !c.Violated || c.Remaining != 0 {
				t.Errorf("violated %v, remaining %d", c.Violated, c.Remaining)
			}
			near(t, "Wait", c.Wait, units*200*time.Hour, began)
			near(t, "Reset", c.Reset, units*200*time.Hour, began)
		}
	}
	s.overdraw(t, got, 3, 3)
	s.wantLeft(t, c, 1)
	s.overdraw(t, got, 7, 7)
	wantWait(7) // 11 of 5 are used
	s.overdraw(t, got, 20, 20)
	wantWait(27)
	s.adjust(t, got, 5, 0)
	s.overdraw(t, got, -20, -20)
	wantWait(7)
	s.adjust(t, got, -6, -6)
	s.wantLeft(t, c, 0)
	wantWait(1)
	s.overdraw(t, got, -100, -5)
	s.wantLeft(t, c, 5)
}

func (s suite) debtElsewhere(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		if c.Limit.Algorithm() != ratelimit.AlgorithmTokenBucket {
			got := s.take(t, c).Charges[0]
			s.overdraw(t, got, 9, 4)
			s.overdraw(t, got, 1, 0)
			s.overdraw(t, got, -2, -2)
			s.wantLeft(t, c, 2)
		}
		// What Take charges must fit.
		c.Cost, c.Overdraw = 6, true
		if s.take(t, c).Admitted {
			t.Error("a cost of 6 of 5 is admitted")
		}
	})
}

// debtSpreads overdraws a bucket of a key that has another limit too.
func (s suite) debtSpreads(t *testing.T) {
	for name, l := range map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(8, 2000*time.Hour, 8),
		"rolling window":  ratelimit.RollingWindow(8, time.Hour),
		"calendar window": ratelimit.CalendarWindow(8, ratelimit.Year),
	} {
		t.Run(name, func(t *testing.T) {
			other := charge(l)
			s.take(t, other)
			c := under(other, uses()["token bucket"])
			c = s.take(t, c).Charges[0]
			s.overdraw(t, c, 10, 10)
			s.wantLeft(t, other, 0)
			// Of these 10 units, 6 fitted.
			s.adjust(t, c, -10, -10)
			s.wantLeft(t, other, 6)
			s.wantLeft(t, c, 3)
			// A limit that begins after that begins with all that is missing, as far as it can.
			s.overdraw(t, c, 10, 10)
			s.wantLeft(t, under(c, ratelimit.TokenBucket(20, 1000*time.Hour, 20)), 8)
		})
	}
}

func (s suite) mostDebt(t *testing.T) {
	decades := charge(ratelimit.TokenBucket(1, 3660*24*time.Hour, 5))
	got := s.fill(t, decades)
	s.overdraw(t, got, 1_000_000_000, 5)
	s.overdraw(t, got, 1, 0)
	if c := s.take(t, decades).Charges[0]; c.Wait < 6*3659*24*time.Hour || c.Wait > 6*3660*24*time.Hour {
		t.Errorf("Wait = %v, want that for 6 units", c.Wait)
	}

	many := charge(ratelimit.TokenBucket(1_000_000_000, 3660*24*time.Hour, 5))
	got = s.fill(t, many)
	got.Cost, got.Overdraw = 1<<40, true
	d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{got}}
	if err := s.call(t, s.store.Adjust, d); err != nil {
		t.Fatalf("Adjust: %v", err)
	}
	// It earns three units a second.
	if n := d.Charges[0].Moved; n < 1_000_000_000-5 || n > 1_000_000_000+1000 {
		t.Errorf("%d units moved, want those that make 1e9", n)
	}
}
