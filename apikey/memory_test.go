package apikey_test

import (
	"testing"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/apikey/apikeytest"
)

func TestMemoryIsAStore(t *testing.T) {
	apikeytest.TestStore(t, func(testing.TB) apikey.Store { return apikey.NewMemory() })
}

// A Cache is a Store as well, whether or not its store is a Notifier.
func TestCacheIsAStore(t *testing.T) {
	for name, store := range map[string]apikey.Store{
		"with notices":    apikey.NewMemory(),
		"without notices": silent{apikey.NewMemory()},
	} {
		t.Run(name, func(t *testing.T) {
			apikeytest.TestStore(t, func(t testing.TB) apikey.Store {
				return newCache(t, apikey.CacheConfig{Store: store})
			})
		})
	}
}

// silent is a store that is not a Notifier.
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
