package apikey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/loader"
	"github.com/usher-go/usher/internal/report"
	"github.com/usher-go/usher/internal/shard"
)

// CacheConfig configures a [Cache].
type CacheConfig struct {
	// Store is called for keys that the cache does not have. Required.
	Store Store
	// TTL is how long a key is kept, counted from when its lookup began; zero means 10
	// seconds.
	TTL time.Duration
	// NegativeTTL is how long the cache remembers that a key does not exist; zero means 5
	// seconds.
	NegativeTTL time.Duration
	// Capacity is how many keys are kept; zero means 65,536. Each takes about a
	// kilobyte, and at most 40 if every field is at its bound.
	Capacity int
	// NegativeCapacity is how many hashes without a key are kept, separately from the
	// keys; zero means 16,384.
	NegativeCapacity int
	// StoreTimeout bounds each call of the store, even if the store ignores its
	// context; zero means 3 seconds. A call of Touch may take 10 seconds.
	StoreTimeout time.Duration
	// MaxLookups bounds how many lookups run at a time, so that invented keys cannot use
	// up the connections to the store; zero means 64. Up to 16 times as many wait for
	// their turn, for half of StoreTimeout, and any more fail at once. Keys that the
	// cache has had before have the same number of places of their own.
	MaxLookups int
	// OnError, if not nil, is called with the reason when the watch of a [Notifier] ends,
	// except by [Cache.Close]. Nil logs to [slog.Default]. Errors of lookups reach the
	// OnError of the [Authenticator].
	OnError func(ctx context.Context, err error)
	// MeterProvider measures the calls of the store as usher.store.operation.duration, and
	// counts what the cache keeps as usher.cache.entries. Nil means the global one.
	MeterProvider metric.MeterProvider
}

// A Cache is a [Store] that keeps the results of another store's [Store.Lookup]. The
// [Manager] and the [Authenticator] must use the same Cache, as they do when
// [Config.Manager] is set. It is safe for concurrent use.
//
// Once Revoke, Rotate or Update of a Cache has returned, no later lookup through it
// returns the key as it was before. On other nodes a revocation takes effect within the
// longer of TTL and StoreTimeout, 10 seconds by default, or, if the store is a
// [Notifier], as soon as its notice arrives. When the notices stop, the cache removes
// everything and keeps nothing until they resume.
//
// Hashes without a key are kept separately from keys, so attempts with invented keys
// displace no valid one. Concurrent lookups of one key share one call of the store, which
// outlives the request that began it. Errors are not kept: while the store fails, a key
// in the cache stays valid until its TTL ends, and a lookup of any other key returns the
// error.
type Cache struct {
	source  Store // as configured
	store   Admin // source with bounded calls, unless it is a Memory
	timeout time.Duration
	entries *loader.Cache[Hash, *entry] // nil for a hash without a key

	report *report.Reporter
	cancel context.CancelFunc
	ended  chan struct{} // closed when the watch has ended
}

// NewCache returns a Cache, or all faults of c. If the store is a [Notifier] it
// starts a goroutine that ends with [Cache.Close].
func NewCache(c CacheConfig) (*Cache, error) {
	faults := config.Of[usher.ConfigError]("apikey.CacheConfig")
	faults.If(c.Store == nil, "Store", config.Required)
	if _, ok := c.Store.(*Cache); ok {
		faults.Add("Store", "must not be a Cache")
	}
	faults.If(c.TTL < 0, "TTL", config.NotNegative)
	faults.If(c.NegativeTTL < 0, "NegativeTTL", config.NotNegative)
	faults.If(c.Capacity < 0, "Capacity", config.NotNegative)
	faults.If(c.NegativeCapacity < 0, "NegativeCapacity", config.NotNegative)
	faults.If(c.StoreTimeout < 0, "StoreTimeout", config.NotNegative)
	faults.If(c.MaxLookups < 0, "MaxLookups", config.NotNegative)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	ttl, negativeTTL := cmp.Or(c.TTL, 10*time.Second), cmp.Or(c.NegativeTTL, 5*time.Second)
	maxLookups := cmp.Or(c.MaxLookups, maxCalls)
	cache := &Cache{
		source:  c.Store,
		timeout: cmp.Or(c.StoreTimeout, storeTimeout),
		report:  report.New("apikey", c.OnError),
		cancel:  func() {},
		ended:   make(chan struct{}),
	}
	cache.entries = loader.New[Hash](loader.Config[*entry]{
		Lifetime: func(e *entry) (time.Duration, bool) {
			if e == nil {
				return negativeTTL, true
			}
			return ttl, false
		},
		Capacity:         cmp.Or(c.Capacity, 1<<16),
		NegativeCapacity: cmp.Or(c.NegativeCapacity, 1<<14),
		Timeout:          cache.timeout,
		MaxFetches:       maxLookups,
		Kept: func(e *entry, until time.Time) {
			e.until = until
			e.kept.Store(true)
		},
		Dropped: (*entry).drop,
	}).Measured(c.MeterProvider, shard.APIKeys, shard.UnknownAPIKeys)
	if m, ok := c.Store.(*Memory); ok {
		cache.store = m
	} else {
		cache.store = newGuardedStore(c.Store, cache.timeout, maxLookups, c.MeterProvider, cache)
	}
	n, ok := c.Store.(Notifier)
	if !ok {
		close(cache.ended)
		return cache, nil
	}
	cache.entries.Suspend()
	var ctx context.Context
	ctx, cache.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(cache.ended)
		cache.watch(ctx, n)
	}()
	return cache, nil
}

// Close ends the watch for changes, if there is one. It does not close the store: from
// then on the cache keeps nothing and passes every call to the store. Close returns an
// error if the watch has not ended within StoreTimeout.
func (c *Cache) Close() (err error) {
	c.cancel()
	select {
	case <-c.ended:
	case <-time.After(c.timeout):
		err = fmt.Errorf("apikey: the watch for changed keys: %w", guard.ErrTimeout)
	}
	c.entries.Suspend()
	return err
}

// watch removes the keys that n reports as changed.
func (c *Cache) watch(ctx context.Context, n Notifier) {
	const shortest, longest = 100 * time.Millisecond, 5 * time.Second
	wait := shortest
	for ctx.Err() == nil {
		err := c.watchOnce(ctx, n, func() { wait = shortest })
		c.entries.Suspend()
		if ctx.Err() == nil {
			c.report.Background(ctx, fmt.Errorf("apikey: the watch for changed keys has ended: %w", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			wait = min(2*wait, longest)
		}
	}
}

// watchOnce watches until a change may have been missed, and returns the reason.
func (c *Cache) watchOnce(ctx context.Context, n Notifier, ready func()) error {
	return guard.Run(func() error {
		err := n.Watch(ctx, func() {
			ready()
			c.entries.Resume()
			if ctx.Err() != nil {
				c.entries.Suspend()
			}
		}, c.entries.Forget)
		if err == nil {
			err = errors.New("it returned without an error")
		}
		return err
	})
}

// lookup returns the key with this hash, from memory if it can, or nil if there is none.
// Both take the same work if they are in memory.
func (c *Cache) lookup(ctx context.Context, h Hash, now time.Time) (*entry, error) {
	if e, ok := c.entries.CachedEvenly(h, now); ok {
		return e, nil
	}
	return c.load(ctx, h)
}

// load returns the key with this hash from the store, or nil if there is none.
func (c *Cache) load(ctx context.Context, h Hash) (*entry, error) {
	return c.entries.Load(ctx, h, func(ctx context.Context) (*entry, error) {
		r, err := c.source.Lookup(ctx, h)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil, nil
		case err != nil:
			return nil, err
		}
		return &entry{record: r}, nil
	})
}

var _ Admin = (*Cache)(nil)

// Lookup implements [Store], from memory if it can.
func (c *Cache) Lookup(ctx context.Context, h Hash) (Record, error) {
	e, err := c.lookup(ctx, h, time.Now())
	switch {
	case err != nil:
		return Record{}, err
	case e == nil:
		return Record{}, ErrNotFound
	}
	return e.record.clone(), nil
}

// Insert implements [Store].
func (c *Cache) Insert(ctx context.Context, r Record, limits Limits) error {
	defer c.entries.Forget(r.Hash)
	return c.store.Insert(ctx, r, limits)
}

// Find implements [Store].
func (c *Cache) Find(ctx context.Context, owner, id string) (Record, error) {
	return c.store.Find(ctx, owner, id)
}

// List implements [Store].
func (c *Cache) List(ctx context.Context, owner string, offset, limit int) ([]Key, int, error) {
	return c.store.List(ctx, owner, offset, limit)
}

// Update implements [Store].
func (c *Cache) Update(ctx context.Context, r Record) error {
	defer c.entries.Forget(r.Hash)
	return c.store.Update(ctx, r)
}

// Rotate implements [Store].
func (c *Cache) Rotate(ctx context.Context, old, next Record, limits Limits) error {
	defer c.entries.Forget(next.Hash)
	defer c.entries.Forget(old.Hash)
	return c.store.Rotate(ctx, old, next, limits)
}

// Revoke implements [Store].
func (c *Cache) Revoke(ctx context.Context, owner, id string, at time.Time) (Record, error) {
	r, err := c.store.Revoke(ctx, owner, id, at)
	c.revoked(owner, id, r, err)
	return r, err
}

// revoked removes a key after an attempt to revoke it.
func (c *Cache) revoked(owner, id string, r Record, err error) {
	switch {
	case err == nil:
		c.entries.Forget(r.Hash)
	case !errors.Is(err, ErrNotFound):
		// The key may have been revoked nevertheless.
		c.entries.ForgetFunc(func(e *entry) bool { return e.record.ID == id && e.record.Owner == owner })
	}
}

// Touch implements [Store].
func (c *Cache) Touch(ctx context.Context, uses map[string]Use) error {
	return c.store.Touch(ctx, uses)
}

// Select implements [Admin], if the store is one.
func (c *Cache) Select(ctx context.Context, q Query) ([]Key, Cursor, error) {
	return c.store.Select(ctx, q)
}

// RevokeAll implements [Admin], if the store is one. Once it has returned, no later lookup
// through the cache returns one of the keys as it was before, even if it returned an
// error.
func (c *Cache) RevokeAll(ctx context.Context, f Filter, at time.Time, limit int) ([]Record, bool, error) {
	revoked, more, err := c.store.RevokeAll(ctx, f, at, limit)
	c.revokedAll(revoked, err)
	return revoked, more, err
}

// revokedAll removes the keys that RevokeAll has tried to revoke.
func (c *Cache) revokedAll(revoked []Record, err error) {
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		// Any key may have been revoked nevertheless.
		c.entries.ForgetFunc(func(*entry) bool { return true })
	}
	for i := range revoked {
		c.entries.Forget(revoked[i].Hash)
	}
}

// Purge implements [Admin], if the store is one.
func (c *Cache) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	defer c.entries.ForgetFunc(func(e *entry) bool { return e.record.endedBefore(before) })
	return c.store.Purge(ctx, before, limit)
}
