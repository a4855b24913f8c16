package ratelimittest

import (
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// TestClock sets the clock of a store back by an hour, as may happen to a server.
// [TestDecisions] does not do so. After that no call may fail, no key may get its quota
// more than once again, and none may be refused for longer than the period of its limit, or
// than its debt takes to earn. A calendar window stays until its end for callers whose own
// clock was right. For those whose clock is set back too, the present window takes its place.
func TestClock(t *testing.T, open func(testing.TB) (store ratelimit.Store, setClock func(time.Time))) {
	const quota = 5
	minute, hour := time.Minute, ratelimit.CalendarWindow(quota, ratelimit.Hour)
	for name, test := range map[string]clockTest{
		"token bucket":           {limit: ratelimit.TokenBucket(quota, minute, quota), longest: minute},
		"overdrawn token bucket": {limit: ratelimit.TokenBucket(quota, minute, quota), debt: 10, longest: 3 * minute},
		"rolling window":         {limit: ratelimit.RollingWindow(quota, minute), longest: minute},
		"calendar window":        {limit: hour, longest: 2 * time.Hour},
		"calendar window of a caller whose clock is set back too": {limit: hour, callers: true, longest: 30 * minute},
		"concurrency": {limit: ratelimit.Concurrency(quota)},
		"holds":       {limit: ratelimit.RollingWindow(quota, minute), hold: true},
	} {
		t.Run(name, func(t *testing.T) {
			store, setClock := open(t)
			t.Cleanup(func() { _ = store.Close() })
			test.run(t, suite{store}, setClock)
		})
	}
}

type clockTest struct {
	limit   ratelimit.Limit
	debt    int64 // that is charged beyond the quota
	hold    bool
	callers bool // the clock of the callers is set back too
	longest time.Duration
}

func (test *clockTest) run(t *testing.T, s suite, setClock func(time.Time)) {
	l, quota := test.limit, test.limit.Quota()
	now := time.Date(2026, 5, 5, 12, 30, 0, 0, time.UTC)
	c := charge(l)
	c.Windows = windows(l, now)
	setClock(now)
	if test.hold {
		s.hold(t, c, quota)
	}
	full := c
	if !test.hold {
		full = s.fill(t, c)
		s.overdraw(t, full, test.debt, test.debt)
	}

	longest := max(test.longest, time.Minute)
	// admit returns how many of ten requests are admitted.
	admit := func(at time.Time) (n int64) {
		setClock(at)
		if test.callers {
			c.Windows = windows(l, at)
		}
		for range 2 * quota {
			d := s.take(t, c)
			if d.Admitted {
				n++
			}
			got := d.Charges[0]
			if got.Remaining < 0 || got.Remaining > quota || got.Reset < 0 || got.Wait < 0 {
				t.Errorf("Remaining = %d, Reset = %v, Wait = %v", got.Remaining, got.Reset, got.Wait)
			}
			if max(got.Reset, got.Wait) > longest {
				t.Errorf("Reset = %v, Wait = %v, want at most %v", got.Reset, got.Wait, longest)
			}
		}
		return n
	}
	back := now.Add(-time.Hour)
	first := admit(back)
	if first > quota {
		t.Errorf("%d more requests of %d are admitted", first, quota)
	}
	second := admit(back.Add(time.Minute))
	if test.longest == time.Minute && second == 0 {
		t.Error("refused for longer than a minute")
	}
	if first+second > 2*quota {
		t.Errorf("%d more requests of %d are admitted in a minute", first+second, quota)
	}
	if test.debt > 0 || test.callers {
		if first+second > 0 {
			t.Errorf("%d requests are admitted before the debt is earned, or in the present window", first+second)
		}
		longest = time.Hour
		if admit(back.Add(test.longest)) == 0 {
			t.Errorf("refused for longer than %v", test.longest)
		}
	}
	longest = 2 * time.Hour
	full.Cost = -1
	d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{full}}
	if err := s.call(t, s.store.Adjust, d); err != nil {
		t.Errorf("Adjust: %v", err)
	}

	later := now.Add(2 * time.Hour)
	c.Windows = windows(l, later)
	if n := admit(later); n != quota {
		t.Errorf("two hours later %d requests of %d are admitted", n, quota)
	}
}
