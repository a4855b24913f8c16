package ratelimittest

import (
	"fmt"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/ratelimit"
)

// wantCorrupt fails the test unless err is usher.ErrCorrupt. It recovers from a panic of
// call.
func wantCorrupt(t *testing.T, name string, call func() error) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("%s panics: %v", name, p)
		}
	}()
	storetest.WantError(t, name, call(), usher.ErrCorrupt)
}

// wantUnreadable fails the test unless every call with these charges fails.
func (s suite) wantUnreadable(t *testing.T, charges ...ratelimit.Charge) {
	t.Helper()
	for range 2 {
		for _, m := range []method{take, adjust} {
			for _, cost := range []int64{1, 0, -1} {
				d := m.request(&ratelimit.Decision{ID: newID(), Charges: charges})
				for i := range d.Charges {
					d.Charges[i].Cost = cost
				}
				if m == take && cost < 0 || m == adjust && cost == 0 {
					continue
				}
				wantCorrupt(t, fmt.Sprintf("%v with a cost of %d", m, cost), func() error {
					return s.call(t, m.of(s.store), &d)
				})
				if d.Admitted {
					t.Errorf("%v fails, and admits", m)
				}
			}
		}
	}
}

func (s shared) poison(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		a, b := s.open(t), s.open(t)
		fresh := charge(c.Limit)
		c = a.fill(t, c)
		s.server.Poison(t)
		a.wantUnreadable(t, c)
		b.wantUnreadable(t, c)
		s.open(t).wantUnreadable(t, c)
		b.wantLeft(t, fresh, 5)
		fresh.Policy, fresh.Key = c.Policy, ratelimit.TextKey("other")
		b.wantLeft(t, fresh, 5)
	})
}

func (s shared) poisonBeside(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		a := s.open(t)
		c = a.take(t, c).Charges[0]
		s.server.Poison(t)
		before, after := charge(ratelimit.RollingWindow(5, time.Hour)), charge(ratelimit.TokenBucket(5, time.Hour, 5))
		before, after = a.take(t, before).Charges[0], a.take(t, after).Charges[0]
		a.wantUnreadable(t, before, c, after)
		a.wantLeft(t, before, 4)
		if got := a.take(t, after).Charges[0].Remaining; got != 3 {
			t.Errorf("Remaining = %d, want 3", got)
		}
	})
}

func (s shared) poisonPlaces(t *testing.T) {
	a := s.open(t)
	c := charge(ratelimit.Concurrency(5))
	c = a.take(t, c).Charges[0]
	s.server.Poison(t)
	for name, order := range map[string]func(other ratelimit.Place) []ratelimit.Place{
		"alone":          func(ratelimit.Place) []ratelimit.Place { return []ratelimit.Place{place(c)} },
		"after another":  func(other ratelimit.Place) []ratelimit.Place { return []ratelimit.Place{other, place(c)} },
		"before another": func(other ratelimit.Place) []ratelimit.Place { return []ratelimit.Place{place(c), other} },
	} {
		t.Run(name, func(t *testing.T) {
			other := a.take(t, charge(ratelimit.Concurrency(5))).Charges[0]
			places := order(place(other))
			lost, err := a.store.Renew(t.Context(), places, 20*time.Millisecond)
			if err != nil || len(lost) != 1 || lost[0] != place(c) {
				t.Errorf("Renew: lost %v, error %v; want the unreadable place to be lost", lost, err)
			}
			time.Sleep(50 * time.Millisecond)
			want := int64(5)
			if len(places) == 1 {
				want = 4
			}
			a.wantLeft(t, other, want) // what can be read was renewed, for a time that is over
		})
	}
	a.wantUnreadable(t, c)
}

func (s shared) poisonHolds(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		a := s.open(t)
		taken := a.hold(t, c, 2)
		s.server.Poison(t)
		lost, err := a.store.Renew(t.Context(), []ratelimit.Place{place(taken)}, time.Hour)
		if err != nil || len(lost) != 1 {
			t.Errorf("Renew: lost %v, error %v; want the unreadable hold to be lost", lost, err)
		}
		a.wantUnreadable(t, c)
		a.wantUnreadable(t, taken)
		taken.EndHold = true
		a.wantUnreadable(t, taken)
	})
}

func (s shared) poisonReset(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		a := s.open(t)
		a.fill(t, c)
		beside := a.fill(t, charge(c.Limit))
		s.server.Poison(t)
		a.forget(t, counterOf(c))
		a.wantLeft(t, c, 5)
		a.wantUnreadable(t, beside)
	})
}
