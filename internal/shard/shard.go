// Package shard splits a bounded LRU into shards with a lock each, so that requests for
// different keys rarely wait for each other.
package shard

import (
	"hash/maphash"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// A Cache is a bounded LRU from K to V in shards. Callers hold the lock of a shard while
// they use it.
type Cache[K comparable, V any] struct {
	seed   maphash.Seed
	mask   uint64
	shards []Shard[K, V]
}

// A Shard is a part of a Cache. Lock it before use.
type Shard[K comparable, V any] struct {
	sync.Mutex
	*simplelru.LRU[K, V]
	// Two locks on one cache line would slow each other down.
	_ [48]byte
}

const maxShards = 64

// New returns a cache of at most capacity entries, and at least one for each shard.
// OnEvict, if not nil, is called under the lock of the shard for each entry that is
// evicted or removed.
//
// The capacity is split evenly, so a shard may be full before the whole cache is.
func New[K comparable, V any](capacity int, onEvict func(key K, value V)) *Cache[K, V] {
	n := 1
	for n < maxShards && n*64 < capacity {
		n *= 2
	}
	c := &Cache[K, V]{seed: maphash.MakeSeed(), mask: uint64(n - 1), shards: make([]Shard[K, V], n)}
	size := max(capacity/n, 1)
	for i := range c.shards {
		// The only error is for a size below one.
		c.shards[i].LRU, _ = simplelru.NewLRU(size, onEvict)
	}
	return c
}

// Hash returns the hash of a key, which chooses its shard.
func (c *Cache[K, V]) Hash(key K) uint64 { return maphash.Comparable(c.seed, key) }

// Index returns the index of the shard for keys of this hash.
func (c *Cache[K, V]) Index(hash uint64) int { return int(hash & c.mask) }

// At returns the shard with this index.
func (c *Cache[K, V]) At(i int) *Shard[K, V] { return &c.shards[i] }

// Shard returns the shard that holds key.
func (c *Cache[K, V]) Shard(key K) *Shard[K, V] { return &c.shards[c.Hash(key)&c.mask] }

// Shards returns the number of shards.
func (c *Cache[K, V]) Shards() int { return len(c.shards) }

// Len returns the number of entries.
func (c *Cache[K, V]) Len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.Lock()
		n += s.LRU.Len()
		s.Unlock()
	}
	return n
}
