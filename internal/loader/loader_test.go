package loader_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/loader"
	"github.com/usher-go/usher/internal/race"
)

const (
	ttl         = 10 * time.Second
	negativeTTL = 5 * time.Second
	timeout     = 3 * time.Second
)

// lifetime treats a value below 0 as negative, and keeps no value of 1,000 or more.
func lifetime(v int) (time.Duration, bool) {
	switch {
	case v < 0:
		return negativeTTL, true
	case v >= 1000:
		return 0, false
	default:
		return ttl, false
	}
}

func newCache(capacity, negativeCapacity int) *loader.Cache[int, int] {
	return loader.New[int](loader.Config[int]{
		Lifetime: lifetime, Capacity: capacity, NegativeCapacity: negativeCapacity,
		Timeout: timeout, MaxFetches: 4,
	})
}

// A source responds with its values, after some time, and counts its fetches.
type source struct {
	mu      sync.Mutex
	values  map[int]int
	takes   time.Duration
	fetches atomic.Int64
}

func (s *source) set(k, v int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = make(map[int]int)
	}
	s.values[k] = v
}

func (s *source) get(k int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.values[k]
}

// fetch reads the value at once, and returns it later.
func (s *source) fetch(k int) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		s.fetches.Add(1)
		v := s.get(k)
		if s.takes > 0 {
			time.Sleep(s.takes)
		}
		return v, nil
	}
}

// get does what users of the cache do: it calls Cached, and then Load.
func get(ctx context.Context, c *loader.Cache[int, int], k int, fetch func(context.Context) (int, error)) (int, error) {
	if v, ok := c.Cached(k, time.Now()); ok {
		return v, nil
	}
	return c.Load(ctx, k, fetch)
}

func wantValue(t *testing.T, c *loader.Cache[int, int], s *source, k, want int) {
	t.Helper()
	if v, err := get(t.Context(), c, k, s.fetch(k)); err != nil || v != want {
		t.Errorf("key %d: %d, %v, want %d", k, v, err, want)
	}
}

func wantFetches(t *testing.T, s *source, want int64) {
	t.Helper()
	if got := s.fetches.Load(); got != want {
		t.Errorf("%d fetches, want %d", got, want)
	}
}

func TestAValueIsFetchedOnceForEachTTL(t *testing.T) {
	for name, test := range map[string]struct {
		value int
		ttl   time.Duration
	}{
		"a value":          {7, ttl},
		"a negative value": {-7, negativeTTL},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := newCache(64, 64), new(source)
				s.set(1, test.value)
				wantValue(t, c, s, 1, test.value)
				time.Sleep(test.ttl - 1)
				wantValue(t, c, s, 1, test.value)
				wantFetches(t, s, 1)
				time.Sleep(time.Nanosecond)
				wantValue(t, c, s, 1, test.value)
				wantFetches(t, s, 2)
			})
		})
	}
}

// A slow source does not lengthen the time for which its value is kept.
func TestATTLCountsFromTheBeginningOfTheFetch(t *testing.T) {
	for value, ttl := range map[int]time.Duration{7: ttl, -1: negativeTTL} {
		synctest.Test(t, func(t *testing.T) {
			c, s := newCache(64, 64), &source{takes: 2 * time.Second}
			s.set(1, value)
			wantValue(t, c, s, 1, value)
			time.Sleep(ttl - s.takes - 1)
			if _, ok := c.Cached(1, time.Now()); !ok {
				t.Errorf("%d is not kept for its TTL", value)
			}
			if _, ok := c.Cached(1, time.Now().Add(1)); ok {
				t.Errorf("%d is kept for longer than its TTL", value)
			}
		})
	}
}

func TestAKeyThatAppearsReplacesItsNegativeValueAndViceVersa(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(64, 64), new(source)
		for i, v := range []int{-1, 7, -1, 8} {
			s.set(1, v)
			wantValue(t, c, s, 1, v)
			values, negatives := c.Len()
			if values+negatives != 1 || (negatives == 1) != (v < 0) {
				t.Errorf("step %d: %d values and %d negative ones are kept", i, values, negatives)
			}
			time.Sleep(ttl)
		}
	})
}

func TestAValueWithoutATTLIsNotKept(t *testing.T) {
	c, s := newCache(64, 64), new(source)
	s.set(1, 1000)
	wantValue(t, c, s, 1, 1000)
	wantValue(t, c, s, 1, 1000)
	wantFetches(t, s, 2)
	if values, _ := c.Len(); values != 0 {
		t.Errorf("%d values are kept", values)
	}
}

func TestWithoutCapacityFetchesAreSharedAndNothingIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(0, 0), &source{takes: time.Second}
		s.set(1, 7)
		var callers sync.WaitGroup
		for range 10 {
			callers.Go(func() { wantValue(t, c, s, 1, 7) })
		}
		callers.Wait()
		wantFetches(t, s, 1)
		c.Resume()
		wantValue(t, c, s, 1, 7)
		wantFetches(t, s, 2)
		if values, negatives := c.Len(); values+negatives != 0 {
			t.Errorf("%d values and %d negative ones are kept", values, negatives)
		}
	})
}

func TestCallersShareAFetchThatOutlivesTheFirstOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		c, s := newCache(64, 64), &source{takes: time.Second}
		s.set(1, 7)
		first, leave := context.WithCancelCause(context.WithValue(t.Context(), key{}, "of the first"))
		gone := errors.New("gone")
		var callers sync.WaitGroup
		callers.Go(func() {
			_, err := c.Load(first, 1, func(ctx context.Context) (int, error) {
				v, _ := s.fetch(1)(ctx)
				if ctx.Err() != nil || ctx.Value(key{}) != "of the first" {
					t.Errorf("the context of the fetch: %v, with the value %v", ctx.Err(), ctx.Value(key{}))
				}
				return v, nil
			})
			if !errors.Is(err, gone) {
				t.Errorf("the caller that left: %v", err)
			}
		})
		synctest.Wait()
		for range 50 {
			callers.Go(func() { wantValue(t, c, s, 1, 7) })
		}
		synctest.Wait()
		leave(gone)
		callers.Wait()
		wantFetches(t, s, 1)
	})
}

func TestACallerWhoseContextHasEndedFetchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(64, 64), new(source)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Load(ctx, 1, s.fetch(1)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		synctest.Wait()
		wantFetches(t, s, 0)
	})
}

// A caller that called Cached just before another caller's fetch ended must not begin a
// second fetch.
func TestLoadReturnsWhatIsKeptByThen(t *testing.T) {
	for _, want := range []int{7, -7} {
		c, s := newCache(64, 64), new(source)
		s.set(1, want)
		for range 2 {
			if v, err := c.Load(t.Context(), 1, s.fetch(1)); err != nil || v != want {
				t.Errorf("got %d, %v", v, err)
			}
		}
		wantFetches(t, s, 1)
	}
}

// changes are the ways in which a value that was read from the source becomes outdated.
var changes = map[string]func(c *loader.Cache[int, int], k int){
	"Forget":     func(c *loader.Cache[int, int], k int) { c.Forget(k) },
	"ForgetFunc": func(c *loader.Cache[int, int], _ int) { c.ForgetFunc(func(int) bool { return true }) },
	"Resume":     func(c *loader.Cache[int, int], _ int) { c.Resume() },
}

// The race: a fetch reads the value, the value changes, and only then does the fetch
// return.
func TestAFetchThatBeganBeforeAChangeFillsNothing(t *testing.T) {
	for name, change := range changes {
		for _, old := range []int{1, -1} {
			t.Run(fmt.Sprintf("%s of %d", name, old), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, s := newCache(64, 64), &source{takes: 2 * time.Second}
					s.set(1, old)
					early := make(chan int, 1)
					go func() { v, _ := get(t.Context(), c, 1, s.fetch(1)); early <- v }()
					time.Sleep(time.Second)
					s.set(1, 2)
					change(c, 1)
					// The old fetch still runs, but no new caller may wait for it.
					wantValue(t, c, s, 1, 2)
					if v := <-early; v != old {
						t.Errorf("the caller that was waiting got %d: the fetch did not race", v)
					}
					synctest.Wait()
					wantValue(t, c, s, 1, 2)
					wantFetches(t, s, 2)
				})
			})
		}
	}
}

func TestAChangeRemovesWhatIsKept(t *testing.T) {
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			c, s := newCache(64, 64), new(source)
			s.set(1, 1)
			wantValue(t, c, s, 1, 1)
			s.set(1, 2)
			change(c, 1)
			wantValue(t, c, s, 1, 2)
			wantValue(t, c, s, 1, 2)
			wantFetches(t, s, 2)
		})
	}
}

func TestForgetSparesOtherKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(64, 64), &source{takes: time.Second} // one shard
		wantValue(t, c, s, 1, 0)
		var caller sync.WaitGroup
		caller.Go(func() { wantValue(t, c, s, 2, 0) })
		synctest.Wait()
		c.Forget(3)
		caller.Wait()
		wantValue(t, c, s, 1, 0)
		wantValue(t, c, s, 2, 0)
		wantFetches(t, s, 2)
	})
}

func TestForgetFuncRemovesWhatMatches(t *testing.T) {
	c, s := newCache(1<<12, 64), new(source)
	for k := range 100 {
		s.set(k, k)
		wantValue(t, c, s, k, k)
	}
	c.ForgetFunc(func(v int) bool { return v%2 == 0 })
	for k := range 100 {
		if _, ok := c.Cached(k, time.Now()); ok != (k%2 == 1) {
			t.Errorf("key %d is kept: %t", k, ok)
		}
	}
}

func TestNothingIsKeptWhileSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(64, 64), &source{takes: time.Second}
		s.set(2, -1)
		for _, k := range []int{1, 2} {
			wantValue(t, c, s, k, s.get(k))
		}
		c.Suspend()
		for range 2 {
			for _, k := range []int{1, 2} {
				wantValue(t, c, s, k, s.get(k))
			}
		}
		wantFetches(t, s, 6)

		var caller sync.WaitGroup
		caller.Go(func() { wantValue(t, c, s, 1, 0) })
		synctest.Wait()
		c.Resume() // the fetch began while a change could be missed
		caller.Wait()
		if values, _ := c.Len(); values != 0 {
			t.Error("a fetch that began before Resume has filled the cache")
		}
		wantValue(t, c, s, 1, 0)
		wantValue(t, c, s, 1, 0)
		wantFetches(t, s, 8)
	})
}

// Kept and Dropped report at each moment which values the cache keeps: none stays with a
// caller that the cache has lost, and none is dropped twice.
func TestKeptAndDroppedReportWhatIsKept(t *testing.T) {
	type cache = *loader.Cache[int, int]
	for name, test := range map[string]struct {
		change func(t *testing.T, c cache, s *source)
		kept   []int // of the values 11 and 12, and those that change adds
	}{
		"nothing":          {func(*testing.T, cache, *source) {}, []int{11, 12}},
		"the end of a TTL": {func(*testing.T, cache, *source) { time.Sleep(ttl + 1) }, []int{11, 12}},
		"a replacement": {func(t *testing.T, c cache, s *source) {
			time.Sleep(ttl)
			s.set(1, 21)
			wantValue(t, c, s, 1, 21)
		}, []int{12, 21}},
		"a replacement by an equal value": {func(t *testing.T, c cache, s *source) {
			time.Sleep(ttl)
			wantValue(t, c, s, 1, 11)
		}, []int{11, 12}},
		"a replacement by a negative value": {func(t *testing.T, c cache, s *source) {
			time.Sleep(ttl)
			s.set(1, -1)
			wantValue(t, c, s, 1, -1)
		}, []int{12}},
		"a negative value": {func(t *testing.T, c cache, s *source) {
			s.set(3, -1)
			wantValue(t, c, s, 3, -1)
		}, []int{11, 12}},
		"a value in place of a negative one": {func(t *testing.T, c cache, s *source) {
			c.Forget(2)
			s.set(2, -1)
			wantValue(t, c, s, 2, -1)
			time.Sleep(negativeTTL)
			s.set(2, 22)
			wantValue(t, c, s, 2, 22)
		}, []int{11, 22}},
		"an eviction": {func(t *testing.T, c cache, s *source) {
			s.set(3, 13)
			wantValue(t, c, s, 3, 13)
		}, []int{12, 13}},
		"Forget":     {func(_ *testing.T, c cache, _ *source) { c.Forget(1); c.Forget(1) }, []int{12}},
		"ForgetFunc": {func(_ *testing.T, c cache, _ *source) { c.ForgetFunc(func(v int) bool { return v == 12 }) }, []int{11}},
		"Suspend":    {func(_ *testing.T, c cache, _ *source) { c.Suspend() }, nil},
		"a Load while suspended": {func(t *testing.T, c cache, s *source) {
			c.Suspend()
			wantValue(t, c, s, 1, 11)
		}, nil},
		"Resume": {func(_ *testing.T, c cache, _ *source) { c.Resume() }, nil},
		"a Load after Resume": {func(t *testing.T, c cache, s *source) {
			c.Suspend()
			c.Resume()
			wantValue(t, c, s, 1, 11)
		}, []int{11}},
		"a value without a TTL": {func(t *testing.T, c cache, s *source) {
			s.set(3, 1000)
			wantValue(t, c, s, 3, 1000)
		}, []int{11, 12}},
		"an error of the source": {func(t *testing.T, c cache, _ *source) {
			time.Sleep(ttl)
			if _, err := c.Load(t.Context(), 1, func(context.Context) (int, error) { return 0, errors.New("down") }); err == nil {
				t.Error("no error")
			}
		}, []int{11, 12}},
		"Forget during a fetch": {func(t *testing.T, c cache, s *source) {
			if _, err := c.Load(t.Context(), 3, func(context.Context) (int, error) { c.Forget(3); return 13, nil }); err != nil {
				t.Error(err)
			}
		}, []int{11, 12}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				counted := map[int]int{}
				s := new(source)
				c := loader.New[int](loader.Config[int]{
					Lifetime: lifetime, Capacity: 2, NegativeCapacity: 2, Timeout: timeout, MaxFetches: 4,
					Kept: func(v int, until time.Time) {
						if v < 0 || !until.Equal(time.Now().Add(ttl)) {
							t.Errorf("%d is kept until %v, at %v", v, until, time.Now())
						}
						counted[v]++
					},
					Dropped: func(v int) {
						if counted[v]--; counted[v] == 0 {
							delete(counted, v)
						}
					},
				})
				for k := 1; k <= 2; k++ {
					s.set(k, 10+k)
					wantValue(t, c, s, k, 10+k)
				}
				test.change(t, c, s)
				want := map[int]int{}
				for _, v := range test.kept {
					want[v] = 1
				}
				if !maps.Equal(counted, want) {
					t.Errorf("counted are %v, want %v", counted, want)
				}
				if values, _ := c.Len(); values != len(want) {
					t.Errorf("%d values are kept, want %d", values, len(want))
				}
			})
		})
	}
}

func TestErrorsAndPanicsAreNotKept(t *testing.T) {
	c, s := newCache(64, 64), new(source)
	down := errors.New("down")
	if _, err := c.Load(t.Context(), 1, func(context.Context) (int, error) { return 5, down }); !errors.Is(err, down) {
		t.Error(err)
	}
	_, err := c.Load(t.Context(), 1, func(context.Context) (int, error) { panic("oops") })
	if _, ok := errors.AsType[*guard.PanicError](err); !ok || !strings.Contains(err.Error(), "oops") {
		t.Error(err)
	}
	s.set(1, 7)
	wantValue(t, c, s, 1, 7)
}

// While the source fails, a value stays until its TTL ends, and no longer.
func TestAnErrorDoesNotProlongAValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(64, 64), new(source)
		s.set(1, 7)
		wantValue(t, c, s, 1, 7)
		down := errors.New("down")
		fail := func(context.Context) (int, error) { return 0, down }
		time.Sleep(ttl - 1)
		if v, err := get(t.Context(), c, 1, fail); v != 7 || err != nil {
			t.Errorf("got %d, %v", v, err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := get(t.Context(), c, 1, fail); !errors.Is(err, down) {
			t.Error(err)
		}
	})
}

// A value that Stale returns in place of an error is kept like a fetched one.
func TestAStaleValueTakesThePlaceOfAnError(t *testing.T) {
	errDown, errOld := errors.New("down"), errors.New("too old")
	for name, fetch := range map[string]func(context.Context) (int, error){
		"an error": func(context.Context) (int, error) { return 0, errDown },
		"a panic":  func(context.Context) (int, error) { panic("down") },
		"a hang":   func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, context.Cause(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				c := loader.New[int](loader.Config[int]{
					Lifetime: lifetime, Capacity: 4, NegativeCapacity: 4, Timeout: timeout, MaxFetches: 4,
					Stale: func(_ context.Context, last int, err error) (int, error) {
						calls++
						if err == nil || last == 9 {
							return last, errOld
						}
						return last + 1, nil
					},
				})
				if _, err := get(t.Context(), c, 1, fetch); err == nil || calls != 0 {
					t.Errorf("without a last value: %v, and %d calls of Stale", err, calls)
				}
				s := new(source)
				s.set(1, 7)
				s.set(2, -7)
				wantValue(t, c, s, 1, 7)
				wantValue(t, c, s, 2, -7)
				for _, want := range []int{8, 9} {
					time.Sleep(ttl)
					for range 3 {
						if v, err := get(t.Context(), c, 1, fetch); v != want || err != nil {
							t.Errorf("%d, %v, want %d", v, err, want)
						}
					}
				}
				time.Sleep(ttl)
				if _, err := get(t.Context(), c, 1, fetch); !errors.Is(err, errOld) || calls != 3 {
					t.Errorf("%v after %d calls of Stale, want the error of the third", err, calls)
				}
				if _, err := get(t.Context(), c, 2, fetch); err == nil || calls != 3 {
					t.Errorf("a negative value: %v, and %d calls of Stale", err, calls)
				}
				s.set(1, 5)
				wantValue(t, c, s, 1, 5)
			})
		})
	}
}

func TestASourceThatHangsHoldsNobodyLongerThanTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(64, 64), &source{takes: time.Hour}
		start := time.Now()
		_, err := c.Load(t.Context(), 1, s.fetch(1))
		if took := time.Since(start); !errors.Is(err, guard.ErrTimeout) || took != timeout {
			t.Errorf("%v after %v", err, took)
		}
		time.Sleep(2 * time.Hour)
		if values, negatives := c.Len(); values+negatives != 0 {
			t.Error("a value that came too late is kept")
		}
	})
}

// Invented keys wait in a bounded queue of their own.
func TestAFloodOfNewKeysIsBoundedAndDelaysNoKnownKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(1<<10, 1<<10), new(source)
		wantValue(t, c, s, 1, 0)
		time.Sleep(ttl) // the key is known, and its value too old

		var running, most atomic.Int64
		busy := make(chan struct{})
		var refused atomic.Int64
		var flood sync.WaitGroup
		for k := range 200 {
			flood.Go(func() {
				_, err := c.Load(t.Context(), 1000+k, func(context.Context) (int, error) {
					most.Store(max(most.Load(), running.Add(1)))
					defer running.Add(-1)
					<-busy
					return 0, nil
				})
				if errors.Is(err, guard.ErrBusy) {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		if most.Load() != 4 || refused.Load() != 200-4-16*4 {
			t.Errorf("%d fetches ran and %d were refused at once", most.Load(), refused.Load())
		}
		start := time.Now()
		wantValue(t, c, s, 1, 0)
		if took := time.Since(start); took != 0 {
			t.Errorf("a known key waited for %v", took)
		}
		close(busy)
		flood.Wait()
	})
}

func TestNegativeValuesAreBoundedAndDisplaceNoOther(t *testing.T) {
	c, s := newCache(1<<10, 128), new(source)
	for k := range 100 {
		wantValue(t, c, s, k, 0)
	}
	for k := range 5000 {
		s.set(1000+k, -1)
		wantValue(t, c, s, 1000+k, -1)
	}
	fetches := s.fetches.Load()
	for k := range 100 {
		wantValue(t, c, s, k, 0)
	}
	wantFetches(t, s, fetches)
	if values, negatives := c.Len(); values != 100 || negatives > 128 {
		t.Errorf("%d values and %d negative ones are kept", values, negatives)
	}
}

func TestAllocCached(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	c, s := newCache(64, 64), new(source)
	s.set(2, -1)
	for k := range 3 {
		wantValue(t, c, s, k, s.get(k))
	}
	now := time.Now()
	for k := range 4 {
		if n := testing.AllocsPerRun(100, func() { c.Cached(k, now) }); n != 0 {
			t.Errorf("key %d: %v allocations", k, n)
		}
	}
}

// A caller that asks after Forget has returned never gets an older value. A schedule is
// an order of reads, changes and returns of fetches.
func FuzzGenerations(f *testing.F) {
	f.Add([]byte{0, 2, 1, 0, 3})
	f.Add([]byte{0, 4, 0, 8, 3, 1, 2, 0})
	f.Fuzz(func(t *testing.T, schedule []byte) {
		schedule = schedule[:min(len(schedule), 64)]
		synctest.Test(t, func(t *testing.T) {
			const keys = 3
			c := loader.New[int](loader.Config[int]{
				Lifetime: func(v int) (time.Duration, bool) { return time.Hour, v%2 == 1 },
				Capacity: 64, NegativeCapacity: 64, Timeout: time.Hour, MaxFetches: 64,
			})
			var current [keys]atomic.Int64
			var fetching []chan struct{} // each ends one fetch
			var callers sync.WaitGroup
			for _, step := range schedule {
				k := int(step>>2) % keys
				switch step % 4 {
				case 0: // a caller asks, and its fetch reads the value and returns later
					least := int(current[k].Load())
					end := make(chan struct{})
					fetching = append(fetching, end)
					callers.Go(func() {
						v, err := get(t.Context(), c, k, func(context.Context) (int, error) {
							v := int(current[k].Load())
							<-end
							return v, nil
						})
						if err != nil || v < least {
							t.Errorf("key %d: version %d, %v, want at least %d", k, v, err, least)
						}
					})
				case 1: // the oldest fetch returns
					if len(fetching) > 0 {
						close(fetching[0])
						fetching = fetching[1:]
					}
				case 2: // the latest fetch returns
					if n := len(fetching); n > 0 {
						close(fetching[n-1])
						fetching = fetching[:n-1]
					}
				case 3:
					current[k].Add(1)
					switch {
					case step>>6 == 0 && current[k].Load()%2 == 1: // no negative value is kept
						c.ForgetFunc(func(v int) bool { return v < int(current[k].Load()) })
					case step>>6 == 1:
						c.Resume()
					default:
						c.Forget(k)
					}
				}
				synctest.Wait()
			}
			for _, end := range fetching {
				close(end)
			}
			callers.Wait()
			for k := range keys {
				if v, ok := c.Cached(k, time.Now()); ok && v != int(current[k].Load()) {
					t.Errorf("key %d: version %d is kept, and %d is current", k, v, current[k].Load())
				}
			}
		})
	})
}

// The same test with real parallelism, for the race detector.
func TestNoCallerGetsAValueFromBeforeAChange(t *testing.T) {
	const keys, versions = 8, 200
	c := newCache(64, 64)
	// A version is published once Forget has returned.
	var current, published [keys]atomic.Int64
	done := make(chan struct{})
	var readers, writers sync.WaitGroup
	for r := range 4 {
		readers.Go(func() {
			for i := r; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				k := i % keys
				least := published[k].Load()
				v, err := get(t.Context(), c, k, func(context.Context) (int, error) { return int(current[k].Load()), nil })
				if err != nil || int64(v) < least {
					t.Errorf("key %d: version %d, %v, want at least %d", k, v, err, least)
					return
				}
			}
		})
	}
	for k := range keys {
		writers.Go(func() {
			for range versions {
				v := current[k].Add(1)
				c.Forget(k)
				published[k].Store(v)
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
}
