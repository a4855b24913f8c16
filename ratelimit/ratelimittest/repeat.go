package ratelimittest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// again repeats a call, as a caller does that has lost the result, and fails the test
// unless the result is the same.
func (s suite) again(t testing.TB, when string, m method, d *ratelimit.Decision) {
	t.Helper()
	repeated := m.request(d)
	if err := s.call(t, m.of(s.store), &repeated); err != nil {
		t.Fatalf("%v, repeated%s: %v", m, when, err)
	}
	if repeated.Admitted != d.Admitted {
		t.Errorf("%v, repeated%s: admitted %v, want %v", m, when, repeated.Admitted, d.Admitted)
	}
	for i := range d.Charges {
		got, want := &repeated.Charges[i], &d.Charges[i]
		if m.result(got) != m.result(want) || got.TakenAt != want.TakenAt {
			t.Errorf("%v, repeated%s: charge %d: %s at %d\nwant %s at %d",
				m, when, i+1, m.result(got), got.TakenAt, m.result(want), want.TakenAt)
		}
	}
}

func (s suite) repeatTake(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		beside := charge(ratelimit.RollingWindow(9, time.Hour))
		c.Cost = 2
		first := s.take(t, c, beside)
		s.again(t, "", take, first)
		second := s.take(t, c, beside)
		for range 3 {
			s.again(t, "", take, second)
			s.again(t, " after another", take, first)
		}
		s.wantLeft(t, c, 1)
		s.wantLeft(t, beside, 7)
	})
}

// repeatResult repeats calls that would have another result if they were new.
func (s suite) repeatResult(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		admitted := s.take(t, c)
		c.Cost = 4
		rest := s.take(t, c).Charges[0]
		refused := s.take(t, c)
		s.again(t, " when nothing is left", take, admitted)
		s.adjust(t, rest, -4, -4)
		s.again(t, " when enough is left", take, refused)
		s.wantLeft(t, c, 4)
	})
}

func (s suite) repeatAdjust(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		taken := s.take(t, c, charge(c.Limit)).Charges
		var all []*ratelimit.Decision
		for _, costs := range [][2]int64{{2, 90}, {-1, -2}, {1, -1}} {
			d := &ratelimit.Decision{ID: newID(), Charges: slices.Clone(taken)}
			d.Charges[0].Cost, d.Charges[1].Cost = costs[0], costs[1]
			if err := s.call(t, s.store.Adjust, d); err != nil {
				t.Fatalf("Adjust: %v", err)
			}
			all = append(all, d)
			for _, d := range all {
				s.again(t, "", adjust, d)
			}
		}
		s.wantLeft(t, taken[0], 2)
		s.wantLeft(t, taken[1], 3)
	})
}

func (s suite) repeatPlaces(t *testing.T) {
	c := charge(ratelimit.Concurrency(5))
	c.Cost = 3
	first := s.take(t, c).Charges[0]
	c.Cost = 2
	s.take(t, c)
	first.Cost = -1
	d := &ratelimit.Decision{ID: newID(), Charges: []ratelimit.Charge{first}}
	if err := s.call(t, s.store.Adjust, d); err != nil {
		t.Fatalf("Adjust: %v", err)
	}
	for range 3 {
		s.again(t, "", adjust, d)
	}
	s.wantLeft(t, c, 1)
}

// repeatConcurrently repeats calls that have not ended: a store may still be running a call
// for which its caller no longer waits.
func (s suite) repeatConcurrently(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		var wg sync.WaitGroup
		var admitted [8][4]bool
		for i := range admitted {
			id := newID()
			for j := range admitted[i] {
				wg.Go(func() {
					d := &ratelimit.Decision{ID: id, Charges: []ratelimit.Charge{c}}
					if err := s.call(t, s.store.Take, d); err != nil {
						t.Error(err)
					}
					admitted[i][j] = d.Admitted
				})
			}
		}
		wg.Wait()
		n := 0
		for i, results := range admitted {
			if results[0] {
				n++
			}
			for _, result := range results {
				if result != results[0] {
					t.Errorf("call %d returns both results", i)
				}
			}
		}
		if n != 5 {
			t.Errorf("%d of 5 requests are admitted", n)
		}
	})
}

func (s suite) otherIDs(t *testing.T) {
	c := charge(ratelimit.RollingWindow(100, time.Hour))
	id := newID()
	ids := []ratelimit.ID{
		id,
		{Node: id.Node ^ 1, Seq: id.Seq},
		{Node: id.Node ^ 1<<63, Seq: id.Seq},
		{Node: id.Node, Seq: id.Seq ^ 1<<40},
		{Node: id.Node, Seq: id.Seq ^ 1<<63},
		{Node: id.Seq, Seq: id.Node},
		{Node: id.Node, Seq: ^id.Seq},
		{Node: id.Node ^ 1<<40, Seq: id.Seq ^ 1<<40},
	}
	for i, id := range ids {
		d := &ratelimit.Decision{ID: id, Charges: []ratelimit.Charge{c}}
		if err := s.call(t, s.store.Take, d); err != nil {
			t.Fatalf("Take: %v", err)
		}
		if got, want := d.Charges[0].Remaining, int64(99-i); got != want {
			t.Errorf("after the call %x: %d left, want %d", id, got, want)
		}
		if got := d.Charges[0].TakenBy; got != id {
			t.Errorf("TakenBy = %x, want %x", got, id)
		}
	}
}
