package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A database has both the orders and the records. It stands for a server of databases,
// whose store is a [idempotency.TxStore].
type database struct {
	*idempotency.Memory
	orders int
	down   bool
}

// A transaction changes the database when it is committed.
type transaction struct {
	ended       bool
	orders      int
	completions []idempotency.Completion
}

func (db *database) FinishTx(_ context.Context, tx *transaction, c idempotency.Completion) (idempotency.State, error) {
	switch {
	case c.IsZero():
		return 0, nil // the request has no key
	case tx.ended:
		return 0, errors.New("the transaction has ended already")
	}
	tx.completions = append(tx.completions, c)
	return c.Result.State, nil
}

func (db *database) commit(ctx context.Context, tx *transaction) error {
	if db.down {
		return errors.New("the database is down")
	}
	for _, c := range tx.completions {
		if _, err := db.Finish(ctx, c); err != nil {
			return err
		}
	}
	db.orders += tx.orders
	tx.ended = true
	return nil
}

func (tx *transaction) rollback() {
	if !tx.ended {
		tx.ended = true
		fmt.Println("the order is rolled back")
	}
}

// A handler whose data is in the same database as the records leaves the end of its
// transaction to the middleware, and then responds as always. Either there is an order and
// the response to it, or there is neither, even if the process dies in between.
func ExampleExecution_Commit() {
	db := &database{Memory: usher.Must(idempotency.NewMemory(idempotency.MemoryConfig{}))}
	once, err := idempotency.New(idempotency.Config{Store: db, OnError: func(_ context.Context, err error) { fmt.Println(err) }})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := asAcme(once.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tx := &transaction{orders: 1}
		err := idempotency.From(r.Context()).Commit(r.Context(),
			func(ctx context.Context, c idempotency.Completion) error {
				if _, err := db.FinishTx(ctx, tx, c); err != nil {
					return err
				}
				return db.commit(ctx, tx)
			},
			tx.rollback,
		)
		if err != nil { // of a request without a key, which has been committed at once
			usher.Fail(w, r, err)
			return
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "order %d", db.orders+tx.orders)
	})))
	order(h, "a")
	order(h, "a")
	db.down = true
	order(h, "b")
	db.down = false
	order(h, "b")
	// Output:
	// 201 order 1
	// 201 order 1 (replayed)
	// the order is rolled back
	// idempotency: commit: the database is down
	// 500 {"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}
	// 201 order 2
}

// The common mistake is to defer the rollback, as handlers do that commit themselves. When the
// handler returns, its transaction has yet to be committed, and is rolled back instead. The
// handler calls rollback only where it returns before Commit.
func ExampleExecution_Commit_incorrect() {
	db := &database{Memory: usher.Must(idempotency.NewMemory(idempotency.MemoryConfig{}))}
	once, err := idempotency.New(idempotency.Config{Store: db, OnError: func(_ context.Context, err error) { fmt.Println(err) }})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := asAcme(once.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tx := &transaction{orders: 1}
		defer tx.rollback()
		err := idempotency.From(r.Context()).Commit(r.Context(),
			func(ctx context.Context, c idempotency.Completion) error {
				_, err := db.FinishTx(ctx, tx, c)
				return err // and commit
			},
			tx.rollback,
		)
		if err != nil {
			usher.Fail(w, r, err)
			return
		}
		fmt.Fprint(w, "ordered")
	})))
	order(h, "a")
	fmt.Println(db.orders, "orders")
	// Output:
	// the order is rolled back
	// idempotency: commit: the transaction has ended already
	// 500 {"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}
	// 0 orders
}
