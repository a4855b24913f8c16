package idempotency_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A damaged record cannot be resolved. Delete frees its key.
func TestAnOperatorFreesADamagedRecord(t *testing.T) {
	for _, c := range []struct {
		name    string
		damage  func(*idempotency.Record) error
		status  int  // of a retry
		entry   bool // Lookup returns the rest
		zero    bool // Delete gets the generation 0
		resolve error
	}{
		{"that the store cannot read", func(r *idempotency.Record) error {
			*r = idempotency.Record{}
			return usher.ErrCorrupt
		}, 500, false, true, usher.ErrCorrupt},
		{"with a fingerprint of another key", func(r *idempotency.Record) error {
			r.Fingerprint[0]++
			return nil
		}, 503, false, false, usher.ErrCorrupt},
		{"in no such state", func(r *idempotency.Record) error {
			r.State = 99
			return nil
		}, 503, false, false, usher.ErrCorrupt},
		{"with a damaged response", func(r *idempotency.Record) error {
			r.Payload = r.Payload[:len(r.Payload)-1]
			return nil
		}, 500, true, false, idempotency.ErrResolved},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &damagedStore{hookedStore: newHookedStore(t)}
				log, calls := new(changes), new(counting)
				m := newMiddleware(t, idempotency.Config{Store: store, OnChange: log.add, OnError: func(context.Context, error) {}})
				h := m.Wrap(calls)
				do(h, bodied())
				store.damage = c.damage
				if w := do(h, bodied()); w.Code != c.status {
					t.Errorf("a retry got %d %s", w.Code, w.Body)
				}
				e, err := m.Lookup(t.Context(), ofAlice)
				if !errors.Is(err, usher.ErrCorrupt) && !c.entry || (e.State == idempotency.StateDone) != c.entry || e.Response != nil {
					t.Errorf("Lookup returned %+v, %v", e, err)
				}
				if err == nil {
					t.Error("Lookup returned no error")
				}
				err = m.Resolve(t.Context(), ofAlice, idempotency.Resolution{Outcome: idempotency.Keep, Response: paid})
				if !errors.Is(err, c.resolve) {
					t.Errorf("Resolve returned %v", err)
				}
				calls.want(t, 1)
				if err := m.Delete(t.Context(), ofAlice); err != nil {
					t.Errorf("Delete returned %v", err)
				}
				if len(store.gone) != 1 || (store.gone[0] == 0) != c.zero {
					t.Errorf("Delete of the store got %v", store.gone)
				}
				if w := do(h, bodied()); w.Code != 201 || w.Header().Get("Idempotency-Replayed") != "" {
					t.Errorf("the retry got %d %s", w.Code, w.Body)
				}
				calls.want(t, 2)
				time.Sleep(5 * time.Second) // until the refused claims have been released
			})
		})
	}
}

// A record that changes while the operator decides is not resolved or deleted.
func TestAnOperatorThatIsLateChangesNothing(t *testing.T) {
	resolve := func(o *operated) error {
		return o.m.Resolve(context.Background(), ofAlice, idempotency.Resolution{Outcome: idempotency.Forget})
	}
	remove := func(o *operated) error { return o.m.Delete(context.Background(), ofAlice) }
	for _, c := range []struct {
		name string
		act  func(*operated) error
		// meanwhile happens after the record was found.
		meanwhile func(o *operated)
		want      error
		status    int // of a retry then
		executed  int64
	}{
		{"a retry runs, resolve", resolve, func(o *operated) {
			_ = o.m.Delete(context.Background(), ofAlice)
			do(o.h, bodied())
		}, idempotency.ErrLost, 201, 1},
		{"a retry runs, delete", remove, func(o *operated) {
			_ = o.m.Delete(context.Background(), ofAlice)
			do(o.h, bodied())
		}, idempotency.ErrLost, 201, 1},
		{"another operator resolves, resolve", resolve, func(o *operated) {
			_ = o.m.Resolve(context.Background(), ofAlice, idempotency.Resolution{Outcome: idempotency.Keep, Response: paid})
		}, idempotency.ErrLost, 201, 0},
		{"another operator resolves, delete", remove, func(o *operated) {
			_ = o.m.Resolve(context.Background(), ofAlice, idempotency.Resolution{Outcome: idempotency.Keep, Response: paid})
		}, idempotency.ErrLost, 201, 0},
		{"another operator deletes, resolve", resolve, func(o *operated) { _ = o.m.Delete(context.Background(), ofAlice) },
			idempotency.ErrNotFound, 201, 1},
		{"another operator deletes, delete", remove, func(o *operated) { _ = o.m.Delete(context.Background(), ofAlice) },
			idempotency.ErrNotFound, 201, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOperated(t, idempotency.Config{})
				late := &lateStore{Store: o.store, found: func() {}}
				operator := *o
				operator.m = newMiddleware(t, idempotency.Config{Store: late, OnError: func(context.Context, error) {}})
				panics(o.store, o.h, bodied())
				late.found = func() {
					time.Sleep(time.Millisecond) // as generations are times
					c.meanwhile(o)
				}
				if err := c.act(&operator); !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if w := do(o.h, bodied()); w.Code != c.status {
					t.Errorf("the retry got %d %s", w.Code, w.Body)
				}
				o.calls.want(t, c.executed)
			})
		})
	}
}

// A failure of the store while an operator resolves never frees the key, even if the process
// of the operator dies then.
func TestAFailureOfTheStoreWhileAnOperatorResolves(t *testing.T) {
	done := idempotency.Resolution{Outcome: idempotency.Keep, Response: paid}
	for _, c := range []struct {
		name string
		fail func(f *hookedStore)
		// status and code are those of a retry after the failure, and after two leases.
		status int
		code   string
	}{
		{"the claim fails", func(f *hookedStore) {
			f.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
				return idempotency.Record{}, errDown
			}
		}, 409, unknown},
		{"the reply to the claim is lost", func(f *hookedStore) {
			f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
				_, err := f.Store.Claim(ctx, c)
				return idempotency.Record{}, errors.Join(errDown, err)
			}
		}, 409, unknown},
		{"the claim comes too late", func(f *hookedStore) {
			f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
				time.Sleep(time.Second)
				return f.Store.Claim(ctx, c)
			}
		}, 409, unknown},
		{"the process dies after the claim", func(f *hookedStore) {
			f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
				if _, err := f.Store.Claim(ctx, c); err != nil {
					return idempotency.Record{}, err
				}
				return idempotency.Record{}, usher.ErrClosed // so that the claim is not released
			}
		}, 409, usher.CodeIdempotencyInProgress},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOperated(t, idempotency.Config{})
				panics(o.store, o.h, bodied())
				o.store.set(c.fail)
				if err := o.m.Resolve(t.Context(), ofAlice, done); err == nil {
					t.Error("Resolve returned nil")
				}
				o.store.set(func(f *hookedStore) { f.claim = nil })
				for range 2 {
					time.Sleep(5 * time.Second) // until a refused claim has been given up
					wantFailure(t, do(o.h, bodied()), c.status, c.code)
					time.Sleep(2 * lease)
				}
				o.calls.want(t, 0)
			})
		})
	}
	t.Run("the result cannot be stored", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := newOperated(t, idempotency.Config{})
			panics(o.store, o.h, bodied())
			o.store.set(func(f *hookedStore) {
				f.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) { return 0, errDown }
			})
			if err := o.m.Resolve(t.Context(), ofAlice, done); !errors.Is(err, errDown) {
				t.Errorf("Resolve returned %v", err)
			}
			time.Sleep(3 * lease)
			wantFailure(t, do(o.h, bodied()), 409, usher.CodeIdempotencyInProgress)
			o.store.set(func(f *hookedStore) { f.finish = nil })
			if err := o.m.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if w := do(o.h, bodied()); w.Code != 201 || w.Body.String() != string(paid.Body) {
				t.Errorf("the retry got %d %s", w.Code, w.Body)
			}
			o.calls.want(t, 0)
		})
	})
}

// While a retry asks Resolve, or runs, an operator changes nothing.
func TestAnOperatorWaitsForARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asks := &resolver{resolve: func(*http.Request, *idempotency.Execution) (idempotency.Resolution, error) {
			time.Sleep(5 * time.Second)
			return idempotency.Resolution{Outcome: idempotency.Release}, nil
		}}
		o := newOperated(t, idempotency.Config{Resolve: asks.Resolve})
		panics(o.store, o.h, bodied())
		var retry sync.WaitGroup
		retry.Go(func() {
			if w := do(o.h, bodied()); w.Code != 201 {
				t.Errorf("the retry got %d %s", w.Code, w.Body)
			}
		})
		time.Sleep(time.Second)
		if err := o.m.Resolve(t.Context(), ofAlice, idempotency.Resolution{Outcome: idempotency.Forget}); !errors.Is(err, idempotency.ErrLost) {
			t.Errorf("Resolve returned %v", err)
		}
		if err := o.m.Delete(t.Context(), ofAlice); !errors.Is(err, idempotency.ErrLost) {
			t.Errorf("Delete returned %v", err)
		}
		retry.Wait()
		o.calls.want(t, 1)
	})
}
