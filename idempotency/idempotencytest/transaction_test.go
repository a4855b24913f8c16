package idempotencytest_test

import (
	"context"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/idempotency/idempotencytest"
	"github.com/usher-go/usher/internal/storetest"
)

// A txTable is a table with transactions.
type txTable struct{ *table }

// A transaction of a table. It locks the tuples that it changes, and keeps them as they
// were.
type transaction struct {
	table  *table
	before map[*tuple]tuple
	late   []func() error // what happens when it is committed
}

func (s txTable) begin(testing.TB) idempotencytest.Transaction[*transaction] {
	tx := &transaction{table: s.table, before: make(map[*tuple]tuple)}
	if s.is("has one transaction for all") {
		s.mu.Lock()
		tx = s.shared(tx)
		s.mu.Unlock()
	}
	out := idempotencytest.Transaction[*transaction]{Tx: tx, Commit: tx.commit, Rollback: tx.rollback, Crash: func() { _ = tx.rollback() }}
	switch s.wrong {
	case "commits nothing":
		out.Commit = tx.rollback
	case "commits what is rolled back":
		out.Rollback = tx.commit
	case "commits what crashes":
		out.Crash = func() { _ = tx.commit() }
	}
	return out
}

// shared returns the first transaction that it was called with.
func (s *table) shared(tx *transaction) *transaction {
	if s.transaction == nil {
		s.transaction = tx
	}
	return s.transaction
}

func (s txTable) FinishTx(_ context.Context, tx *transaction, c idempotency.Completion) (idempotency.State, error) {
	switch {
	case s.is("refuses the zero completion"):
	case c.IsZero(),
		c.Token == (idempotency.Token{}) && s.is("ignores a completion without a token"),
		c.Result.State == 0 && s.is("ignores a completion without a state"):
		if s.is("rolls back for the zero completion") {
			_ = tx.rollback()
		}
		return 0, nil
	}
	now, err := s.table.begin(c.Token)
	if err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	r := s.find(c.Key, tx)
	if r != nil && s.is("ends a lost claim without an error") && !s.sameToken(r, c.Token) {
		return c.Result.State, nil
	}
	switch {
	case s.is("ends a claim at once"):
		return s.finish(r, c, now)
	case s.is("checks a claim when it is committed"):
		tx.late = append(tx.late, func() error {
			_, err := s.finish(s.find(c.Key, tx), c, now)
			return err
		})
		return c.Result.State, nil
	case r != nil && s.is("does not lock the record"):
		after := *r
		kept, err := s.finish(&after, c, now)
		tx.late = append(tx.late, func() error {
			*r = after
			return nil
		})
		return kept, err
	case r != nil && r.locked == nil:
		tx.before[r] = *r
		r.locked = tx
	}
	return s.finish(r, c, now)
}

func (s txTable) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	if c.Result.State == idempotency.StateReleased {
		switch s.wrong {
		case "releases what is committed":
			s.mu.Lock()
			defer s.mu.Unlock()
			if r := s.find(c.Key, nil); r != nil && s.sameToken(r, c.Token) {
				r.state = idempotency.StateReleased
			}
			return idempotency.StateReleased, nil
		case "forgets what is committed":
			s.mu.Lock()
			defer s.mu.Unlock()
			if r := s.find(c.Key, nil); r != nil && r.state == idempotency.StateDone {
				return 0, idempotency.ErrLost
			}
		}
	}
	return s.table.Finish(ctx, c)
}

func (tx *transaction) commit() (err error) {
	tx.table.mu.Lock()
	defer tx.table.mu.Unlock()
	for _, f := range tx.late {
		err = f()
	}
	for r := range tx.before {
		r.locked = nil
	}
	clear(tx.before)
	return err
}

func (tx *transaction) rollback() error {
	s := tx.table
	s.mu.Lock()
	defer s.mu.Unlock()
	for r, before := range tx.before {
		after := *r
		*r = before
		switch s.wrong {
		case "keeps the payload of what is rolled back":
			r.payload = after.payload
		case "ends the lease of what is rolled back":
			r.leaseEnds = 0
		case "releases what is rolled back":
			r.state = idempotency.StateReleased
		case "forgets with a rollback that a claim was taken over":
			r.takenOver = false
		case "forgets what is rolled back":
			r.expires = time.Since(s.base)
		}
	}
	clear(tx.before)
	return nil
}

// wrongTx are the ways in which a table is wrong about transactions, with the row of
// TestTx that must fail.
var wrongTx = map[string]string{
	"commits nothing":                                     "a claim ends when the transaction is committed",
	"returns no state":                                    "a claim ends when the transaction is committed",
	"always returns that the response is kept":            "a claim ends when the transaction is committed",
	"keeps the TTL of the claim":                          "a claim ends when the transaction is committed",
	"shows what is not committed":                         "nobody sees a result before it is committed",
	"ends a claim at once":                                "a claim does not end when the transaction is rolled back",
	"commits what is rolled back":                         "a claim does not end when the transaction is rolled back",
	"keeps the payload of what is rolled back":            "a claim does not end when the transaction is rolled back",
	"ends the lease of what is rolled back":               "a claim does not end when the transaction is rolled back",
	"releases what is rolled back":                        "a claim does not end when the transaction is rolled back",
	"forgets what is rolled back":                         "a claim does not end when the transaction is rolled back",
	"commits what crashes":                                "a claim does not end when the transaction crashes",
	"checks a claim when it is committed":                 "a lost claim cannot end in a transaction",
	"lets any token finish":                               "a lost claim cannot end in a transaction",
	"finishes an expired claim":                           "a lost claim cannot end in a transaction",
	"makes the record that it finishes":                   "a lost claim cannot end in a transaction",
	"does not lock the record":                            "a claim whose lease ends in a transaction ends or is taken over",
	"cannot finish twice":                                 "a claim ends once, in a transaction or outside",
	"finishes again":                                      "a claim ends once, in a transaction or outside",
	"returns the state of the result again":               "a claim ends once, in a transaction or outside",
	"has one transaction for all":                         "transactions of several claims end apart",
	"forgets with a rollback that a claim was taken over": "a claim that was taken over ends like any other",
	"deletes what is not committed":                       "a claim is not deleted before its lease and its transaction end",
	"refuses the zero completion":                         "the zero completion ends no claim, and is no error",
	"rolls back for the zero completion":                  "the zero completion ends no claim, and is no error",
	"finishes the zero completion":                        "the zero completion ends no claim, and is no error",
	"ignores a completion without a token":                "a bad result ends no claim",
	"ignores a completion without a state":                "a bad result ends no claim",
	"accepts any state":                                   "a bad result ends no claim",
	"releases the key of a bad result":                    "a bad result ends no claim",
}

func openTx(wrong string) func(testing.TB) (idempotency.TxStore[*transaction], func(testing.TB) idempotencytest.Transaction[*transaction]) {
	return func(testing.TB) (idempotency.TxStore[*transaction], func(testing.TB) idempotencytest.Transaction[*transaction]) {
		s := txTable{newTable(wrong)}
		return s, s.begin
	}
}

func TestWrongTx(t *testing.T) { idempotencytest.TestTx(t, openTx(storetest.Wrong(t))) }

// Without a wrong, a table with transactions keeps its contract.
func TestTxTable(t *testing.T) {
	t.Parallel()
	idempotencytest.TestTx(t, openTx(""))
}
