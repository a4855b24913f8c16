package idempotency_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// What is evicted: the oldest responses, and nothing else.
func TestMemoryEvictsTheOldestResponses(t *testing.T) {
	const size = 4096
	for _, c := range []struct {
		name string
		run  func(u usage)
	}{
		{"one owner loses its own at three quarters", func(u usage) {
			for i := range 1000 {
				if u.put(1, i, size) != idempotency.StateDone || u.Bytes() > loan {
					u.t.Fatalf("response %d is not kept, or %d bytes are", i, u.Bytes())
				}
			}
			if n := u.kept(1, 1000); n < (loan-1000*idempotency.RecordBytes-idempotency.FixedBytes)/size-2 {
				u.t.Errorf("%d are left", n)
			}
		}},
		{"an owner that borrows makes room for others, the largest first", func(u usage) {
			for i := range 45 {
				u.put(1, i, size)
			}
			for i := range 25 {
				u.put(2, i, size)
			}
			for i := range 3 {
				for owner := 3; owner < 9; owner++ {
					if u.put(owner, i, size) != idempotency.StateDone {
						u.t.Fatalf("response %d of owner %d is not kept", i, owner)
					}
				}
			}
			for i := range 100 {
				if u.put(100+i, 0, size) != idempotency.StateDone {
					u.t.Fatalf("the response of owner %d is not kept", 100+i)
				}
			}
			one, two := u.kept(1, 45), u.kept(2, 25)
			if one == 45 || two == 25 || one-two > 1 || two-one > 1 {
				u.t.Errorf("the borrowers have %d and %d", one, two)
			}
			for owner := 3; owner < 9; owner++ {
				if n := u.kept(owner, 3); n != 3 {
					u.t.Errorf("owner %d has %d of 3", owner, n)
				}
			}
		}},
		{"an owner with its share does not lose it to one that wants more", func(u usage) {
			for i := range 3 {
				u.put(1, i, size)
			}
			for i := range 500 {
				for owner := 2; owner < 5; owner++ {
					u.put(owner, i, size)
				}
			}
			if n := u.kept(1, 3); n != 3 {
				u.t.Errorf("it has %d of 3", n)
			}
		}},
		{"without borrowers the oldest of all go", func(u usage) {
			for i := range 600 {
				u.put(i, 0, size/4)
			}
			kept := 0
			for i := range 600 {
				if n := u.kept(i, 1); n < 1 && kept > 0 {
					u.t.Errorf("response %d went before an older one", i)
				} else {
					kept += n
				}
			}
			if kept < 300 || kept == 600 {
				u.t.Errorf("%d are left", kept)
			}
		}},
		{"claims, tombstones and unknown outcomes stay", func(u usage) {
			want := map[int]idempotency.State{}
			for i, state := range []idempotency.State{idempotency.StateClaimed, idempotency.StateTombstone, idempotency.StateUnknown} {
				c := claimOf(1, i)
				if _, err := u.Claim(u.t.Context(), c); err != nil {
					u.t.Fatal(err)
				}
				if want[i] = state; state != idempotency.StateClaimed {
					if _, err := u.Finish(u.t.Context(), completion(c, idempotency.Result{State: state, TTL: time.Hour})); err != nil {
						u.t.Fatal(err)
					}
				}
			}
			for i := range 1000 {
				u.put(1, 10+i, size)
			}
			for i, state := range want {
				if got := u.state(1, i); got != state {
					u.t.Errorf("record %d is in state %d, want %d", i, got, state)
				}
			}
		}},
		{"a response larger than what it may replace becomes a tombstone itself", func(u usage) {
			for i := range 20 {
				u.put(1, i, size)
			}
			if u.put(2, 0, smallest) != idempotency.StateTombstone || u.put(1, 20, smallest) != idempotency.StateTombstone {
				u.t.Error("it is kept")
			}
			if n := u.kept(1, 20); n != 20 {
				u.t.Errorf("for nothing, others were evicted: %d of 20 are left", n)
			}
		}},
		{"no more go than there must", func(u usage) {
			n := 0
			for ; u.Bytes() < loan-30_000; n++ {
				u.put(1, n, size)
			}
			if u.put(1, n, 40_960) != idempotency.StateDone {
				u.t.Error("it is not kept")
			}
			if evicted := n - u.kept(1, n); evicted < 3 || evicted > 4 {
				u.t.Errorf("%d of %d bytes were evicted for 11 KB", evicted, size)
			}
		}},
		{"an empty response takes no room", func(u usage) {
			if _, err := u.claims(1, 100, 100_000); err == nil {
				u.t.Error("owner 1 is not refused")
			}
			if u.put(2, 0, 0) != idempotency.StateDone {
				u.t.Error("it is not kept")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.run(newUsage(t)) })
		})
	}
}

// An evicted response is a tombstone with the status, and its key is not free.
func TestAnEvictedResponseIsATombstone(t *testing.T) {
	u := newUsage(t)
	for i := range 200 {
		u.put(1, i, 10_000)
	}
	c := claimOf(1, 0)
	c.Token[0]++
	r, err := u.Claim(t.Context(), c)
	if err != nil || r.Won || r.State != idempotency.StateTombstone || r.Status != 200 || r.Payload != nil || r.Fingerprint != c.Fingerprint {
		t.Errorf("got %+v, %v", r, err)
	}
	if kept, err := u.Finish(t.Context(), completion(claimOf(1, 0), resultOf(1))); kept != idempotency.StateTombstone || err != nil {
		t.Errorf("the token that has stored it gets %d, %v", kept, err)
	}
}
