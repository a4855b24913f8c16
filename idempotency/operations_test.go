package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// An operatedStore is a store whose calls for operators run a hook instead, if that is set.
type operatedStore struct {
	idempotency.Store
	find   func(context.Context, idempotency.Key) (idempotency.Record, error)
	remove func(context.Context, idempotency.Key, uint64) error
}

func (s *operatedStore) Find(ctx context.Context, k idempotency.Key) (idempotency.Record, error) {
	if s.find != nil {
		return s.find(ctx, k)
	}
	return s.Store.Find(ctx, k)
}

func (s *operatedStore) Delete(ctx context.Context, k idempotency.Key, generation uint64) error {
	if s.remove != nil {
		return s.remove(ctx, k, generation)
	}
	return s.Store.Delete(ctx, k, generation)
}

// operations are the calls of an operator for the record of a request.
var operations = map[string]func(context.Context, *idempotency.Middleware) error{
	"Lookup": func(ctx context.Context, m *idempotency.Middleware) error {
		_, err := m.Lookup(ctx, ofAlice)
		return err
	},
	"Delete": func(ctx context.Context, m *idempotency.Middleware) error { return m.Delete(ctx, ofAlice) },
}

// done runs a request whose record operators find.
func (s *operatedStore) done(t *testing.T) *idempotency.Middleware {
	t.Helper()
	if s.Store == nil {
		s.Store = newMemory(t, idempotency.MemoryConfig{})
	}
	m := newMiddleware(t, idempotency.Config{Store: s, StoreTimeout: time.Second, OnError: func(context.Context, error) {}})
	if w := do(m.Wrap(new(counting)), post("/", "")); w.Code != 201 {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	return m
}

// However a store fails, an operator gets an error in time, and requests go on.
func TestACallOfAnOperatorIsGuarded(t *testing.T) {
	for how, misbehave := range map[string]func(context.Context) error{
		"hangs":           func(context.Context) error { time.Sleep(time.Hour); return nil },
		"heeds its limit": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"panics":          func(context.Context) error { panic("store") },
		"is down":         func(context.Context) error { return errDown },
	} {
		for name, operation := range operations {
			t.Run(name+" of a store that "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := new(operatedStore)
					m := s.done(t)
					fail := func(ctx context.Context) error { return misbehave(ctx) }
					if name == "Lookup" {
						s.find = func(ctx context.Context, _ idempotency.Key) (idempotency.Record, error) {
							return idempotency.Record{}, fail(ctx)
						}
					} else {
						s.remove = func(ctx context.Context, _ idempotency.Key, _ uint64) error { return fail(ctx) }
					}
					var failed atomic.Int32
					began := time.Now()
					const operators = 100
					for range operators {
						go func() {
							if operation(context.Background(), m) != nil {
								failed.Add(1)
							}
						}()
					}
					synctest.Wait()
					if w := do(m.Wrap(new(counting)), post("/", "", key("other"))); w.Code != 201 || time.Since(began) != 0 {
						t.Errorf("a request meanwhile got %d after %v", w.Code, time.Since(began))
					}
					time.Sleep(2 * time.Second)
					if n := failed.Load(); n != operators {
						t.Errorf("%d of %d calls have failed within 2 seconds", n, operators)
					}
					// The calls that hang end later.
					time.Sleep(2 * time.Hour)
				})
			})
		}
	}
}

// A call of an operator whose reply is lost is repeated once.
func TestALostReplyToAnOperatorIsRepeated(t *testing.T) {
	unavailable := fmt.Errorf("read: connection reset: %w", usher.ErrUnavailable)
	for _, c := range []struct {
		name   string
		lost   int32 // of the first replies
		effect bool  // of these calls
		calls  int32
		want   error
	}{
		{"none is lost", 0, true, 1, nil},
		{"one is lost", 1, true, 2, nil},
		{"one is lost with its call", 1, false, 2, nil},
		{"two are lost", 2, true, 2, usher.ErrUnavailable},
	} {
		for name, operation := range operations {
			t.Run(name+": "+c.name, func(t *testing.T) {
				s := new(operatedStore)
				m := s.done(t)
				var n atomic.Int32
				lose := func(call func() error) error {
					lost := n.Add(1) <= c.lost
					if lost && !c.effect {
						return unavailable
					}
					err := call()
					if lost {
						return unavailable
					}
					return err
				}
				if name == "Lookup" {
					s.find = func(ctx context.Context, k idempotency.Key) (r idempotency.Record, err error) {
						err = lose(func() error { r, err = s.Store.Find(ctx, k); return err })
						return r, err
					}
				} else {
					s.remove = func(ctx context.Context, k idempotency.Key, generation uint64) error {
						return lose(func() error { return s.Store.Delete(ctx, k, generation) })
					}
				}
				if err := operation(t.Context(), m); !errors.Is(err, c.want) || c.want == nil && err != nil || n.Load() != c.calls {
					t.Errorf("got %v after %d calls, want %v after %d", err, n.Load(), c.want, c.calls)
				}
				if name == "Delete" && c.want == nil {
					if _, err := m.Lookup(t.Context(), ofAlice); !errors.Is(err, idempotency.ErrNotFound) {
						t.Errorf("Lookup of what is deleted: %v, want ErrNotFound", err)
					}
				}
			})
		}
	}
}

// A store that returns the record of another key, or one that cannot be, shows an operator
// nothing.
func TestAnOperatorGetsTheRecordThatWasAskedFor(t *testing.T) {
	s := new(operatedStore)
	m := s.done(t)
	own := keyOf(t, post("/", ""))
	do(m.Wrap(new(counting)), post("/", "", key("other")))
	other := keyOf(t, post("/", "", key("other")))
	for name, change := range map[string]func(*idempotency.Record){
		"of another key":    func(r *idempotency.Record) { *r, _ = s.Store.Find(t.Context(), other) },
		"without a state":   func(r *idempotency.Record) { r.State = 0 },
		"that is released":  func(r *idempotency.Record) { r.State = idempotency.StateReleased },
		"of a later state":  func(r *idempotency.Record) { r.State = idempotency.StateUnknown + 1 },
		"of no fingerprint": func(r *idempotency.Record) { r.Fingerprint = [32]byte{} },
	} {
		t.Run("a record "+name, func(t *testing.T) {
			s.find = func(ctx context.Context, k idempotency.Key) (idempotency.Record, error) {
				r, err := s.Store.Find(ctx, k)
				change(&r)
				return r, err
			}
			entry, err := m.Lookup(t.Context(), ofAlice)
			if !errors.Is(err, usher.ErrCorrupt) || entry.State != 0 || entry.Response != nil {
				t.Errorf("Lookup returned %+v, %v, want ErrCorrupt", entry, err)
			}
		})
	}
	s.find = nil
	if entry, err := m.Lookup(t.Context(), ofAlice); err != nil || entry.Key != own {
		t.Errorf("Lookup returned %+v, %v", entry, err)
	}
}

// A look-up ends with its caller. A deletion that has begun does not.
func TestAnOperatorMayGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(operatedStore)
		m := s.done(t)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		s.find = func(ctx context.Context, _ idempotency.Key) (idempotency.Record, error) {
			<-ctx.Done()
			return idempotency.Record{}, ctx.Err()
		}
		began := time.Now()
		if _, err := m.Lookup(ctx, ofAlice); err == nil || time.Since(began) != 100*time.Millisecond {
			t.Errorf("Lookup: %v after %v", err, time.Since(began))
		}
		synctest.Wait() // the call that was given up ends
		s.find = nil
		ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		s.remove = func(ctx context.Context, k idempotency.Key, generation uint64) error {
			time.Sleep(500 * time.Millisecond)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return s.Store.Delete(ctx, k, generation)
		}
		if err := m.Delete(ctx, ofAlice); err != nil {
			t.Errorf("Delete: %v", err)
		}
		if _, err := m.Lookup(t.Context(), ofAlice); !errors.Is(err, idempotency.ErrNotFound) {
			t.Errorf("Lookup of what is deleted: %v, want ErrNotFound", err)
		}
	})
}
