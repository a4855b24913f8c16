// Package loader caches the values of a source that takes time to respond and may fail,
// such as a store of keys or an authorization server.
package loader

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/shard"
)

// Config configures a [Cache].
type Config[V any] struct {
	// Lifetime returns how long a value is kept, counted from when its fetch began, and
	// whether the value is negative: it means that there is nothing for the key. A value
	// whose TTL is not above 0 is not kept. Required.
	Lifetime func(v V) (ttl time.Duration, negative bool)
	// Capacity bounds the values that are kept, and NegativeCapacity bounds the negative
	// ones, which never displace others. A Capacity of 0 keeps nothing.
	Capacity, NegativeCapacity int
	// Timeout bounds each fetch. Required.
	Timeout time.Duration
	// MaxFetches bounds the fetches that run at a time. Keys that the cache has had
	// before have the same number of places of their own, so that they do not wait behind
	// invented keys. See [guard.Call] for how many wait, and how long. Required.
	MaxFetches int
	// IsResult, if not nil, reports whether the source works although its fetch returned
	// this error. All other errors count as failures of the source; see
	// [guard.Guard.Results].
	IsResult func(error) bool
	// Stale, if not nil, is called when a fetch has failed and the last value of its key is
	// still there, though its TTL has ended. It returns the value that callers get in place
	// of the error, which is kept like a fetched one, or an error. Negative values are not
	// passed to it.
	Stale func(ctx context.Context, last V, err error) (V, error)
	// Kept, if not nil, is called when a value that is not negative is kept, with the end
	// of its TTL, and Dropped when that value is kept no longer: it was displaced, replaced
	// or forgotten. A value whose TTL has ended may be kept for longer. Both are called under
	// the lock of the key, and must not call the cache.
	Kept    func(v V, until time.Time)
	Dropped func(v V)
}

// A Cache keeps fetched values. It is safe for concurrent use.
//
// Callers that ask for one key at the same time share one fetch, which outlives the
// caller that began it. A value is as old as its fetch: its TTL counts from when the
// fetch began. Errors are not kept, and a panic of a fetch is an error.
//
// Once [Cache.Forget] has returned, no caller gets a value whose fetch began earlier,
// except callers that were already waiting for it.
type Cache[K comparable, V any] struct {
	lifetime func(V) (time.Duration, bool)
	stale    func(context.Context, V, error) (V, error)
	onKeep   func(V, time.Time)

	values    *shard.Cache[K, kept[V]]
	negatives *shard.Cache[K, kept[V]]
	// flights has the fetches that a caller may join, for each shard of values and under
	// its lock. If a fetch is no longer there when it ends, a change of its key has
	// overtaken it, and its value is not kept.
	flights []map[K]*flight[V]
	// keeping is false while nothing is kept. A fetch reads it under the lock of its
	// shard.
	keeping atomic.Bool
	keepAny bool

	first    *guard.Guard // of keys that are not known
	renewals *guard.Guard
}

type kept[V any] struct {
	value V
	until time.Time
}

// A flight is a fetch. Its value and error are set before done is closed.
type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// New returns an empty cache.
func New[K comparable, V any](c Config[V]) *Cache[K, V] {
	var drop func(K, kept[V])
	if c.Dropped != nil {
		drop = func(_ K, e kept[V]) { c.Dropped(e.value) }
	}
	cache := &Cache[K, V]{
		lifetime:  c.Lifetime,
		stale:     c.Stale,
		onKeep:    c.Kept,
		values:    shard.New(max(c.Capacity, 1), drop),
		negatives: shard.New[K, kept[V]](max(c.NegativeCapacity, 1), nil),
		keepAny:   c.Capacity > 0,
		first:     guard.New(c.Timeout, c.MaxFetches),
		renewals:  guard.New(c.Timeout, c.MaxFetches),
	}
	if c.IsResult != nil {
		cache.first.Results(c.IsResult)
		cache.renewals.Results(c.IsResult)
	}
	cache.flights = make([]map[K]*flight[V], cache.values.Shards())
	for i := range cache.flights {
		cache.flights[i] = make(map[K]*flight[V])
	}
	cache.keeping.Store(cache.keepAny)
	return cache
}

// Measured makes c count what it keeps as caches of these kinds; see [shard.Cache.Measured].
func (c *Cache[K, V]) Measured(p metric.MeterProvider, values, negatives shard.Kind) *Cache[K, V] {
	c.values.Measured(p, values)
	c.negatives.Measured(p, negatives)
	return c
}

// Cached returns the value that is kept for k, if its TTL has not ended by now. It
// allocates nothing.
func (c *Cache[K, V]) Cached(k K, now time.Time) (V, bool) {
	if v, ok := in(c.values, k, now); ok {
		return v, true
	}
	return in(c.negatives, k, now)
}

// CachedEvenly is Cached, but takes as much work for a value as for a negative one.
func (c *Cache[K, V]) CachedEvenly(k K, now time.Time) (V, bool) {
	v, ok := in(c.values, k, now)
	n, negative := in(c.negatives, k, now)
	if ok {
		return v, true
	}
	return n, negative
}

// in returns the value of k in a list.
func in[K comparable, V any](list *shard.Cache[K, kept[V]], k K, now time.Time) (v V, ok bool) {
	s := list.Shard(k)
	s.Lock()
	e, ok := s.Get(k)
	s.Unlock()
	if !ok || !now.Before(e.until) {
		return v, false
	}
	return e.value, true
}

// Load returns the value that is kept for k, or the result of fetch, which all callers
// that ask for k at the time share. The context of fetch has the values of ctx, but ends
// after the timeout, not with ctx. If ctx ends first, Load returns its cause.
func (c *Cache[K, V]) Load(ctx context.Context, k K, fetch func(context.Context) (V, error)) (V, error) {
	var none V
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	f := c.join(ctx, k, fetch)
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// join returns the flight for k, and begins one if there is none.
func (c *Cache[K, V]) join(ctx context.Context, k K, fetch func(context.Context) (V, error)) *flight[V] {
	i := c.values.Index(c.values.Hash(k))
	s := c.values.At(i)
	s.Lock()
	defer s.Unlock()
	if f := c.flights[i][k]; f != nil {
		return f
	}
	f := &flight[V]{done: make(chan struct{})}
	// A flight may have landed since the caller looked.
	now := time.Now()
	e, known := s.Peek(k)
	if !known || !now.Before(e.until) {
		e = c.negative(k)
	}
	if now.Before(e.until) {
		f.value = e.value
		close(f.done)
		return f
	}
	g := c.first
	if known {
		g = c.renewals
	}
	c.flights[i][k] = f
	go c.fly(context.WithoutCancel(ctx), f, i, k, g, fetch)
	return f
}

// negative returns the negative value of k. Its caller may have locked a shard of values.
func (c *Cache[K, V]) negative(k K) kept[V] {
	n := c.negatives.Shard(k)
	n.Lock()
	defer n.Unlock()
	e, _ := n.Peek(k)
	return e
}

// fly fetches the value of k, and keeps it unless f was overtaken.
func (c *Cache[K, V]) fly(ctx context.Context, f *flight[V], i int, k K, g *guard.Guard, fetch func(context.Context) (V, error)) {
	type fetched struct {
		value V
		asked time.Time
	}
	got, err := guard.Call(ctx, g, "", func(ctx context.Context) (r fetched, err error) {
		r.asked = time.Now()
		r.value, err = fetch(ctx)
		return r, err
	}, nil)
	s := c.values.At(i)
	if err != nil && c.stale != nil {
		s.Lock()
		last, known := s.Peek(k)
		s.Unlock()
		if known {
			got.asked = time.Now()
			got.value, err = c.stale(ctx, last.value, err)
		}
	}
	f.value, f.err = got.value, err

	s.Lock()
	if c.flights[i][k] == f {
		delete(c.flights[i], k)
		if err == nil && c.keeping.Load() {
			c.keep(s, k, got.value, got.asked)
		}
	}
	s.Unlock()
	close(f.done)
}

// keep keeps a value whose fetch began at asked. It needs the lock of s, the shard of
// values that k belongs to.
func (c *Cache[K, V]) keep(s *shard.Shard[K, kept[V]], k K, v V, asked time.Time) {
	ttl, negative := c.lifetime(v)
	if ttl <= 0 {
		return
	}
	e := kept[V]{v, asked.Add(ttl)}
	n := c.negatives.Shard(k)
	n.Lock()
	defer n.Unlock()
	// A value that another replaces is dropped as well, of which Add would say nothing.
	s.Remove(k)
	if negative {
		n.Add(k, e)
		return
	}
	n.Remove(k)
	s.Add(k, e)
	if c.onKeep != nil {
		c.onKeep(v, e.until)
	}
}

// Forget removes the value of k. The result of a fetch that has already begun is not
// kept.
func (c *Cache[K, V]) Forget(k K) {
	i := c.values.Index(c.values.Hash(k))
	s := c.values.At(i)
	s.Lock()
	defer s.Unlock()
	delete(c.flights[i], k)
	s.Remove(k)
	n := c.negatives.Shard(k)
	n.Lock()
	n.Remove(k)
	n.Unlock()
}

// ForgetFunc removes every value for which match returns true, except negative ones. The
// results of fetches that have already begun are not kept, whatever their key. It visits
// every value.
func (c *Cache[K, V]) ForgetFunc(match func(V) bool) {
	for i := range c.values.Shards() {
		s := c.values.At(i)
		s.Lock()
		clear(c.flights[i])
		for _, k := range s.Keys() {
			if e, ok := s.Peek(k); ok && match(e.value) {
				s.Remove(k)
			}
		}
		s.Unlock()
	}
}

// Suspend removes everything. The cache then keeps nothing until [Cache.Resume].
func (c *Cache[K, V]) Suspend() {
	c.keeping.Store(false)
	c.clear()
}

// Resume ends a Suspend, for fetches that begin after Resume was called.
func (c *Cache[K, V]) Resume() {
	c.clear()
	c.keeping.Store(c.keepAny)
}

func (c *Cache[K, V]) clear() {
	for i := range c.values.Shards() {
		s := c.values.At(i)
		s.Lock()
		clear(c.flights[i])
		s.Purge()
		s.Unlock()
	}
	for i := range c.negatives.Shards() {
		n := c.negatives.At(i)
		n.Lock()
		n.Purge()
		n.Unlock()
	}
}

// Len returns how many values and how many negative ones are kept.
func (c *Cache[K, V]) Len() (values, negatives int) { return c.values.Len(), c.negatives.Len() }
