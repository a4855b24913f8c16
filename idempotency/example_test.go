package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// asAcme replaces the authentication of a real server.
func asAcme(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, usher.WithPrincipal(r, &usher.Principal{ID: "acme", Kind: usher.KindAPIKey}))
	})
}

// order posts an order of tea with a key and prints the response.
func order(h http.Handler, key string) {
	r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader("tea"))
	r.Header.Set("Idempotency-Key", key)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	replayed := ""
	if w.Header().Get("Idempotency-Replayed") == "true" {
		replayed = " (replayed)"
	}
	fmt.Println(w.Code, w.Body.String()+replayed)
}

func Example() {
	once, err := idempotency.New(idempotency.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	orders := 0
	mux := http.NewServeMux()
	mux.Handle("POST /orders", once.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		item, _ := io.ReadAll(r.Body)
		orders++
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "order %d: %s", orders, item)
	})))
	h := asAcme(mux)

	order(h, "a")
	order(h, "a")
	order(h, "b")
	// Output:
	// 201 order 1: tea
	// 201 order 1: tea (replayed)
	// 201 order 2: tea
}

// A handler whose request certainly had no effect releases the key, so that a retry runs.
func ExampleExecution_SetOutcome() {
	once, err := idempotency.New(idempotency.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	attempts := 0
	h := asAcme(once.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if attempts++; attempts == 1 {
			// The connection was refused, so the bank has not seen the payment.
			idempotency.From(r.Context()).SetOutcome(idempotency.Release)
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, "the bank is down")
			return
		}
		fmt.Fprint(w, "paid")
	})))
	order(h, "a")
	order(h, "a")
	// Output:
	// 502 the bank is down
	// 200 paid
}

// A slow handler works with a context that ends when its claim is lost, and passes on its
// fencing token and a key of its own.
func ExampleExecution_Context() {
	once, err := idempotency.New(idempotency.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := asAcme(once.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := idempotency.From(r.Context())
		ctx, cancel := e.Context(r.Context())
		defer cancel()
		if err := ship(ctx, e.Generation(), e.DownstreamKey("carrier")); err != nil {
			usher.Fail(w, r, err)
			return
		}
		fmt.Fprint(w, "shipped")
	})))
	order(h, "a")
	// Output:
	// 200 shipped
}

func ship(ctx context.Context, generation uint64, key string) error {
	if generation == 0 || len(key) != 64 {
		return fmt.Errorf("no execution")
	}
	return ctx.Err()
}

// A database has both the orders and the records. It stands for a server of databases,
// whose store is a [idempotency.TxStore].
type database struct {
	*idempotency.Memory
	orders int
	down   bool
}

// A transaction changes the database when it is committed.
type transaction struct {
	orders      int
	completions []idempotency.Completion
}

func (db *database) FinishTx(_ context.Context, tx *transaction, c idempotency.Completion) (idempotency.State, error) {
	if c.IsZero() {
		return 0, nil // the request has no key
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
	return nil
}

func (*transaction) rollback() { fmt.Println("the order is rolled back") }

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

// The common mistake is to put the middleware outside authentication. Keys belong to
// callers, and the caller is not known there. So a request with a key is refused:
// otherwise all callers would share their keys.
func ExampleMiddleware_Wrap_incorrect() {
	once, err := idempotency.New(idempotency.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := once.Wrap(asAcme(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "ordered")
	})))
	order(h, "a")
	// Output:
	// 401 {"type":"about:blank","title":"Unauthorized","status":401,"detail":"A request with an idempotency key needs a credential.","code":"missing_credential"}
}
