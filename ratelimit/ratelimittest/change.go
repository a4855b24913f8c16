package ratelimittest

import (
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

func (s suite) changing(t *testing.T) {
	for name, pair := range map[string][2]ratelimit.Limit{
		"token bucket":    {ratelimit.TokenBucket(5, 1000*time.Hour, 5), ratelimit.TokenBucket(2, 1000*time.Hour, 2)},
		"rolling window":  {ratelimit.RollingWindow(5, time.Hour), ratelimit.RollingWindow(2, time.Hour)},
		"calendar window": {ratelimit.CalendarWindow(5, ratelimit.Year), ratelimit.CalendarWindow(2, ratelimit.Year)},
	} {
		t.Run(name, func(t *testing.T) {
			c := s.fill(t, charge(pair[0]))
			s.wantLeft(t, under(c, pair[1]), 0)
			s.wantLeft(t, c, 0)
		})
	}
}

func (s suite) alternating(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		for name, short := range map[string]ratelimit.Limit{
			"token bucket":    ratelimit.TokenBucket(1000, time.Millisecond, 1000),
			"rolling window":  ratelimit.RollingWindow(1000, time.Millisecond),
			"calendar window": ratelimit.CalendarWindow(1000, ratelimit.Minute),
		} {
			c := charge(c.Limit)
			admitted := 0
			for range 8 {
				if s.take(t, c).Admitted {
					admitted++
				}
				time.Sleep(2 * time.Millisecond)
				if !s.take(t, under(c, short)).Admitted {
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
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		for name, large := range map[string]ratelimit.Limit{
			"token bucket":    ratelimit.TokenBucket(1000, 1000*time.Hour, 1000),
			"rolling window":  ratelimit.RollingWindow(1000, 1000*time.Hour),
			"calendar window": ratelimit.CalendarWindow(1000, ratelimit.Year),
		} {
			t.Run(name, func(t *testing.T) {
				c := s.fill(t, charge(c.Limit))
				s.wantLeft(t, under(c, large), 995)
			})
		}
	})
}

// fourLimits changes the algorithm more than once, and comes back to each limit.
func (s suite) fourLimits(t *testing.T) {
	c := charge(ratelimit.RollingWindow(100, 10*time.Hour))
	all := []ratelimit.Limit{c.Limit}
	for _, l := range uses() {
		all = append(all, l)
	}
	for i := range 5 {
		if !s.take(t, under(c, all[i%len(all)])).Admitted {
			t.Fatalf("request %d is refused under %v", i+1, all[i%len(all)])
		}
	}
	for range 2 {
		for _, l := range all {
			want := int64(0)
			if l == c.Limit {
				want = 95
			}
			t.Logf("under %v", l)
			s.wantLeft(t, under(c, l), want)
		}
	}
}

func (s suite) refundEverywhere(t *testing.T) {
	each(t, uses(), func(t *testing.T, first ratelimit.Charge) {
		for name, l := range map[string]ratelimit.Limit{
			"token bucket":    ratelimit.TokenBucket(10, 2000*time.Hour, 10),
			"rolling window":  ratelimit.RollingWindow(10, 2*time.Hour),
			"calendar window": ratelimit.CalendarWindow(10, ratelimit.Year),
		} {
			t.Run(name, func(t *testing.T) {
				c := charge(first.Limit)
				s.take(t, c)
				second := under(c, l)
				second.Cost = 2
				second = s.take(t, second).Charges[0]
				s.wantLeft(t, c, 2)
				s.adjust(t, second, -2, -2)
				s.wantLeft(t, second, 9)
				s.wantLeft(t, c, 4)

				// Of these, two fit under the first limit: only they are refunded there.
				c.Cost = 2
				s.take(t, c)
				second.Cost = 4
				second = s.take(t, second).Charges[0]
				s.wantLeft(t, c, 0)
				s.adjust(t, second, -4, -4)
				s.wantLeft(t, second, 7)
				s.wantLeft(t, c, 2)
			})
		}
	})
}
