package ratelimittest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// holding returns c as a charge that holds this many units.
func holding(c ratelimit.Charge, n int64) ratelimit.Charge {
	c.Cost, c.Hold, c.Lease = n, true, time.Hour
	return c
}

// hold holds n units, which must fit.
func (s suite) hold(t testing.TB, c ratelimit.Charge, n int64) ratelimit.Charge {
	t.Helper()
	d := s.take(t, holding(c, n))
	if !d.Admitted {
		t.Fatalf("a hold of %d is refused", n)
	}
	return d.Charges[0]
}

// endHold fails the test unless the end of a hold charges this many units.
func (s suite) endHold(t testing.TB, c ratelimit.Charge, cost, moved int64) {
	t.Helper()
	c.EndHold = true
	s.adjust(t, c, cost, moved)
}

func (s suite) holds(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		first := s.hold(t, c, 3)
		if first.Remaining != 2 || first.Wait != 0 {
			t.Errorf("a hold of 3: remaining %d, wait %v", first.Remaining, first.Wait)
		}
		s.wantLeft(t, c, 2)
		d := s.take(t, holding(c, 3))
		if got := d.Charges[0]; d.Admitted || !got.Violated || got.Remaining != 2 || got.Wait != 0 {
			t.Errorf("another hold of 3: admitted %v, violated %v, remaining %d, wait %v, want no known time",
				d.Admitted, got.Violated, got.Remaining, got.Wait)
		}
		if got := s.take(t, holding(c, 6)).Charges[0]; !got.Violated || got.Wait >= 0 {
			t.Errorf("a hold of 6 of 5: violated %v, wait %v, want never", got.Violated, got.Wait)
		}
		s.hold(t, c, 0)
		second := s.hold(t, c, 2)
		s.wantLeft(t, c, 0)
		s.endHold(t, second, 0, 0)
		s.wantLeft(t, c, 2)
		// Nothing was used yet, so a charge counts from now on.
		c.Cost = 2
		began := time.Now()
		got := s.take(t, c).Charges[0]
		if want := untilEnd(c); want > 0 {
			near(t, "Reset", got.Reset, want, began)
		}
		// The wait for what is charged is known.
		s.endHold(t, first, 3, 3)
		got = s.take(t, c).Charges[0]
		if !got.Violated || got.Wait <= 0 {
			t.Errorf("when all is used: violated %v, wait %v", got.Violated, got.Wait)
		}
		s.wantLeft(t, c, 0)
	})
}

func (s suite) holdAllOrNone(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		full := s.fill(t, charge(c.Limit))
		full.Cost = 1
		d := s.take(t, holding(c, 3), full)
		if d.Admitted || d.Charges[0].Violated || d.Charges[0].Remaining != 5 {
			t.Errorf("beside a full policy: admitted %v, violated %v, remaining %d", d.Admitted, d.Charges[0].Violated, d.Charges[0].Remaining)
		}
		s.wantLeft(t, c, 5)
		s.adjust(t, d.Charges[0], 1, 0)
		s.endHold(t, d.Charges[0], 0, 0)

		shadow := holding(c, 6)
		shadow.Shadow = true
		d = s.take(t, shadow, holding(charge(c.Limit), 2))
		if !d.Admitted || !d.Charges[0].Violated || d.Charges[1].Remaining != 3 {
			t.Errorf("in shadow: admitted %v, violated %v; beside it: remaining %d", d.Admitted, d.Charges[0].Violated, d.Charges[1].Remaining)
		}
		s.wantLeft(t, c, 5)
		looked := s.look(t, holding(c, 3)).Charges[0]
		if looked.Violated || looked.Remaining != 5 {
			t.Errorf("a peek: violated %v, remaining %d", looked.Violated, looked.Remaining)
		}
		s.wantLeft(t, c, 5)
	})
}

func (s suite) holdAdjust(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		first, second := s.hold(t, c, 2), s.hold(t, c, 1)
		s.adjust(t, first, 1, 1)
		s.wantLeft(t, c, 1)
		s.adjust(t, first, 5, 1) // no more is left
		s.wantLeft(t, c, 0)
		first.Overdraw = true
		s.adjust(t, first, 5, 0) // which holds for a hold
		s.adjust(t, first, -2, -2)
		s.wantLeft(t, c, 2)
		s.adjust(t, second, -9, -1)
		s.wantLeft(t, c, 3)
		s.adjust(t, second, 1, 0) // it holds nothing any more
		s.adjust(t, second, -1, 0)
		s.wantLeft(t, c, 3)
		// What it holds was not used, so it cannot be refunded.
		plain := first
		plain.Hold = false
		s.adjust(t, plain, -2, 0)
		s.wantLeft(t, c, 3)
	})
}

func (s suite) holdEnd(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		for _, used := range []int64{0, 1, 3} {
			c := charge(c.Limit)
			s.endHold(t, s.hold(t, c, 3), used, used)
			s.wantLeft(t, c, 5-used)
		}
		first, second := s.hold(t, c, 3), s.hold(t, c, 2)
		s.endHold(t, first, 4, 3) // the other two belong to second
		s.wantLeft(t, c, 0)
		s.endHold(t, second, -1, 0)
		s.wantLeft(t, c, 2)
		s.endHold(t, second, 1, 1) // it is charged though nothing is on hold
		s.wantLeft(t, c, 1)
		s.endHold(t, first, 9, 1)
		s.wantLeft(t, c, 0)
	})
}

func (s suite) holdDebt(t *testing.T) {
	c := charge(uses()["token bucket"])
	began := time.Now()
	first, second := s.hold(t, c, 3), s.hold(t, c, 2)
	first.Overdraw, second.Overdraw = true, true
	s.endHold(t, first, 8, 8)
	s.endHold(t, second, 3, 3)
	near(t, "Wait", s.take(t, c).Charges[0].Wait, 7*200*time.Hour, began)
	for _, name := range []string{"rolling window", "calendar window"} {
		got := s.hold(t, charge(uses()[name]), 3)
		got.Overdraw = true
		s.endHold(t, got, 8, 5)
	}
}

// holdPlain lets charges without a hold meet those of others.
func (s suite) holdPlain(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		got := s.take(t, c).Charges[0]
		taken := s.hold(t, c, 2)
		s.adjust(t, got, 9, 2) // as far as nobody holds it
		s.wantLeft(t, c, 0)
		s.adjust(t, got, -3, -3)
		s.wantLeft(t, c, 3)
		s.endHold(t, taken, 2, 2)
		s.wantLeft(t, c, 3)
	})
}

func (s suite) holdLimits(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		for name, l := range uses() {
			t.Run(name, func(t *testing.T) {
				c := charge(c.Limit)
				got := s.hold(t, c, 2)
				other := under(c, l)
				s.wantLeft(t, other, 3)
				s.take(t, other)
				s.wantLeft(t, c, 2)
				s.endHold(t, got, 2, 2)
				s.wantLeft(t, other, 2)
				s.wantLeft(t, c, 2)
			})
		}
	})
}

func (s suite) holdLease(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		var ended, renewed ratelimit.Charge
		_, due := soon(t, func(period time.Duration) error {
			c = charge(c.Limit)
			short := func(n int64) ratelimit.Charge {
				c := holding(c, n)
				c.Lease = period
				return s.take(t, c).Charges[0]
			}
			ended, renewed = short(3), short(2)
			if s.take(t, c).Admitted {
				return errors.New("a sixth unit of 5 is admitted before any lease has ended")
			}
			return s.renewAll(t, []ratelimit.Place{place(renewed)})
		})
		eventually(t, due, "units stay on hold though their lease has ended", func() bool {
			return s.look(t, c).Charges[0].Remaining > 0
		})
		s.wantLeft(t, c, 3)
		s.wantLost(t, []ratelimit.Place{place(ended), place(renewed)}, time.Hour, place(ended))
		s.adjust(t, ended, 1, 0)
		s.adjust(t, ended, -1, 0)
		s.endHold(t, ended, 2, 2) // what was used counts nevertheless
		s.wantLeft(t, c, 1)
		s.endHold(t, renewed, 2, 2)
		s.wantLeft(t, c, 1)
		s.wantLost(t, []ratelimit.Place{place(renewed)}, time.Hour, place(renewed))
	})
}

func (s suite) holdPlaces(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		places := under(c, ratelimit.Concurrency(5))
		places.Cost, places.Hold = 4, true // which has no effect
		places = s.take(t, places).Charges[0]
		taken := s.hold(t, c, 3)
		s.wantLeft(t, c, 2)
		s.wantLeft(t, under(c, ratelimit.Concurrency(5)), 1)
		places.EndHold = true
		s.adjust(t, places, -1, -1)
		s.wantLeft(t, under(c, ratelimit.Concurrency(5)), 2)
		s.wantLost(t, []ratelimit.Place{place(places), place(taken)}, time.Hour)
		s.endHold(t, taken, 1, 1)
		s.wantLeft(t, c, 4)
		s.wantLeft(t, under(c, ratelimit.Concurrency(5)), 2)
	})
}

func (s suite) holdReset(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		taken := s.hold(t, c, 2)
		c.Cost = 3
		s.take(t, c)
		s.forget(t, counterOf(c))
		s.wantLeft(t, c, 3)
		s.wantLost(t, []ratelimit.Place{place(taken)}, time.Hour)
		s.endHold(t, taken, 2, 2)
		s.wantLeft(t, c, 3)
	})
}

func (s suite) repeatHold(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		d := s.take(t, holding(c, 2))
		s.again(t, "", take, d)
		s.wantLeft(t, c, 3)
		for _, step := range []struct {
			end        bool
			cost, left int64
		}{{false, 1, 2}, {false, -2, 4}, {true, 1, 4}} {
			c := d.Charges[0]
			c.Cost, c.EndHold = step.cost, step.end
			d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{c}}
			if err := s.call(t, s.store.Adjust, d); err != nil {
				t.Fatalf("Adjust: %v", err)
			}
			for range 3 {
				s.again(t, "", adjust, d)
			}
			s.wantLeft(t, c, step.left)
		}
	})
}

func (s suite) holdConcurrently(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		n := holdRace(t, c, s.store)
		if n == 0 || n > 5 {
			t.Errorf("%d units charged, want up to 5", n)
		}
		s.wantLeft(t, c, 5-n)
	})
}

// holdRace holds two units at a time through all stores concurrently, uses one of them, and
// returns how many were charged.
func holdRace(t *testing.T, c ratelimit.Charge, stores ...ratelimit.Store) int64 {
	var charged, onHold atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		s := suite{stores[i%len(stores)]}
		wg.Go(func() {
			for range 5 {
				d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{holding(c, 1+int64(i%2))}}
				if err := s.call(t, s.store.Take, d); err != nil {
					t.Error(err)
					return
				}
				if !d.Admitted {
					continue
				}
				got := d.Charges[0]
				if n := onHold.Add(got.Cost); n > 5 {
					t.Errorf("%d units of 5 are on hold", n)
				}
				time.Sleep(time.Millisecond)
				onHold.Add(-got.Cost)
				got.Cost, got.EndHold = 1, true
				d = &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{got}}
				if err := s.call(t, s.store.Adjust, d); err != nil {
					t.Error(err)
				}
				charged.Add(d.Charges[0].Moved)
			}
		})
	}
	wg.Wait()
	return charged.Load()
}
