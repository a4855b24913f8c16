package ratelimittest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// near fails the test unless got is what was left of want at some time since began.
func near(t *testing.T, what string, got, want time.Duration, began time.Time) {
	t.Helper()
	const slack = time.Second // between two clocks
	if got > want+slack || got < want-time.Since(began)-slack {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

// untilEnd returns how long the window of c lasts, or 0 if c has none.
func untilEnd(c ratelimit.Charge) time.Duration {
	switch c.Limit.Algorithm() {
	case ratelimit.AlgorithmRollingWindow:
		return c.Limit.Per()
	case ratelimit.AlgorithmCalendarWindow:
		return time.Until(c.Windows[0].End)
	default:
		return 0
	}
}

func (s suite) reset(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		began, unused, used := time.Now(), time.Duration(0), untilEnd(c)
		switch c.Limit.Algorithm() {
		case ratelimit.AlgorithmTokenBucket:
			used = c.Limit.Per() / 5
		case ratelimit.AlgorithmCalendarWindow:
			unused = used
		}
		peek := c
		peek.Cost = 0
		near(t, "Reset before any use", s.take(t, peek).Charges[0].Reset, unused, began)
		near(t, "Reset after the first use", s.take(t, c).Charges[0].Reset, used, began)
		near(t, "Reset without a charge", s.take(t, peek).Charges[0].Reset, used, began)
		c.Cost = 4
		near(t, "Reset after the last use", s.take(t, c).Charges[0].Reset, used, began)
		near(t, "Reset of a refused request", s.take(t, c).Charges[0].Reset, used, began)
	})
}

func (s suite) wait(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		began := time.Now()
		for i := range 5 {
			if got := s.take(t, c).Charges[0].Wait; got != 0 {
				t.Errorf("request %d is admitted with a wait of %v", i+1, got)
			}
		}
		for _, cost := range []int64{1, 3, 5} {
			want := untilEnd(c)
			if c.Limit.Algorithm() == ratelimit.AlgorithmTokenBucket {
				want = c.Limit.Per() / 5 * time.Duration(cost)
			}
			c.Cost, c.MinRemaining = cost, 0
			near(t, fmt.Sprintf("Wait for a cost of %d", cost), s.take(t, c).Charges[0].Wait, want, began)
			c.Cost, c.MinRemaining = 0, cost
			near(t, fmt.Sprintf("Wait for %d to be left", cost), s.take(t, c).Charges[0].Wait, want, began)
		}
	})
}

// short returns a charge of one unit under a limit that allows quota units within a short
// period.
func short(name string, quota int, period time.Duration) ratelimit.Charge {
	switch name {
	case "token bucket":
		return charge(ratelimit.TokenBucket(quota, period, quota))
	case "rolling window":
		return charge(ratelimit.RollingWindow(quota, period))
	default:
		// Windows end at whole microseconds, as do instants of stores.
		now := time.Now().Truncate(time.Microsecond)
		c := charge(ratelimit.CalendarWindow(quota, ratelimit.Year))
		c.Windows = [2]ratelimit.Window{
			{Start: now.Add(-time.Hour), End: now.Add(period)},
			{Start: now.Add(period), End: now.Add(time.Hour)},
		}
		return c
	}
}

func (s suite) obey(t *testing.T) {
	for name := range uses() {
		t.Run(name, func(t *testing.T) {
			var c ratelimit.Charge
			soon(t, func(period time.Duration) error {
				c = short(name, 3, period)
				for i := range 3 {
					if d := s.take(t, c); !d.Admitted {
						return fmt.Errorf("request %d of 3 is refused", i+1)
					}
				}
				d := s.take(t, c)
				c = d.Charges[0]
				if d.Admitted || c.Wait <= 0 || c.Wait > period {
					return fmt.Errorf("the fourth request of 3: admitted %v, wait %v, want at most %v", d.Admitted, c.Wait, period)
				}
				return nil
			})
			due := time.Now().Add(c.Wait)
			eventually(t, due, "refused though the wait is over", func() bool { return s.take(t, c).Admitted })
		})
	}
}

func (s suite) nextWindow(t *testing.T) {
	var c ratelimit.Charge
	began := time.Now()
	_, due := soon(t, func(period time.Duration) error {
		c = short("calendar window", 5, period)
		c.Cost = 5
		if !s.take(t, c).Admitted {
			return errors.New("a cost of 5 of 5 is refused")
		}
		c.Cost = 1
		switch d := s.take(t, c); {
		case d.Admitted:
			return errors.New("a sixth unit of 5 is admitted")
		case d.Charges[0].Reset > 2*period || d.Charges[0].Wait > 2*period:
			return fmt.Errorf("within a window of %v: Reset = %v, Wait = %v", period, d.Charges[0].Reset, d.Charges[0].Wait)
		}
		return nil
	})
	var d *ratelimit.Decision
	eventually(t, due, "the window does not end", func() bool {
		d = s.take(t, c)
		return d.Admitted
	})
	if got := d.Charges[0].Remaining; got != 4 {
		t.Errorf("after the first request in the next window: Remaining = %d, want 4", got)
	}
	near(t, "Reset in the next window", d.Charges[0].Reset, c.Windows[1].End.Sub(c.Windows[1].Start), began)
	c.Windows = [2]ratelimit.Window{c.Windows[1], {Start: c.Windows[1].End, End: c.Windows[1].End.Add(time.Hour)}}
	s.wantLeft(t, c, 4)
}

// sameWindow decides for processes whose clocks are ahead of that of the store, or behind
// it.
func (s suite) sameWindow(t *testing.T) {
	now := time.Now().Truncate(time.Microsecond)
	bound := func(hours int) time.Time { return now.Add(time.Duration(hours) * time.Hour) }
	window := func(hours int) ratelimit.Window {
		return ratelimit.Window{Start: bound(hours), End: bound(hours + 2)}
	}
	c := charge(ratelimit.CalendarWindow(5, ratelimit.Day))
	c.Windows = [2]ratelimit.Window{window(-1), window(1)}
	s.fill(t, c)
	ahead := c
	ahead.Windows = [2]ratelimit.Window{window(1), window(3)}
	d := s.take(t, ahead)
	if d.Admitted {
		t.Error("a process whose clock is ahead begins a window before the present one has ended")
	}
	near(t, "Wait of a process whose clock is ahead", d.Charges[0].Wait, time.Hour, now)
	behind := c
	behind.Windows = [2]ratelimit.Window{window(-3), window(-1)}
	d = s.take(t, behind)
	if d.Admitted {
		t.Error("a process whose clock is behind begins a window that has been")
	}
	near(t, "Wait of a process whose clock is behind", d.Charges[0].Wait, time.Hour, now)
	behind.Key = ratelimit.TextKey("other")
	near(t, "Reset of a new key, by a process whose clock is behind", s.take(t, behind).Charges[0].Reset, time.Hour, now)
}

func (s suite) noWindow(t *testing.T) {
	c, beside := charge(ratelimit.CalendarWindow(5, ratelimit.Day)), charge(ratelimit.RollingWindow(5, time.Hour))
	now := time.Now().Truncate(time.Microsecond)
	present := c.Windows
	c.Windows = [2]ratelimit.Window{
		{Start: now.Add(-3 * time.Hour), End: now.Add(-2 * time.Hour)},
		{Start: now.Add(-2 * time.Hour), End: now.Add(-time.Hour)},
	}
	d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{beside, c}}
	if err := s.call(t, s.store.Take, d); err == nil {
		t.Errorf("Take returns no error, and admitted is %v", d.Admitted)
	}
	s.wantLeft(t, beside, 5)
	c.Windows = present
	s.wantLeft(t, c, 5)
}

// laterWindow decides after a clock was ahead by a year.
func (s suite) laterWindow(t *testing.T) {
	l := ratelimit.CalendarWindow(5, ratelimit.Day)
	now := time.Now().Truncate(time.Microsecond)
	bound := func(hours int) time.Time { return now.Add(time.Duration(hours) * time.Hour) }
	window := func(hours int) ratelimit.Window {
		return ratelimit.Window{Start: bound(hours), End: bound(hours + 2)}
	}
	present, ahead := charge(l), charge(l)
	ahead.Policy = present.Policy
	present.Windows = [2]ratelimit.Window{window(-1), window(1)}
	ahead.Windows = [2]ratelimit.Window{window(8760), window(8762)}
	ahead.Cost = 3
	taken := s.take(t, ahead).Charges[0]
	near(t, "Reset of a process whose clock is ahead", taken.Reset, 8762*time.Hour, now)
	if got := s.look(t, present).Charges[0]; got.Remaining != 2 {
		t.Errorf("a peek in the present window: remaining %d, want 2", got.Remaining)
	}
	got := s.take(t, present).Charges[0]
	if got.Remaining != 1 {
		t.Errorf("in the present window: remaining %d, want 1: its use counts", got.Remaining)
	}
	near(t, "Reset in the present window", got.Reset, time.Hour, now)
	near(t, "Reset of a process whose clock is still ahead", s.take(t, ahead).Charges[0].Reset, time.Hour, now)
	taken.Windows = present.Windows
	s.adjust(t, taken, -3, -3)
	s.wantLeft(t, present, 4)

	// An adjustment finds the present window as well.
	present.Policy = charge(l).Policy
	ahead.Policy = present.Policy
	taken = s.take(t, ahead).Charges[0]
	taken.Windows = present.Windows
	s.adjust(t, taken, 1, 1)
	near(t, "Reset after an adjustment", s.take(t, ahead).Charges[0].Reset, time.Hour, now)
	s.wantLeft(t, present, 1)
}

func (s suite) anchors(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2024, 1, n, 10, 30, 0, 0, time.UTC) }
	month := ratelimit.CalendarWindow(5, ratelimit.Month)
	for name, l := range map[string]ratelimit.Limit{
		"no anchor":           month,
		"the 17th":            month.From(day(17)),
		"the 31st":            month.From(day(31)),
		"another zone":        month.In(time.FixedZone("Another", 3600)).From(day(17)),
		"an odd zone":         month.In(time.FixedZone("an odd zone\x00@'\"\\ ", 3600)).From(day(17)),
		"a zone of no name":   month.In(time.FixedZone("", 3600)).From(day(17)),
		"an anchored year":    ratelimit.CalendarWindow(5, ratelimit.Year).From(day(17)),
		"an anchored week":    ratelimit.CalendarWindow(5, ratelimit.Week).From(day(17)),
		"an anchored day":     ratelimit.CalendarWindow(5, ratelimit.Day).From(day(17)),
		"a zone and no month": ratelimit.CalendarWindow(5, ratelimit.Day).In(time.FixedZone("Another", 3600)),
	} {
		t.Run(name, func(t *testing.T) {
			c := charge(l)
			_, end := l.Window(time.Now())
			near(t, "Reset", s.fill(t, c).Reset, time.Until(end), time.Now())
			s.wantLeft(t, c, 0)
		})
	}
	// Two anchors are two limits, and two zones are.
	c := charge(month)
	for range 2 {
		for _, l := range []ratelimit.Limit{
			month.From(day(17)), month.From(day(2)), month.From(day(17)).In(time.FixedZone("Another", 3600)),
		} {
			_, end := l.Window(time.Now())
			near(t, "Reset", s.take(t, under(c, l)).Charges[0].Reset, time.Until(end), time.Now())
		}
	}

	// Two anchors with the same anniversaries are one limit.
	c = charge(month.From(day(17)))
	full := s.fill(t, c)
	same := under(c, month.From(day(17).AddDate(0, 5, 0)))
	for range 6 { // more than a store keeps
		s.wantLeft(t, same, 0)
		s.wantLeft(t, c, 0)
	}
	same.TakenAt, same.TakenBy = full.TakenAt, full.TakenBy
	s.adjust(t, same, -2, -2)
	s.wantLeft(t, c, 2)
}
