package idempotencytest

import (
	"bytes"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// find returns the record of a key that is not free.
func (s suite) find(t testing.TB, key idempotency.Key) idempotency.Record {
	t.Helper()
	r, err := s.store.Find(t.Context(), key)
	if err != nil {
		t.Fatalf("Find: %v", err)
	}
	if r.Won || r.TakenOver {
		t.Errorf("Find returned %+v, which no call of Find has won", r)
	}
	return r
}

// wantFound fails unless the record is this result of c.
func (s suite) wantFound(t testing.TB, c idempotency.Claim, want idempotency.Result) idempotency.Record {
	t.Helper()
	r := s.find(t, c.Key)
	if r.State != want.State || r.Status != want.Status || r.Fingerprint != c.Fingerprint || r.Lease != 0 || r.TTL <= 0 {
		t.Errorf("Find returned %+v, want %+v", r, want)
	}
	if !bytes.Equal(r.Payload, want.Payload) {
		t.Errorf("the payload of %d bytes is found as %d others", len(want.Payload), len(r.Payload))
	}
	return r
}

// wantFree fails unless Find and Delete report that the key of c is free.
func (s suite) wantFree(t testing.TB, c idempotency.Claim, generation uint64) {
	t.Helper()
	if r, err := s.store.Find(t.Context(), c.Key); !errors.Is(err, idempotency.ErrNotFound) || r.State != 0 || r.TTL != 0 {
		t.Errorf("Find of a free key: %+v, %v, want ErrNotFound", r, err)
	}
	for _, generation := range []uint64{0, 1, generation, generation + 1} {
		if err := s.store.Delete(t.Context(), c.Key, generation); !errors.Is(err, idempotency.ErrNotFound) {
			t.Errorf("Delete of generation %d of a free key: %v, want ErrNotFound", generation, err)
		}
	}
}

// wantKept fails unless Delete refuses a generation.
func (s suite) wantKept(t testing.TB, c idempotency.Claim, generation uint64) {
	t.Helper()
	if err := s.store.Delete(t.Context(), c.Key, generation); !errors.Is(err, idempotency.ErrLost) {
		t.Errorf("Delete of generation %d: %v, want ErrLost", generation, err)
	}
}

// wantTTL fails unless r is kept for almost this time.
func wantTTL(t testing.TB, r idempotency.Record, want time.Duration) {
	t.Helper()
	// A store may round up.
	if r.TTL <= want-time.Minute || r.TTL > want+time.Second {
		t.Errorf("TTL = %v, want almost %v", r.TTL, want)
	}
}

func (s suite) found(t *testing.T) {
	c := newClaim()
	won := s.win(t, c)
	r := s.find(t, c.Key)
	if r.State != idempotency.StateClaimed || r.Fingerprint != c.Fingerprint || r.Generation != won.Generation || r.Status != 0 || len(r.Payload) != 0 {
		t.Errorf("Find returned %+v, want the claim %+v", r, won)
	}
	wantLease(t, r)
	wantTTL(t, r, c.TTL)
	c = newClaim()
	c.Lease = short
	s.win(t, c)
	wait()
	next := successor(c)
	next.Lease = short
	won = s.winOver(t, next, true)
	wait()
	r = s.find(t, c.Key)
	if r.State != idempotency.StateClaimed || r.Fingerprint != next.Fingerprint || r.Generation != won.Generation || r.Lease != 0 || r.Status != 0 {
		t.Errorf("Find returned %+v, want the claim %+v whose lease has ended", r, won)
	}
	for _, end := range endings[:3] {
		c := newClaim()
		won := s.win(t, c)
		end.TTL = 5 * time.Hour
		s.finish(t, c, end)
		r := s.wantFound(t, c, end)
		if r.Generation != won.Generation {
			t.Errorf("the generation is %d, want %d", r.Generation, won.Generation)
		}
		wantTTL(t, r, end.TTL)
	}
}

func (s suite) notFound(t *testing.T) {
	s.wantFree(t, newClaim(), 1)
	c := newClaim()
	generation := s.win(t, c).Generation
	s.finish(t, c, release)
	s.wantFree(t, c, generation)
	s.wantEnded(t, c, release) // its token is still known
	for _, end := range append([]idempotency.Result{{}}, endings...) {
		c := newClaim()
		if end.State == 0 {
			c.Lease, c.TTL = short, short
		}
		generation := s.win(t, c).Generation
		if end.State != 0 {
			end.TTL = short
			s.finish(t, c, end)
		}
		wait()
		s.wantFree(t, c, generation)
		s.win(t, rival(c))
	}
}

// A call that looks at a record prolongs neither its lease nor its TTL, and ends neither.
func (s suite) findChangesNothing(t *testing.T) {
	inTime(func(d time.Duration) (check func()) {
		claimed, done := newClaim(), newClaim()
		claimed.Lease = d
		s.win(t, claimed)
		s.win(t, done)
		end := result("a")
		end.TTL = d
		s.finish(t, done, end)
		for range 3 {
			for _, c := range []idempotency.Claim{claimed, done} {
				if r, err := s.store.Find(t.Context(), c.Key); err == nil && (r.Lease > d || c == done && r.TTL > d+time.Second) {
					t.Errorf("Find returned %+v after a lease or TTL of %v", r, d)
				}
			}
		}
		return func() {
			s.wantFree(t, done, 1)
			s.win(t, rival(done))
			s.find(t, claimed.Key)
			s.finish(t, claimed, result("late")) // it still belongs to its token
			s.wantRecord(t, claimed, result("late"))
		}
	})
	c := newClaim()
	c.Lease = short
	s.win(t, c)
	wait()
	s.find(t, c.Key)
	s.winOver(t, successor(c), true)
}

func (s suite) keptFor(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	first := s.find(t, c.Key)
	wantTTL(t, first, 2*time.Hour)
	wait()
	if r := s.find(t, c.Key); r.TTL > first.TTL-short {
		t.Errorf("TTL went from %v to %v after %v", first.TTL, r.TTL, 3*short)
	}
	c.TTL = 3 * time.Hour
	s.win(t, c)
	wantTTL(t, s.find(t, c.Key), 3*time.Hour)
	s.wantRenewed(t, time.Hour, c)
	wantTTL(t, s.find(t, c.Key), 3*time.Hour)
	s.wantRenewed(t, 4*time.Hour, c)
	wantTTL(t, s.find(t, c.Key), 4*time.Hour)
	c.Lease, c.TTL = time.Hour, 2*time.Hour
	s.win(t, c)
	wantTTL(t, s.find(t, c.Key), 4*time.Hour)
	for _, end := range endings[:3] {
		c := newClaim()
		s.win(t, c)
		s.finish(t, c, end)
		s.claim(t, rival(c))
		s.claim(t, c)
		s.finish(t, c, end)
		wantTTL(t, s.find(t, c.Key), end.TTL)
	}
}

// deletable returns claims whose records can be deleted, by their state.
func (s suite) deletable(t *testing.T) (claims []idempotency.Claim, records []idempotency.Record) {
	add := func(c idempotency.Claim, r idempotency.Record) {
		claims, records = append(claims, c), append(records, r)
	}
	for _, end := range endings[:3] {
		c := newClaim()
		r := s.win(t, c)
		s.finish(t, c, end)
		add(c, r)
	}
	c := newClaim()
	c.Lease = short
	s.win(t, c)
	next := successor(c)
	late := rival(c)
	late.Key, late.Lease = newKey(), short
	r := s.win(t, late)
	wait()
	add(late, r)
	r = s.winOver(t, next, true)
	wait()
	add(next, r)
	return claims, records
}

func (s suite) deleted(t *testing.T) {
	claims, records := s.deletable(t)
	for i, c := range claims {
		neighbours := []idempotency.Claim{newClaim(), newClaim()}
		neighbours[0].Key.Owner, neighbours[1].Key.Name = c.Key.Owner, c.Key.Name
		for _, n := range neighbours {
			s.win(t, n)
			s.finish(t, n, result("of a neighbour"))
		}
		if err := s.store.Delete(t.Context(), c.Key, records[i].Generation); err != nil {
			t.Fatalf("Delete of a record in state %d: %v", s.find(t, c.Key).State, err)
		}
		s.wantFree(t, c, records[i].Generation)
		s.wantLost(t, c)
		s.wantFree(t, c, records[i].Generation)
		for _, n := range neighbours {
			s.wantRecord(t, n, result("of a neighbour"))
		}
		next := resolver(c)
		s.winOver(t, next, false)
		s.wantLost(t, c)
		s.finish(t, next, result("next"))
		s.wantRecord(t, next, result("next"))
	}
}

func (s suite) deleteNoRunning(t *testing.T) {
	c := newClaim()
	c.Lease = short
	s.win(t, c)
	wait()
	next := successor(c)
	next.Lease = short
	generation := s.win(t, next).Generation
	s.wantRenewed(t, time.Hour, next)
	wait()
	s.wantKept(t, next, generation)
	s.lose(t, rival(c), next)
	s.wantRenewed(t, time.Hour, next)
	s.finish(t, next, result("a"))
	s.wantRecord(t, next, result("a"))
	fresh := newClaim()
	s.wantKept(t, fresh, s.win(t, fresh).Generation)
	s.win(t, fresh) // it is still its claim
	s.finish(t, fresh, result("b"))
}

func (s suite) deleteGeneration(t *testing.T) {
	claims, records := s.deletable(t)
	for i, c := range claims {
		g := records[i].Generation
		before := s.find(t, c.Key)
		for _, other := range []uint64{0, 1, g - 1, g + 1, g ^ 1<<32, math.MaxUint64} {
			s.wantKept(t, c, other)
		}
		after := s.find(t, c.Key)
		if after.TTL > before.TTL || after.State != before.State || after.Generation != g || after.Fingerprint != before.Fingerprint || !bytes.Equal(after.Payload, before.Payload) {
			t.Errorf("a record that was not deleted went from %+v to %+v", before, after)
		}
	}
	// The one that was found may have been replaced since.
	c := newClaim()
	old := s.win(t, c).Generation
	s.finish(t, c, ending(idempotency.StateUnknown))
	next := resolver(c)
	s.win(t, next)
	s.finish(t, next, result("a"))
	s.wantKept(t, next, old)
	s.wantRecord(t, next, result("a"))
}
