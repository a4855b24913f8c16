package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
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
