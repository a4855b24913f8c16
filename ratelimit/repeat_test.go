package ratelimit_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

func decision(seq uint64, charges ...ratelimit.Charge) *ratelimit.Decision {
	return &ratelimit.Decision{ID: ratelimit.ID{Node: 7, Seq: seq}, Charges: charges}
}

func TestACallThatComesAgainHasTheSameResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		c := ratelimit.Charge{Policy: "p", Limit: ratelimit.RollingWindow(5, time.Hour), Cost: 2}
		call := func(f func(*ratelimit.Decision) error, d *ratelimit.Decision) ratelimit.Charge {
			t.Helper()
			if err := f(d); err != nil {
				t.Fatal(err)
			}
			return d.Charges[0]
		}
		take := func(d *ratelimit.Decision) error { return m.Take(t.Context(), d) }
		adjust := func(d *ratelimit.Decision) error { return m.Adjust(t.Context(), d) }

		first := call(take, decision(1, c))
		time.Sleep(4 * time.Second)
		d := decision(1, c)
		again := call(take, d)
		if !d.Admitted || again.Remaining != 3 || again.TakenAt != first.TakenAt || again.TakenBy != first.TakenBy || again.Reset != first.Reset {
			t.Errorf("again: admitted %v, %+v, want %+v", d.Admitted, again, first)
		}
		first.Cost = -1
		for range 3 {
			if got := call(adjust, decision(2, first)); got.Moved != -1 {
				t.Errorf("%d units moved, want -1", got.Moved)
			}
		}
		c.Cost = 0
		if got := call(take, decision(3, c)); got.Remaining != 4 {
			t.Errorf("%d left of 5, want 4", got.Remaining)
		}
		c.Cost = 5 // is refused, and stays refused
		for range 2 {
			if d := decision(4, c); call(take, d).Violated != true || d.Admitted {
				t.Error("admitted")
			}
			first.Cost = -1
			call(adjust, decision(5, first))
		}
		if err := adjust(decision(1, c)); err == nil {
			t.Error("the ID of a Take is used for an Adjust without an error")
		}
		time.Sleep(6 * time.Second)
		if c.Cost = 1; call(take, decision(1, c)).Remaining != 4 {
			t.Error("a call is remembered for more than five seconds")
		}
	})
}

func TestCallsOfOneIDAtATimeChargeOnce(t *testing.T) {
	m := newMemory()
	c := ratelimit.Charge{Policy: "p", Limit: ratelimit.RollingWindow(100, time.Hour), Cost: 1}
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			for seq := range uint64(50) {
				d := decision(seq, c)
				if err := m.Take(t.Context(), d); err != nil || !d.Admitted {
					t.Errorf("admitted %v: %v", d.Admitted, err)
				}
			}
		})
	}
	calls.Wait()
	c.Cost = 0
	d := decision(1000, c)
	if err := m.Take(t.Context(), d); err != nil || d.Charges[0].Remaining != 50 {
		t.Errorf("%d left of 100 after 50 decisions (%v)", d.Charges[0].Remaining, err)
	}
}
