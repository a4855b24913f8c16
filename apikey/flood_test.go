package apikey_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/race"
)

// occupied returns how many bytes the heap and the stacks of all goroutines take.
func occupied() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// While the store hangs, forged keys whose clients leave take no more than the
// documented number of lookups, and what their waiting line takes. A valid key in the
// cache does not wait for any of them.
func TestAFloodOfForgedKeysTakesBoundedResourcesAndDelaysNoCachedKey(t *testing.T) {
	const (
		batch      = 1000
		lasts      = 8 * time.Second // two timeouts, and less than the TTL of the valid key
		lookups    = 64              // at a time
		inLine     = 16 * lookups
		mostMemory = 32 << 20
	)
	for _, test := range []struct {
		name    string
		batches int
		hang    func(context.Context) error
	}{
		{"a store that ends with its context", 100, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		{"a store that ignores its context", 20, func(context.Context) error { time.Sleep(time.Hour); return nil }},
		{"a store that ends after its deadline", 20, func(context.Context) error { time.Sleep(3100 * time.Millisecond); return nil }},
	} {
		t.Run(test.name, func(t *testing.T) {
			batches := test.batches
			if race.Enabled {
				batches = 10
			}
			synctest.Test(t, func(t *testing.T) {
				var calls, running, together atomic.Int64
				s := newScripted(t, 0)
				_, valid := create(t, newManager(t, apikey.ManagerConfig{Store: s}), apikey.Key{})
				a := newAuthenticator(t, apikey.ManagerConfig{
					Store: newCache(t, apikey.CacheConfig{Store: silent{s}, OnError: func(context.Context, error) {}}),
				}, apikey.Config{LastUseInterval: -1, OnError: func(context.Context, error) {}})
				if _, err := a.Authenticate(request("X-API-Key", valid)); err != nil {
					t.Fatal(err)
				}
				s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
					calls.Add(1)
					for n := running.Add(1); n > together.Load(); {
						together.Store(n)
					}
					defer running.Add(-1)
					if err := test.hang(ctx); err != nil {
						return apikey.Record{}, err
					}
					return s.Store.Lookup(ctx, h)
				}
				goroutines, memory := runtime.NumGoroutine(), occupied()
				mostGoroutines, mostOccupied := 0, int64(0)
				for i := range batches {
					ctx, leave := context.WithCancel(t.Context())
					for range batch {
						r := request("X-API-Key", generate(t, native, "")).WithContext(ctx)
						go func() {
							if _, err := a.Authenticate(r); err == nil {
								t.Error("a forged key is accepted")
							}
						}()
					}
					synctest.Wait() // all of them wait for the store, or are refused
					start := time.Now()
					if _, err := a.Authenticate(request("X-API-Key", valid)); err != nil || time.Since(start) != 0 {
						t.Fatalf("the valid key, after %d forged ones: %v after %v", (i+1)*batch, err, time.Since(start))
					}
					leave()
					synctest.Wait()
					mostGoroutines = max(mostGoroutines, runtime.NumGoroutine()-goroutines)
					if i%10 == 5 {
						mostOccupied = max(mostOccupied, occupied()-memory)
					}
					time.Sleep(lasts / time.Duration(batches))
				}
				t.Logf("%d goroutines, %d KiB, %d calls, %d at a time", mostGoroutines, mostOccupied>>10, calls.Load(), together.Load())
				// A lookup that runs has two goroutines, and one that waits has one. Others may
				// not have ended quite yet.
				if most := 2*lookups + inLine + 100; mostGoroutines > most {
					t.Errorf("%d goroutines are left, want at most %d", mostGoroutines, most)
				}
				if mostOccupied > mostMemory && !race.Enabled {
					t.Errorf("%d bytes are occupied, want at most %d", mostOccupied, mostMemory)
				}
				if n := together.Load(); n > lookups {
					t.Errorf("%d calls of the store at a time, want at most %d", n, lookups)
				}
				// When the first lookups time out, those in line take their places once. From
				// then on the guard is open, and probes the store once a second.
				if n, most := calls.Load(), int64(2*lookups+10); n > most {
					t.Errorf("%d calls of the store, want at most %d", n, most)
				}
				time.Sleep(2 * time.Hour) // the calls that hang
			})
		})
	}
}
