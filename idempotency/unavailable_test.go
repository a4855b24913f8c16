package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A call whose reply is lost is repeated once, with the same token: nobody notices.
func TestALostReplyOfTheStoreIsHiddenFromTheClient(t *testing.T) {
	unavailable := fmt.Errorf("read: connection reset: %w", usher.ErrUnavailable)
	for _, c := range []struct {
		name   string
		lost   int32 // of the first replies
		err    error
		calls  int32
		status int
	}{
		{"none is lost", 0, nil, 1, 201},
		{"one is lost", 1, unavailable, 2, 201},
		{"two are lost", 2, unavailable, 2, 503},
		{"the store has failed otherwise", 1, errDown, 1, 503},
		{"the key belongs to a token that has released it", 1, idempotency.ErrLost, 1, 503},
	} {
		t.Run("to Claim: "+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore(t)
				var n atomic.Int32
				store.claim = func(ctx context.Context, claim idempotency.Claim) (idempotency.Record, error) {
					r, err := store.Store.Claim(ctx, claim)
					if n.Add(1) <= c.lost {
						return idempotency.Record{}, c.err
					}
					return r, err
				}
				calls := new(counting)
				w := do(newMiddleware(t, idempotency.Config{Store: store}).Wrap(calls), post("/", ""))
				if w.Code != c.status || n.Load() != c.calls {
					t.Errorf("got %d %s after %d calls, want %d after %d", w.Code, w.Body, n.Load(), c.status, c.calls)
				}
				time.Sleep(lease)
			})
		})
	}
	t.Run("to Claim: no time is left", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := newHookedStore(t)
			var n atomic.Int32
			store.claim = func(ctx context.Context, _ idempotency.Claim) (idempotency.Record, error) {
				n.Add(1)
				<-ctx.Done()
				return idempotency.Record{}, unavailable
			}
			w := do(newMiddleware(t, idempotency.Config{Store: store}).Wrap(new(counting)), post("/", ""))
			if synctest.Wait(); w.Code != 503 || n.Load() != 1 {
				t.Errorf("got %d after %d calls", w.Code, n.Load())
			}
			time.Sleep(lease)
		})
	})
	t.Run("to Finish", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := newHookedStore(t)
			var n atomic.Int32
			store.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
				kept, err := store.Store.Finish(ctx, c)
				if n.Add(1) == 1 {
					return 0, unavailable
				}
				return kept, err
			}
			h := newMiddleware(t, idempotency.Config{Store: store, OnError: func(_ context.Context, err error) { t.Error(err) }}).Wrap(new(counting))
			began := time.Now()
			first := do(h, post("/", ""))
			if time.Since(began) != 0 || first.Code != 201 {
				t.Errorf("got %d after %v", first.Code, time.Since(began))
			}
			wantReplay(t, do(h, post("/", "")), first)
		})
	})
	t.Run("to the release of a claim whose reply was lost", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := newHookedStore(t)
			store.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
				_, _ = store.Store.Claim(ctx, c)
				return idempotency.Record{}, errDown
			}
			var n atomic.Int32
			store.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
				if n.Add(1) == 1 {
					return 0, unavailable
				}
				return store.Store.Finish(ctx, c)
			}
			calls := new(counting)
			h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(calls)
			wantFailure(t, do(h, post("/", "")), 503, usher.CodeIdempotencyUnavailable)
			synctest.Wait()
			store.set(func(f *hookedStore) { f.claim = nil })
			if w := do(h, post("/", "")); w.Code != 201 {
				t.Errorf("the retry got %d %s", w.Code, w.Body)
			}
		})
	})
}

// A record that the store cannot read is never a free key, even where requests run while
// the store fails, and it does not stop the calls for other keys.
func TestAKeyWhoseRecordTheStoreCannotReadIsNotFree(t *testing.T) {
	for _, open := range []bool{false, true} {
		t.Run(fmt.Sprint("open ", open), func(t *testing.T) {
			store := newHookedStore(t)
			corrupt := fmt.Errorf("wrong length: %w", usher.ErrCorrupt)
			store.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
				if c.Key == keyOf(t, post("/", "", key("corrupt"))) {
					return idempotency.Record{}, corrupt
				}
				return store.Store.Claim(ctx, c)
			}
			store.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) {
				t.Error("a claim that was not made was released")
				return 0, corrupt
			}
			m := newMeter()
			var reported atomic.Int32
			calls := new(counting)
			h := newMiddleware(t, idempotency.Config{
				Store: store, DangerouslyFailOpen: open, MeterProvider: m, OnError: func(_ context.Context, err error) {
					if reported.Add(1); !errors.Is(err, usher.ErrCorrupt) {
						t.Error(err)
					}
				},
			}).Wrap(calls)
			for range 100 {
				wantFailure(t, do(h, post("/", "", key("corrupt"))), 500, usher.CodeIdempotencyRecordUnreadable)
			}
			if n := m.counts(t)["unreadable"]; n != 100 || reported.Load() != 100 {
				t.Errorf("%d are counted, %d reported", n, reported.Load())
			}
			store.set(func(f *hookedStore) { f.finish = nil })
			if w := do(h, post("/", "", key("another"))); w.Code != 201 {
				t.Errorf("another key: %d %s", w.Code, w.Body)
			}
			calls.want(t, 1)
		})
	}
}

// A store without room for anything still knows whether the outcome of a request is
// unknown, and reports that it has dropped a response.
func TestAStoreWithoutRoomKeepsOutcomes(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		code    string
		end     string
		reports int32
	}{
		{"an unknown outcome", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, unknown, "tombstoned", 0},
		{"an unknown outcome with a status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, unknown, "tombstoned", 0},
		{"a response", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1000)) }, notKept, "dropped", 1},
		{"a response that must not be stored", func(w http.ResponseWriter, r *http.Request) {
			idempotency.From(r.Context()).SetOutcome(idempotency.Forget)
			_, _ = w.Write(make([]byte, 1000))
		}, notKept, "tombstoned", 0},
		{"a streamed response", func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() }, notKept, "tombstoned", 0},
		{"no effect", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, "", "released", 0},
	} {
		memory := crowded(t, 4)
		for name, store := range map[string]idempotency.Store{"in memory": memory, "elsewhere": &hookedStore{Store: memory}} {
			t.Run(c.name+", "+name, func(t *testing.T) {
				m := newMeter()
				var reported atomic.Int32
				h := newMiddleware(t, idempotency.Config{Store: store, MeterProvider: m, OnError: func(ctx context.Context, err error) {
					if p, ok := usher.PrincipalFrom(ctx); !ok || p.ID != "alice" || !errors.Is(err, usher.ErrFull) {
						t.Errorf("OnError got %v", err)
					}
					reported.Add(1)
				}}).Wrap(c.handler)
				do(h, post("/", "", key(name[:2])))
				if counts := m.counts(t); counts[c.end] != 1 || counts["kept"] != 0 || reported.Load() != c.reports {
					t.Errorf("counted %v, %d errors were reported", counts, reported.Load())
				}
				if w := do(h, post("/", "", key(name[:2]))); c.code != "" {
					wantFailure(t, w, 409, c.code)
				}
			})
		}
	}
}
