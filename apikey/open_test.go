package apikey_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/guard"
)

func open(t testing.TB, m apikey.ManagerConfig, c apikey.Config) *apikey.Keys {
	t.Helper()
	if m.Format == nil && m.Formats == nil {
		m.Format = native
	}
	k, err := apikey.Open(m, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func TestOpenReportsAllFaultsOfBothConfigurations(t *testing.T) {
	_, err := apikey.Open(apikey.ManagerConfig{
		Format: apikey.Native{}, StoreTimeout: -1, Peppers: []apikey.Pepper{{Version: 1}},
	}, apikey.Config{
		Manager:  newManager(t, apikey.ManagerConfig{}),
		Carriers: []apikey.Carrier{{}},
		Errors:   map[apikey.Verdict]*usher.Error{apikey.Revoked: nil},
	})
	want := map[string]bool{}
	for _, f := range []string{"ManagerConfig.Store", "ManagerConfig.StoreTimeout", "ManagerConfig.Format.Prefix", "ManagerConfig.Peppers[0].Key", "Config.Manager", "Config.Carriers[0].Header", "Config.Errors[revoked]"} {
		want["apikey."+f] = true
	}
	if diff := compare.Diff(want, fieldsOf(err)); diff != "" {
		t.Error(diff)
	}
	_, err = apikey.Open(apikey.ManagerConfig{Store: apikey.NewMemory(), Format: native}, apikey.Config{Environment: "production"})
	if got := fieldsOf(err); len(got) != 1 || !got["apikey.Config.Environment"] {
		t.Errorf("an environment of no format: %v", err)
	}
}

// A Memory, and a Cache of the application, are used as they are; any other store is
// asked once for a key that is used often, and sees no key that the Manager has revoked.
func TestOpenPutsACacheOverADatabase(t *testing.T) {
	database := newScripted(t, 0)
	under := newScripted(t, 0)
	for name, test := range map[string]struct {
		store   apikey.Store
		lookups *atomic.Int64
		want    int64
	}{
		"a database": {database, &database.lookups, 1},
		"a cache":    {newCache(t, apikey.CacheConfig{Store: under}), &under.lookups, 1},
		"a memory":   {apikey.NewMemory(), new(atomic.Int64), 0},
	} {
		keys := open(t, apikey.ManagerConfig{Store: test.store}, apikey.Config{LastUseInterval: -1})
		k, text := create(t, keys.Manager, apikey.Key{})
		for range 5 {
			if _, err := keys.Authenticator.Authenticate(request("X-API-Key", text)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got := test.lookups.Load(); got != test.want {
			t.Errorf("%s: %d lookups, want %d", name, got, test.want)
		}
		if _, err := keys.Manager.Revoke(t.Context(), server, "ann", k.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := keys.Authenticator.Authenticate(request("X-API-Key", text)); !errors.Is(err, apikey.Revoked) {
			t.Errorf("%s: a revoked key: %v", name, err)
		}
	}
}

func TestTheBoundsOfAnOpenedStoreAreThoseOfTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFaultyStore()
		keys := open(t, apikey.ManagerConfig{Store: s, StoreTimeout: time.Second, MaxLookups: 2}, apikey.Config{LastUseInterval: -1, OnError: func(context.Context, error) {}})
		var running, most atomic.Int64
		s.Set(func(ctx context.Context, _ int64) error {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer running.Add(-1)
			<-ctx.Done()
			return ctx.Err()
		})
		start := time.Now()
		for range 8 {
			go func() { _, _ = keys.Authenticator.Authenticate(request("X-API-Key", generate(t, native, ""))) }()
		}
		synctest.Wait()
		if _, err := keys.Manager.Find(t.Context(), "ann", "x"); !errors.Is(err, guard.ErrTimeout) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if n := most.Load(); n != 3 { // two lookups and the call of Find
			t.Errorf("%d calls at a time, want 3", n)
		}
		s.Set(nil)
	})
}

// A store of the application stays open, and so does its Cache.
func TestCloseEndsWhatOpenHasStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		database := &watchedStore{Memory: apikey.NewMemory(), ended: make(chan struct{})}
		keys, err := apikey.Open(apikey.ManagerConfig{Store: database, Format: native}, apikey.Config{LastUseInterval: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		k, text := create(t, keys.Manager, apikey.Key{})
		synctest.Wait()
		used := time.Now()
		var ok bool
		h := usher.Authenticate(keys.Authenticator).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ok = true }))
		h.ServeHTTP(discard{http.Header{}}, request("X-API-Key", text))
		if !ok {
			t.Fatal("the handler was not reached")
		}
		for range 2 {
			if err := keys.Close(); err != nil {
				t.Error(err)
			}
		}
		<-database.ended
		if r, err := database.Find(t.Context(), "ann", k.ID); err != nil || !r.LastUsedAt.Equal(used) {
			t.Errorf("last used at %v, want %v (%v)", r.LastUsedAt, used, err)
		}
		if _, err := keys.Authenticator.Authenticate(request("X-API-Key", text)); err != nil {
			t.Errorf("after Close: %v", err)
		}
	})
}

// watchedStore is a Memory that says when its watch has ended.
type watchedStore struct {
	*apikey.Memory
	ended chan struct{}
}

func (s *watchedStore) Watch(ctx context.Context, ready func(), changed func(apikey.Hash)) error {
	defer close(s.ended)
	return s.Memory.Watch(ctx, ready, changed)
}

func TestOpenSharesThePeppers(t *testing.T) {
	peppers := []apikey.Pepper{{Version: 3, Key: apikey.NewSecret(strings.Repeat("p", 32))}}
	keys := open(t, apikey.ManagerConfig{Store: apikey.NewMemory(), Peppers: peppers}, apikey.Config{Environment: "live"})
	_, text := create(t, keys.Manager, apikey.Key{})
	if _, err := keys.Authenticator.Authenticate(request("X-API-Key", text)); err != nil {
		t.Error(err)
	}
}
