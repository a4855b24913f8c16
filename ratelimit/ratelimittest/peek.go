package ratelimittest

import (
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// look peeks in a new call, which must not fail.
func (s suite) look(t testing.TB, charges ...ratelimit.Charge) *ratelimit.Decision {
	t.Helper()
	d := &ratelimit.Decision{ID: newID(), Peek: true, Charges: charges}
	if err := s.call(t, s.store.Take, d); err != nil {
		t.Fatalf("Take: %v", err)
	}
	return d
}

func (s suite) lookOnly(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		beside := charge(ratelimit.RollingWindow(9, time.Hour))
		three := c
		three.Cost = 3
		for left := int64(5); left >= 0; left-- {
			for range 2 {
				d := s.look(t, three, beside)
				got := d.Charges[0]
				if want := left < 3; d.Admitted == want || got.Violated != want || got.Remaining != left {
					t.Errorf("with %d of 3 left: admitted %v, violated %v, remaining %d", left, d.Admitted, got.Violated, got.Remaining)
				}
				if got := d.Charges[1]; got.Violated || got.Remaining != 4+left {
					t.Errorf("beside it: violated %v, remaining %d, want %d", got.Violated, got.Remaining, 4+left)
				}
			}
			if s.take(t, c, beside).Admitted != (left > 0) {
				t.Errorf("with %d left: admitted %v", left, left <= 0)
			}
		}
		three.Shadow = true
		if d := s.look(t, three, beside); !d.Admitted || !d.Charges[0].Violated {
			t.Errorf("in shadow: admitted %v, violated %v", d.Admitted, d.Charges[0].Violated)
		}
		// The times are those of a decision that is refused.
		c.MinRemaining = 2
		looked, taken := s.look(t, c).Charges[0], s.take(t, c).Charges[0]
		near(t, "Wait of a peek", looked.Wait, taken.Wait, time.Now())
		near(t, "Reset of a peek", looked.Reset, taken.Reset, time.Now())
	})
}

// lookAgain repeats calls as no caller should: what a peek returns is not kept.
func (s suite) lookAgain(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		looked := s.look(t, c)
		d := &ratelimit.Decision{ID: looked.ID, Charges: []ratelimit.Charge{c}}
		for range 2 {
			if err := s.call(t, s.store.Take, d); err != nil || !d.Admitted || d.Charges[0].Remaining != 4 {
				t.Errorf("Take: admitted %v, remaining %d, error %v", d.Admitted, d.Charges[0].Remaining, err)
			}
		}
		for _, id := range []ratelimit.ID{looked.ID, d.ID, newID()} {
			d := &ratelimit.Decision{ID: id, Peek: true, Charges: []ratelimit.Charge{c}}
			if err := s.call(t, s.store.Take, d); err != nil || d.Charges[0].Remaining != 4 {
				t.Errorf("a peek: remaining %d, error %v, want 4", d.Charges[0].Remaining, err)
			}
		}
		s.wantLeft(t, c, 4)
	})
}

func (s suite) lookBegins(t *testing.T) {
	t.Run("a window", func(t *testing.T) {
		c := charge(ratelimit.CalendarWindow(5, ratelimit.Year))
		s.look(t, c)
		before := s.take(t, charge(ratelimit.RollingWindow(5, time.Hour))).Charges[0].TakenAt
		time.Sleep(time.Millisecond)
		c.Cost = 2
		got := s.take(t, c).Charges[0]
		got.TakenAt = before
		s.adjust(t, got, -1, 0)
		s.wantLeft(t, c, 3)
	})
	t.Run("the count under a limit", func(t *testing.T) {
		c := s.fill(t, charge(ratelimit.RollingWindow(5, time.Hour)))
		fast := under(c, ratelimit.TokenBucket(5, 20*time.Millisecond, 5))
		fast.Cost = 1
		if d := s.look(t, fast); d.Admitted || d.Charges[0].Remaining != 0 {
			t.Errorf("admitted %v, remaining %d", d.Admitted, d.Charges[0].Remaining)
		}
		time.Sleep(50 * time.Millisecond)
		if s.take(t, fast).Admitted {
			t.Error("the count under another limit began with a peek")
		}
		s.wantLeft(t, c, 0)
	})
}
