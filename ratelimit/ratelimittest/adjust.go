package ratelimittest

import (
	"errors"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

func (s suite) refund(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		c.Cost = 4
		got := s.take(t, c).Charges[0]
		s.adjust(t, got, -3, -3)
		s.wantLeft(t, c, 4)
	})
}

func (s suite) refundTooMuch(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		got := s.take(t, c).Charges[0]
		s.adjust(t, got, -4, -1)
		s.wantLeft(t, c, 5)
		s.adjust(t, got, -1, 0)
		s.wantLeft(t, c, 5)
	})
}

func (s suite) refundLate(t *testing.T) {
	for _, name := range []string{"rolling window", "calendar window"} {
		t.Run(name, func(t *testing.T) {
			var c ratelimit.Charge
			_, due := soon(t, func(period time.Duration) error {
				c = short(name, 5, period)
				c.Cost = 2
				d := s.take(t, c)
				c = d.Charges[0]
				if !d.Admitted {
					return errors.New("a cost of 2 of 5 is refused")
				}
				return nil
			})
			later := c
			later.Cost = 5
			eventually(t, due, "the window does not end", func() bool { return s.take(t, later).Admitted })
			// The window that was charged has ended, so nothing is refunded in the next
			// one.
			s.adjust(t, c, -2, 0)
		})
	}
}

func (s suite) adjustUp(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		got := s.take(t, c).Charges[0]
		s.adjust(t, got, 2, 2)
		s.wantLeft(t, c, 2)
		s.adjust(t, got, 100, 2)
		s.wantLeft(t, c, 0)
		s.adjust(t, got, 1, 0)
	})
}

// refundTaken settles far above what is left, and then refunds the charge, as for a handler
// that fails in the end.
func (s suite) refundTaken(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		other := c
		other.Cost = 3
		s.take(t, other)
		got := s.take(t, c).Charges[0]
		s.adjust(t, got, 90, 1)
		s.wantLeft(t, c, 0)
		s.adjust(t, got, -1, -1)
		s.wantLeft(t, c, 1)
		s.adjust(t, got, -1, -1)
		s.wantLeft(t, c, 2)
	})
}

func (s suite) adjustAll(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		var charges []ratelimit.Charge
		for range 4 {
			charges = append(charges, charge(c.Limit))
		}
		d := s.take(t, charges...)
		costs := []int64{2, -1, 90, 0}
		for i := range d.Charges {
			d.Charges[i].Cost, d.Charges[i].Moved = costs[i], -99
		}
		d = &ratelimit.Decision{ID: newID(), Charges: d.Charges}
		if err := s.call(t, s.store.Adjust, d); err != nil {
			t.Fatalf("Adjust: %v", err)
		}
		for i, want := range []struct{ moved, left int64 }{{2, 2}, {-1, 5}, {4, 0}, {0, 4}} {
			got := d.Charges[i]
			if got.Moved != want.moved {
				t.Errorf("charge %d, by %d: %d units moved, want %d", i+1, costs[i], got.Moved, want.moved)
			}
			s.wantLeft(t, got, want.left)
		}
	})
}
