package idempotencytest

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// A paused store is that of a process that is paused for longer than its lease, and does
// not notice.
type paused struct{ idempotency.Store }

func (s paused) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	c.Lease = brief
	return s.Store.Claim(ctx, c)
}

func (paused) Renew(context.Context, []idempotency.ClaimID, time.Duration) ([]idempotency.ClaimID, error) {
	return nil, nil
}

// An order is a request whose handler ends its transaction with Execution.Commit. The
// effect of the handler is the end of a claim of its own in the same transaction.
type order[Tx any] struct {
	txSuite[Tx]
	effect idempotency.Claim
	// store is that of the middleware.
	store idempotency.Store
	// then runs in the handler after its work.
	then   func()
	status int
	// commit commits tx, or fails. It returns false if tx is still open.
	commit func(tx Transaction[Tx]) (over bool, err error)
	// withoutKey sends the request without a key.
	withoutKey bool

	ran, rolledBack bool
}

// order returns an order with the key k.
func (s txSuite[Tx]) order(t testing.TB) *order[Tx] {
	o := &order[Tx]{
		txSuite: s, effect: newClaim(), store: s.store, status: http.StatusCreated,
		then: func() {}, commit: func(tx Transaction[Tx]) (bool, error) { return true, tx.Commit() },
	}
	s.win(t, o.effect)
	return o
}

// send sends the order with the key k.
func (o *order[Tx]) send(t testing.TB, k string) *httptest.ResponseRecorder {
	t.Helper()
	m, err := idempotency.New(idempotency.Config{
		Store: o.store, Lease: time.Hour, Wait: idempotency.NoWait, DangerouslyAllowAnonymous: true,
		StoreTimeout: patience, OnError: func(context.Context, error) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", strings.NewReader("tea"))
	if !o.withoutKey {
		r.Header.Set("Idempotency-Key", k)
	}
	w := httptest.NewRecorder()
	m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { o.serve(t, w, r) })).ServeHTTP(w, r)
	return w
}

func (o *order[Tx]) serve(t testing.TB, w http.ResponseWriter, r *http.Request) {
	o.ran = true
	tx := o.begin(t)
	over := false
	rollback := func() {
		o.rolledBack = true
		if !over {
			wantNil(t, "Rollback", tx.Rollback())
		}
	}
	if _, err := o.tx.FinishTx(r.Context(), tx.Tx, completion(o.effect, result("effect"))); err != nil {
		t.Errorf("FinishTx: %v", err)
	}
	o.then()
	err := idempotency.From(r.Context()).Commit(r.Context(), func(ctx context.Context, c idempotency.Completion) error {
		if _, err := o.tx.FinishTx(ctx, tx.Tx, c); err != nil {
			return err
		}
		var err error
		over, err = o.commit(tx)
		return err
	}, rollback)
	if err != nil {
		t.Errorf("Commit: %v", err)
	}
	w.Header().Set("Location", "/orders/7")
	w.WriteHeader(o.status)
	_, _ = w.Write([]byte("ordered"))
}

// wantEffect fails unless the transaction of o is committed, or rolled back.
func (o *order[Tx]) wantEffect(t testing.TB, committed bool) {
	t.Helper()
	if !committed && !o.rolledBack {
		t.Error("rollback is not called")
	}
	if committed {
		o.wantRecord(t, o.effect, result("effect"))
	} else {
		o.lose(t, rival(o.effect), o.effect)
	}
}

// wantResponse fails unless w is the response of the handler, replayed or not. Another
// status must be that of a refusal.
func wantResponse(t testing.TB, w *httptest.ResponseRecorder, status int, replayed bool) {
	t.Helper()
	ordered := w.Body.String() == "ordered" && w.Header().Get("Location") == "/orders/7"
	if w.Code != status || ordered != (status == 201 || status == 503) || (w.Header().Get("Idempotency-Replayed") == "true") != replayed {
		t.Errorf("got %d %q with %v, want %d, replayed: %v", w.Code, w.Body, w.Header(), status, replayed)
	}
}

// middleware runs requests through an idempotency.Middleware whose handler uses
// Execution.Commit. Whatever happens, either the client has a response, it is replayed and
// the effect is there, or there is none of them.
func (s txSuite[Tx]) middleware(t *testing.T) {
	for _, c := range []struct {
		name      string
		change    func(*order[Tx])
		status    int
		committed bool
	}{
		{"the transaction is committed", func(*order[Tx]) {}, 201, true},
		{"the outcome rolls it back", func(o *order[Tx]) { o.status = 503 }, 503, false},
		{"the commit fails", func(o *order[Tx]) {
			o.commit = func(Transaction[Tx]) (bool, error) { return false, errors.New("cannot commit") }
		}, 500, false},
		{"the connection ends before the commit", func(o *order[Tx]) {
			o.commit = func(tx Transaction[Tx]) (bool, error) {
				if tx.Crash == nil {
					return false, errors.New("cannot commit")
				}
				tx.Crash()
				return true, errors.New("the connection has ended")
			}
		}, 500, false},
		{"the reply to the commit is lost", func(o *order[Tx]) {
			o.commit = func(tx Transaction[Tx]) (bool, error) {
				return true, errors.Join(tx.Commit(), errors.New("the reply is lost"))
			}
		}, 201, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := rand.Text()
			o := s.order(t)
			c.change(o)
			wantResponse(t, o.send(t, k), c.status, false)
			o.wantEffect(t, c.committed)
			retry := s.order(t)
			wantResponse(t, retry.send(t, k), 201, c.committed)
			if retry.ran == c.committed {
				t.Errorf("the retry has run: %v", retry.ran)
			}
			if retry.ran {
				retry.wantEffect(t, true)
			}
		})
	}

	t.Run("a request without a key", func(t *testing.T) {
		o := s.order(t)
		o.withoutKey = true
		wantResponse(t, o.send(t, ""), 201, false)
		o.wantEffect(t, true)
	})
	t.Run("the process is paused, and another takes the key", func(t *testing.T) {
		k := rand.Text()
		late, next := s.order(t), s.order(t)
		late.store = paused{s.store}
		late.then = func() {
			waitBrief()
			wantResponse(t, next.send(t, k), 201, false)
			next.wantEffect(t, true)
		}
		wantResponse(t, late.send(t, k), 409, false)
		late.wantEffect(t, false)
		wantResponse(t, s.order(t).send(t, k), 201, true)
	})
}
