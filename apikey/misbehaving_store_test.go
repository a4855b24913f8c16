package apikey_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/internal/guard"
)

// A faultyStore is a store of another process: each of its calls may misbehave.
type faultyStore struct {
	apikey.Store
	faulty.Calls
}

func newFaultyStore() *faultyStore { return &faultyStore{Store: apikey.NewMemory()} }

func (s *faultyStore) Insert(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
	if err := s.Call(ctx); err != nil {
		return err
	}
	return s.Store.Insert(context.WithoutCancel(ctx), r, limits)
}

func (s *faultyStore) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	if err := s.Call(ctx); err != nil {
		return apikey.Record{}, err
	}
	return s.Store.Lookup(context.WithoutCancel(ctx), h)
}

func (s *faultyStore) Find(ctx context.Context, owner, id string) (apikey.Record, error) {
	if err := s.Call(ctx); err != nil {
		return apikey.Record{}, err
	}
	return s.Store.Find(context.WithoutCancel(ctx), owner, id)
}

func (s *faultyStore) List(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error) {
	if err := s.Call(ctx); err != nil {
		return nil, 0, err
	}
	return s.Store.List(context.WithoutCancel(ctx), owner, offset, limit)
}

func (s *faultyStore) Update(ctx context.Context, r apikey.Record) error {
	if err := s.Call(ctx); err != nil {
		return err
	}
	return s.Store.Update(context.WithoutCancel(ctx), r)
}

func (s *faultyStore) Rotate(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
	if err := s.Call(ctx); err != nil {
		return err
	}
	return s.Store.Rotate(context.WithoutCancel(ctx), old, next, limits)
}

func (s *faultyStore) Revoke(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
	if err := s.Call(ctx); err != nil {
		return apikey.Record{}, err
	}
	return s.Store.Revoke(context.WithoutCancel(ctx), owner, id, at)
}

func (s *faultyStore) Touch(ctx context.Context, uses map[string]apikey.Use) error {
	if err := s.Call(ctx); err != nil {
		return err
	}
	return s.Store.Touch(context.WithoutCancel(ctx), uses)
}

// causes counts what OnError gets.
type causes struct {
	n       atomic.Int64
	foreign atomic.Int64 // errors that are not expected
}

// onError expects errors that match one of want, or the text of a panic.
func (c *causes) onError(want ...error) func(context.Context, error) {
	return func(_ context.Context, err error) {
		c.n.Add(1)
		for _, w := range want {
			if errors.Is(err, w) {
				return
			}
		}
		if _, ok := errors.AsType[*guard.PanicError](err); !ok {
			c.foreign.Add(1)
		}
	}
}

const storeTimeout = time.Second

// stacks are the ways to mount an Authenticator over a store.
var stacks = map[string]func(testing.TB, apikey.Store) apikey.Store{
	"without a cache": func(_ testing.TB, s apikey.Store) apikey.Store { return s },
	"behind a cache": func(t testing.TB, s apikey.Store) apikey.Store {
		return newCache(t, apikey.CacheConfig{Store: s, StoreTimeout: storeTimeout, TTL: 10 * time.Second})
	},
}

// tally is how many requests ended with each verdict.
type tally map[apikey.Verdict]int

// authenticate sends n requests, each with another of texts, one after each pause and
// without waiting for the response, and returns how they ended.
func authenticate(t *testing.T, a *apikey.Authenticator, texts []string, n int, pause time.Duration) tally {
	t.Helper()
	verdicts := make(chan apikey.Verdict, n)
	for i := range n {
		go func() {
			_, err := a.Authenticate(request("X-API-Key", texts[i%len(texts)]))
			if err != nil && statusOf(err) != 503 {
				t.Errorf("request %d: %v, want 503", i, err)
			}
			verdicts <- verdictOf(t, err)
		}()
		time.Sleep(pause)
	}
	got := make(tally)
	for range n {
		got[<-verdicts]++
	}
	return got
}

func TestAuthenticationOverAStoreThatMisbehaves(t *testing.T) {
	const keys = 100
	for _, test := range []struct {
		name   string
		fault  func() faulty.Fault
		want   tally // of 1,000 requests with different keys
		calls  int64 // of the store at most: a guard opens after 10 failures, and then calls once a second
		errors []error
		hangs  time.Duration // until the calls have returned that were given up
	}{
		{
			name: "it ignores its context", fault: func() faulty.Fault { return faulty.Late(time.Hour) }, hangs: time.Hour,
			want: tally{apikey.Unavailable: 1000}, calls: 120, errors: []error{guard.ErrTimeout, guard.ErrBusy, guard.ErrOpen},
		},
		{
			name: "it responds after the deadline", fault: func() faulty.Fault { return faulty.Late(storeTimeout + time.Millisecond) },
			want: tally{apikey.Unavailable: 1000}, calls: 120, errors: []error{guard.ErrTimeout, guard.ErrBusy, guard.ErrOpen},
		},
		{
			name: "it panics", fault: func() faulty.Fault { return faulty.Panic },
			want: tally{apikey.Unavailable: 1000}, calls: 50, errors: []error{guard.ErrOpen},
		},
		{
			name: "it fails", fault: func() faulty.Fault { return faulty.Fail },
			want: tally{apikey.Unavailable: 1000}, calls: 50, errors: []error{faulty.ErrStore, guard.ErrOpen},
		},
		// No other request is affected.
		{
			name: "it fails once in 100 calls", fault: func() faulty.Fault { return faulty.Every(100, faulty.Fail) },
			want: tally{apikey.Unavailable: 10, apikey.Accepted: 990}, calls: 1000, errors: []error{faulty.ErrStore},
		},
		{
			name: "it hangs once in 100 calls", fault: func() faulty.Fault { return faulty.Every(100, faulty.Late(time.Minute)) },
			want: tally{apikey.Unavailable: 10, apikey.Accepted: 990}, calls: 1000, errors: []error{guard.ErrTimeout},
		},
	} {
		for stack, over := range stacks {
			t.Run(test.name+" "+stack, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newFaultyStore()
					m := newManager(t, apikey.ManagerConfig{Store: s, MaxActive: keys})
					var texts []string
					for range keys {
						_, text := create(t, m, apikey.Key{})
						texts = append(texts, text)
					}
					var reported causes
					a := newAuthenticator(t, apikey.ManagerConfig{Store: over(t, s), StoreTimeout: storeTimeout}, apikey.Config{
						LastUseInterval: -1,
						OnError:         reported.onError(test.errors...),
					})
					s.Set(test.fault())
					got := make(tally)
					for range 10 {
						for v, n := range authenticate(t, a, texts, keys, 10*time.Millisecond) {
							got[v] += n
						}
						time.Sleep(10 * time.Second) // the cache keeps no key for longer
					}
					if got[apikey.Accepted] != test.want[apikey.Accepted] || got[apikey.Unavailable] != test.want[apikey.Unavailable] {
						t.Errorf("verdicts %v, want %v", got, test.want)
					}
					if n := s.N(); n > test.calls {
						t.Errorf("%d calls of the store, want at most %d", n, test.calls)
					}
					if reported.n.Load() != int64(got[apikey.Unavailable]) || reported.foreign.Load() != 0 {
						t.Errorf("OnError got %d errors, %d of them unexpected, for %d failures",
							reported.n.Load(), reported.foreign.Load(), got[apikey.Unavailable])
					}

					s.Set(nil)
					time.Sleep(test.hangs + storeTimeout + time.Second) // until the next probe
					authenticate(t, a, texts, 1, time.Millisecond)
					if got := authenticate(t, a, texts, keys, 2*time.Millisecond); got[apikey.Accepted] != keys {
						t.Errorf("after the fault: %v", got)
					}
					time.Sleep(time.Minute) // the calls that hang
				})
			})
		}
	}
}

// X03: for the 10 seconds of the outage, keys in the cache are valid until their TTL ends.
func TestAuthenticationDuringAnOutage(t *testing.T) {
	const outage, pause = 10 * time.Second, 50 * time.Millisecond
	for _, test := range []struct {
		name     string
		accepted int // of the 200 requests during the outage
	}{
		{"without a cache", 0},
		{"behind a cache", 100}, // a key is 5 seconds old
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFaultyStore()
				store := stacks[test.name](t, s)
				_, text := create(t, newManager(t, apikey.ManagerConfig{Store: s}), apikey.Key{})
				var reported causes
				a := newAuthenticator(t, apikey.ManagerConfig{Store: store, StoreTimeout: storeTimeout}, apikey.Config{
					LastUseInterval: -1,
					OnError:         reported.onError(faulty.ErrStore, guard.ErrOpen),
				})
				authenticate(t, a, []string{text}, 1, 5*time.Second)
				s.Set(faulty.For(outage, faulty.Fail))
				requests := int(outage / pause)
				got := authenticate(t, a, []string{text}, requests, pause)
				if got[apikey.Accepted] != test.accepted || got[apikey.Unavailable] != requests-test.accepted {
					t.Errorf("during the outage: %v, want %d accepted", got, test.accepted)
				}
				// The first 10 failures, what the first 2 seconds hide, and a probe a second.
				if n := s.N(); n > 40 {
					t.Errorf("%d calls of a store that is down", n)
				}
				if n := int(reported.n.Load()); n != got[apikey.Unavailable] || reported.foreign.Load() != 0 {
					t.Errorf("OnError got %d errors, %d of them unexpected", n, reported.foreign.Load())
				}
				time.Sleep(time.Second) // until the next probe
				if got := authenticate(t, a, []string{text}, 100, pause); got[apikey.Accepted] != 100 {
					t.Errorf("after the outage: %v", got)
				}
			})
		})
	}
}

// Invented keys are no failures of the store, however many there are.
func TestInventedKeysDoNotMakeTheStoreCountAsDown(t *testing.T) {
	for stack, over := range stacks {
		t.Run(stack, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFaultyStore()
				store := over(t, s)
				_, text := create(t, newManager(t, apikey.ManagerConfig{Store: s}), apikey.Key{})
				a := newAuthenticator(t, apikey.ManagerConfig{Store: store, StoreTimeout: storeTimeout}, apikey.Config{})
				for range 500 {
					if _, err := a.Authenticate(request("X-API-Key", generate(t, native, ""))); !errors.Is(err, apikey.Unknown) {
						t.Fatal(err)
					}
				}
				if _, err := a.Authenticate(request("X-API-Key", text)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// managerCalls are the calls of a Manager, on the key k.
func managerCalls(ctx context.Context, m *apikey.Manager, k apikey.Key) map[string]func() error {
	return map[string]func() error{
		"Create": func() error { _, _, err := m.Create(ctx, server, apikey.Key{Owner: "bob", Name: "x"}); return err },
		"Import": func() error {
			h, err := m.Hash(apikey.NewSecret(k.ID + time.Now().String()))
			if err == nil {
				_, err = m.Import(ctx, server, apikey.Key{Owner: "bob", Name: "x"}, h)
			}
			return err
		},
		"Find": func() error { _, err := m.Find(ctx, k.Owner, k.ID); return err },
		"List": func() error { _, _, err := m.List(ctx, k.Owner, 0, 10); return err },
		"Update": func() error {
			_, err := m.Update(ctx, server, k.Owner, k.ID, func(k *apikey.Key) { k.Plan += "+" })
			return err
		},
		"Rotate": func() error {
			fresh, _, err := m.Create(ctx, server, apikey.Key{Owner: "eve", Name: "x"})
			if err == nil {
				_, _, err = m.Rotate(ctx, server, "eve", fresh.ID, 0)
			}
			return err
		},
		"Revoke": func() error { _, err := m.Revoke(ctx, server, k.Owner, k.ID); return err },
	}
}

func TestAManagerOverAStoreThatMisbehaves(t *testing.T) {
	for _, test := range []struct {
		name   string
		fault  faulty.Fault
		errors []error
	}{
		{"it ignores its context", faulty.Late(time.Hour), []error{guard.ErrTimeout, guard.ErrOpen}},
		{"it responds after the deadline", faulty.Late(storeTimeout + time.Millisecond), []error{guard.ErrTimeout, guard.ErrOpen}},
		{"it panics", faulty.Panic, []error{guard.ErrOpen}},
		{"it fails", faulty.Fail, []error{faulty.ErrStore, guard.ErrOpen}},
	} {
		for stack, over := range stacks {
			t.Run(test.name+" "+stack, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newFaultyStore()
					var reported causes
					m := newManager(t, apikey.ManagerConfig{
						Store: over(t, s), StoreTimeout: storeTimeout, OnError: reported.onError(test.errors...),
					})
					k, _ := create(t, m, apikey.Key{})
					calls := managerCalls(t.Context(), m, k)
					s.Set(test.fault)
					for name, call := range calls {
						before := reported.n.Load()
						err := call()
						if err == nil || statusOf(err) != 0 || errors.Is(err, apikey.ErrNotFound) || errors.Is(err, apikey.ErrConflict) || errors.Is(err, apikey.ErrLimit) {
							t.Errorf("%s: %v, want a failure of the store", name, err)
						}
						if n := reported.n.Load() - before; n != 1 {
							t.Errorf("%s: OnError got %d errors", name, n)
						}
					}
					if reported.foreign.Load() != 0 {
						t.Errorf("OnError got %d unexpected errors", reported.foreign.Load())
					}
					time.Sleep(2 * time.Hour) // the calls that hang
					s.Set(nil)
					for _, name := range []string{"Find", "List", "Create", "Import", "Rotate", "Revoke"} {
						if err := calls[name](); err != nil {
							t.Errorf("%s after the fault: %v", name, err)
						}
					}
				})
			})
		}
	}
}

func TestAManagerOverAStoreThatFailsOnceIn100Calls(t *testing.T) {
	for stack, over := range stacks {
		t.Run(stack, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 500
				s := newFaultyStore()
				var reported causes
				m := newManager(t, apikey.ManagerConfig{
					Store: over(t, s), StoreTimeout: storeTimeout, MaxActive: n, OnError: reported.onError(faulty.ErrStore),
				})
				s.Set(faulty.Every(100, faulty.Fail))
				failed := 0
				for range n {
					if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}); err != nil {
						failed++
					}
				}
				s.Set(nil)
				_, total, err := m.List(t.Context(), "ann", 0, 1)
				if err != nil || failed != n/100 || total != n-failed || reported.n.Load() != int64(failed) || reported.foreign.Load() != 0 {
					t.Errorf("%d of %d calls failed, %d keys exist, OnError got %d errors, %v", failed, n, total, reported.n.Load(), err)
				}
			})
		})
	}
}

func TestAManagerDuringAnOutage(t *testing.T) {
	for stack, over := range stacks {
		t.Run(stack, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFaultyStore()
				var reported causes
				m := newManager(t, apikey.ManagerConfig{
					Store: over(t, s), StoreTimeout: storeTimeout, MaxActive: 1000, OnError: reported.onError(faulty.ErrStore, guard.ErrOpen),
				})
				s.Set(faulty.For(10*time.Second, faulty.Fail))
				made, failed := 0, 0
				for range 300 { // 15 seconds
					if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}); err == nil {
						made++
					} else {
						failed++
					}
					time.Sleep(50 * time.Millisecond)
				}
				// 200 calls fall into the outage, and 20 into the second until the next probe.
				if failed < 200 || failed > 220 || reported.n.Load() != int64(failed) || reported.foreign.Load() != 0 {
					t.Errorf("%d calls failed, OnError got %d errors, %d unexpected", failed, reported.n.Load(), reported.foreign.Load())
				}
				if _, total, err := m.List(t.Context(), "ann", 0, 1); err != nil || total != made {
					t.Errorf("%d keys exist, and %d were issued: %v", total, made, err)
				}
			})
		})
	}
}

// A use during an outage is written after it.
func TestTimesOfLastUseSurviveAnOutage(t *testing.T) {
	for name, fault := range map[string]faulty.Fault{"it fails": faulty.Fail, "it panics": faulty.Panic, "it hangs": faulty.Late(time.Minute)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFaultyStore()
				m := newManager(t, apikey.ManagerConfig{Store: s})
				k, _ := create(t, m, apikey.Key{})
				var reported causes
				a := newAuthenticator(t, apikey.ManagerConfig{Store: s}, apikey.Config{LastUseInterval: time.Second, OnError: reported.onError(faulty.ErrStore, guard.ErrTimeout)})
				s.Set(faulty.For(10*time.Second, fault))
				used := time.Now()
				a.RecordUse(request(), &usher.Principal{ID: k.ID})
				time.Sleep(25 * time.Second)
				found, err := m.Find(t.Context(), k.Owner, k.ID)
				if err != nil || found.LastUsedAt.Sub(used).Abs() > time.Microsecond {
					t.Errorf("last used at %v, want %v, %v", found.LastUsedAt, used, err)
				}
				if reported.n.Load() == 0 || reported.foreign.Load() != 0 {
					t.Errorf("OnError got %d errors, %d of them unexpected", reported.n.Load(), reported.foreign.Load())
				}
				time.Sleep(time.Hour)
			})
		})
	}
}
