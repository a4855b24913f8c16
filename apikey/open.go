package apikey

import (
	"errors"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
)

// Keys are the API keys of a service: a [Manager] that issues them and an
// [Authenticator] that verifies them, over one store. It is safe for concurrent use.
type Keys struct {
	Manager       *Manager
	Authenticator *Authenticator
	cache         *Cache // made by Open, or nil
}

// Open returns the keys of a service, or all faults of m and c. It sets c.Manager, which
// must be nil.
//
// A store that is neither a [Memory] nor a [Cache] is wrapped in a Cache with the
// StoreTimeout, the MaxLookups, the OnError and the MeterProvider of m, and otherwise its defaults: a
// revocation by another process takes effect within 10 seconds, and a lookup of a key
// that was just refused as unknown within 5. [Keys.Close] closes what Open has started.
func Open(m ManagerConfig, c Config) (*Keys, error) {
	faults := config.Of[usher.ConfigError]("apikey.Config")
	faults.If(c.Manager != nil, "Manager", "must be nil, because Open sets it")
	if m.MeterProvider == nil {
		m.MeterProvider = c.MeterProvider
	}
	manager, err := NewManager(m)
	c.Manager = manager
	a := newAuthenticator(&c, faults)
	if err := errors.Join(err, faults.Err()); err != nil {
		return nil, err
	}
	k := &Keys{Manager: manager, Authenticator: a}
	if _, unbounded := manager.store.(*guardedStore); unbounded {
		k.cache, err = NewCache(CacheConfig{
			Store: m.Store, StoreTimeout: m.StoreTimeout, MaxLookups: m.MaxLookups, OnError: m.OnError,
			MeterProvider: m.MeterProvider,
		})
		if err != nil {
			return nil, err
		}
		manager.use(k.cache)
	}
	a.start(&c)
	return k, nil
}

// Close writes the recorded times of last use, as [Authenticator.Close] does, and ends
// the goroutines that Open has started. It returns within 13 seconds even if the store
// hangs, or more if StoreTimeout is longer than 3 seconds.
func (k *Keys) Close() error {
	err := k.Authenticator.Close()
	if k.cache != nil {
		err = errors.Join(err, k.cache.Close())
	}
	return err
}
