package idempotencytest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// A Transaction is a transaction of a handler, as [TestTx] ends it.
type Transaction[Tx any] struct {
	Tx Tx
	// Commit and Rollback end the transaction. One of them is called, once.
	Commit, Rollback func() error
	// Crash, if not nil, ends the connection of the transaction without either, as the end
	// of its process would. It is called in place of the others.
	Crash func()
}

// TestTx tests the contract of [idempotency.TxStore]. Each test calls open, which returns a
// store and a function that begins a transaction where the store keeps its records. The
// caller closes both, for instance with t.Cleanup. Test the store with [TestStore] as well.
// TestTx takes a few seconds.
func TestTx[Tx any](t *testing.T, open func(testing.TB) (store idempotency.TxStore[Tx], begin func(testing.TB) Transaction[Tx])) {
	for _, r := range []struct {
		name string
		test func(txSuite[Tx], *testing.T)
	}{
		{"a claim ends when the transaction is committed", txSuite[Tx].commit},
		{"nobody sees a result before it is committed", txSuite[Tx].isolated},
		{"a claim does not end when the transaction is rolled back", txSuite[Tx].rollback},
		{"a claim does not end when the transaction crashes", txSuite[Tx].crash},
		{"a lost claim cannot end in a transaction", txSuite[Tx].lost},
		{"a claim whose lease ends in a transaction ends or is taken over", txSuite[Tx].leaseEnds},
		{"a claim ends once, in a transaction or outside", txSuite[Tx].again},
		{"transactions of several claims end apart", txSuite[Tx].apart},
		{"a claim that was taken over ends like any other", txSuite[Tx].takenOverTx},
		{"a claim is not deleted before its lease and its transaction end", txSuite[Tx].deletion},
		{"the zero completion ends no claim, and is no error", txSuite[Tx].zero},
		{"a bad result ends no claim", txSuite[Tx].bad},
		{"a middleware commits the effect with its response, or neither", txSuite[Tx].middleware},
	} {
		t.Run(r.name, func(t *testing.T) {
			store, begin := open(t)
			r.test(txSuite[Tx]{suite{store}, store, begin}, t)
		})
	}
}

type txSuite[Tx any] struct {
	suite
	tx    idempotency.TxStore[Tx]
	begin func(testing.TB) Transaction[Tx]
}

// finishTx begins a transaction and ends c in it.
func (s txSuite[Tx]) finishTx(t testing.TB, c idempotency.Claim, r idempotency.Result) Transaction[Tx] {
	t.Helper()
	tx := s.begin(t)
	if kept, err := s.tx.FinishTx(t.Context(), tx.Tx, completion(c, r)); kept != r.State || err != nil {
		t.Errorf("FinishTx with state %d: kept %d, %v", r.State, kept, err)
		wantNil(t, "Rollback", tx.Rollback())
		t.FailNow()
	}
	return tx
}

func wantNil(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func (s txSuite[Tx]) commit(t *testing.T) {
	for _, end := range endings {
		c := newClaim()
		s.win(t, c)
		wantNil(t, "Commit", s.finishTx(t, c, end).Commit())
		if end.State != idempotency.StateReleased {
			s.wantRecord(t, c, end)
		}
		// The middleware ends the claim as well.
		if kept, err := s.store.Finish(t.Context(), completion(c, result("of the middleware"))); kept != end.State || err != nil {
			t.Errorf("Finish after Commit: kept %d, %v, want %d", kept, err, end.State)
		}
		if err := s.renewOne(t.Context(), c, time.Hour); !errors.Is(err, idempotency.ErrLost) {
			t.Errorf("Renew after Commit: %v, want the claim to be lost", err)
		}
		s.wantEnded(t, c, end)
	}
	// The TTL of the result counts, not that of the claim.
	inTime(func(d time.Duration) (check func()) {
		c := newClaim()
		c.Lease, c.TTL = d, d
		s.win(t, c)
		tx := s.begin(t)
		_, err := s.tx.FinishTx(t.Context(), tx.Tx, completion(c, result("a")))
		err = errors.Join(err, tx.Commit())
		return func() {
			wantNil(t, "FinishTx", err)
			s.wantRecord(t, c, result("a"))
		}
	})
}

// isolated claims the key of a claim that is ended in an open transaction. The store may
// make the claim wait for the end of the transaction.
func (s txSuite[Tx]) isolated(t *testing.T) {
	for _, committed := range []bool{true, false} {
		c := newClaim()
		s.win(t, c)
		tx := s.finishTx(t, c, result("a"))
		type reply struct {
			record idempotency.Record
			err    error
		}
		before := make(chan reply, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			r, err := s.store.Claim(ctx, rival(c))
			before <- reply{r, err}
		}()
		var got reply
		waited := false
		select {
		case got = <-before:
		case <-time.After(2 * short):
			waited = true
		}
		if committed {
			wantNil(t, "Commit", tx.Commit())
		} else {
			wantNil(t, "Rollback", tx.Rollback())
		}
		if waited {
			got = <-before
		}
		switch r := got.record; {
		case got.err != nil:
			t.Errorf("a claim during a transaction: %v", got.err)
		case r.Won || r.Fingerprint != c.Fingerprint:
			t.Errorf("a claim during a transaction got %+v", r)
		case r.State == idempotency.StateClaimed:
		case r.State != idempotency.StateDone || !waited || !committed:
			t.Errorf("a claim during a transaction got state %d, waited %v, committed %v", r.State, waited, committed)
		}
		if committed {
			s.wantRecord(t, c, result("a"))
		}
	}
}

// wantClaimed fails unless c is as if no call had ended it.
func (s txSuite[Tx]) wantClaimed(t testing.TB, c idempotency.Claim, generation uint64) {
	t.Helper()
	if r := s.lose(t, rival(c), c); r.Status != 0 || len(r.Payload) != 0 || r.Generation != generation {
		t.Errorf("the claim has status %d, a payload of %d bytes and generation %d, want %d", r.Status, len(r.Payload), r.Generation, generation)
	}
	s.wantRenewed(t, time.Hour, c)
	s.win(t, c)
	other := result("another")
	s.finish(t, c, other)
	s.wantRecord(t, c, other)
}

func (s txSuite[Tx]) rollback(t *testing.T) {
	for _, end := range endings {
		c := newClaim()
		generation := s.win(t, c).Generation
		for range 2 {
			wantNil(t, "Rollback", s.finishTx(t, c, end).Rollback())
		}
		s.wantClaimed(t, c, generation)
	}
}

func (s txSuite[Tx]) crash(t *testing.T) {
	for _, end := range endings {
		c := newClaim()
		generation := s.win(t, c).Generation
		tx := s.finishTx(t, c, end)
		if tx.Crash == nil {
			wantNil(t, "Rollback", tx.Rollback())
			t.Skip("Crash is nil")
		}
		tx.Crash()
		s.wantClaimed(t, c, generation)
		// Another transaction is not affected.
		c = newClaim()
		s.win(t, c)
		wantNil(t, "Commit", s.finishTx(t, c, end).Commit())
		s.wantEnded(t, c, end)
	}
}

func (s txSuite[Tx]) lost(t *testing.T) {
	late := newClaim()
	late.Lease = short
	s.win(t, late)
	wait()
	owner := successor(late)
	owner.Lease = time.Hour
	generation := s.win(t, owner).Generation
	expired := newClaim()
	expired.Lease, expired.TTL = short, short
	s.win(t, expired)
	wait()
	for name, c := range map[string]idempotency.Claim{"that was taken over": late, "that has expired": expired, "that was not made": newClaim()} {
		for _, end := range endings {
			tx := s.begin(t)
			if kept, err := s.tx.FinishTx(t.Context(), tx.Tx, completion(c, end)); kept != 0 || !errors.Is(err, idempotency.ErrLost) {
				t.Errorf("FinishTx of a claim %s with state %d: kept %d, %v, want ErrLost", name, end.State, kept, err)
			}
			wantNil(t, "Rollback", tx.Rollback())
		}
	}
	// A handler that commits nevertheless changes no record.
	tx := s.begin(t)
	if _, err := s.tx.FinishTx(t.Context(), tx.Tx, completion(late, result("late"))); !errors.Is(err, idempotency.ErrLost) {
		t.Errorf("FinishTx: %v, want ErrLost", err)
	}
	_ = tx.Commit() // which some databases refuse after an error
	s.win(t, rival(expired))
	s.wantClaimed(t, owner, generation)
}

// Either the transaction is committed and no other claim wins, or the other way around.
func (s txSuite[Tx]) leaseEnds(t *testing.T) {
	c := newClaim()
	c.Lease = brief
	s.win(t, c)
	tx := s.finishTx(t, c, result("a"))
	waitBrief()
	won := make(chan bool, 1)
	next := successor(c)
	next.Lease = time.Hour
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		r, err := s.store.Claim(ctx, next)
		if err != nil {
			t.Errorf("a claim after the lease: %v", err)
		}
		won <- r.Won
	}()
	time.Sleep(2 * short)
	committed := tx.Commit() == nil
	if takenOver := <-won; takenOver == committed {
		t.Errorf("the transaction is committed: %v, and the claim is taken over: %v", committed, takenOver)
	}
	if committed {
		s.wantRecord(t, c, result("a"))
	} else {
		s.lose(t, rival(c), next)
	}
}

func (s txSuite[Tx]) again(t *testing.T) {
	for _, first := range endings {
		c := newClaim()
		s.win(t, c)
		tx := s.finishTx(t, c, first)
		again := func(when string, tx Transaction[Tx]) {
			t.Helper()
			for _, end := range endings {
				if kept, err := s.tx.FinishTx(t.Context(), tx.Tx, completion(c, end)); kept != first.State || err != nil {
					t.Errorf("FinishTx with state %d %s: kept %d, %v, want %d", end.State, when, kept, err, first.State)
				}
			}
			wantNil(t, "Commit", tx.Commit())
		}
		again("in the same transaction", tx)
		again("in another transaction", s.begin(t))
		s.wantEnded(t, c, first)

		c = newClaim()
		s.win(t, c)
		s.finish(t, c, first)
		again("after Finish", s.begin(t))
		s.wantEnded(t, c, first)
	}
}

func (s txSuite[Tx]) apart(t *testing.T) {
	claims := make([]idempotency.Claim, 8)
	for i := range claims {
		claims[i] = newClaim()
		claims[i].Key.Owner = claims[0].Key.Owner
		s.win(t, claims[i])
	}
	own := func(i int) idempotency.Result { return result(string(rune('a' + i))) }
	// A database may let the transactions wait for each other.
	together(len(claims), func(i int) {
		tx := s.begin(t)
		kept, err := s.tx.FinishTx(context.Background(), tx.Tx, completion(claims[i], own(i)))
		if kept != idempotency.StateDone || err != nil {
			t.Errorf("FinishTx: kept %d, %v", kept, err)
		}
		time.Sleep(short)
		if i%2 == 0 {
			wantNil(t, "Commit", tx.Commit())
		} else {
			wantNil(t, "Rollback", tx.Rollback())
		}
	})
	for i, c := range claims {
		if i%2 == 0 {
			s.wantRecord(t, c, own(i))
		} else {
			s.lose(t, rival(c), c)
		}
	}
	// Several claims in one transaction.
	tx := s.finishTx(t, claims[1], result("b"))
	if kept, err := s.tx.FinishTx(t.Context(), tx.Tx, completion(claims[3], release)); kept != idempotency.StateReleased || err != nil {
		t.Errorf("FinishTx of a second claim: kept %d, %v", kept, err)
	}
	wantNil(t, "Commit", tx.Commit())
	s.wantRecord(t, claims[1], result("b"))
	s.win(t, rival(claims[3]))
}

func (s txSuite[Tx]) takenOverTx(t *testing.T) {
	for _, end := range endings {
		c := newClaim()
		s.win(t, c)
		wantNil(t, "Commit", s.finishTx(t, c, ending(idempotency.StateUnknown)).Commit())
		next := resolver(c)
		s.winOver(t, next, true)
		wantNil(t, "Rollback", s.finishTx(t, next, end).Rollback())
		s.winOver(t, next, true) // a rollback changes nothing
		if _, err := s.store.Finish(t.Context(), completion(c, end)); !errors.Is(err, idempotency.ErrLost) {
			t.Errorf("Finish of the claim that was taken over: %v, want ErrLost", err)
		}
		wantNil(t, "Commit", s.finishTx(t, next, end).Commit())
		s.wantEnded(t, next, end)
	}
}

// A deletion may wait for the end of the transaction.
func (s txSuite[Tx]) deletion(t *testing.T) {
	for _, committed := range []bool{true, false} {
		c := newClaim()
		c.Lease = brief
		generation := s.win(t, c).Generation
		s.wantRenewed(t, brief, c)
		tx := s.finishTx(t, c, result("a"))
		waitBrief()
		deleted := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			deleted <- s.store.Delete(ctx, c.Key, generation)
		}()
		time.Sleep(2 * short)
		var err error
		if committed {
			err = tx.Commit()
		} else {
			wantNil(t, "Rollback", tx.Rollback())
		}
		if deletion := <-deleted; deletion != nil {
			t.Errorf("Delete after the lease: %v, and Commit: %v", deletion, err)
		}
		s.wantFree(t, c, generation)
		s.wantLost(t, c)
	}
	c := newClaim()
	generation := s.win(t, c).Generation
	deleted := make(chan error, 1)
	tx := s.finishTx(t, c, result("a"))
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		deleted <- s.store.Delete(ctx, c.Key, generation)
	}()
	time.Sleep(2 * short)
	wantNil(t, "Rollback", tx.Rollback())
	if err := <-deleted; !errors.Is(err, idempotency.ErrLost) {
		t.Errorf("Delete during the lease: %v, want ErrLost", err)
	}
	s.wantClaimed(t, c, generation)
}

// A handler whose request has no key has no claim, but finishes all the same.
func (s txSuite[Tx]) zero(t *testing.T) {
	tx := s.begin(t)
	finish := func() {
		t.Helper()
		if kept, err := s.tx.FinishTx(t.Context(), tx.Tx, idempotency.Completion{}); kept != 0 || err != nil {
			t.Errorf("FinishTx of the zero completion: kept %d, %v, want 0 and nil", kept, err)
		}
	}
	finish()
	finish()
	if kept, err := s.store.Finish(t.Context(), idempotency.Completion{}); kept != 0 || err == nil {
		t.Errorf("Finish of the zero completion: kept %d, %v, want an error", kept, err)
	}
	// The transaction can still be used.
	c := newClaim()
	s.win(t, c)
	if _, err := s.tx.FinishTx(t.Context(), tx.Tx, completion(c, result("a"))); err != nil {
		t.Errorf("FinishTx: %v", err)
	}
	finish()
	wantNil(t, "Commit", tx.Commit())
	s.wantRecord(t, c, result("a"))
	s.wantFree(t, idempotency.Claim{}, 1)
}

func (s txSuite[Tx]) bad(t *testing.T) {
	c := newClaim()
	generation := s.win(t, c).Generation
	noToken := completion(c, result("a"))
	noToken.Token = idempotency.Token{}
	for name, bad := range map[string]idempotency.Completion{
		"an empty token": noToken, "nothing but a result": {Result: result("a")}, "nothing but a state": {Result: idempotency.Result{State: idempotency.StateDone}},
		"nothing but a key": {Key: c.Key}, "nothing but a token": {Token: c.Token},
		"no state": completion(c, ending(0)), "a claimed state": completion(c, ending(idempotency.StateClaimed)),
	} {
		tx := s.begin(t)
		if kept, err := s.tx.FinishTx(t.Context(), tx.Tx, bad); kept != 0 || err == nil {
			t.Errorf("FinishTx accepts %s, and keeps %d", name, kept)
		}
		wantNil(t, "Rollback", tx.Rollback())
	}
	s.wantClaimed(t, c, generation)
}
