// Package idempotencytest checks that an [idempotency.Store] keeps its contract.
//
//	func TestStore(t *testing.T) {
//		idempotencytest.TestStore(t, func(t testing.TB) idempotency.Store { return open(t) })
//	}
//
// It is a separate module because it links a linearizability checker that no program
// should link.
package idempotencytest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// TestStore tests the contract of [idempotency.Store]. Each test runs on a store that
// open returns. The stores may share a database, as every test uses new keys. TestStore
// takes a few seconds. If USHER_SOAK is set, [CheckLinearizable] checks 2,000 histories
// instead of 60.
func TestStore(t *testing.T, open func(testing.TB) idempotency.Store) {
	for _, c := range []struct {
		name string
		test func(suite, *testing.T)
	}{
		{"a free key is won", suite.free},
		{"a repeated claim is the same claim", suite.claimAgain},
		{"another token finds the key in flight", suite.inFlight},
		{"other owners and names are other keys", suite.distinctKeys},
		{"an empty token is refused", suite.emptyToken},
		{"renewing keeps the lease", suite.renew},
		{"after its lease a claim can be taken over, once", suite.takeOver},
		{"a late owner cannot change the claim or record of its successor", suite.fenced},
		{"a late owner without a successor can still renew and finish", suite.late},
		{"a stored response is returned to every claim, byte for byte", suite.done},
		{"a tombstone is returned to every claim", suite.tombstone},
		{"finishing again changes nothing", suite.finishAgain},
		{"a released key is free for other tokens", suite.released},
		{"a token without a claim can neither renew nor finish", suite.noClaim},
		{"a claim cannot end in any other state", suite.badState},
		{"records expire", suite.expiry},
		{"generations grow, even after release and expiry", suite.generations},
		{"large and empty payloads are returned unchanged", suite.payloads},
		{"the store retains no argument", suite.isolation},
		{"of 100 parallel claims one wins", suite.parallelClaims},
		{"of parallel takeovers one wins", suite.parallelTakeovers},
		{"of parallel finishes by two tokens only that of the owner counts", suite.parallelFinishes},
		{"histories of concurrent calls are linearizable", suite.linearizable},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(suite{open(t)}, t) })
	}
}

type suite struct{ store idempotency.Store }

func random(b []byte) {
	// It never fails, as its documentation promises.
	_, _ = rand.Read(b)
}

func newKey() (k idempotency.Key) {
	random(k.Owner[:])
	random(k.Name[:])
	return k
}

func newToken() (t idempotency.Token) {
	random(t[:])
	return t
}

// newClaim returns a claim of a new key. It does not expire during a test.
func newClaim() idempotency.Claim {
	c := idempotency.Claim{Key: newKey(), Token: newToken(), Lease: time.Hour, TTL: 2 * time.Hour}
	random(c.Fingerprint[:])
	return c
}

// rival returns the claim of another token for the key of c.
func rival(c idempotency.Claim) idempotency.Claim {
	c.Token = newToken()
	random(c.Fingerprint[:])
	return c
}

// short is a lease or TTL that has ended once wait has returned.
const short = 30 * time.Millisecond

func wait() { time.Sleep(3 * short) }

func result(payload string) idempotency.Result {
	return idempotency.Result{State: idempotency.StateDone, Status: 201, Payload: []byte(payload), TTL: time.Hour}
}

var release = idempotency.Result{State: idempotency.StateReleased, TTL: time.Hour}

func (s suite) claim(t testing.TB, c idempotency.Claim) idempotency.Record {
	t.Helper()
	r, err := s.store.Claim(t.Context(), c)
	if err != nil {
		t.Fatalf("Claim: %v", err)
	}
	return r
}

func (s suite) win(t testing.TB, c idempotency.Claim) idempotency.Record {
	t.Helper()
	r := s.claim(t, c)
	if !r.Won || r.State != idempotency.StateClaimed || r.Fingerprint != c.Fingerprint || r.Generation == 0 {
		t.Fatalf("Claim returned %+v, want it to win", r)
	}
	return r
}

// end calls Finish.
func (s suite) end(ctx context.Context, c idempotency.Claim, r idempotency.Result) (idempotency.State, error) {
	return s.store.Finish(ctx, idempotency.Completion{Key: c.Key, Token: c.Token, Result: r})
}

func (s suite) finish(t testing.TB, c idempotency.Claim, r idempotency.Result) {
	t.Helper()
	if kept, err := s.end(t.Context(), c, r); kept != r.State || err != nil {
		t.Fatalf("Finish with state %d: %d, %v", r.State, kept, err)
	}
}

// renewOne renews one claim.
func (s suite) renewOne(ctx context.Context, c idempotency.Claim, lease time.Duration) error {
	id := idempotency.ClaimID{Key: c.Key, Token: c.Token}
	lost, err := s.store.Renew(ctx, []idempotency.ClaimID{id}, lease)
	if err == nil && len(lost) > 0 {
		return idempotency.ErrLost
	}
	return err
}

func (s suite) wantLost(t testing.TB, c idempotency.Claim) {
	t.Helper()
	if err := s.renewOne(t.Context(), c, time.Hour); !errors.Is(err, idempotency.ErrLost) {
		t.Errorf("Renew: %v, want ErrLost", err)
	}
	for _, r := range []idempotency.Result{result("late"), {State: idempotency.StateTombstone, TTL: time.Hour}, release} {
		if _, err := s.end(t.Context(), c, r); !errors.Is(err, idempotency.ErrLost) {
			t.Errorf("Finish with state %d: %v, want ErrLost", r.State, err)
		}
	}
}

// wantRecord fails unless other claims find exactly this result of c.
func (s suite) wantRecord(t testing.TB, c idempotency.Claim, want idempotency.Result) {
	t.Helper()
	got := s.claim(t, rival(c))
	if got.Won || got.State != want.State || got.Status != want.Status ||
		!bytes.Equal(got.Payload, want.Payload) || got.Fingerprint != c.Fingerprint {
		t.Errorf("the record is %+v, want %+v", got, want)
	}
}

func (s suite) free(t *testing.T) {
	r := s.win(t, newClaim())
	if r.Lease <= 0 || r.Lease > time.Hour {
		t.Errorf("Lease = %v, want more than 0 and at most an hour", r.Lease)
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
	if r := s.win(t, c); r.Lease <= short {
		t.Errorf("a repeated claim leaves a lease of %v, want a new one", r.Lease)
	}
	if s.claim(t, rival(c)).Won {
		t.Error("a repeated claim has not started the lease again")
	}
	s.finish(t, c, result("a"))
	if r := s.claim(t, c); r.Won || r.State != idempotency.StateDone || string(r.Payload) != "a" {
		t.Errorf("a claim that is repeated after it was finished returns %+v, want the record", r)
	}
}

func (s suite) inFlight(t *testing.T) {
	c := newClaim()
	first := s.win(t, c)
	for range 3 {
		r := s.claim(t, rival(c))
		if r.Won || r.State != idempotency.StateClaimed || r.Fingerprint != c.Fingerprint || r.Generation != first.Generation {
			t.Fatalf("got %+v, want the claim of the other token", r)
		}
		if r.Lease <= 0 || r.Lease > time.Hour {
			t.Errorf("Lease = %v, want more than 0 and at most an hour", r.Lease)
		}
	}
}

func (s suite) distinctKeys(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	other := rival(c)
	other.Key.Owner[31]++
	s.win(t, other)
	other = rival(c)
	other.Key.Name[31]++
	s.win(t, other)
	s.finish(t, other, result("other"))
	s.finish(t, c, result("mine"))
	s.wantRecord(t, c, result("mine"))
}

func (s suite) emptyToken(t *testing.T) {
	c := newClaim()
	c.Token = idempotency.Token{}
	if _, err := s.store.Claim(t.Context(), c); err == nil {
		t.Error("Claim accepted an empty token")
	}
	s.win(t, rival(c))
	if err := s.renewOne(t.Context(), c, time.Hour); err == nil {
		t.Error("Renew accepted an empty token")
	}
	if _, err := s.end(t.Context(), c, release); err == nil {
		t.Error("Finish accepted an empty token")
	}
}

func (s suite) renew(t *testing.T) {
	c := newClaim()
	c.Lease = short
	s.win(t, c)
	for range 2 {
		if err := s.renewOne(t.Context(), c, time.Hour); err != nil {
			t.Fatalf("Renew: %v", err)
		}
	}
	wait()
	if r := s.claim(t, rival(c)); r.Won || r.Lease <= short {
		t.Errorf("got %+v, want the renewed claim", r)
	}
}

func (s suite) takeOver(t *testing.T) {
	c := newClaim()
	c.Lease = short
	first := s.win(t, c)
	wait()
	next := rival(c)
	next.Lease = time.Hour
	if second := s.win(t, next); second.Generation <= first.Generation {
		t.Errorf("the generation went from %d to %d, want it to grow", first.Generation, second.Generation)
	}
	if s.claim(t, rival(c)).Won {
		t.Error("the claim of the successor was taken over as well")
	}
}

func (s suite) fenced(t *testing.T) {
	c := newClaim()
	c.Lease = short
	s.win(t, c)
	wait()
	next := rival(c)
	next.Lease = time.Hour
	s.win(t, next)
	s.wantLost(t, c)
	if s.claim(t, c).Won {
		t.Error("the late owner has claimed the key again")
	}
	if r := s.claim(t, rival(c)); r.Won || r.State != idempotency.StateClaimed || r.Fingerprint != next.Fingerprint {
		t.Errorf("after the calls of the late owner the record is %+v, want the claim of the successor", r)
	}
	s.finish(t, next, result("successor"))
	s.wantLost(t, c)
	s.wantRecord(t, next, result("successor"))
}

func (s suite) late(t *testing.T) {
	c := newClaim()
	c.Lease = short
	s.win(t, c)
	wait()
	if err := s.renewOne(t.Context(), c, short); err != nil {
		t.Errorf("Renew: %v", err)
	}
	wait()
	s.finish(t, c, result("late"))
	s.wantRecord(t, c, result("late"))
}

func (s suite) done(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	want := result("\x00\xff{\"a\":1}\r\n'\"\\")
	s.finish(t, c, want)
	for range 3 {
		s.wantRecord(t, c, want)
	}
	if err := s.renewOne(t.Context(), c, time.Hour); !errors.Is(err, idempotency.ErrLost) {
		t.Errorf("Renew of a finished claim: %v, want ErrLost", err)
	}
}

func (s suite) tombstone(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	want := idempotency.Result{State: idempotency.StateTombstone, Status: 500, TTL: time.Hour}
	s.finish(t, c, want)
	s.wantRecord(t, c, want)
}

func (s suite) finishAgain(t *testing.T) {
	tombstone := idempotency.Result{State: idempotency.StateTombstone, TTL: time.Hour}
	for name, first := range map[string]idempotency.Result{"done": result("first"), "a tombstone": tombstone} {
		c := newClaim()
		s.win(t, c)
		s.finish(t, c, first)
		for _, r := range []idempotency.Result{first, result("second"), tombstone, release} {
			if kept, err := s.end(t.Context(), c, r); kept != first.State || err != nil {
				t.Errorf("Finish again with state %d: %d, %v", r.State, kept, err)
			}
		}
		t.Log(name)
		s.wantRecord(t, c, first)
	}
	c := newClaim()
	s.win(t, c)
	s.finish(t, c, release)
	s.finish(t, c, release)
	if kept, err := s.end(t.Context(), c, result("after release")); kept != idempotency.StateReleased || err != nil {
		t.Errorf("Finish after release: %d, %v", kept, err)
	}
	s.win(t, rival(c))
}

func (s suite) released(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	s.finish(t, c, release)
	if r, err := s.store.Claim(t.Context(), c); !errors.Is(err, idempotency.ErrLost) {
		t.Errorf("Claim by a token that has released the key: %+v, %v, want ErrLost", r, err)
	}
	next := rival(c)
	s.win(t, next)
	s.wantLost(t, c)
	s.finish(t, next, result("next"))
	s.wantRecord(t, next, result("next"))
}

func (s suite) noClaim(t *testing.T) {
	c := newClaim()
	s.wantLost(t, c)
	s.win(t, c)
	s.wantLost(t, rival(c))
	s.finish(t, c, result("mine"))
	s.wantLost(t, rival(c))
	s.wantRecord(t, c, result("mine"))
}

func (s suite) badState(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	for _, state := range []idempotency.State{0, idempotency.StateClaimed, 6} {
		r := idempotency.Result{State: state, TTL: time.Hour}
		if _, err := s.end(t.Context(), c, r); err == nil {
			t.Errorf("Finish accepted the state %d", state)
		}
	}
	s.win(t, c)
}

func (s suite) expiry(t *testing.T) {
	for name, end := range map[string]idempotency.Result{
		"claimed":   {},
		"done":      {State: idempotency.StateDone, Payload: []byte("x"), TTL: short},
		"tombstone": {State: idempotency.StateTombstone, TTL: short},
		"released":  {State: idempotency.StateReleased, TTL: short},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClaim()
			if end.State == 0 {
				c.Lease, c.TTL = short, short
			}
			s.win(t, c)
			if end.State != 0 {
				s.finish(t, c, end)
			}
			wait()
			if _, err := s.end(t.Context(), c, result("late")); !errors.Is(err, idempotency.ErrLost) {
				t.Errorf("Finish of an expired claim: %v, want ErrLost", err)
			}
			s.win(t, rival(c))
		})
	}
}

func (s suite) generations(t *testing.T) {
	c := newClaim()
	last := uint64(0)
	for i := range 6 {
		next := rival(c)
		r := s.win(t, next)
		if r.Generation <= last {
			t.Fatalf("the generation went from %d to %d", last, r.Generation)
		}
		last = r.Generation
		end := release
		if i%2 == 1 {
			end = idempotency.Result{State: idempotency.StateDone, TTL: short}
		}
		s.finish(t, next, end)
		if i%2 == 1 {
			wait()
		}
	}
}

func (s suite) payloads(t *testing.T) {
	for _, n := range []int{0, 1, 4096, 1 << 20} {
		c := newClaim()
		s.win(t, c)
		want := idempotency.Result{State: idempotency.StateDone, Status: 200, Payload: make([]byte, n), TTL: time.Hour}
		random(want.Payload)
		s.finish(t, c, want)
		s.wantRecord(t, c, want)
	}
}

func (s suite) isolation(t *testing.T) {
	c := newClaim()
	s.win(t, c)
	given := result("unchanged")
	s.finish(t, c, given)
	copy(given.Payload, "CHANGED!!")
	s.wantRecord(t, c, result("unchanged"))
}

// together calls f n times at once.
func together(n int, f func(i int)) {
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			f(i)
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
}

func (s suite) parallelClaims(t *testing.T) {
	c := newClaim()
	s.wantOneWinner(t, c, 100)
}

func (s suite) wantOneWinner(t *testing.T, c idempotency.Claim, n int) {
	t.Helper()
	var won atomic.Int32
	together(n, func(int) {
		r, err := s.store.Claim(context.Background(), rival(c))
		switch {
		case err != nil:
			t.Errorf("Claim: %v", err)
		case r.Won:
			won.Add(1)
		case r.State != idempotency.StateClaimed:
			t.Errorf("a claim that lost got state %d, want StateClaimed", r.State)
		}
	})
	if n := won.Load(); n != 1 {
		t.Errorf("%d claims have won, want 1", n)
	}
}

func (s suite) parallelTakeovers(t *testing.T) {
	c := newClaim()
	c.Lease = short
	s.win(t, c)
	wait()
	c.Lease = time.Hour
	s.wantOneWinner(t, c, 50)

	c = newClaim()
	s.win(t, c)
	s.finish(t, c, release)
	s.wantOneWinner(t, c, 50)
}

func (s suite) parallelFinishes(t *testing.T) {
	for range 20 {
		old := newClaim()
		old.Lease = time.Millisecond
		s.win(t, old)
		time.Sleep(5 * time.Millisecond)
		owner := rival(old)
		owner.Lease = time.Hour
		s.win(t, owner)
		together(8, func(i int) {
			if i%2 == 0 {
				if _, err := s.end(context.Background(), old, release); !errors.Is(err, idempotency.ErrLost) {
					t.Errorf("Finish of the late owner: %v, want ErrLost", err)
				}
			} else if _, err := s.end(context.Background(), owner, result("owner")); err != nil {
				t.Errorf("Finish of the owner: %v", err)
			}
		})
		s.wantRecord(t, owner, result("owner"))
	}
}

func (s suite) linearizable(t *testing.T) {
	histories := 60
	if os.Getenv("USHER_SOAK") != "" {
		histories = 2000
	}
	if err := CheckLinearizable(t.Context(), s.store, histories); err != nil {
		t.Error(err)
	}
}
