package apikey_test

import (
	"errors"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/apikey/apikeytest"
)

func TestMemoryIsAStore(t *testing.T) {
	apikeytest.TestStore(t, func(testing.TB) apikey.Store { return apikey.NewMemory() })
}

// A Cache is a Store as well, whether or not its store is a Notifier or an Admin.
func TestCacheIsAStore(t *testing.T) {
	for name, limit := range map[string]func(*apikey.Memory) apikey.Store{
		"with notices":    func(m *apikey.Memory) apikey.Store { return m },
		"without notices": func(m *apikey.Memory) apikey.Store { return remote{m} },
		"without more":    func(m *apikey.Memory) apikey.Store { return silent{m} },
	} {
		t.Run(name, func(t *testing.T) {
			apikeytest.TestStore(t, func(t testing.TB) apikey.Store {
				store := limit(apikey.NewMemory())
				return closer{newCache(t, apikey.CacheConfig{Store: store}), store}
			})
		})
	}
}

// A key in use also shows when it was last used.
func TestAMemoryForgetsItsEntryOfAKeyThatIsUsed(t *testing.T) {
	m, store := newManagerOn(t)
	k, text := create(t, m, apikey.Key{})
	a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})
	if _, err := a.Authenticate(request("X-API-Key", text)); err != nil {
		t.Fatal(err)
	}
	use := apikey.Use{At: time.Now().UTC()}
	if err := store.Touch(t.Context(), map[string]apikey.Use{k.ID: use}); err != nil {
		t.Fatal(err)
	}
	p, err := a.Authenticate(request("X-API-Key", text))
	if err != nil || !p.Details.(*apikey.Key).LastUsedAt.Equal(use.At) {
		t.Errorf("%+v, %v", p, err)
	}
}

// A closer also closes the store of a Cache, which the Cache never does.
type closer struct {
	*apikey.Cache
	store apikey.Store
}

func (c closer) Close() error { return errors.Join(c.Cache.Close(), c.store.Close()) }

// silent is a store that is not a Notifier, and no Admin.
type silent struct{ apikey.Store }

func newCache(t testing.TB, c apikey.CacheConfig) *apikey.Cache {
	t.Helper()
	cache, err := apikey.NewCache(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cache.Close(); err != nil {
			t.Error(err)
		}
	})
	return cache
}
