package idempotencytest

import (
	"errors"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// resolver returns the claim of another token for the key and the request of c, which takes
// the key even if its outcome is unknown.
func resolver(c idempotency.Claim) idempotency.Claim {
	c = successor(c)
	c.TakeUnknown = true
	return c
}

// winOver fails unless c wins a claim that is taken over if takenOver is set.
func (s suite) winOver(t testing.TB, c idempotency.Claim, takenOver bool) idempotency.Record {
	t.Helper()
	r := s.win(t, c)
	if r.TakenOver != takenOver {
		t.Errorf("TakenOver is %v, want %v", r.TakenOver, takenOver)
	}
	return r
}

func (s suite) takeOver(t *testing.T) {
	c := newClaim()
	c.Lease = short
	first := s.win(t, c)
	wait()
	next := successor(c)
	next.Lease = time.Hour
	second := s.win(t, next)
	if second.Generation <= first.Generation {
		t.Errorf("the generation went from %d to %d, want it to grow", first.Generation, second.Generation)
	}
	for _, other := range []idempotency.Claim{rival(c), successor(c)} {
		if r := s.lose(t, other, next); r.Generation != second.Generation {
			t.Errorf("the generation is %d, want %d", r.Generation, second.Generation)
		}
	}
}

// A claim whose process has died still says which request the key belongs to. So a claim of
// another request gets its record, with a lease of 0, and changes nothing about it.
func (s suite) takeOverOfRequest(t *testing.T) {
	c := newClaim()
	c.Lease, c.TTL = short, 3*time.Hour
	s.win(t, c)
	wait()
	next := successor(c)
	next.Lease = short
	for _, c := range []idempotency.Claim{c, next} { // the second has been taken over itself
		generation := s.win(t, c).Generation
		s.wantRenewed(t, short, c)
		wait()
		for i := range c.Fingerprint {
			for _, take := range []func(idempotency.Claim) idempotency.Claim{successor, resolver} {
				other := take(c)
				other.Fingerprint[i] ^= 0x20
				r := s.claim(t, other)
				if r.Won || r.State != idempotency.StateClaimed || r.Generation != generation || r.Fingerprint != c.Fingerprint ||
					r.Lease != 0 || r.TakenOver || r.Status != 0 {
					t.Fatalf("a claim of another request got %+v, want the claim with generation %d, whose lease has ended", r, generation)
				}
			}
		}
		s.wantLost(t, rival(c))
		r := s.find(t, c.Key)
		if r.State != idempotency.StateClaimed || r.Generation != generation || r.Fingerprint != c.Fingerprint || r.Lease != 0 {
			t.Errorf("the record is %+v, want the claim with generation %d, whose lease has ended", r, generation)
		}
		wantTTL(t, r, c.TTL)
	}
	s.finish(t, next, result("late"))
	s.wantRecord(t, next, result("late"))
}

func (s suite) takeOverSetsTTL(t *testing.T) {
	claimed, released, unknown := newClaim(), newClaim(), newClaim()
	claimed.Lease, claimed.TTL = short, brief
	s.win(t, claimed)
	s.win(t, released)
	s.win(t, unknown)
	r := release
	r.TTL = brief
	s.finish(t, released, r)
	r.State = idempotency.StateUnknown
	s.finish(t, unknown, r)
	wait()
	var long, ended []idempotency.Claim
	for _, c := range []idempotency.Claim{claimed, released, unknown} {
		next := resolver(c)
		next.Lease, next.TTL = time.Hour, time.Hour
		s.win(t, next)
		long = append(long, next)
	}
	for _, r := range []idempotency.Result{{}, release, ending(idempotency.StateUnknown)} {
		c := newClaim()
		c.Lease = short
		s.win(t, c)
		if r.State != 0 {
			s.finish(t, c, r)
		}
		wait()
		next := resolver(c)
		next.Lease, next.TTL = short, short
		s.win(t, next)
		ended = append(ended, next)
	}
	waitBrief()
	for _, c := range long {
		s.lose(t, rival(c), c)
	}
	for _, c := range ended {
		s.wantLost(t, c)
		s.win(t, rival(c))
	}
}

// The caller that takes a key over learns that the earlier request may have had an effect,
// even if the first reply is lost.
func (s suite) takenOver(t *testing.T) {
	c := newClaim()
	c.Lease = short
	s.winOver(t, c, false)
	for range 3 { // a takeover of a takeover as well
		wait()
		next := successor(c)
		next.Lease = short
		s.winOver(t, next, true)
		s.winOver(t, next, true)
		s.wantRenewed(t, short, next)
		wait()
		next.Lease = time.Hour
		s.winOver(t, next, true)
		if r := s.lose(t, rival(c), next); r.TakenOver || r.Status != 0 {
			t.Errorf("another claim gets the status %d and TakenOver %v, want neither", r.Status, r.TakenOver)
		}
		s.wantRenewed(t, short, next)
		c = next
	}
	for _, end := range endings {
		c := newClaim()
		c.Lease = short
		s.win(t, c)
		wait()
		next := successor(c)
		s.winOver(t, next, true)
		s.finish(t, next, end)
		s.wantEnded(t, next, end)
	}
}

func (s suite) notTakenOver(t *testing.T) {
	for _, take := range []func(idempotency.Claim) idempotency.Claim{rival, successor, resolver} {
		c := take(newClaim())
		s.winOver(t, c, false)
		s.winOver(t, c, false)
		// The claim of another is over, but it says that it had no effect.
		s.finish(t, c, release)
		c = take(c)
		c.Lease = short
		s.winOver(t, c, false)
		wait()
		c = successor(c)
		c.Lease = time.Hour
		s.winOver(t, c, true)
		s.finish(t, c, release)
		c = take(c)
		s.winOver(t, c, false)
		s.winOver(t, c, false)
		// What has expired is forgotten.
		for _, end := range []idempotency.Result{{}, result("a"), ending(idempotency.StateUnknown)} {
			c := newClaim()
			c.Lease, c.TTL = short, short
			s.win(t, c)
			if end.State != 0 {
				end.TTL = short
				_, _ = s.store.Finish(t.Context(), completion(c, end)) // it may have expired
			}
			wait()
			c = take(c)
			c.Lease, c.TTL = time.Hour, time.Hour
			s.winOver(t, c, false)
		}
	}
}

func (s suite) takeUnknown(t *testing.T) {
	c := newClaim()
	first := s.win(t, c)
	unknown := ending(idempotency.StateUnknown)
	s.finish(t, c, unknown)
	for range 3 { // until the outcome is known
		s.wantRecord(t, c, unknown)
		unasked := c
		unasked.Token = newToken()
		unasked.TakeUnknown = false
		if r := s.claim(t, unasked); r.Won || r.State != idempotency.StateUnknown {
			t.Fatalf("a claim that does not ask for it got %+v, want the record", r)
		}
		next := resolver(c)
		second := s.winOver(t, next, true)
		s.winOver(t, next, true)
		if second.Generation <= first.Generation {
			t.Errorf("the generation went from %d to %d, want it to grow", first.Generation, second.Generation)
		}
		wantLease(t, second)
		s.wantLost(t, c)
		s.lose(t, rival(c), next)
		s.lose(t, resolver(c), next)
		s.wantRenewed(t, time.Hour, next)
		s.finish(t, next, unknown)
		s.wantLost(t, c)
		c, first = next, second
	}
	for _, end := range endings {
		c := newClaim()
		s.win(t, c)
		s.finish(t, c, unknown)
		next := resolver(c)
		s.win(t, next)
		s.finish(t, next, end)
		s.wantEnded(t, next, end)
	}
}

func (s suite) takeUnknownOfRequest(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	unknown := ending(idempotency.StateUnknown)
	s.finish(t, c, unknown)
	for i := range c.Fingerprint {
		other := resolver(c)
		other.Fingerprint[i] ^= 0x20
		if r := s.claim(t, other); r.Won || r.State != idempotency.StateUnknown || r.Fingerprint != c.Fingerprint {
			t.Fatalf("a claim for another request got %+v, want the record", r)
		}
	}
	s.wantRecord(t, c, unknown)
}

// A delayed copy of a claim must not take the key that its request has left.
func (s suite) takeUnknownAgain(t *testing.T) {
	c := newClaim()
	c.TakeUnknown = true
	s.win(t, c)
	unknown := ending(idempotency.StateUnknown)
	s.finish(t, c, unknown)
	for range 2 {
		if r := s.claim(t, c); r.Won || r.State != idempotency.StateUnknown {
			t.Errorf("a claim that is repeated after it was finished returns %+v, want the record", r)
		}
	}
	s.wantRecord(t, c, unknown)
	s.win(t, resolver(c))
}

func (s suite) takeNoOther(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	s.lose(t, resolver(c), c)
	for _, end := range []idempotency.Result{result("a"), ending(idempotency.StateTombstone)} {
		c := newClaim()
		s.win(t, c)
		s.finish(t, c, end)
		if r := s.claim(t, resolver(c)); r.Won || r.State != end.State || string(r.Payload) != string(end.Payload) {
			t.Errorf("a claim got %+v, want the record with state %d", r, end.State)
		}
		s.wantRecord(t, c, end)
	}
	released := newClaim()
	released.TakeUnknown = true
	s.win(t, released)
	s.finish(t, released, release)
	if r, err := s.store.Claim(t.Context(), released); !errors.Is(err, idempotency.ErrLost) {
		t.Errorf("Claim by a token that has released the key: %+v, %v, want ErrLost", r, err)
	}
}
