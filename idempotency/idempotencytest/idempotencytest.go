// Package idempotencytest checks that an [idempotency.Store] keeps its contract.
//
//	func TestStore(t *testing.T) {
//		idempotencytest.TestStore(t, func(t testing.TB) idempotency.Store { return open(t) })
//	}
//
// [TestShared] checks a store whose records several processes share, and [TestTx] one that
// finishes claims in transactions.
//
// It is a separate module because it links a linearizability checker that no program
// should link.
package idempotencytest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// TestStore tests the contract of [idempotency.Store]. Each test runs on a store that open
// returns. The stores may share a database, since every test uses new keys. TestStore takes
// a few seconds. If USHER_SOAK is set, [CheckLinearizable] checks 2,000 histories instead
// of 60.
func TestStore(t *testing.T, open func(testing.TB) idempotency.Store) {
	run(t, open, []row{
		{"a free key is won", suite.free},
		{"a repeated claim is the same claim", suite.claimAgain},
		{"a repeated claim keeps the record as well", suite.claimAgainKeepsRecord},
		{"another token finds the key in flight", suite.inFlight},
		{"claims of other tokens do not prolong the lease", suite.pollingChangesNothing},
		{"every byte of a key counts", suite.distinctKeys},
		{"every byte of a token counts", suite.distinctTokens},
		{"every byte of a fingerprint is kept", suite.fingerprints},
		{"an empty token is refused", suite.emptyToken},
		{"a call whose context has ended can be repeated", suite.endedContext},

		{"renewing keeps the lease", suite.renew},
		{"renewing starts the lease again from now", suite.renewFromNow},
		{"renewing keeps the record", suite.renewKeepsRecord},
		{"one call renews all claims", suite.renewAll},
		{"one call returns exactly the claims that are lost", suite.renewReturnsLost},
		{"a claim that is lost is not renewed", suite.renewChangesNoOther},
		{"a call without claims renews nothing", suite.renewNothing},
		{"a late owner cannot change the claim or record of its successor", suite.fenced},
		{"a late owner without a successor can still renew and finish", suite.late},

		{"after its lease a claim can be taken over, once", suite.takeOver},
		{"after its lease a claim is taken over by the same request only", suite.takeOverOfRequest},
		{"the record of a key that was taken over has its own TTL", suite.takeOverSetsTTL},
		{"a claim that is taken over says so, each time", suite.takenOver},
		{"a key that was free is not taken over", suite.notTakenOver},
		{"an unknown outcome is taken over by a claim that asks for it", suite.takeUnknown},
		{"an unknown outcome is taken over by the same request only", suite.takeUnknownOfRequest},
		{"a token does not take its own unknown outcome over", suite.takeUnknownAgain},
		{"no other outcome is taken over", suite.takeNoOther},

		{"a stored response is returned to every claim, byte for byte", suite.done},
		{"only a response has a payload", suite.bodiless},
		{"the state that is kept is returned", suite.kept},
		{"finishing again changes nothing", suite.finishAgain},
		{"a released key is free for other tokens", suite.released},
		{"a key can be released again and again", suite.releasedAgain},
		{"a token without a claim can neither renew nor finish", suite.noClaim},
		{"a claim cannot end in any other state", suite.badState},
		{"records expire", suite.expiry},
		{"finishing starts the TTL again", suite.finishSetsTTL},
		{"generations grow, even after release and expiry", suite.generations},
		{"every status is returned unchanged", suite.statuses},
		{"every payload is returned unchanged", suite.payloads},
		{"the store retains no argument", suite.isolation},

		{"a record is found in whatever state", suite.found},
		{"a free key has no record", suite.notFound},
		{"finding a record changes nothing", suite.findChangesNothing},
		{"a record is kept for its TTL", suite.keptFor},
		{"a record is deleted in whatever state, and its key is free", suite.deleted},
		{"a claim with a lease is not deleted", suite.deleteNoRunning},
		{"only the generation that is named is deleted", suite.deleteGeneration},

		{"of 100 parallel claims one wins", suite.parallelClaims},
		{"parallel claims of one token are one claim", suite.parallelRepetitions},
		{"of parallel takeovers one wins", suite.parallelTakeovers},
		{"of parallel finishes by two tokens only that of the owner counts", suite.parallelFinishes},
		{"of parallel finishes by one token the first counts", suite.parallelResults},
		{"of parallel deletions one deletes", suite.parallelDeletions},
		{"a deletion and a takeover exclude each other", suite.deletionOrTakeover},
		{"histories of concurrent calls are linearizable", suite.linearizable},

		{"a closed store returns ErrClosed", suite.closed},
		{"closing ends the calls that are running", suite.closeWhileCalled},
	})
}

// A row is a test of the contract.
type row struct {
	name string
	test func(suite, *testing.T)
}

func run(t *testing.T, open func(testing.TB) idempotency.Store, rows []row) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { r.test(suite{open(t)}, t) })
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

// rival returns the claim of another token for the key of c, and of another request.
func rival(c idempotency.Claim) idempotency.Claim {
	c.Token = newToken()
	random(c.Fingerprint[:])
	return c
}

// successor returns the claim of another token for the key and the request of c.
func successor(c idempotency.Claim) idempotency.Claim {
	c.Token = newToken()
	return c
}

func idOf(c idempotency.Claim) idempotency.ClaimID {
	return idempotency.ClaimID{Key: c.Key, Token: c.Token}
}

func completion(c idempotency.Claim, r idempotency.Result) idempotency.Completion {
	return idempotency.Completion{Key: c.Key, Token: c.Token, Result: r}
}

// short is a lease or TTL that has ended once wait has returned.
const short = 30 * time.Millisecond

func wait() { time.Sleep(3 * short) }

// brief is a lease or TTL that usually leaves time for another call. It has ended once
// waitBrief has returned.
const brief = 300 * time.Millisecond

func waitBrief() { time.Sleep(brief + short) }

// inTime calls f with a lease or TTL within which f must return, and calls check once that
// has ended. If f takes too long, as on a busy machine, inTime begins again with a longer
// one.
func inTime(f func(d time.Duration) (check func())) {
	for d := brief; ; d *= 4 {
		began := time.Now()
		check := f(d)
		if time.Since(began) < d/2 || d > patience/4 {
			time.Sleep(d + short)
			check()
			return
		}
	}
}

// patience is how long a test waits for something that must happen.
const patience = 20 * time.Second

func result(payload string) idempotency.Result {
	return idempotency.Result{State: idempotency.StateDone, Status: 201, Payload: []byte(payload), TTL: time.Hour}
}

// ending returns a result without a payload.
func ending(s idempotency.State) idempotency.Result {
	return idempotency.Result{State: s, Status: 500, TTL: time.Hour}
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
	if r.Status != 0 || len(r.Payload) != 0 || r.TTL != 0 {
		t.Errorf("a new claim has the status %d, a payload of %d bytes and the TTL %v, want none", r.Status, len(r.Payload), r.TTL)
	}
	return r
}

// lose fails unless c finds the claim of first, and its lease has not ended.
func (s suite) lose(t testing.TB, c, first idempotency.Claim) idempotency.Record {
	t.Helper()
	r := s.claim(t, c)
	if r.Won || r.State != idempotency.StateClaimed || r.Fingerprint != first.Fingerprint || r.Lease <= 0 {
		t.Errorf("Claim returned %+v, want the claim of the other token, with a lease", r)
	}
	return r
}

func (s suite) finish(t testing.TB, c idempotency.Claim, r idempotency.Result) {
	t.Helper()
	if kept, err := s.store.Finish(t.Context(), completion(c, r)); kept != r.State || err != nil {
		t.Fatalf("Finish with state %d: kept %d, %v", r.State, kept, err)
	}
}

// renewOne renews one claim. It returns ErrLost if that is lost.
func (s suite) renewOne(ctx context.Context, c idempotency.Claim, lease time.Duration) error {
	lost, err := s.store.Renew(ctx, []idempotency.ClaimID{idOf(c)}, lease)
	if err == nil && len(lost) > 0 {
		return idempotency.ErrLost
	}
	return err
}

// wantRenewed fails unless all claims can be renewed.
func (s suite) wantRenewed(t testing.TB, lease time.Duration, claims ...idempotency.Claim) {
	t.Helper()
	ids := make([]idempotency.ClaimID, len(claims))
	for i, c := range claims {
		ids[i] = idOf(c)
	}
	if lost, err := s.store.Renew(t.Context(), ids, lease); len(lost) != 0 || err != nil {
		t.Fatalf("Renew of %d claims: %d are lost, %v", len(claims), len(lost), err)
	}
}

// endings are results of every state in which a claim can end.
var endings = []idempotency.Result{
	result("late"), ending(idempotency.StateTombstone), ending(idempotency.StateUnknown), release,
}

// wantLost fails unless c can neither be renewed nor finished.
func (s suite) wantLost(t testing.TB, c idempotency.Claim) {
	t.Helper()
	if err := s.renewOne(t.Context(), c, time.Hour); !errors.Is(err, idempotency.ErrLost) {
		t.Errorf("Renew: %v, want the claim to be lost", err)
	}
	for _, r := range endings {
		if _, err := s.store.Finish(t.Context(), completion(c, r)); !errors.Is(err, idempotency.ErrLost) {
			t.Errorf("Finish with state %d: %v, want ErrLost", r.State, err)
		}
	}
}

// wantRecord fails unless other claims and Find return exactly this result of c.
func (s suite) wantRecord(t testing.TB, c idempotency.Claim, want idempotency.Result) {
	t.Helper()
	got := s.claim(t, rival(c))
	if got.Won || got.TakenOver || got.State != want.State || got.Status != want.Status || got.Fingerprint != c.Fingerprint || got.Lease != 0 || got.TTL != 0 {
		t.Errorf("the record is %+v, want %+v", got, want)
	}
	if !bytes.Equal(got.Payload, want.Payload) {
		t.Errorf("the payload of %d bytes is returned as %d others", len(want.Payload), len(got.Payload))
	}
	if found := s.wantFound(t, c, want); found.Generation != got.Generation {
		t.Errorf("the generation %d is found as %d", got.Generation, found.Generation)
	}
}
