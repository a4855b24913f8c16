package apikey

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/shard"
)

// CacheConfig configures a [Cache].
type CacheConfig struct {
	// Store is asked for what the cache does not know. Required.
	Store Store
	// TTL is how long a key is remembered, counted from when the store was asked;
	// zero means 10 seconds.
	TTL time.Duration
	// NegativeTTL is how long it is remembered that there is no such key; zero
	// means 5 seconds.
	NegativeTTL time.Duration
	// Capacity is how many keys are remembered; zero means 65,536, of which each
	// takes about a kilobyte.
	Capacity int
	// NegativeCapacity is how many hashes without a key are remembered, in a place
	// of their own; zero means 16,384.
	NegativeCapacity int
	// StoreTimeout bounds each call of the store, also of one that ignores its
	// context; zero means 3 seconds. A call of Touch may take 10 seconds.
	StoreTimeout time.Duration
	// MaxLookups bounds how many lookups are under way at a time, so that a flood
	// of invented keys does not use up the connections to the store; zero means 64.
	// Up to 16 times as many wait for their turn, for half of StoreTimeout, and any
	// more fail at once. Lookups of keys that the cache has known have as many
	// places of their own.
	MaxLookups int
	// OnError, if not nil, is told why the watch of a [Notifier] has ended, other
	// than by [Cache.Close].
	OnError func(err error)
}

// A Cache is a [Store] that remembers what [Store.Lookup] of another has
// answered. Give the same Cache to the [Authenticator] and the [Manager]. It is
// safe for concurrent use.
//
// After Revoke, Rotate or Update through a Cache has returned, that Cache answers
// no request that comes later from what it knew before. On other nodes a
// revocation holds after the longer of TTL and StoreTimeout at the latest, 10
// seconds by default, and if the store is a [Notifier] as soon as its notice
// arrives. When the notices stop, the cache forgets everything and remembers
// nothing until they are back.
//
// Keys that do not exist are remembered apart from those that do, so however
// many of them are tried, they push out no good key. Calls for one key share one
// lookup, which outlives the call that began it. Errors are not remembered;
// while the store fails, a key that is remembered is answered until its TTL ends,
// and any other with the error.
type Cache struct {
	store            Store // guarded, unless it is a Memory
	ttl, negativeTTL time.Duration
	timeout          time.Duration

	entries *shard.Cache[Hash, *entry]
	// generations counts what each shard of entries has forgotten on purpose,
	// under the lock of the shard. A lookup that began in an earlier generation
	// may have seen the key as it was before, so its answer is not kept, and
	// nobody who comes later waits for it.
	generations []uint64
	unknown     *shard.Cache[Hash, time.Time]

	flights singleflight.Group
	// renewals guards the lookups of keys that the cache has known, so that these do
	// not queue behind invented ones.
	renewals *guard.Guard
	// remember is false while changes might be missed.
	remember atomic.Bool

	onError func(error)
	cancel  context.CancelFunc
	ended   chan struct{} // is closed when the watch has ended
}

// An entry is a remembered key. Only view changes after it was made.
type entry struct {
	record Record
	until  time.Time
	view   atomic.Pointer[view]
}

// NewCache returns a Cache, or all faults of c. If the store is a [Notifier] it
// starts a goroutine that ends with [Cache.Close].
func NewCache(c CacheConfig) (*Cache, error) {
	var errs []error
	fault := func(field, reason string) {
		errs = append(errs, &usher.ConfigError{Field: "apikey.CacheConfig." + field, Reason: reason})
	}
	if c.Store == nil {
		fault("Store", "is required")
	}
	if _, ok := c.Store.(*Cache); ok {
		fault("Store", "must not be a Cache itself")
	}
	for _, d := range []struct {
		field string
		value int64
	}{
		{"TTL", int64(c.TTL)}, {"NegativeTTL", int64(c.NegativeTTL)}, {"Capacity", int64(c.Capacity)},
		{"NegativeCapacity", int64(c.NegativeCapacity)}, {"StoreTimeout", int64(c.StoreTimeout)}, {"MaxLookups", int64(c.MaxLookups)},
	} {
		if d.value < 0 {
			fault(d.field, "must not be negative")
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	cache := &Cache{
		store:       c.Store,
		ttl:         orDefault(c.TTL, 10*time.Second),
		negativeTTL: orDefault(c.NegativeTTL, 5*time.Second),
		timeout:     orDefault(c.StoreTimeout, storeTimeout),
		entries:     shard.New[Hash, *entry](orDefault(c.Capacity, 1<<16), nil),
		unknown:     shard.New[Hash, time.Time](orDefault(c.NegativeCapacity, 1<<14), nil),
		onError:     c.OnError,
		cancel:      func() {},
		ended:       make(chan struct{}),
	}
	if _, ok := c.Store.(*Memory); !ok {
		lookups := orDefault(c.MaxLookups, maxCalls)
		cache.store = newGuardedStore(c.Store, cache.timeout, lookups, cache)
		cache.renewals = guard.New(cache.timeout, lookups).Results(isResult)
	}
	cache.generations = make([]uint64, cache.entries.Shards())
	if n, ok := c.Store.(Notifier); ok {
		var ctx context.Context
		ctx, cache.cancel = context.WithCancel(context.Background())
		go func() {
			defer close(cache.ended)
			cache.watch(ctx, n)
		}()
	} else {
		close(cache.ended)
		cache.remember.Store(true)
	}
	return cache, nil
}

// Close ends the watch for changes, if there is one. The cache then remembers
// nothing, and passes every call on to its store. It returns an error if the watch
// has not ended within StoreTimeout.
func (c *Cache) Close() (err error) {
	c.cancel()
	select {
	case <-c.ended:
	case <-time.After(c.timeout):
		err = fmt.Errorf("apikey: the watch for changed keys: %w", guard.ErrTimeout)
	}
	c.forgetAll()
	return err
}

// watch keeps the cache in step with the changes that n tells.
func (c *Cache) watch(ctx context.Context, n Notifier) {
	const shortest, longest = 100 * time.Millisecond, 5 * time.Second
	wait := shortest
	for ctx.Err() == nil {
		err := c.watchOnce(ctx, n, func() { wait = shortest })
		c.forgetAll()
		if ctx.Err() == nil {
			report(c.onError, fmt.Errorf("apikey: the watch for changed keys has ended: %w", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			wait = min(2*wait, longest)
		}
	}
}

// watchOnce watches until changes might be missed, and returns why.
func (c *Cache) watchOnce(ctx context.Context, n Notifier, ready func()) error {
	return guard.Run(func() error {
		err := n.Watch(ctx, func() {
			ready()
			// What was asked before this moment may have changed unseen.
			c.forgetAll()
			c.remember.Store(ctx.Err() == nil)
		}, c.forget)
		if err == nil {
			err = errors.New("it returned without an error")
		}
		return err
	})
}

// lookup returns the key with this hash from memory or from the store.
func (c *Cache) lookup(ctx context.Context, h Hash, now time.Time) (*entry, error) {
	s := c.entries.Shard(h)
	s.Lock()
	e, known := s.Get(h)
	s.Unlock()
	if known && now.Before(e.until) {
		return e, nil
	}
	n := c.unknown.Shard(h)
	n.Lock()
	until, ok := n.Get(h)
	n.Unlock()
	if ok && now.Before(until) {
		return nil, ErrNotFound
	}
	return c.ask(ctx, h, known)
}

// ask returns the key with this hash from the store, together with all others
// who ask for it at the time. Known says that the cache has had it before.
func (c *Cache) ask(ctx context.Context, h Hash, known bool) (*entry, error) {
	i := c.entries.Index(c.entries.Hash(h))
	s := c.entries.At(i)
	s.Lock()
	generation := c.generations[i]
	s.Unlock()
	name := string(binary.BigEndian.AppendUint64(h[:], generation))
	flight := c.flights.DoChan(name, func() (any, error) {
		// The lookup serves all who wait for it, so the end of the request that
		// happened to begin it must not end it.
		return c.fill(context.WithoutCancel(ctx), h, i, generation, known)
	})
	select {
	case r := <-flight:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*entry), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A finding is a record that a store has returned. It is as old as the question.
type finding struct {
	record Record
	asked  time.Time
}

// find asks the store.
func (c *Cache) find(ctx context.Context, h Hash, known bool) (finding, error) {
	s, ok := c.store.(*guardedStore)
	if !ok {
		return findIn(ctx, c.store, h)
	}
	g := s.lookups
	if known {
		g = c.renewals
	}
	return guard.Call(ctx, g, func(ctx context.Context) (finding, error) { return findIn(ctx, s.store, h) }, nil)
}

func findIn(ctx context.Context, s Store, h Hash) (finding, error) {
	asked := time.Now()
	r, err := s.Lookup(ctx, h)
	return finding{r, asked}, err
}

// fill asks the store, and remembers what it returns unless shard i has forgotten
// something since this generation.
func (c *Cache) fill(ctx context.Context, h Hash, i int, generation uint64, known bool) (*entry, error) {
	found, err := c.find(ctx, h, known)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}

	s := c.entries.At(i)
	s.Lock()
	defer s.Unlock()
	current := c.remember.Load() && c.generations[i] == generation
	if err != nil {
		if current {
			n := c.unknown.Shard(h)
			n.Lock()
			n.Add(h, found.asked.Add(c.negativeTTL))
			n.Unlock()
		}
		return nil, ErrNotFound
	}
	e := &entry{record: found.record, until: found.asked.Add(c.ttl)}
	if current {
		s.Add(h, e)
	}
	return e, nil
}

// forget removes what is known of a key, and makes what is being asked about it
// stale.
func (c *Cache) forget(h Hash) {
	i := c.entries.Index(c.entries.Hash(h))
	s := c.entries.At(i)
	s.Lock()
	defer s.Unlock()
	c.generations[i]++
	s.Remove(h)
	n := c.unknown.Shard(h)
	n.Lock()
	n.Remove(h)
	n.Unlock()
}

// forgetAll stops remembering and removes everything.
func (c *Cache) forgetAll() {
	c.remember.Store(false)
	for i := range c.entries.Shards() {
		s := c.entries.At(i)
		s.Lock()
		c.generations[i]++
		s.Purge()
		s.Unlock()
	}
	for i := range c.unknown.Shards() {
		n := c.unknown.At(i)
		n.Lock()
		n.Purge()
		n.Unlock()
	}
}

// forgetID removes a key of which the hash is not known. It looks at every
// entry, and is for the rare change of which nobody knows whether it was made.
func (c *Cache) forgetID(owner, id string) {
	for i := range c.entries.Shards() {
		s := c.entries.At(i)
		s.Lock()
		c.generations[i]++
		for _, e := range s.Values() {
			if e.record.ID == id && e.record.Owner == owner {
				s.Remove(e.record.Hash)
			}
		}
		s.Unlock()
	}
}

var _ Store = (*Cache)(nil)

// Lookup implements [Store], from memory if it can.
func (c *Cache) Lookup(ctx context.Context, h Hash) (Record, error) {
	e, err := c.lookup(ctx, h, time.Now())
	if err != nil {
		return Record{}, err
	}
	return e.record.clone(), nil
}

// Insert implements [Store].
func (c *Cache) Insert(ctx context.Context, r Record, limit int) error {
	defer c.forget(r.Hash)
	return c.store.Insert(ctx, r, limit)
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
	defer c.forget(r.Hash)
	return c.store.Update(ctx, r)
}

// Rotate implements [Store].
func (c *Cache) Rotate(ctx context.Context, old, next Record, limit int) error {
	defer c.forget(next.Hash)
	defer c.forget(old.Hash)
	return c.store.Rotate(ctx, old, next, limit)
}

// Revoke implements [Store].
func (c *Cache) Revoke(ctx context.Context, owner, id string, at time.Time) (Record, error) {
	r, err := c.store.Revoke(ctx, owner, id, at)
	c.revoked(owner, id, r, err)
	return r, err
}

// revoked forgets a key for the outcome of its revocation.
func (c *Cache) revoked(owner, id string, r Record, err error) {
	switch {
	case err == nil:
		c.forget(r.Hash)
	case !errors.Is(err, ErrNotFound):
		// It may have been revoked all the same.
		c.forgetID(owner, id)
	}
}

// Touch implements [Store].
func (c *Cache) Touch(ctx context.Context, uses map[string]time.Time) error {
	return c.store.Touch(ctx, uses)
}
