package idempotencytest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

func (s suite) free(t *testing.T) {
	wantLease(t, s.win(t, newClaim()))
}

// wantLease fails unless r has most of a lease of an hour left.
func wantLease(t testing.TB, r idempotency.Record) {
	t.Helper()
	if r.Lease <= 59*time.Minute || r.Lease > time.Hour {
		t.Errorf("Lease = %v, want almost an hour", r.Lease)
	}
}

func (s suite) claimAgain(t *testing.T) {
	c := newClaim()
	c.Lease = short
	first := s.win(t, c)
	again := s.win(t, c)
	if again.Generation != first.Generation {
		t.Errorf("the generation went from %d to %d", first.Generation, again.Generation)
	}
	wait()
	c.Lease = time.Hour
	if r := s.win(t, c); r.Lease <= short || r.Generation != first.Generation {
		t.Errorf("a repeated claim has a lease of %v and generation %d, want a new lease and %d", r.Lease, r.Generation, first.Generation)
	}
	s.lose(t, rival(c), c)
	s.finish(t, c, result("a"))
	if r := s.claim(t, c); r.Won || r.State != idempotency.StateDone || string(r.Payload) != "a" {
		t.Errorf("a claim that is repeated after it was finished returns %+v, want the record", r)
	}
}

func (s suite) claimAgainKeepsRecord(t *testing.T) {
	inTime(func(d time.Duration) (check func()) {
		c := newClaim()
		c.Lease, c.TTL = d, d
		first := s.win(t, c)
		c.Lease, c.TTL = time.Hour, 2*time.Hour
		second := s.win(t, c)
		return func() {
			if first.Generation != second.Generation {
				t.Errorf("the generation went from %d to %d", first.Generation, second.Generation)
			}
			s.lose(t, rival(c), c)
			s.finish(t, c, result("a"))
		}
	})
}

func (s suite) inFlight(t *testing.T) {
	c := newClaim()
	first := s.win(t, c)
	for range 3 {
		time.Sleep(short)
		for _, other := range []idempotency.Claim{rival(c), successor(c)} {
			r := s.lose(t, other, c)
			if r.Generation != first.Generation {
				t.Errorf("the generation went from %d to %d", first.Generation, r.Generation)
			}
			if wantLease(t, r); r.Lease > time.Hour-short {
				t.Errorf("Lease = %v after %v, want the rest of an hour", r.Lease, short)
			}
		}
	}
}

func (s suite) pollingChangesNothing(t *testing.T) {
	inTime(func(d time.Duration) (check func()) {
		c := newClaim()
		c.Lease = d
		s.win(t, c)
		won := false
		for range 3 {
			next := successor(c)
			next.Lease = time.Hour
			won = s.claim(t, next).Won || won
			won = s.claim(t, rival(next)).Won || won
		}
		return func() {
			if won {
				t.Error("the claim was taken over before its lease has ended")
			}
			s.win(t, successor(c))
		}
	})
}

// tails are ends of keys, tokens and fingerprints that a store with a text format may
// confuse with each other, or cut.
var tails = [][]byte{
	bytes.Repeat([]byte{0}, 12), bytes.Repeat([]byte{0xff}, 12), []byte("            "), []byte("AAAAAAAAAAAA"),
	[]byte("aaaaaaaaaaaa"), []byte("\x00aaaaaaaaaaa"), []byte("aaa\x00\x00\x00\x00\x00\x00\x00\x00\x00"), []byte("aaa         "), []byte("{a}:*?[a-z]\n"), []byte("\xc3\x28\xe2\x82\xf0\x9f'\"\\\x00\r\n"), []byte("%00%%s$1?&'--"),
}

func (s suite) distinctKeys(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	all := []idempotency.Claim{c}
	take := func(change func(*idempotency.Key)) {
		t.Helper()
		other := rival(c)
		change(&other.Key)
		s.win(t, other)
		all = append(all, other)
	}
	for i := range len(c.Key.Owner) {
		take(func(k *idempotency.Key) { k.Owner[i] ^= 0x20 }) // the case of a letter
		take(func(k *idempotency.Key) { k.Name[i] ^= 0x20 })
	}
	take(func(k *idempotency.Key) { k.Owner, k.Name = k.Name, k.Owner })
	for _, tail := range tails {
		take(func(k *idempotency.Key) { copy(k.Owner[20:], tail) })
		take(func(k *idempotency.Key) { copy(k.Name[20:], tail) })
	}
	for i, c := range all {
		s.finish(t, c, result(string(rune(i))))
	}
	for i, c := range all {
		s.wantRecord(t, c, result(string(rune(i))))
	}
	if err := s.store.Delete(t.Context(), c.Key, s.find(t, c.Key).Generation); err != nil {
		t.Errorf("Delete: %v", err)
	}
	for i, c := range all[1:] {
		s.wantRecord(t, c, result(string(rune(i+1))))
	}
}

func (s suite) distinctTokens(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	for i := range c.Token {
		other := rival(c)
		other.Token = c.Token
		other.Token[i] ^= 0x20
		s.lose(t, other, c)
		s.wantLost(t, other)
	}
	for _, tail := range tails {
		c := newClaim()
		copy(c.Token[4:], tail)
		s.win(t, c)
		s.win(t, c)
		s.wantRenewed(t, time.Hour, c)
		s.finish(t, c, result("a"))
	}
}

func (s suite) fingerprints(t *testing.T) {
	for _, tail := range tails {
		for _, at := range []int{0, 20} {
			c := newClaim()
			copy(c.Fingerprint[at:], tail)
			s.win(t, c)
			s.lose(t, rival(c), c)
			s.finish(t, c, result("a"))
			s.wantRecord(t, c, result("a"))
		}
	}
}

func (s suite) emptyToken(t *testing.T) {
	c := newClaim()
	c.Token = idempotency.Token{}
	if _, err := s.store.Claim(t.Context(), c); err == nil {
		t.Error("Claim accepted an empty token")
	}
	s.win(t, rival(c))
	if _, err := s.store.Renew(t.Context(), []idempotency.ClaimID{idOf(c)}, time.Hour); err == nil {
		t.Error("Renew accepted an empty token")
	}
	if _, err := s.store.Finish(t.Context(), completion(c, release)); err == nil {
		t.Error("Finish accepted an empty token")
	}
}

// endedContext ends a context before the call. The call may succeed nevertheless.
func (s suite) endedContext(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	c := newClaim()
	if r, err := s.store.Claim(ended, c); err == nil && !r.Won {
		t.Errorf("Claim returned %+v of a free key", r)
	}
	s.win(t, c)
	if lost, err := s.store.Renew(ended, []idempotency.ClaimID{idOf(c)}, time.Hour); len(lost) != 0 {
		t.Errorf("Renew returned a claim that is not lost, and %v", err)
	}
	if kept, err := s.store.Finish(ended, completion(c, result("a"))); err == nil && kept != idempotency.StateDone {
		t.Errorf("Finish has kept %d", kept)
	}
	s.finish(t, c, result("a"))
	s.wantRecord(t, c, result("a"))
	generation := s.find(t, c.Key).Generation
	if r, err := s.store.Find(ended, c.Key); err == nil && r.State != idempotency.StateDone || err != nil && r.State != 0 {
		t.Errorf("Find returned %+v and %v", r, err)
	}
	_ = s.store.Delete(ended, c.Key, generation)
	if err := s.store.Delete(t.Context(), c.Key, generation); err != nil && !errors.Is(err, idempotency.ErrNotFound) {
		t.Errorf("Delete again: %v", err)
	}
	s.wantFree(t, c, generation)
}
