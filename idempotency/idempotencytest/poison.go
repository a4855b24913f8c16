package idempotencytest

import (
	"errors"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

func (s Shared) poison(t *testing.T) {
	a := s.open(t, 2)
	claimed, done, unknown := newClaim(), newClaim(), newClaim()
	a[0].win(t, claimed)
	a[0].win(t, done)
	a[0].win(t, unknown)
	a[0].finish(t, done, result("a"))
	a[0].finish(t, unknown, ending(idempotency.StateUnknown))
	s.Poison(t)
	for _, client := range a {
		for name, c := range map[string]idempotency.Claim{
			"a claim": claimed, "a rival of a claim": rival(claimed), "the token of a record": done, "a rival of a record": rival(done),
			"a resolver of an unknown outcome": resolver(unknown),
		} {
			if r, err := client.store.Find(t.Context(), c.Key); !errors.Is(err, usher.ErrCorrupt) || r.State != 0 {
				t.Errorf("Find: %+v, %v, want ErrCorrupt", r, err)
			}
			if r, err := client.store.Claim(t.Context(), c); !errors.Is(err, usher.ErrCorrupt) || r.Won || r.State != 0 {
				t.Errorf("Claim by %s: %+v, %v, want ErrCorrupt", name, r, err)
			}
		}
		for _, end := range endings {
			if kept, err := client.store.Finish(t.Context(), completion(claimed, end)); !errors.Is(err, usher.ErrCorrupt) || kept != 0 {
				t.Errorf("Finish with state %d: kept %d, %v, want ErrCorrupt", end.State, kept, err)
			}
		}
		// Such a record concerns no other.
		fresh := newClaim()
		fresh.Lease = brief
		client.win(t, fresh)
		lost, err := client.store.Renew(t.Context(), []idempotency.ClaimID{idOf(claimed), idOf(fresh)}, time.Hour)
		if err != nil || len(lost) != 1 || lost[0] != idOf(claimed) {
			t.Errorf("Renew of a claim whose record cannot be read and another: %d are lost, %v, want the first", len(lost), err)
		}
		waitBrief()
		client.lose(t, rival(fresh), fresh)
		client.finish(t, fresh, result("b"))
		client.wantRecord(t, fresh, result("b"))
	}
}

// An operator can free the key of a record that nobody can read, but not by a generation
// that somebody has read before.
func (s Shared) deletePoisoned(t *testing.T) {
	a := s.open(t, 2)
	claimed, done := newClaim(), newClaim()
	generations := map[idempotency.Claim]uint64{claimed: a[0].win(t, claimed).Generation, done: a[0].win(t, done).Generation}
	a[0].finish(t, done, result("a"))
	s.Poison(t)
	for c, generation := range generations {
		for _, g := range []uint64{1, generation, generation + 1} {
			if err := a[0].store.Delete(t.Context(), c.Key, g); !errors.Is(err, usher.ErrCorrupt) {
				t.Errorf("Delete of generation %d of a record that cannot be read: %v, want ErrCorrupt", g, err)
			}
		}
		if err := a[0].store.Delete(t.Context(), c.Key, 0); err != nil {
			t.Errorf("Delete of a record that cannot be read: %v", err)
		}
		for _, client := range a {
			client.wantFree(t, c, generation)
			client.wantLost(t, c)
		}
		next := resolver(c)
		a[1].winOver(t, next, false)
		a[1].finish(t, next, result("b"))
		for _, client := range a {
			client.wantKept(t, next, 0) // it can be read
			client.wantRecord(t, next, result("b"))
		}
	}
}
