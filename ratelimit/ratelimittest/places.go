package ratelimittest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// place returns the place that c has taken.
func place(c ratelimit.Charge) ratelimit.Place {
	return ratelimit.Place{Policy: c.Policy, Key: c.Key, TakenBy: c.TakenBy}
}

// wantLost renews places and fails the test unless exactly those of lost are lost.
func (s suite) wantLost(t *testing.T, places []ratelimit.Place, lease time.Duration, lost ...ratelimit.Place) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := s.store.Renew(ctx, places, lease)
	if err != nil {
		t.Fatalf("Renew: %v", err)
	}
	for _, p := range places {
		if is, want := slices.Contains(got, p), slices.Contains(lost, p); is != want {
			t.Errorf("the place that %v has taken for %q is lost: %v, want %v", p.TakenBy, p.Policy, is, want)
		}
	}
	if len(got) != len(lost) {
		t.Errorf("%d of %d places are lost, want %d", len(got), len(places), len(lost))
	}
}

func (s suite) places(t *testing.T) {
	c := charge(ratelimit.Concurrency(2))
	for range 50 {
		first := s.take(t, c).Charges[0]
		second := s.take(t, c).Charges[0]
		if s.take(t, c).Admitted {
			t.Fatal("a third request is admitted under a limit of two")
		}
		s.adjust(t, first, -1, -1)
		s.adjust(t, second, -1, -1)
	}
	s.wantLeft(t, c, 2)
}

func (s suite) refundTwice(t *testing.T) {
	c := charge(ratelimit.Concurrency(5))
	s.take(t, c)
	c.Cost = 3
	got := s.take(t, c).Charges[0]
	for i, moved := range []int64{-2, -1, 0} {
		s.adjust(t, got, -2, moved)
		s.wantLeft(t, c, []int64{3, 4, 4}[i])
	}
	// A decision whose places were all refunded cannot take more.
	s.adjust(t, got, 1, 0)
	s.wantLeft(t, c, 4)
}

func (s suite) lease(t *testing.T) {
	var c ratelimit.Charge
	_, due := soon(t, func(period time.Duration) error {
		c = charge(ratelimit.Concurrency(3))
		s.take(t, c)
		c.Cost, c.Lease = 2, period
		s.take(t, c)
		c.Cost = 1
		if s.take(t, c).Admitted {
			return errors.New("a fourth place of 3 is in use before any lease has ended")
		}
		return nil
	})
	eventually(t, due, "places stay in use though their lease has ended", func() bool {
		peek := c
		peek.Cost = 0
		return s.take(t, peek).Charges[0].Remaining > 0
	})
	s.wantLeft(t, c, 2)
}

func (s suite) renew(t *testing.T) {
	var charges []ratelimit.Charge
	period, due := soon(t, func(period time.Duration) error {
		charges = nil
		var places []ratelimit.Place
		for i := range 20 {
			c := charge(ratelimit.Concurrency(2))
			c.Cost, c.Lease = 2, period
			c.Key = ratelimit.TextKey(fmt.Sprintf("key %d", i%5))
			c = s.take(t, c).Charges[0]
			charges, places = append(charges, c), append(places, place(c))
		}
		return s.renewAll(t, places)
	})
	time.Sleep(time.Until(due.Add(period)))
	for _, c := range charges {
		s.wantLeft(t, c, 0)
		s.adjust(t, c, -2, -2)
		s.wantLeft(t, c, 2)
	}
	s.wantLost(t, nil, time.Hour)
}

// renewAll renews places for an hour. None may be lost.
func (s suite) renewAll(t *testing.T, places []ratelimit.Place) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	lost, err := s.store.Renew(ctx, places, time.Hour)
	if err == nil && len(lost) > 0 {
		err = fmt.Errorf("%d of %d places are lost", len(lost), len(places))
	}
	return err
}

func (s suite) renewMost(t *testing.T) {
	c := charge(ratelimit.Concurrency(ratelimit.MaxRenew))
	var places []ratelimit.Place
	for range ratelimit.MaxRenew {
		places = append(places, place(s.take(t, c).Charges[0]))
	}
	s.wantLeft(t, c, 0)
	unknown := place(c)
	unknown.TakenBy = newID()
	last := places[len(places)-1]
	places[len(places)-1] = unknown
	s.wantLost(t, places, 20*time.Millisecond, unknown)
	time.Sleep(50 * time.Millisecond)
	s.wantLeft(t, c, ratelimit.MaxRenew-1)
	s.wantLost(t, []ratelimit.Place{last}, time.Hour)
}

func (s suite) lost(t *testing.T) {
	used := s.take(t, charge(ratelimit.Concurrency(2))).Charges[0]
	refunded := s.take(t, charge(ratelimit.Concurrency(2))).Charges[0]
	s.adjust(t, refunded, -1, -1)
	ended := charge(ratelimit.Concurrency(2))
	ended.Lease = 20 * time.Millisecond
	ended = s.take(t, ended).Charges[0]
	unknown := charge(ratelimit.Concurrency(2))
	unknown.TakenBy = newID()
	foreign := used
	foreign.Key = ratelimit.TextKey("other")
	another := used
	another.TakenBy.Node++
	refused := used
	refused.Cost = 2
	refused = s.take(t, refused).Charges[0]
	counted := s.take(t, charge(ratelimit.RollingWindow(5, time.Hour))).Charges[0]
	time.Sleep(50 * time.Millisecond)

	lost := []ratelimit.Place{
		place(refunded), place(ended), place(unknown), place(foreign), place(another), place(refused), place(counted),
	}
	for range 2 {
		s.wantLost(t, slices.Concat(lost[:3], []ratelimit.Place{place(used)}, lost[3:]), time.Hour, lost...)
	}
	s.wantLeft(t, used, 1)
	for _, c := range []ratelimit.Charge{refunded, ended, unknown, foreign} {
		s.wantLeft(t, c, 2)
	}
	// A shorter lease takes the place of a longer one.
	s.wantLost(t, []ratelimit.Place{place(used)}, 20*time.Millisecond)
	time.Sleep(50 * time.Millisecond)
	s.wantLeft(t, used, 2)
}

func (s suite) adjustLost(t *testing.T) {
	c := charge(ratelimit.Concurrency(5))
	s.take(t, c)
	ended := c
	ended.Lease = 20 * time.Millisecond
	ended = s.take(t, ended).Charges[0]
	unknown := c
	unknown.TakenBy = newID()
	peek := c
	peek.Cost = 0
	peek = s.take(t, peek).Charges[0]
	time.Sleep(50 * time.Millisecond)
	for _, lost := range []ratelimit.Charge{ended, unknown, peek} {
		s.adjust(t, lost, 1, 0)
		s.adjust(t, lost, -1, 0)
	}
	s.wantLeft(t, c, 4)
}

func (s suite) placesApart(t *testing.T) {
	each(t, uses(), func(t *testing.T, c ratelimit.Charge) {
		places := s.fill(t, under(c, ratelimit.Concurrency(5)))
		s.fill(t, c)
		s.adjust(t, places, -2, -2)
		s.wantLeft(t, c, 0)
		s.wantLeft(t, places, 2)
		// Places do count under another limit of places.
		s.wantLeft(t, under(c, ratelimit.Concurrency(8)), 5)
		s.wantLeft(t, under(c, ratelimit.Concurrency(2)), 0)
	})
}
