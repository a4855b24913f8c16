package shard_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/internal/shard"
)

func add[K comparable, V any](c *shard.Cache[K, V], key K, value V) {
	s := c.Shard(key)
	s.Lock()
	defer s.Unlock()
	s.Add(key, value)
}

func TestACacheStaysWithinItsCapacity(t *testing.T) {
	for _, capacity := range []int{-1, 0, 1, 2, 63, 64, 65, 100, 1000, 4096, 5000, 65536} {
		t.Run(fmt.Sprint(capacity), func(t *testing.T) {
			evicted := 0
			c := shard.New(capacity, func(int, int) { evicted++ })
			keys := 3*max(capacity, 1) + 200
			for i := range keys {
				add(c, i, i)
				if i%64 == 0 && c.Len() > max(capacity, 1) {
					t.Fatalf("%d entries after %d keys", c.Len(), i+1)
				}
			}
			// A flood fills the cache, except for what the even split leaves over.
			if n := c.Len(); n > max(capacity, 1) || n < capacity-c.Shards() {
				t.Errorf("%d entries in %d shards", n, c.Shards())
			}
			if evicted != keys-c.Len() {
				t.Errorf("%d evictions of %d keys that leave %d", evicted, keys, c.Len())
			}
		})
	}
}

func TestKeysSpread(t *testing.T) {
	c := shard.New[string, int](65536, nil)
	if c.Shards() != 64 {
		t.Fatalf("%d shards", c.Shards())
	}
	counts := make([]int, c.Shards())
	const keys = 64000
	for i := range keys {
		key := fmt.Sprintf("10.0.%d.%d", i/256, i%256)
		counts[c.Index(c.Hash(key))]++
	}
	for i, n := range counts {
		// 1000 each on average, with a standard deviation of 31.
		if n < 750 || n > 1250 {
			t.Errorf("shard %d has %d of %d keys", i, n, keys)
		}
	}
}

func TestAKeyHasOneShard(t *testing.T) {
	c := shard.New[string, int](1024, nil)
	for i := range 100 {
		key := fmt.Sprint(i)
		if c.Shard(key) != c.At(c.Index(c.Hash(key))) || c.Shard(key) != c.Shard(fmt.Sprint(i)) {
			t.Fatalf("key %s has several shards", key)
		}
	}
}

func TestTheOldestIsEvictedFirst(t *testing.T) {
	c := shard.New[int, int](2, nil) // one shard
	add(c, 1, 1)
	add(c, 2, 2)
	s := c.Shard(1)
	s.Lock()
	s.Get(1)
	s.Unlock()
	add(c, 3, 3)
	s.Lock()
	defer s.Unlock()
	if s.Contains(2) || !s.Contains(1) || !s.Contains(3) {
		t.Errorf("left are %v", s.Keys())
	}
}

func TestManyAtOnce(t *testing.T) {
	c := shard.New[int, int](256, nil)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				add(c, (i*7+g)%1000, i)
				if i%100 == 0 && c.Len() > 256 {
					t.Errorf("%d entries", c.Len())
				}
			}
		})
	}
	wg.Wait()
}

func TestAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	c := shard.New[string, int](1024, nil)
	add(c, "key", 1)
	if got := testing.AllocsPerRun(100, func() {
		s := c.Shard("key")
		s.Lock()
		s.Get("key")
		s.Unlock()
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkGet(b *testing.B) {
	c := shard.New[string, int](65536, nil)
	add(c, "key", 1)
	b.ReportAllocs()
	for b.Loop() {
		s := c.Shard("key")
		s.Lock()
		s.Get("key")
		s.Unlock()
	}
}
