package ratelimit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// holder makes decisions with holds.
type holder struct {
	t     *testing.T
	store *ratelimit.Memory
	seq   uint64
}

func (h *holder) call(method func(*ratelimit.Decision) error, c ratelimit.Charge) ratelimit.Charge {
	h.t.Helper()
	h.seq++
	d := ratelimit.Decision{ID: ratelimit.ID{Node: 1, Seq: h.seq}, Charges: []ratelimit.Charge{c}}
	if err := method(&d); err != nil {
		h.t.Fatal(err)
	}
	return d.Charges[0]
}

func (h *holder) take(c ratelimit.Charge) ratelimit.Charge {
	h.t.Helper()
	return h.call(func(d *ratelimit.Decision) error { return h.store.Take(h.t.Context(), d) }, c)
}

// adjust fails the test unless it moves this many units.
func (h *holder) adjust(c ratelimit.Charge, end bool, cost, moved int64) {
	h.t.Helper()
	c.Cost, c.EndHold = cost, end
	c = h.call(func(d *ratelimit.Decision) error { return h.store.Adjust(h.t.Context(), d) }, c)
	if c.Moved != moved {
		h.t.Errorf("an adjustment by %d, which ends the hold: %v, has moved %d units, want %d", cost, end, c.Moved, moved)
	}
}

func (h *holder) wantLeft(l ratelimit.Limit, n int64) {
	h.t.Helper()
	if c := h.take(ratelimit.Charge{Policy: "p", Limit: l}); c.Remaining != n {
		h.t.Errorf("%d left, want %d", c.Remaining, n)
	}
	if c := h.take(ratelimit.Charge{Policy: "p", Limit: l, Cost: n + 1}); !c.Violated {
		h.t.Errorf("a cost of %d fits, want %d to be left", n+1, n)
	}
}

func TestWhatAKeyHoldsIsNotLeft(t *testing.T) {
	for name, l := range map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(10, 1000*time.Hour, 10),
		"rolling window":  ratelimit.RollingWindow(10, 100*time.Hour),
		"calendar window": ratelimit.CalendarWindow(10, ratelimit.Year),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &holder{t: t, store: newMemory()}
				hold := ratelimit.Charge{Policy: "p", Limit: l, Cost: 6, Hold: true, Lease: time.Minute}
				first := h.take(hold)
				if first.Violated || first.Remaining != 4 {
					t.Fatalf("violated %v, remaining %d, want 4", first.Violated, first.Remaining)
				}
				h.wantLeft(l, 4)
				if c := h.take(hold); !c.Violated || c.Remaining != 4 || c.Wait != 0 {
					t.Errorf("a second hold of 6: violated %v, remaining %d, wait %v", c.Violated, c.Remaining, c.Wait)
				}
				hold.Cost = 11
				if c := h.take(hold); !c.Violated || c.Wait >= 0 {
					t.Errorf("a hold of 11 of 10: violated %v, wait %v, want never", c.Violated, c.Wait)
				}
				hold.Cost = 3
				second := h.take(hold)
				h.adjust(second, false, 5, 1) // no more is left
				h.adjust(second, false, -2, -2)
				h.wantLeft(l, 2)
				h.adjust(first, true, 9, 8) // besides the 2 that second holds
				h.wantLeft(l, 0)
				h.adjust(first, true, 1, 0)
				h.adjust(first, false, -1, 0)
				h.adjust(second, true, 1, 1)
				h.wantLeft(l, 1)
				h.adjust(second, true, -5, 0)
				h.wantLeft(l, 1)

				// The node of a hold dies.
				third := h.take(ratelimit.Charge{Policy: "p", Limit: l, Cost: 1, Hold: true, Lease: time.Minute})
				h.wantLeft(l, 0)
				lost, err := h.store.Renew(t.Context(), []ratelimit.Place{{Policy: "p", TakenBy: third.TakenBy}}, 2*time.Minute)
				if err != nil || len(lost) > 0 {
					t.Errorf("lost %v, error %v", lost, err)
				}
				time.Sleep(2*time.Minute - time.Nanosecond)
				h.wantLeft(l, 0)
				time.Sleep(time.Nanosecond)
				h.wantLeft(l, 1)
				h.adjust(third, false, 1, 0)
				h.adjust(third, true, 3, 1)
				h.wantLeft(l, 0)
			})
		})
	}
}

func TestAHoldEndsWithADebt(t *testing.T) {
	h := &holder{t: t, store: newMemory()}
	l := ratelimit.TokenBucket(10, 1000*time.Hour, 10)
	first := h.take(ratelimit.Charge{Policy: "p", Limit: l, Cost: 6, Hold: true})
	second := h.take(ratelimit.Charge{Policy: "p", Limit: l, Cost: 4, Hold: true})
	first.Overdraw, second.Overdraw = true, true
	h.adjust(first, false, 5, 0) // a hold is of what is left
	h.adjust(first, true, 20, 20)
	h.adjust(second, true, 4, 4)
	if c := h.take(ratelimit.Charge{Policy: "p", Limit: l, Cost: 1}); !c.Violated || c.Wait < 1499*time.Hour || c.Wait > 1500*time.Hour {
		t.Errorf("violated %v, wait %v, want 15 units to be missing", c.Violated, c.Wait)
	}
}

func TestAHoldNeedsAnID(t *testing.T) {
	m := newMemory()
	c := ratelimit.Charge{Policy: "p", Limit: ratelimit.RollingWindow(5, time.Hour), Cost: 1, Hold: true}
	if err := m.Take(t.Context(), &ratelimit.Decision{Charges: []ratelimit.Charge{c}}); err == nil {
		t.Error("no error")
	}
	c.Hold = false
	if c = takeOne(t, m, c); c.Remaining != 4 {
		t.Errorf("%d left, want 4", c.Remaining)
	}
}
