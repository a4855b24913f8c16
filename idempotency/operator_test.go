package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/compare"
)

// ofAlice names the record of a request that post returns.
var ofAlice = idempotency.RequestKey{Principal: alice, Method: http.MethodPost, Route: "POST /test", Key: "k"}

// An operated is a service in one of the states in which an operator finds a record.
type operated struct {
	store *hookedStore
	m     *idempotency.Middleware
	h     http.Handler
	calls *counting
	log   *changes
}

func newOperated(t *testing.T, c idempotency.Config) *operated {
	o := &operated{store: newHookedStore(t), calls: orders(), log: new(changes)}
	c.Store, c.OnChange, c.Wait, c.MaxResponse = o.store, o.log.add, idempotency.NoWait, maxResponse
	c.OnError = func(context.Context, error) {}
	o.m = newMiddleware(t, c)
	handler := http.NewServeMux()
	handler.Handle("/", o.calls)
	handler.HandleFunc("/stream", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		_ = http.NewResponseController(w).Flush()
	})
	handler.HandleFunc("/released", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	o.h = o.m.Wrap(handler)
	return o
}

// recordStates are the states of a record.
var recordStates = []struct {
	name  string
	state idempotency.State // 0 if there is none
	// reach makes a record in this state, and returns when it is there.
	reach func(o *operated)
	// retry is a retry of the request.
	retry func() *http.Request
	// lease is set if the request is running.
	lease  bool
	status int
}{
	{"without a record", 0, func(*operated) {}, bodied, false, 0},
	{"released", 0, func(o *operated) { do(o.h, post("/released", "body")) }, bodied, false, 0},
	{"expired", 0, func(o *operated) {
		do(o.h, bodied())
		o.calls.n.Store(0)
		time.Sleep(24 * time.Hour)
	}, bodied, false, 0},
	{"running", idempotency.StateClaimed, func(o *operated) {
		o.store.set(func(f *hookedStore) {
			f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
				o.store.set(func(f *hookedStore) { f.claim = nil })
				_, err := f.Store.Claim(ctx, c)
				return idempotency.Record{}, errors.Join(idempotency.ErrOwnerFull, err)
			}
		})
		do(o.h, bodied())
	}, bodied, true, 0},
	{"of a dead process", idempotency.StateClaimed, func(o *operated) { dies(o.store, o.h, bodied()) }, bodied, false, 0},
	{"unknown", idempotency.StateUnknown, func(o *operated) { panics(o.store, o.h, bodied()) }, bodied, false, 0},
	{"done", idempotency.StateDone, func(o *operated) { do(o.h, bodied()); o.calls.n.Store(0) }, bodied, false, 201},
	{"a tombstone", idempotency.StateTombstone, func(o *operated) { do(o.h, post("/stream", "body")) },
		func() *http.Request { return post("/stream", "body") }, false, 202},
}

func bodied() *http.Request { return post("/", "body") }

func TestLookup(t *testing.T) {
	for _, c := range recordStates {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOperated(t, idempotency.Config{})
				c.reach(o)
				e, err := o.m.Lookup(t.Context(), ofAlice)
				if c.state == 0 {
					if !errors.Is(err, idempotency.ErrNotFound) || e.Response != nil || e.State != 0 {
						t.Errorf("got %+v, %v", e, err)
					}
					if diff := compare.Diff([]string{"lookup 0: 0 to 0, true"}, o.log.take(t)); diff != "" {
						t.Error(diff)
					}
					return
				}
				if err != nil || e.State != c.state || e.Generation == 0 || (e.Lease > 0) != c.lease || e.Status != c.status ||
					e.TTL <= 0 || e.TTL > 24*time.Hour || e.Key == (idempotency.Key{}) {
					t.Errorf("got %+v, %v", e, err)
				}
				if (e.Response != nil) != (c.state == idempotency.StateDone) {
					t.Errorf("the response is %+v", e.Response)
				}
				if e.Response != nil {
					want := &idempotency.Response{
						Status: 201, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"execution":1,"body":"body"}`),
					}
					if diff := compare.Diff(want, e.Response); diff != "" {
						t.Error(diff)
					}
					e.Response.Body[0], e.Response.Header["Content-Type"][0] = 'x', "text/plain"
					if w := do(o.h, bodied()); w.Body.String() != string(want.Body) {
						t.Errorf("the stored response has changed to %s", w.Body)
					}
				}
				again, err := o.m.Lookup(t.Context(), ofAlice)
				if err != nil || again.State != e.State || again.Generation != e.Generation || again.TTL != e.TTL {
					t.Errorf("the record has changed from %+v to %+v, %v", e, again, err)
				}
				change := fmt.Sprintf("lookup 0: %d to %d, false", c.state, c.state)
				if diff := compare.Diff([]string{change, change}, o.log.take(t)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// An operator can resolve a request whose outcome is unknown or whose process has died, and
// no other.
func TestAnOperatorResolves(t *testing.T) {
	type resolution struct {
		name   string
		s      idempotency.Resolution
		after  idempotency.State
		status int // of a retry
		code   string
	}
	resolutions := []resolution{
		{"absent", idempotency.Resolution{Outcome: idempotency.Release}, idempotency.StateReleased, 201, ""},
		{"done", idempotency.Resolution{Outcome: idempotency.Keep, Response: paid}, idempotency.StateDone, 201, ""},
		{"done, status alone", idempotency.Resolution{Outcome: idempotency.KeepStatus, Response: paid}, idempotency.StateDone, 201, ""},
		{"forgotten", idempotency.Resolution{Outcome: idempotency.Forget}, idempotency.StateTombstone, 409, usher.CodeIdempotencyResponseNotKept},
		{"unknown", idempotency.Resolution{Outcome: idempotency.Unknown}, idempotency.StateUnknown, 409, unknown},
	}
	for _, c := range recordStates {
		for _, r := range resolutions {
			t.Run(c.name+", "+r.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := newOperated(t, idempotency.Config{})
					c.reach(o)
					before, _ := o.m.Lookup(t.Context(), ofAlice)
					o.log.take(t)
					err := o.m.Resolve(t.Context(), ofAlice, r.s)
					var want error
					switch {
					case c.state == 0:
						want = idempotency.ErrNotFound
					case c.lease:
						want = idempotency.ErrLost
					case c.state == idempotency.StateDone || c.state == idempotency.StateTombstone:
						want = idempotency.ErrResolved
					}
					after := r.after
					if want != nil {
						after = 0
					}
					change := fmt.Sprintf("resolve %d: %d to %d, %v", r.s.Outcome, c.state, after, want != nil)
					if diff := compare.Diff([]string{change}, o.log.take(t)); diff != "" {
						t.Error(diff)
					}
					if !errors.Is(err, want) || want == nil && err != nil {
						t.Errorf("Resolve returned %v, want %v", err, want)
					}
					if want != nil {
						// Nothing has changed.
						if now, _ := o.m.Lookup(t.Context(), ofAlice); now.State != before.State || now.Generation != before.Generation {
							t.Errorf("the record was %+v, and is %+v", before, now)
						}
						return
					}
					w := do(o.h, c.retry())
					if w.Code != r.status || code(w) != r.code {
						t.Errorf("the retry got %d %s", w.Code, w.Body)
					}
					runs := int64(0)
					if r.after == idempotency.StateReleased {
						runs = 1
					}
					o.calls.want(t, runs)
					if r.after == idempotency.StateDone && w.Header().Get("Idempotency-Replayed") != "true" {
						t.Errorf("the retry got %v", w.Header())
					}
					if n := o.m.Leases(); n != 0 {
						t.Errorf("%d leases are kept", n)
					}
				})
			})
		}
	}
}

func TestAnInvalidResolutionOfAnOperatorChangesNothing(t *testing.T) {
	for name, s := range map[string]idempotency.Resolution{
		"no outcome":      {Response: paid},
		"no such outcome": {Outcome: 99, Response: paid},
		"no response":     {Outcome: idempotency.Keep},
		"no final status": {Outcome: idempotency.KeepStatus, Response: &idempotency.Response{Status: 100}},
		"a large response": {Outcome: idempotency.Keep, Response: &idempotency.Response{
			Status: 200, Body: []byte(strings.Repeat("x", maxResponse+1)),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOperated(t, idempotency.Config{})
			panics(o.store, o.h, bodied())
			if err := o.m.Resolve(t.Context(), ofAlice, s); err == nil {
				t.Error("Resolve returned nil")
			}
			wantFailure(t, do(o.h, bodied()), 409, unknown)
			if key := o.log.all[0].Key; key == (idempotency.Key{}) {
				t.Error("OnChange does not get the key")
			}
			if got := o.log.take(t); len(got) != 1 || !strings.HasSuffix(got[0], "true") {
				t.Errorf("OnChange got %v", got)
			}
		})
	}
}

// An operator can delete the record of any request that is not running.
func TestAnOperatorDeletes(t *testing.T) {
	for _, c := range recordStates {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOperated(t, idempotency.Config{})
				c.reach(o)
				err := o.m.Delete(t.Context(), ofAlice)
				change := fmt.Sprintf("delete 0: %d to 0, %v", c.state, c.state == 0 || c.lease)
				if diff := compare.Diff([]string{change}, o.log.take(t)); diff != "" {
					t.Error(diff)
				}
				switch {
				case c.state == 0:
					if !errors.Is(err, idempotency.ErrNotFound) {
						t.Errorf("got %v", err)
					}
				case c.lease:
					if !errors.Is(err, idempotency.ErrLost) {
						t.Errorf("got %v", err)
					}
					wantFailure(t, do(o.h, bodied()), 409, usher.CodeIdempotencyInProgress)
				default:
					if err != nil {
						t.Error(err)
					}
					if w := do(o.h, c.retry()); w.Code >= 300 || w.Header().Get("Idempotency-Replayed") != "" {
						t.Errorf("the retry got %d %v", w.Code, w.Header())
					}
				}
			})
		})
	}
}

// A damagedStore has a record that it cannot read, or one that cannot be right.
type damagedStore struct {
	*hookedStore
	damage func(*idempotency.Record) error // nil means that nothing is damaged
	gone   []uint64                        // the generations that Delete got
}

func (s *damagedStore) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	r, err := s.hookedStore.Claim(ctx, c)
	if err == nil && s.damage != nil {
		err = s.damage(&r)
	}
	return r, err
}

func (s *damagedStore) Find(ctx context.Context, k idempotency.Key) (idempotency.Record, error) {
	r, err := s.hookedStore.Find(ctx, k)
	if err == nil && s.damage != nil {
		err = s.damage(&r)
	}
	return r, err
}

func (s *damagedStore) Delete(ctx context.Context, k idempotency.Key, generation uint64) error {
	s.gone = append(s.gone, generation)
	if generation == 0 {
		r, err := s.hookedStore.Find(ctx, k)
		if err != nil {
			return err
		}
		generation = r.Generation
	}
	s.damage = nil
	return s.hookedStore.Delete(ctx, k, generation)
}

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

// A lateStore calls found when it has found a record.
type lateStore struct {
	idempotency.Store
	found func()
}

func (s *lateStore) Find(ctx context.Context, k idempotency.Key) (idempotency.Record, error) {
	r, err := s.Store.Find(ctx, k)
	s.found()
	return r, err
}

// An operator finds out that the first execution had no effect. Meanwhile a second one had,
// and its outcome is unknown as well. What the operator decides about the first must not
// free the key of the second.
func TestAnOperatorDecidesAboutTheExecutionThatWasLookedUp(t *testing.T) {
	for name, act := range map[string]func(*idempotency.Middleware, idempotency.RequestKey) error{
		"resolve": func(m *idempotency.Middleware, k idempotency.RequestKey) error {
			return m.Resolve(context.Background(), k, idempotency.Resolution{Outcome: idempotency.Release})
		},
		"delete": func(m *idempotency.Middleware, k idempotency.RequestKey) error {
			return m.Delete(context.Background(), k)
		},
	} {
		for first, how := range unknowns {
			t.Run(name+" a request "+first, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := newOperated(t, idempotency.Config{Resolve: always(idempotency.Resolution{Outcome: idempotency.Release}).Resolve})
					how.end(o.store, o.h, bodied())
					k := ofAlice
					seen, err := o.m.Lookup(t.Context(), k)
					if err != nil {
						t.Fatal(err)
					}
					panics(o.store, o.h, bodied())
					k.Generation = seen.Generation
					if err := act(o.m, k); !errors.Is(err, idempotency.ErrLost) {
						t.Errorf("got %v, want ErrLost", err)
					}
					now, err := o.m.Lookup(t.Context(), k)
					if err != nil || now.State != idempotency.StateUnknown || now.Generation <= seen.Generation {
						t.Fatalf("the record is %+v, %v", now, err)
					}
					k.Generation = now.Generation
					if err := act(o.m, k); err != nil {
						t.Errorf("by the generation that was looked up last: %v", err)
					}
					if _, err := o.m.Lookup(t.Context(), k); !errors.Is(err, idempotency.ErrNotFound) {
						t.Errorf("the key is not free: %v", err)
					}
				})
			})
		}
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

// A RequestKey names the same record as the request, however the owner and the route are
// found out and the key is sent.
func TestARequestKeyNamesTheRecordOfTheRequest(t *testing.T) {
	routed := func(m *idempotency.Middleware) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("POST /orders/{id}", m.Wrap(new(counting)))
		return mux
	}
	bare := func(m *idempotency.Middleware) http.Handler { return m.Wrap(new(counting)) }
	for _, c := range []struct {
		name    string
		config  idempotency.Config
		handler func(*idempotency.Middleware) http.Handler
		request *http.Request
		key     idempotency.RequestKey
	}{
		{"a principal", idempotency.Config{}, bare, post("/orders/1", ""), ofAlice},
		{"a principal with more than an identity", idempotency.Config{}, bare, post("/orders/1", ""), idempotency.RequestKey{
			Principal: &usher.Principal{ID: alice.ID, Kind: alice.Kind, Name: "x", Plan: "gold"}, Method: "POST", Route: "POST /test", Key: "k",
		}},
		{"nobody", idempotency.Config{DangerouslyAllowAnonymous: true}, bare, post("/orders/1", "", anonymous),
			idempotency.RequestKey{Method: "POST", Route: "POST /test", Key: "k"}},
		{"an owner", idempotency.Config{Owner: func(*http.Request) (string, bool) { return "acme", true }}, bare, post("/orders/1", ""),
			idempotency.RequestKey{Owner: "acme", Method: "POST", Route: "POST /test", Key: "k"}},
		{"no route", idempotency.Config{}, bare, post("/orders/1", "", func(r *http.Request) { r.Pattern = "" }),
			idempotency.RequestKey{Principal: alice, Method: "POST", Key: "k"}},
		{"a route", idempotency.Config{}, routed, post("/orders/1", ""),
			idempotency.RequestKey{Principal: alice, Method: "POST", Route: "POST /orders/{id}", Key: "k"}},
		{"a configured route", idempotency.Config{Route: func(*http.Request) string { return "orders" }}, routed, post("/orders/1", ""),
			idempotency.RequestKey{Principal: alice, Method: "POST", Route: "orders", Key: "k"}},
		{"another method", idempotency.Config{Methods: []string{"PUT"}}, bare,
			post("/orders/1", "", func(r *http.Request) { r.Method = "PUT" }),
			idempotency.RequestKey{Principal: alice, Method: "PUT", Route: "POST /test", Key: "k"}},
		{"a key in quotes", idempotency.Config{}, bare, post("/orders/1", "", key(`"k"`)), ofAlice},
		{"a key that the operator quotes", idempotency.Config{}, bare, post("/orders/1", ""),
			idempotency.RequestKey{Principal: alice, Method: "POST", Route: "POST /test", Key: `"k"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var event idempotency.Event
			var change idempotency.Change
			c.config.OnResult = func(_ context.Context, e idempotency.Event) { event = e }
			c.config.OnChange = func(_ context.Context, e idempotency.Change) { change = e }
			m := newMiddleware(t, c.config)
			do(c.handler(m), c.request)
			e, err := m.Lookup(t.Context(), c.key)
			if err != nil || e.State != idempotency.StateDone {
				t.Errorf("got %+v, %v", e, err)
			}
			if e.Key != event.Key || e.Key != change.Key || e.Generation != event.Generation || e.Generation != change.Generation {
				t.Errorf("the entry is %+v, the event %+v, the change %+v", e, event, change)
			}
			// Every part counts.
			for name, other := range map[string]func(*idempotency.RequestKey){
				"owner": func(k *idempotency.RequestKey) {
					switch {
					case k.Principal != nil:
						k.Principal = &usher.Principal{ID: "bob", Kind: alice.Kind}
					case k.Owner != "":
						k.Owner = "other"
					default:
						k.Key = "other" // Nobody has no name.
					}
				},
				"kind": func(k *idempotency.RequestKey) {
					if k.Principal != nil {
						k.Principal = &usher.Principal{ID: alice.ID, Kind: usher.KindJWT}
					} else {
						k.Key = "other"
					}
				},
				"route": func(k *idempotency.RequestKey) { k.Route += "x" },
				"key":   func(k *idempotency.RequestKey) { k.Key = "other" },
			} {
				k := c.key
				other(&k)
				if e, err := m.Lookup(t.Context(), k); !errors.Is(err, idempotency.ErrNotFound) {
					t.Errorf("another %s: got %+v, %v", name, e, err)
				}
			}
		})
	}
}

// A RequestKey that no request can have is an error that names the field, and is reported.
func TestAnInvalidRequestKeyIsAnError(t *testing.T) {
	owned := idempotency.Config{Owner: func(*http.Request) (string, bool) { return "acme", true }}
	for _, c := range []struct {
		name   string
		config idempotency.Config
		key    idempotency.RequestKey
		field  string
	}{
		{"no key", idempotency.Config{}, idempotency.RequestKey{Principal: alice, Method: "POST"}, "Key"},
		{"a key with a blank", idempotency.Config{}, idempotency.RequestKey{Principal: alice, Method: "POST", Key: "secret key"}, "Key"},
		{"no method", idempotency.Config{}, idempotency.RequestKey{Principal: alice, Key: "k"}, "Method"},
		{"a method that does not count", idempotency.Config{}, idempotency.RequestKey{Principal: alice, Method: "PUT", Key: "k"}, "Method"},
		{"no owner", idempotency.Config{}, idempotency.RequestKey{Method: "POST", Key: "k"}, "Principal"},
		{"an owner that is not configured", idempotency.Config{}, idempotency.RequestKey{Principal: alice, Owner: "acme", Method: "POST", Key: "k"}, "Owner"},
		{"a principal that does not count", owned, idempotency.RequestKey{Principal: alice, Owner: "acme", Method: "POST", Key: "k"}, "Principal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := new(changes)
			c.config.OnChange = log.add
			m := newMiddleware(t, c.config)
			_, lookup := m.Lookup(t.Context(), c.key)
			resolve := m.Resolve(t.Context(), c.key, idempotency.Resolution{Outcome: idempotency.Forget})
			remove := m.Delete(t.Context(), c.key)
			for _, err := range []error{lookup, resolve, remove} {
				if err == nil || !strings.Contains(err.Error(), "RequestKey."+c.field+" ") || strings.Contains(err.Error(), "secret") {
					t.Errorf("got %v, want a fault of %s", err, c.field)
				}
			}
			want := []string{"lookup 0: 0 to 0, true", "resolve 5: 0 to 0, true", "delete 0: 0 to 0, true"}
			if diff := compare.Diff(want, log.take(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The audit log has the context of the operator, and nothing of the client but digests. A
// panic in it changes nothing.
func TestOnChangeIsAnAuditLog(t *testing.T) {
	type operator struct{}
	var texts []string
	var reported []error
	m := newMiddleware(t, idempotency.Config{
		OnChange: func(ctx context.Context, c idempotency.Change) {
			texts = append(texts, fmt.Sprintf("%v %+v %s", ctx.Value(operator{}), c, c.Key))
			panic("bug")
		},
		OnError: func(_ context.Context, err error) { reported = append(reported, err) },
	})
	calls := orders()
	h := m.Wrap(calls)
	panics(nil, h, post("/", "visible", key("visible-key")))
	ctx := context.WithValue(t.Context(), operator{}, "olga")
	k := ofAlice
	k.Key = "visible-key"
	if _, err := m.Lookup(ctx, k); err != nil {
		t.Error(err)
	}
	if err := m.Resolve(ctx, k, idempotency.Resolution{
		Outcome: idempotency.Keep, Response: &idempotency.Response{Status: 200, Body: []byte("visible")},
	}); err != nil {
		t.Error(err)
	}
	if err := m.Delete(ctx, k); err != nil {
		t.Error(err)
	}
	if w := do(h, post("/", "visible", key("visible-key"))); w.Code != 201 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if len(texts) != 3 || len(reported) != 3 || !strings.Contains(reported[0].Error(), "Config.OnChange") {
		t.Fatalf("OnChange got %q, OnError %v", texts, reported)
	}
	for _, text := range texts {
		if !strings.HasPrefix(text, "olga ") || strings.Contains(text, "visible") || strings.Contains(text, "alice") {
			t.Errorf("OnChange got %s", text)
		}
	}
}

// Within an envelope an operator sees the response without the envelope of its request, and
// supplies one that gets an envelope.
func TestAnOperatorWithinAnEnvelope(t *testing.T) {
	asks := always(idempotency.Resolution{Outcome: idempotency.Keep, Response: &idempotency.Response{
		Status: 201, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"order":1}`),
	}})
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		status  int
		body    string
	}{
		{"plain JSON", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(201)
			fmt.Fprint(w, `{"order":1}`)
		}, 201, `{"order":1}`},
		{"usher.Respond", func(w http.ResponseWriter, r *http.Request) {
			usher.Respond(w, r, usher.Reply{Status: 201, Data: map[string]int{"order": 1}})
		}, 201, `{"order":1}`},
		{"usher.Fail", func(w http.ResponseWriter, r *http.Request) {
			usher.Fail(w, r, &usher.Error{Status: 422, Code: "no_tea", Message: "There is no tea."})
		}, 422, `{"code":"no_tea","message":"There is no tea."}`},
		{"a resolution", func(http.ResponseWriter, *http.Request) { panic("bug") }, 201, `{"order":1}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMiddleware(t, idempotency.Config{Resolve: asks.Resolve, OnError: func(context.Context, error) {}})
			h := newEnvelope(t).Wrap(m.Wrap(c.handler))
			do(h, post("/", ""))
			w := do(h, post("/", ""))
			if w.Code != c.status || strings.Count(w.Body.String(), "status_code") != 1 || w.Header().Get("Idempotency-Replayed") != "true" {
				t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
			}
			e, err := m.Lookup(t.Context(), ofAlice)
			if err != nil || e.Response == nil || e.Response.Status != c.status || string(e.Response.Body) != c.body {
				t.Errorf("Lookup returned %+v, %v", e.Response, err)
			}
		})
	}
}
