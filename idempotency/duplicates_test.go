package idempotency_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/race"
)

var soak = os.Getenv("USHER_SOAK") != ""

// nodes returns n middlewares over one store, like those of n processes, around one
// handler.
func nodes(tb testing.TB, n int, c idempotency.Config, next http.Handler) []http.Handler {
	tb.Helper()
	if c.Store == nil {
		c.Store = newMemory(tb, idempotency.MemoryConfig{})
	}
	var all []http.Handler
	for range n {
		all = append(all, newMiddleware(tb, c).Wrap(next))
	}
	return all
}

// slow returns a handler that responds after 50 ms, each time differently.
func slow(executions *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := executions.Add(1)
		time.Sleep(50 * time.Millisecond)
		w.Header().Set("Location", fmt.Sprint("/orders/", n))
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "order %d", n)
	})
}

// T1, P04: of any number of simultaneous duplicates, one runs.
func TestDuplicateRequestsRunOnce(t *testing.T) {
	runs, most, few := 1, 10_000, 1_000
	if race.Enabled {
		most, few = 5_000, 500 // it can watch about 8,000 goroutines
	}
	if soak {
		few = most
		if !race.Enabled {
			runs = 100
		}
	}
	inMemory := func(t *testing.T) idempotency.Store { return newMemory(t, idempotency.MemoryConfig{}) }
	mayFail := func(t *testing.T) idempotency.Store { return newHookedStore(t) }
	for _, c := range []struct {
		name       string
		nodes      int
		wait       time.Duration
		duplicates int
		store      func(*testing.T) idempotency.Store
	}{
		{"on one node", 1, idempotency.NoWait, few, inMemory},
		{"on three nodes over one store", 3, idempotency.NoWait, most, inMemory},
		{"on three nodes over a store that may fail", 3, idempotency.NoWait, few, mayFail},
		{"on one node, waiting for the first", 1, 0, few, inMemory},
		{"on three nodes, waiting for the first", 3, 0, few, inMemory},
		{"on three nodes over a store that may fail, waiting for the first", 3, 0, most, mayFail},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range runs {
				synctest.Test(t, func(t *testing.T) {
					var executions atomic.Int64
					all := nodes(t, c.nodes, idempotency.Config{Store: c.store(t), Wait: c.wait, MaxWaiters: 10 * c.duplicates}, slow(&executions))
					responses := make([]*httptest.ResponseRecorder, c.duplicates)
					var wg sync.WaitGroup
					for i := range c.duplicates {
						wg.Go(func() {
							// Some arrive while the first is in flight, others after it.
							time.Sleep(time.Duration(i%100) * time.Millisecond)
							responses[i] = do(all[i%len(all)], post("/orders", "body"))
						})
					}
					wg.Wait()
					if n := executions.Load(); n != 1 {
						t.Errorf("%d executions, want 1", n)
					}
					checkDuplicates(t, responses, c.wait >= 0)
				})
			}
		})
	}
}

// checkDuplicates fails the test unless one response is the first and all others are
// identical replays, or conflicts with Retry-After.
func checkDuplicates(t *testing.T, responses []*httptest.ResponseRecorder, noConflicts bool) {
	t.Helper()
	firsts, replays, conflicts := 0, 0, 0
	for _, w := range responses {
		switch {
		case w.Code == 409 && w.Header().Get("Retry-After") == "30" && code(w) == usher.CodeIdempotencyInProgress:
			conflicts++
			continue
		case w.Code != 201 || w.Body.String() != "order 1" || w.Header().Get("Location") != "/orders/1":
			t.Fatalf("a duplicate got %d %s", w.Code, w.Body)
		}
		if w.Header().Get("Idempotency-Replayed") == "true" {
			replays++
		} else {
			firsts++
		}
	}
	if firsts != 1 || replays == 0 || (conflicts == 0) != noConflicts {
		t.Errorf("%d firsts, %d replays, %d conflicts", firsts, replays, conflicts)
	}
}

// T2: keys do not affect each other, and a changed body is always noticed.
func TestManyKeysWithMutatedBodies(t *testing.T) {
	keys := 200
	if soak {
		keys = 1000
	}
	const duplicates = 50
	synctest.Test(t, func(t *testing.T) {
		var executions atomic.Int64
		all := nodes(t, 3, idempotency.Config{Wait: idempotency.NoWait}, slow(&executions))
		random := rand.New(rand.NewPCG(1, 2))
		var wg sync.WaitGroup
		var conflicts, replays, mismatchesInFlight, mismatchesAfter atomic.Int64
		for k := range keys {
			body := fmt.Appendf(nil, `{"key":%d,"amount":100}`, k)
			for i := range duplicates {
				sent, mutated := bytes.Clone(body), i > 0 && random.IntN(10) == 0
				if mutated {
					sent[random.IntN(len(sent))] ^= 1 << random.IntN(8)
				}
				delay := time.Duration(random.IntN(100)) * time.Millisecond
				if i == 0 {
					delay = 0 // so that the original is the one that runs
				} else {
					delay += time.Millisecond
				}
				wg.Go(func() {
					time.Sleep(delay)
					w := do(all[i%3], post("/orders", string(sent), key(fmt.Sprint(k))))
					switch {
					case mutated && w.Code == 422 && delay < 50*time.Millisecond:
						mismatchesInFlight.Add(1)
					case mutated && w.Code == 422:
						mismatchesAfter.Add(1)
					case mutated:
						t.Errorf("a changed body got %d", w.Code)
					case w.Code == 409:
						conflicts.Add(1)
					case w.Code == 201:
						replays.Add(1)
					default:
						t.Errorf("status %d", w.Code)
					}
				})
			}
		}
		wg.Wait()
		if n := executions.Load(); n != int64(keys) {
			t.Errorf("%d executions, want %d", n, keys)
		}
		if conflicts.Load() == 0 || replays.Load() == 0 || mismatchesInFlight.Load() == 0 || mismatchesAfter.Load() == 0 {
			t.Errorf("conflicts %d, replays %d, mismatches %d in flight and %d after: want some of each",
				conflicts.Load(), replays.Load(), mismatchesInFlight.Load(), mismatchesAfter.Load())
		}
	})
}

func TestWaiting(t *testing.T) {
	config := idempotency.Config{Wait: time.Second, MaxWaiters: 20}
	// running starts a request that holds the key for d.
	running := func(t *testing.T, c idempotency.Config, d time.Duration, status int) (http.Handler, *counting) {
		calls := new(counting)
		calls.next = func(w http.ResponseWriter, r *http.Request) {
			n := calls.n.Load()
			time.Sleep(d)
			if n > 1 {
				status = 201
			}
			w.WriteHeader(status)
			fmt.Fprint(w, n)
		}
		h := newMiddleware(t, c).Wrap(calls)
		go do(h, post("/", ""))
		synctest.Wait()
		return h, calls
	}
	for _, c := range []struct {
		name string
		test func(t *testing.T)
	}{
		{"a waiter gets the response", func(t *testing.T) {
			h, calls := running(t, config, 500*time.Millisecond, 201)
			w := do(h, post("/", ""))
			if w.Code != 201 || w.Body.String() != "1" || w.Header().Get("Idempotency-Replayed") != "true" {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			calls.want(t, 1)
		}},
		{"a waiter waits no longer than configured", func(t *testing.T) {
			h, calls := running(t, config, 5*time.Second, 201)
			began := time.Now()
			wantFailure(t, do(h, post("/", "")), 409, usher.CodeIdempotencyInProgress)
			if d := time.Since(began); d != time.Second {
				t.Errorf("the request waited for %v", d)
			}
			time.Sleep(5 * time.Second)
			calls.want(t, 1)
		}},
		{"a waiter runs if the first had no effect", func(t *testing.T) {
			h, calls := running(t, config, 500*time.Millisecond, 503)
			if w := do(h, post("/", "")); w.Code != 201 || w.Body.String() != "2" {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			calls.want(t, 2)
		}},
		{"another body does not wait", func(t *testing.T) {
			h, _ := running(t, config, 500*time.Millisecond, 201)
			began := time.Now()
			wantFailure(t, do(h, post("/", "other")), 422, usher.CodeIdempotencyKeyReused)
			if d := time.Since(began); d != 0 {
				t.Errorf("the request waited for %v", d)
			}
			time.Sleep(time.Second)
		}},
		{"the number of waiters is limited", func(t *testing.T) {
			h, _ := running(t, config, 500*time.Millisecond, 201)
			var conflicts, replays atomic.Int32
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					switch w := do(h, post("/", "")); w.Code {
					case 409:
						conflicts.Add(1)
					case 201:
						replays.Add(1)
					}
				})
			}
			wg.Wait()
			if conflicts.Load() != 8 || replays.Load() != 2 {
				t.Errorf("%d conflicts and %d replays, want 8 and 2", conflicts.Load(), replays.Load())
			}
			// The places are free again.
			h, _ = running(t, config, 500*time.Millisecond, 201)
			if w := do(h, post("/", "")); w.Code != 201 {
				t.Errorf("status %d", w.Code)
			}
		}},
		{"a waiter whose client disconnects stops waiting", func(t *testing.T) {
			h, calls := running(t, config, 500*time.Millisecond, 201)
			began := time.Now()
			r := post("/", "")
			ctx, cancel := context.WithTimeout(r.Context(), 100*time.Millisecond)
			defer cancel()
			wantFailure(t, do(h, r.WithContext(ctx)), 409, usher.CodeIdempotencyInProgress)
			if d := time.Since(began); d != 100*time.Millisecond {
				t.Errorf("the request waited for %v", d)
			}
			time.Sleep(time.Second)
			calls.want(t, 1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) { synctest.Test(t, c.test) })
	}
}
