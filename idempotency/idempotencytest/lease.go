package idempotencytest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

func (s suite) renew(t *testing.T) {
	c := newClaim()
	c.Lease = short
	s.win(t, c)
	s.wantRenewed(t, time.Hour, c)
	s.wantRenewed(t, time.Hour, c)
	wait()
	wantLease(t, s.lose(t, rival(c), c))
}

func (s suite) renewFromNow(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	s.wantRenewed(t, short, c)
	wait()
	s.win(t, successor(c))
}

// The record of a renewed claim does not expire: otherwise another request would get the
// key while the first is running.
func (s suite) renewKeepsRecord(t *testing.T) {
	inTime(func(d time.Duration) (check func()) {
		c := newClaim()
		c.Lease, c.TTL = d, d
		s.win(t, c)
		err := s.renewOne(t.Context(), c, time.Hour)
		return func() {
			if err != nil {
				t.Errorf("Renew: %v", err)
			}
			s.lose(t, rival(c), c)
			s.wantRenewed(t, time.Hour, c)
			s.finish(t, c, result("a"))
			s.wantRecord(t, c, result("a"))
		}
	})
}

func (s suite) renewAll(t *testing.T) {
	all := make([]idempotency.Claim, 50)
	for i := range all {
		all[i] = newClaim()
		if i%3 == 1 {
			all[i].Key.Owner = all[i-1].Key.Owner
		}
		all[i].Lease = short
		s.win(t, all[i])
	}
	s.wantRenewed(t, time.Hour, all...)
	wait()
	for _, c := range all {
		wantLease(t, s.lose(t, rival(c), c))
	}
}

// lostClaims returns lost claims, each lost for another reason.
func (s suite) lostClaims(t *testing.T) map[string]idempotency.Claim {
	lost := map[string]idempotency.Claim{"of a free key": newClaim()}
	for name, r := range map[string]idempotency.Result{
		"that is done":     result("done"),
		"with a tombstone": ending(idempotency.StateTombstone),
		"unknown":          ending(idempotency.StateUnknown),
		"released":         release,
	} {
		c := newClaim()
		s.win(t, c)
		s.finish(t, c, r)
		lost[name] = c
	}
	taken, expired := newClaim(), newClaim()
	taken.Lease = short
	expired.Lease, expired.TTL = short, short
	s.win(t, taken)
	s.win(t, expired)
	wait()
	next := successor(taken)
	next.Lease = time.Hour
	s.win(t, next)
	lost["that was taken over"], lost["that has expired"] = taken, expired
	return lost
}

func (s suite) renewReturnsLost(t *testing.T) {
	lost := s.lostClaims(t)
	var all []idempotency.ClaimID
	want := make(map[idempotency.ClaimID]string)
	add := func(n int) (kept []idempotency.Claim) {
		for range n {
			c := newClaim()
			c.Lease = short
			s.win(t, c)
			kept, all = append(kept, c), append(all, idOf(c))
		}
		return kept
	}
	kept := add(2)
	for name, c := range lost {
		want[idOf(c)] = name
		all = append(all, idOf(c))
		kept = append(kept, add(1)...)
	}
	// Two tokens of one key.
	other := rival(kept[0])
	want[idOf(other)] = "of another token"
	all = append(all, idOf(other))
	for range 2 {
		got, err := s.store.Renew(t.Context(), slices.Clone(all), time.Hour)
		if err != nil {
			t.Fatalf("Renew: %v", err)
		}
		seen := make(map[idempotency.ClaimID]bool)
		for _, id := range got {
			if want[id] == "" || seen[id] {
				t.Error("a claim is returned that is not lost, or twice")
			}
			seen[id] = true
		}
		for id, name := range want {
			if !seen[id] {
				t.Errorf("a claim %s is not returned as lost", name)
			}
		}
		slices.Reverse(all)
	}
	wait()
	for _, c := range kept {
		wantLease(t, s.lose(t, rival(c), c))
		s.finish(t, c, result("a"))
	}
}

func (s suite) renewChangesNoOther(t *testing.T) {
	lost := s.lostClaims(t)
	owner := newClaim()
	owner.Lease = short
	s.win(t, owner)
	late := rival(owner)
	ids := []idempotency.ClaimID{idOf(late)}
	for _, c := range lost {
		ids = append(ids, idOf(c))
	}
	if got, err := s.store.Renew(t.Context(), ids, time.Hour); err != nil || len(got) != len(ids) {
		t.Errorf("Renew: %d of %d are lost, %v", len(got), len(ids), err)
	}
	wait()
	s.win(t, successor(owner)) // its lease has ended
	for name, c := range lost {
		next := rival(c)
		switch r := s.claim(t, next); name {
		case "of a free key", "released", "that has expired":
			if !r.Won {
				t.Errorf("the key of a claim %s is not free after its renewal", name)
			}
		default:
			if r.Won || r.State == idempotency.StateClaimed && name != "that was taken over" {
				t.Errorf("a claim %s is in flight after its renewal", name)
			}
		}
	}
}

func (s suite) renewNothing(t *testing.T) {
	for _, none := range [][]idempotency.ClaimID{nil, {}} {
		if lost, err := s.store.Renew(t.Context(), none, time.Hour); len(lost) != 0 || err != nil {
			t.Errorf("Renew of no claims: %d are lost, %v", len(lost), err)
		}
	}
}

func (s suite) fenced(t *testing.T) {
	c := newClaim()
	c.Lease = short
	s.win(t, c)
	wait()
	next := successor(c)
	next.Lease = time.Hour
	s.win(t, next)
	s.wantLost(t, c)
	s.lose(t, c, next)
	s.lose(t, rival(c), next)
	s.finish(t, next, result("successor"))
	s.wantLost(t, c)
	s.wantRecord(t, next, result("successor"))
	if r, err := s.store.Claim(t.Context(), c); err == nil && r.Won {
		t.Error("the late owner has claimed the key again")
	}
}

func (s suite) late(t *testing.T) {
	c := newClaim()
	c.Lease = short
	s.win(t, c)
	wait()
	if err := s.renewOne(t.Context(), c, short); errors.Is(err, idempotency.ErrLost) {
		t.Error("the claim is lost, although no other token has taken the key")
	}
	wait()
	s.finish(t, c, result("late"))
	s.wantRecord(t, c, result("late"))
}
