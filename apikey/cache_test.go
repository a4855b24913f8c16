package apikey_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/apikey"
)

// A scripted store counts lookups, and lets a test hold, fail and watch them.
type scripted struct {
	apikey.Store
	lookups atomic.Int64
	// lookup, if not nil, is called in place of the store's Lookup, which it may call.
	lookup func(ctx context.Context, h apikey.Hash) (apikey.Record, error)
	revoke func() error
}

func (s *scripted) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	s.lookups.Add(1)
	if s.lookup != nil {
		return s.lookup(ctx, h)
	}
	return s.Store.Lookup(ctx, h)
}

func (s *scripted) Revoke(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
	r, err := s.Store.Revoke(ctx, owner, id, at)
	if s.revoke != nil {
		return apikey.Record{}, s.revoke()
	}
	return r, err
}

var at0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// record returns the record number i.
func record(i int) apikey.Record {
	r := apikey.Record{Key: apikey.Key{ID: fmt.Sprint("key", i), Owner: "ann", Name: "x", Revision: 1, CreatedAt: at0}}
	r.Hash[0] = 1
	binary.BigEndian.PutUint64(r.Hash[1:], uint64(i))
	return r
}

func newScripted(t testing.TB, keys int) *scripted {
	t.Helper()
	s := &scripted{Store: apikey.NewMemory()}
	for i := range keys {
		if err := s.Insert(t.Context(), record(i), apikey.Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func mustLookup(t testing.TB, s apikey.Store, r apikey.Record, revoked bool) {
	t.Helper()
	got, err := s.Lookup(t.Context(), r.Hash)
	if err != nil {
		t.Fatalf("Lookup: %v", err)
	}
	if got.RevokedAt.IsZero() == revoked {
		t.Fatalf("revoked at %v, want revoked %v", got.RevokedAt, revoked)
	}
}

func TestCacheReportsAllFaultsAtOnce(t *testing.T) {
	_, err := apikey.NewCache(apikey.CacheConfig{TTL: -1, NegativeTTL: -1, StoreTimeout: -1, Capacity: -1, NegativeCapacity: -1, MaxLookups: -1})
	if got := fieldsOf(err); len(got) != 7 {
		t.Errorf("faults %v, want 7", got)
	}
	cache := newCache(t, apikey.CacheConfig{Store: silent{apikey.NewMemory()}})
	if _, err := apikey.NewCache(apikey.CacheConfig{Store: cache}); err == nil {
		t.Error("a cache of a cache is accepted")
	}
}

func TestACacheCallsTheStoreOnceForEachTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, 1)
		c := newCache(t, apikey.CacheConfig{Store: s, TTL: 10 * time.Second, NegativeTTL: 5 * time.Second})
		steps := []struct {
			wait    time.Duration
			i       int
			lookups int64
		}{
			{0, 0, 1}, {0, 0, 1}, {10*time.Second - 1, 0, 1}, {1, 0, 2},
			{0, 7, 3}, {5*time.Second - 1, 7, 3}, {1, 7, 4},
		}
		for n, step := range steps {
			time.Sleep(step.wait)
			_, err := c.Lookup(t.Context(), record(step.i).Hash)
			if (err == nil) != (step.i == 0) || err != nil && !errors.Is(err, apikey.ErrNotFound) {
				t.Fatalf("step %d: %v", n, err)
			}
			if got := s.lookups.Load(); got != step.lookups {
				t.Errorf("step %d: %d lookups, want %d", n, got, step.lookups)
			}
		}
	})
}

// A key is as old as its lookup: a slow store does not lengthen the time for which a
// revoked key may be kept.
func TestTheTTLCountsFromTheStartOfTheLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, 1)
		s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
			r, err := s.Store.Lookup(ctx, h)
			time.Sleep(2 * time.Second)
			return r, err
		}
		c := newCache(t, apikey.CacheConfig{Store: s, TTL: 10 * time.Second})
		mustLookup(t, c, record(0), false)
		time.Sleep(8 * time.Second)
		mustLookup(t, c, record(0), false)
		if got := s.lookups.Load(); got != 2 {
			t.Errorf("%d lookups, want 2", got)
		}
	})
}

func TestARevocationThroughTheCacheTakesEffectAtOnce(t *testing.T) {
	s := newScripted(t, 1)
	c := newCache(t, apikey.CacheConfig{Store: s, TTL: time.Hour})
	mustLookup(t, c, record(0), false)
	if _, err := c.Revoke(t.Context(), "ann", "key0", at0); err != nil {
		t.Fatal(err)
	}
	mustLookup(t, c, record(0), true)
}

// The race itself: a lookup reads the key, the key is revoked, and only then
// does the lookup return.
func TestALateLookupNeverRestoresARevokedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, 1)
		read, resume := make(chan struct{}), make(chan struct{})
		s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
			r, err := s.Store.Lookup(ctx, h)
			if s.lookups.Load() == 1 {
				close(read)
				<-resume
			}
			return r, err
		}
		c := newCache(t, apikey.CacheConfig{Store: s, TTL: time.Hour, StoreTimeout: time.Minute})
		early := make(chan apikey.Record, 1)
		go func() {
			r, err := c.Lookup(t.Context(), record(0).Hash)
			if err != nil {
				t.Error(err)
			}
			early <- r
		}()
		<-read
		if _, err := c.Revoke(t.Context(), "ann", "key0", at0); err != nil {
			t.Fatal(err)
		}
		// While the old lookup still runs, no new caller may wait for it.
		mustLookup(t, c, record(0), true)
		close(resume)
		if r := <-early; !r.RevokedAt.IsZero() {
			t.Error("the early lookup did not race")
		}
		synctest.Wait()
		mustLookup(t, c, record(0), true)
		if got := s.lookups.Load(); got != 2 {
			t.Errorf("%d lookups, want 2: the revoked key is kept, and the late result is not", got)
		}
	})
}

// The same race, with a key that did not exist when it was looked up.
func TestLateMissDoesNotHideANewKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, 0)
		read, resume := make(chan struct{}), make(chan struct{})
		s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
			r, err := s.Store.Lookup(ctx, h)
			if s.lookups.Load() == 1 {
				close(read)
				<-resume
			}
			return r, err
		}
		c := newCache(t, apikey.CacheConfig{Store: s, NegativeTTL: time.Hour, StoreTimeout: time.Minute})
		go func() {
			if _, err := c.Lookup(t.Context(), record(0).Hash); !errors.Is(err, apikey.ErrNotFound) {
				t.Error(err)
			}
		}()
		<-read
		if err := c.Insert(t.Context(), record(0), apikey.Limits{}); err != nil {
			t.Fatal(err)
		}
		close(resume)
		synctest.Wait()
		mustLookup(t, c, record(0), false)
	})
}

// A revocation that fails may have happened all the same.
func TestARevocationOfUnknownOutcomeRemovesTheKey(t *testing.T) {
	s := newScripted(t, 2)
	down := errors.New("connection lost")
	s.revoke = func() error { return down }
	c := newCache(t, apikey.CacheConfig{Store: s, TTL: time.Hour})
	mustLookup(t, c, record(0), false)
	mustLookup(t, c, record(1), false)
	if _, err := c.Revoke(t.Context(), "ann", "key0", at0); !errors.Is(err, down) {
		t.Fatal(err)
	}
	mustLookup(t, c, record(0), true)
	if _, err := c.Revoke(t.Context(), "bob", "key1", at0); !errors.Is(err, down) {
		t.Fatal(err)
	}
	mustLookup(t, c, record(1), false)
	if got := s.lookups.Load(); got != 3 {
		t.Errorf("%d lookups, want 3: another owner cannot remove a key from the cache", got)
	}
}

func TestCallsForOneKeyShareALookupThatOutlivesTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, 1)
		s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return apikey.Record{}, ctx.Err()
			}
			return s.Store.Lookup(ctx, h)
		}
		c := newCache(t, apikey.CacheConfig{Store: s})
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Lookup(first, record(0).Hash); !errors.Is(err, context.Canceled) {
				t.Errorf("the caller that left: %v", err)
			}
		})
		synctest.Wait()
		for range 50 {
			wg.Go(func() {
				if _, err := c.Lookup(t.Context(), record(0).Hash); err != nil {
					t.Errorf("a caller that waits: %v", err)
				}
			})
		}
		synctest.Wait()
		cancel()
		wg.Wait()
		if got := s.lookups.Load(); got != 1 {
			t.Errorf("%d lookups, want 1", got)
		}
	})
}

func TestStoreThatHangsHoldsNobodyLongerThanItsTimeout(t *testing.T) {
	for name, obeys := range map[string]bool{"and obeys its context": true, "and does not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(t, 1)
				s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
					if obeys {
						<-ctx.Done()
						return apikey.Record{}, ctx.Err()
					}
					time.Sleep(time.Hour)
					return s.Store.Lookup(context.Background(), h)
				}
				c := newCache(t, apikey.CacheConfig{Store: s, StoreTimeout: 3 * time.Second})
				start := time.Now()
				if _, err := c.Lookup(t.Context(), record(0).Hash); err == nil || errors.Is(err, apikey.ErrNotFound) {
					t.Error(err)
				}
				if got := time.Since(start); got != 3*time.Second {
					t.Errorf("it took %v", got)
				}
				time.Sleep(2 * time.Hour)
				if keys, unknown := c.Kept(); keys != 0 || unknown != 0 {
					t.Errorf("a result that came too late is kept: %d, %d", keys, unknown)
				}
			})
		})
	}
}

func TestErrorsAndPanicsAreNotKept(t *testing.T) {
	s := newScripted(t, 1)
	c := newCache(t, apikey.CacheConfig{Store: s})
	down := errors.New("down")
	s.lookup = func(context.Context, apikey.Hash) (apikey.Record, error) { return apikey.Record{}, down }
	if _, err := c.Lookup(t.Context(), record(0).Hash); !errors.Is(err, down) {
		t.Error(err)
	}
	s.lookup = func(context.Context, apikey.Hash) (apikey.Record, error) { panic("oops") }
	if _, err := c.Lookup(t.Context(), record(0).Hash); err == nil || !strings.Contains(err.Error(), "oops") {
		t.Error(err)
	}
	s.lookup = nil
	mustLookup(t, c, record(0), false)
}

func TestAStoreThatFailsLeavesKeysInTheCacheUntilTheirTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, 1)
		c := newCache(t, apikey.CacheConfig{Store: s, TTL: 10 * time.Second})
		mustLookup(t, c, record(0), false)
		down := errors.New("down")
		s.lookup = func(context.Context, apikey.Hash) (apikey.Record, error) { return apikey.Record{}, down }
		time.Sleep(10*time.Second - 1)
		mustLookup(t, c, record(0), false)
		time.Sleep(time.Nanosecond)
		if _, err := c.Lookup(t.Context(), record(0).Hash); !errors.Is(err, down) {
			t.Error(err)
		}
	})
}

func TestFloodOfLookupsTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, 0)
		var now, most atomic.Int64
		s.lookup = func(context.Context, apikey.Hash) (apikey.Record, error) {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			return apikey.Record{}, apikey.ErrNotFound
		}
		c := newCache(t, apikey.CacheConfig{Store: s, MaxLookups: 4, StoreTimeout: 3 * time.Second})
		var wg sync.WaitGroup
		var unknown, late atomic.Int64
		for i := range 40 {
			wg.Go(func() {
				if _, err := c.Lookup(t.Context(), record(i).Hash); errors.Is(err, apikey.ErrNotFound) {
					unknown.Add(1)
				} else if err != nil {
					late.Add(1)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute) // for the lookups whose callers have given up
		if most.Load() > 4 || unknown.Load()+late.Load() != 40 || unknown.Load() < 8 {
			t.Errorf("%d at once, %d had a result, %d had none", most.Load(), unknown.Load(), late.Load())
		}
	})
}

// However many keys are invented, memory is bounded and valid keys are kept.
func TestInventedKeysDisplaceNoValidOne(t *testing.T) {
	const invented = 200_000
	s := newScripted(t, 100)
	c := newCache(t, apikey.CacheConfig{Store: s, TTL: time.Hour, NegativeTTL: time.Hour, Capacity: 1 << 12, NegativeCapacity: 1 << 12})
	for i := range 100 {
		mustLookup(t, c, record(i), false)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range invented {
		if _, err := c.Lookup(t.Context(), record(1000+i).Hash); !errors.Is(err, apikey.ErrNotFound) {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	// All of them would take about 40 MB.
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	asked := s.lookups.Load()
	for i := range 100 {
		mustLookup(t, c, record(i), false)
	}
	if got := s.lookups.Load(); got != asked {
		t.Errorf("%d of 100 valid keys were displaced", got-asked)
	}
	if _, unknown := c.Kept(); unknown > 1<<12 {
		t.Errorf("%d unknown hashes are kept", unknown)
	}
}

// Several nodes, each with a cache, and one store that notifies them of changes.
func TestNoticesRemoveAKeyFromEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := apikey.NewMemory()
		if err := store.Insert(t.Context(), record(0), apikey.Limits{}); err != nil {
			t.Fatal(err)
		}
		var nodes [3]*apikey.Cache
		for i := range nodes {
			nodes[i] = newCache(t, apikey.CacheConfig{Store: store, TTL: time.Hour})
		}
		synctest.Wait() // for the watches
		for _, c := range nodes {
			mustLookup(t, c, record(0), false)
			if keys, _ := c.Kept(); keys != 1 {
				t.Fatalf("%d keys are kept", keys)
			}
		}
		if _, err := nodes[0].Revoke(t.Context(), "ann", "key0", at0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // for the notices
		for _, c := range nodes {
			mustLookup(t, c, record(0), true)
		}
	})
}

// A fragile store is a Notifier until the test breaks its watch.
type fragile struct {
	apikey.Store
	broken chan error
	back   chan struct{}
	panics bool
}

func (f *fragile) Watch(ctx context.Context, ready func(), _ func(apikey.Hash)) error {
	select {
	case <-f.back:
	case <-ctx.Done():
		return ctx.Err()
	}
	ready()
	select {
	case err := <-f.broken:
		if f.panics {
			panic(err)
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestWithoutNoticesNothingIsKept(t *testing.T) {
	for name, panics := range map[string]bool{"error": false, "panic": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(t, 1)
				f := &fragile{Store: s, broken: make(chan error), back: make(chan struct{}), panics: panics}
				var reported []error
				c := newCache(t, apikey.CacheConfig{Store: f, TTL: time.Hour, OnError: func(_ context.Context, err error) { reported = append(reported, err) }})
				kept := func(when string, want int) {
					t.Helper()
					synctest.Wait()
					mustLookup(t, c, record(0), false)
					if keys, _ := c.Kept(); keys != want {
						t.Errorf("%s: %d keys are kept, want %d", when, keys, want)
					}
				}
				kept("before the first watch", 0)
				f.back <- struct{}{}
				kept("while watching", 1)
				lost := errors.New("lost")
				f.broken <- lost
				kept("when the watch is lost", 0)
				if len(reported) != 1 || !panics && !errors.Is(reported[0], lost) {
					t.Errorf("reported %v", reported)
				}
				f.back <- struct{}{}
				kept("when it is back", 1)
			})
		})
	}
}

func TestAClosedCacheStillPassesCallsOn(t *testing.T) {
	s := newScripted(t, 1)
	c, err := apikey.NewCache(apikey.CacheConfig{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	mustLookup(t, c, record(0), false)
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		mustLookup(t, c, record(0), false)
		if keys, _ := c.Kept(); keys != 0 {
			t.Errorf("%d keys are kept", keys)
		}
	}
}

// All methods run concurrently, for the race detector and to test one rule: a lookup that
// begins after Revoke has returned sees the revocation.
func TestARevocationTakesEffectUnderLoad(t *testing.T) {
	const keys = 40
	s := newScripted(t, keys)
	c := newCache(t, apikey.CacheConfig{Store: s})
	var revoked [keys]atomic.Bool
	done := make(chan struct{})
	var readers, writers sync.WaitGroup
	for g := range 4 {
		readers.Go(func() {
			for i := g; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				k := i % keys
				must := revoked[k].Load()
				r, err := c.Lookup(context.Background(), record(k).Hash)
				if err != nil || must && r.RevokedAt.IsZero() {
					t.Errorf("key %d: %+v, %v", k, r, err)
					return
				}
			}
		})
	}
	for i := range keys {
		writers.Go(func() {
			if _, err := c.Revoke(context.Background(), "ann", record(i).ID, at0); err != nil {
				t.Error(err)
			}
			revoked[i].Store(true)
		})
		runtime.Gosched()
	}
	writers.Wait()
	close(done)
	readers.Wait()
}
