package ratelimit_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
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

func TestPlacesLastAsLongAsTheirLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		c := ratelimit.Charge{Policy: "p", Limit: ratelimit.Concurrency(3), Cost: 1, Lease: 10 * time.Second}
		place := func(seq uint64) ratelimit.Place {
			return ratelimit.Place{Policy: "p", TakenBy: ratelimit.ID{Node: 7, Seq: seq}}
		}
		seq := uint64(100)
		left := func(want int64) {
			t.Helper()
			seq++
			c := c
			c.Cost = 0
			d := decision(seq, c)
			if err := m.Take(t.Context(), d); err != nil || d.Charges[0].Remaining != want {
				t.Errorf("%d places left, want %d (%v)", d.Charges[0].Remaining, want, err)
			}
		}
		renew := func(want int, places ...ratelimit.Place) {
			t.Helper()
			lost, err := m.Renew(t.Context(), places, 10*time.Second)
			if err != nil || len(lost) != want {
				t.Errorf("%v are lost, want %d (%v)", lost, want, err)
			}
		}
		for i := range uint64(3) {
			if err := m.Take(t.Context(), decision(i+1, c)); err != nil {
				t.Fatal(err)
			}
		}
		left(0)
		time.Sleep(9 * time.Second)
		renew(0, place(1), place(2))
		renew(1, place(99))
		time.Sleep(time.Second - 1)
		left(0)
		time.Sleep(time.Nanosecond)
		left(1) // the third
		renew(1, place(3))
		left(1)

		// A refund by another decision, or a second one, frees no place.
		seq++
		refund := func(by uint64, want int64) {
			t.Helper()
			seq++
			c := c
			c.Cost, c.TakenBy = -1, place(by).TakenBy
			d := decision(seq, c)
			if err := m.Adjust(t.Context(), d); err != nil || d.Charges[0].Moved != want {
				t.Errorf("%d places moved, want %d (%v)", d.Charges[0].Moved, want, err)
			}
		}
		refund(3, 0)
		refund(1, -1)
		refund(1, 0)
		left(2)
		renew(1, place(1), place(2))
		time.Sleep(10 * time.Second)
		left(3)
		if n := m.Len("p"); n != 0 {
			t.Errorf("%d keys are kept, want none", n)
		}
	})
}

// Keys whose leases have ended do not stay if nobody asks for them again.
func TestPlacesThatNobodyRefundsTakeBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		for i := range 20_000 {
			c := ratelimit.Charge{Policy: "p", Key: ratelimit.TextKey(fmt.Sprint(i)), Limit: ratelimit.Concurrency(1), Cost: 1, Lease: time.Second}
			if err := m.Take(t.Context(), &ratelimit.Decision{Charges: []ratelimit.Charge{c}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		if n := m.Len("p"); n > 5000 {
			t.Errorf("%d keys are kept, of which 1000 have places", n)
		}
	})
}

// The caller gives the windows, of which the store's clock chooses one.
func TestACalendarUsesTheWindowsOfItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		l := ratelimit.CalendarWindow(2, ratelimit.Hour)
		base := time.Now()
		at := func(d time.Duration) time.Time { return base.Add(d) }
		charge := func(cost int64) ratelimit.Charge {
			return ratelimit.Charge{Policy: "p", Limit: l, Cost: cost, Windows: [2]ratelimit.Window{
				{Start: at(-time.Minute), End: at(time.Minute)}, {Start: at(time.Minute), End: at(3 * time.Minute)},
			}}
		}
		take := func(cost, left int64, reset time.Duration) {
			t.Helper()
			d := &ratelimit.Decision{Charges: []ratelimit.Charge{charge(cost)}}
			if err := m.Take(t.Context(), d); err != nil || d.Charges[0].Remaining != left || d.Charges[0].Reset != reset {
				t.Errorf("%d left, more in %v, want %d and %v (%v)", d.Charges[0].Remaining, d.Charges[0].Reset, left, reset, err)
			}
		}
		take(2, 0, time.Minute)
		time.Sleep(time.Minute)
		take(1, 1, 2*time.Minute)
		time.Sleep(2 * time.Minute)
		beside := ratelimit.Charge{Policy: "q", Limit: ratelimit.RollingWindow(5, time.Hour), Cost: 1}
		d := &ratelimit.Decision{Charges: []ratelimit.Charge{beside, charge(1)}}
		if err := m.Take(t.Context(), d); err == nil {
			t.Error("no error though neither window is the present one")
		}
		d = &ratelimit.Decision{Charges: []ratelimit.Charge{beside}}
		if err := m.Take(t.Context(), d); err != nil || d.Charges[0].Remaining != 4 {
			t.Errorf("%d left beside a decision that failed, want 4 (%v)", d.Charges[0].Remaining, err)
		}
	})
}

func TestAClosedMemoryFails(t *testing.T) {
	m := newMemory()
	for range 2 {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	_, renewed := m.Renew(t.Context(), nil, time.Second)
	for name, err := range map[string]error{
		"Take": m.Take(t.Context(), decision(1)), "Adjust": m.Adjust(t.Context(), decision(2)), "Renew": renewed,
	} {
		if !errors.Is(err, usher.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
