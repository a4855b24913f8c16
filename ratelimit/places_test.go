package ratelimit_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

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
