package apikey_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/race"
)

// A misbehaving store calls a function before each call.
type misbehaving struct {
	apikey.Store
	calls   atomic.Int64
	instead func(context.Context)
}

func (s *misbehaving) do(ctx context.Context) {
	s.calls.Add(1)
	s.instead(ctx)
}

func (s *misbehaving) Insert(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
	s.do(ctx)
	return s.Store.Insert(ctx, r, limits)
}

func (s *misbehaving) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	s.do(ctx)
	return s.Store.Lookup(ctx, h)
}

func (s *misbehaving) Find(ctx context.Context, owner, id string) (apikey.Record, error) {
	s.do(ctx)
	return s.Store.Find(ctx, owner, id)
}

func (s *misbehaving) List(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error) {
	s.do(ctx)
	return s.Store.List(ctx, owner, offset, limit)
}

func (s *misbehaving) Update(ctx context.Context, r apikey.Record) error {
	s.do(ctx)
	return s.Store.Update(ctx, r)
}

func (s *misbehaving) Rotate(ctx context.Context, old, next apikey.Record, limits apikey.Limits) error {
	s.do(ctx)
	return s.Store.Rotate(ctx, old, next, limits)
}

func (s *misbehaving) Revoke(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
	s.do(ctx)
	return s.Store.Revoke(ctx, owner, id, at)
}

func (s *misbehaving) Touch(ctx context.Context, uses map[string]apikey.Use) error {
	s.do(ctx)
	return s.Store.Touch(ctx, uses)
}

// misbehaviours are ways in which a store fails. Each returns what the store does, and
// a function that ends the calls that hang.
var misbehaviours = map[string]func() (func(context.Context), func()){
	"hangs": func() (func(context.Context), func()) {
		release := make(chan struct{})
		return func(context.Context) { <-release }, func() { close(release) }
	},
	"hangs until its context ends": func() (func(context.Context), func()) {
		return func(ctx context.Context) { <-ctx.Done() }, func() {}
	},
	"panics": func() (func(context.Context), func()) {
		return func(context.Context) { panic("password=hunter2") }, func() {}
	},
	"ends its goroutine": func() (func(context.Context), func()) {
		return func(context.Context) { runtime.Goexit() }, func() {}
	},
}

const shortTimeout = 50 * time.Millisecond

// layers are the ways to put a store behind an Authenticator and a Manager.
var layers = map[string]func(testing.TB, apikey.Store) apikey.Store{
	"without a cache": func(_ testing.TB, s apikey.Store) apikey.Store { return s },
	"behind a cache": func(t testing.TB, s apikey.Store) apikey.Store {
		return newCache(t, apikey.CacheConfig{Store: s, StoreTimeout: shortTimeout})
	},
}

func TestAStoreThatHangsOrPanicsIs503(t *testing.T) {
	for failing, how := range misbehaviours {
		for layer, over := range layers {
			t.Run(failing+" "+layer, func(t *testing.T) {
				instead, release := how()
				defer release()
				store := over(t, &misbehaving{Store: apikey.NewMemory(), instead: instead})
				a := newAuthenticator(t, apikey.ManagerConfig{Store: store, StoreTimeout: shortTimeout}, apikey.Config{LastUseInterval: -1})
				srv := httptest.NewServer(usher.Authenticate(a).Wrap(http.NotFoundHandler()))
				defer srv.Close()
				srv.Client().Timeout = 100 * shortTimeout
				response := exchange(t, srv, "X-API-Key", generate(t, native, ""))
				if !strings.HasPrefix(response, "503") || !strings.Contains(response, "authentication_unavailable") || strings.Contains(response, "hunter2") {
					t.Errorf("authentication: %s", response)
				}

				m := newManager(t, apikey.ManagerConfig{Store: store, StoreTimeout: shortTimeout})
				c := newWire(t, apikey.HandlerConfig{Manager: m}, &usher.Principal{ID: "u1", Owner: "ann", Kind: usher.KindJWT})
				c.srv.Client().Timeout = 100 * shortTimeout
				for _, call := range []struct{ method, target, body string }{
					{"POST", "/", `{"name":"x"}`}, {"GET", "/", ""}, {"GET", "/k", ""}, {"PATCH", "/k", `{"name":"y"}`},
					{"POST", "/k/rotate", ""}, {"DELETE", "/k", ""},
				} {
					if status, v := c.do(call.method, call.target, call.body); status != 503 {
						t.Errorf("%s %s: %d %v", call.method, call.target, status, v)
					}
				}
			})
		}
	}
}

// The same for calls by the server itself: each ends exactly at its deadline.
// refusing refuses every change with the same error.
type refusing struct {
	apikey.Store
	err error
}

func (s refusing) Insert(context.Context, apikey.Record, apikey.Limits) error { return s.err }

// One owner at its limits does not stop the changes of all others.
func TestTheErrorsOfTheContractAreNoFailuresOfTheStore(t *testing.T) {
	for _, want := range []error{apikey.ErrNotFound, apikey.ErrConflict, apikey.ErrLimit, apikey.ErrFull} {
		c, err := apikey.NewCache(apikey.CacheConfig{Store: refusing{apikey.NewMemory(), want}})
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			if err := c.Insert(t.Context(), record(0), apikey.Limits{}); !errors.Is(err, want) {
				t.Fatalf("Insert: %v, want %v", err, want)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestEveryCallOfAManagerHasADeadline(t *testing.T) {
	for layer, over := range layers {
		t.Run(layer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &misbehaving{Store: apikey.NewMemory(), instead: func(context.Context) {}}
				store := over(t, s)
				m := newManager(t, apikey.ManagerConfig{Store: store, StoreTimeout: shortTimeout})
				k, _ := create(t, m, apikey.Key{})
				release := make(chan struct{})
				defer close(release)
				s.instead = func(context.Context) { <-release }
				ctx := t.Context()
				for name, call := range map[string]func() error{
					"Create": func() error { _, _, err := m.Create(ctx, server, apikey.Key{Owner: "ann", Name: "x"}); return err },
					"Import": func() error {
						_, err := m.Import(ctx, server, apikey.Key{Owner: "ann", Name: "x"}, apikey.Hash{1: 1})
						return err
					},
					"Find":   func() error { _, err := m.Find(ctx, "ann", k.ID); return err },
					"List":   func() error { _, _, err := m.List(ctx, "ann", 0, 1); return err },
					"Update": func() error { _, err := m.Update(ctx, server, "ann", k.ID, func(*apikey.Key) {}); return err },
					"Rotate": func() error { _, _, err := m.Rotate(ctx, server, "ann", k.ID, 0); return err },
					"Revoke": func() error { _, err := m.Revoke(ctx, server, "ann", k.ID); return err },
				} {
					start := time.Now()
					err := call()
					if err == nil || statusOf(err) != 0 || errors.Is(err, apikey.ErrNotFound) || errors.Is(err, apikey.ErrConflict) {
						t.Errorf("%s: %v", name, err)
					}
					if took := time.Since(start); took != shortTimeout {
						t.Errorf("%s took %v", name, took)
					}
				}
			})
		})
	}
}

// A change that the store makes after its caller has given up must not leave the old key
// in the cache.
func TestALateChangeIsNotMissedByTheCache(t *testing.T) {
	for name, change := range map[string]func(context.Context, apikey.Store) error{
		"Revoke": func(ctx context.Context, s apikey.Store) error {
			_, err := s.Revoke(ctx, "ann", "key0", at0)
			return err
		},
		"Update": func(ctx context.Context, s apikey.Store) error {
			r := record(0)
			r.Name = "changed"
			return s.Update(ctx, r)
		},
		"a Revoke that is made and reported as failed": func(ctx context.Context, s apikey.Store) error {
			_, err := s.Revoke(ctx, "ann", "key0", at0.Add(failing))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var slow atomic.Bool
				s := &misbehaving{Store: newScripted(t, 1).Store, instead: func(context.Context) {
					if slow.Load() {
						time.Sleep(time.Minute)
					}
				}}
				c := newCache(t, apikey.CacheConfig{Store: detached{s}, TTL: time.Hour})
				unchanged := func() bool {
					r, err := c.Lookup(t.Context(), record(0).Hash)
					if err != nil {
						t.Fatal(err)
					}
					return r.Revision == 1
				}
				slow.Store(true)
				if err := change(t.Context(), c); err == nil {
					t.Fatal("the caller waits for a store that takes a minute")
				}
				slow.Store(false)
				if !unchanged() {
					t.Error("the store has already changed the key")
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if unchanged() {
					t.Error("the cache has missed the change")
				}
			})
		})
	}
}

// detached is a store that changes keys even if its caller has given up.
type detached struct{ *misbehaving }

func (s detached) Update(_ context.Context, r apikey.Record) error {
	return s.misbehaving.Update(context.Background(), r)
}

func (s detached) Revoke(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
	r, err := s.misbehaving.Revoke(context.Background(), owner, id, at)
	if at.Equal(at0.Add(failing)) {
		return apikey.Record{}, ctx.Err() // as database drivers do
	}
	return r, err
}

// detached makes a revocation at this time after at0, but reports that it failed.
const failing = time.Second

// Over a socket: clients that send invented keys and disconnect leave nothing behind.
func TestInventedKeysOfClientsThatDisconnectDoNotPileUp(t *testing.T) {
	const requests, maxLookups = 1000, 4
	release := make(chan struct{})
	s := &misbehaving{Store: apikey.NewMemory(), instead: func(context.Context) { <-release }}
	cache := newCache(t, apikey.CacheConfig{Store: s, MaxLookups: maxLookups, StoreTimeout: time.Hour})
	defer close(release)
	a := newAuthenticator(t, apikey.ManagerConfig{Store: cache}, apikey.Config{LastUseInterval: -1})
	h := usher.Authenticate(a).Wrap(http.NotFoundHandler())
	began, ended := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		h.ServeHTTP(w, r)
		ended <- struct{}{}
	}))
	defer srv.Close()
	before := runtime.NumGoroutine()
	for range requests {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-API-Key", generate(t, native, ""))
		var client sync.WaitGroup
		client.Go(func() {
			if resp, err := srv.Client().Do(r); err == nil {
				_ = resp.Body.Close()
			}
		})
		<-began
		cancel()
		<-ended
		client.Wait()
	}
	// Each call that runs has two goroutines, each that waits has one, and the server has a few.
	if n := runtime.NumGoroutine() - before; n > 2*maxLookups+16*maxLookups+50 {
		t.Errorf("%d goroutines after %d requests whose clients have left", n, requests)
	}
	if n := s.calls.Load(); n == 0 || n > maxLookups {
		t.Errorf("the store that hangs was called %d times", n)
	}
}

func TestInventedKeysNeverPileUpWhileTheStoreHangs(t *testing.T) {
	const batch = 1000
	forged := 100_000
	if race.Enabled {
		forged = 10_000
	}
	for layer, over := range layers {
		t.Run(layer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				s := &misbehaving{Store: apikey.NewMemory(), instead: func(context.Context) { <-release }}
				a := newAuthenticator(t, apikey.ManagerConfig{Store: over(t, s)}, apikey.Config{LastUseInterval: -1})
				defer func() { close(release); synctest.Wait() }()
				synctest.Wait()
				before, most := runtime.NumGoroutine(), 0
				for range forged / batch {
					ctx, leave := context.WithCancel(t.Context())
					for range batch {
						r := request("X-API-Key", generate(t, native, "")).WithContext(ctx)
						go func() { _, _ = a.Authenticate(r) }()
					}
					synctest.Wait() // all of them wait for the store
					leave()
					synctest.Wait()
					most = max(most, runtime.NumGoroutine()-before)
				}
				// 64 calls, each with its flight in a cache, and 1,024 in line.
				if most > 64+64+1024+100 {
					t.Errorf("%d goroutines are left", most)
				}
				if n := s.calls.Load(); n != 64 {
					t.Errorf("the store that hangs was called %d times, want 64", n)
				}
			})
		})
	}
}

// A store that stalls is not called for requests that it could no longer serve in time.
func TestNoLookupBeginsTooLate(t *testing.T) {
	const timeout = 300 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		s := &misbehaving{Store: apikey.NewMemory()}
		s.instead = func(ctx context.Context) {
			if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) < timeout/2 {
				t.Errorf("called %v before the deadline", time.Until(deadline))
			}
			<-ctx.Done()
		}
		a := newAuthenticator(t, apikey.ManagerConfig{Store: newCache(t, apikey.CacheConfig{Store: s, MaxLookups: 4, StoreTimeout: timeout})}, apikey.Config{})
		var atOnce, later atomic.Int64
		var wg sync.WaitGroup
		start := time.Now()
		for range 5000 {
			wg.Go(func() {
				if _, err := a.Authenticate(request("X-API-Key", generate(t, native, ""))); !errors.Is(err, apikey.Unavailable) || statusOf(err) != 503 {
					t.Error(err)
				}
				if time.Since(start) == 0 {
					atOnce.Add(1)
				} else {
					later.Add(1)
				}
			})
		}
		wg.Wait()
		if n := s.calls.Load(); n > 4 {
			t.Errorf("%d calls of a store that stalls, want 4", n)
		}
		if atOnce.Load() != 5000-4-16*4 {
			t.Errorf("%d refused at once, %d later", atOnce.Load(), later.Load())
		}
	})
}

func TestKnownKeysDoNotQueueBehindInventedOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, 1)
		c := newCache(t, apikey.CacheConfig{Store: s, TTL: time.Second, MaxLookups: 4})
		mustLookup(t, c, record(0), false)
		time.Sleep(time.Second)
		s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
			if h == record(0).Hash {
				return s.Store.Lookup(ctx, h)
			}
			<-ctx.Done()
			return apikey.Record{}, ctx.Err()
		}
		for i := range 200 {
			go func() { _, _ = c.Lookup(t.Context(), record(1000+i).Hash) }()
		}
		synctest.Wait()
		start := time.Now()
		mustLookup(t, c, record(0), false)
		if took := time.Since(start); took != 0 {
			t.Errorf("the known key took %v", took)
		}
		if _, err := c.Lookup(t.Context(), record(1).Hash); err == nil || errors.Is(err, apikey.ErrNotFound) {
			t.Errorf("a key that was never looked up: %v", err)
		}
		time.Sleep(time.Minute)
	})
}

func TestRevocationsDoNotQueueBehindLookups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, 1)
		release := make(chan struct{})
		s.lookup = func(context.Context, apikey.Hash) (apikey.Record, error) {
			<-release
			return apikey.Record{}, apikey.ErrNotFound
		}
		for layer, over := range layers {
			store := over(t, s)
			a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})
			for range 2000 {
				go func() { _, _ = a.Authenticate(request("X-API-Key", generate(t, native, ""))) }()
			}
			synctest.Wait()
			start := time.Now()
			if _, err := newManager(t, apikey.ManagerConfig{Store: store}).Revoke(t.Context(), server, "ann", "key0"); err != nil || time.Since(start) != 0 {
				t.Errorf("%s: %v after %v", layer, err, time.Since(start))
			}
		}
		close(release)
		synctest.Wait()
	})
}

func TestCloseNeverHangs(t *testing.T) {
	for failing, how := range misbehaviours {
		for layer, over := range layers {
			t.Run(failing+" "+layer, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					instead, release := how()
					s := &misbehaving{Store: apikey.NewMemory(), instead: instead}
					a, err := apikey.New(apikey.Config{Manager: newManager(t, apikey.ManagerConfig{Store: over(t, s)}), LastUseInterval: time.Second})
					if err != nil {
						t.Fatal(err)
					}
					a.RecordUse(request(), &usher.Principal{ID: "k"})
					time.Sleep(1500 * time.Millisecond) // a write is under way
					start := time.Now()
					errs := make(chan error)
					for range 2 {
						go func() { errs <- a.Close() }()
					}
					for range 2 {
						if err := <-errs; err == nil {
							t.Error("the uses are lost and Close returned no error")
						}
					}
					if took := time.Since(start); took > 10*time.Second {
						t.Errorf("took %v", took)
					}
					release()
					synctest.Wait()
				})
			})
		}
	}
}

// unresponsive is a store whose Watch ignores its context.
type unresponsive struct {
	apikey.Store
	release, end chan struct{}
}

func (s unresponsive) Watch(_ context.Context, ready func(), _ func(apikey.Hash)) error {
	ready()
	<-s.release
	ready()
	<-s.end
	return errors.New("ended")
}

func TestCloseOfACacheDoesNotWaitForAStoreThatIgnoresIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := unresponsive{newScripted(t, 1), make(chan struct{}), make(chan struct{})}
		defer close(s.end)
		c, err := apikey.NewCache(apikey.CacheConfig{Store: s})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := c.Close(); err == nil {
			t.Error("the watch goes on and Close returned no error")
		}
		for range 2 { // before and after it calls ready
			mustLookup(t, c, record(0), false)
			if keys, _ := c.Kept(); keys != 0 {
				t.Errorf("%d keys are kept after Close", keys)
			}
			select {
			case <-s.release:
			default:
				close(s.release)
			}
			synctest.Wait()
		}
	})
}

func TestCloseDoesNotWaitForAnOnErrorThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &touched{Store: apikey.NewMemory(), touch: func() error { return errors.New("down") }}
		a, err := apikey.New(apikey.Config{
			Manager:         newManager(t, apikey.ManagerConfig{Store: s}),
			LastUseInterval: time.Second,
			OnError:         func(context.Context, error) { <-release },
		})
		if err != nil {
			t.Fatal(err)
		}
		a.RecordUse(request(), &usher.Principal{ID: "k"})
		time.Sleep(1500 * time.Millisecond)
		if err := a.Close(); err == nil {
			t.Error("the uses are lost and Close returned no error")
		}
		close(release)
	})
}

func TestBoundsOfStoresAreValidated(t *testing.T) {
	_, err := apikey.NewManager(apikey.ManagerConfig{Store: silent{apikey.NewMemory()}, Format: native, StoreTimeout: -1, MaxLookups: -1})
	if got := fieldsOf(err); len(got) != 2 || !got["apikey.ManagerConfig.StoreTimeout"] || !got["apikey.ManagerConfig.MaxLookups"] {
		t.Errorf("%v", err)
	}
	_, err = apikey.NewManager(apikey.ManagerConfig{Store: silent{apikey.NewMemory()}, Format: native, StoreTimeout: -1})
	if got := fieldsOf(err); len(got) != 1 || !got["apikey.ManagerConfig.StoreTimeout"] {
		t.Errorf("%v", err)
	}
}
