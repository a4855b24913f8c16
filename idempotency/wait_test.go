package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A countingStore counts the calls of a store that responds after a while.
type countingStore struct {
	idempotency.Store
	delay            time.Duration
	claims, finishes atomic.Int64
}

func (s *countingStore) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	s.claims.Add(1)
	time.Sleep(s.delay)
	return s.Store.Claim(ctx, c)
}

func (s *countingStore) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	s.finishes.Add(1)
	time.Sleep(s.delay)
	return s.Store.Finish(ctx, c)
}

// crowd sends n requests at once, which it makes. It returns the number of responses with
// each status, when there is one for every request.
func crowd(n int, h http.Handler, request func(i int) *http.Request) map[int]int {
	var mu sync.Mutex
	statuses := map[int]int{}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			w := do(h, request(i))
			mu.Lock()
			defer mu.Unlock()
			statuses[w.Code]++
		})
	}
	all.Wait()
	return statuses
}

func duplicate(int) *http.Request { return post("/", "") }

// takes returns a handler that responds with each status in turn, after d. The last status
// is repeated.
func takes(d time.Duration, statuses ...int) *counting {
	c := new(counting)
	c.next = func(w http.ResponseWriter, _ *http.Request) {
		n := c.n.Load()
		time.Sleep(d)
		w.WriteHeader(statuses[min(int(n), len(statuses))-1])
		fmt.Fprint(w, n)
	}
	return c
}

// However many duplicates of one request wait, a process asks the store for one of them.
func TestAThousandDuplicatesCostAFewCallsOfTheStore(t *testing.T) {
	const duplicates = 1000
	for _, c := range []struct {
		name       string
		delay      time.Duration // of the store
		maxWaiters int
		nodes      int
		arrive     time.Duration // all within this time
		handler    *counting
		claims     int64 // at most
		replays    int   // at least
	}{
		{"that come while the first runs", 0, 20 * duplicates, 1, time.Second, takes(4*time.Second, 201), 3, duplicates},
		{"that come at once", time.Millisecond, 20 * duplicates, 1, 0, takes(4*time.Second, 201), 4, duplicates},
		{"that come at once, before the first is claimed", time.Millisecond, 20 * duplicates, 1, 0, takes(0, 201), 4, duplicates},
		{"that are too many", time.Millisecond, 0, 1, time.Second, takes(4*time.Second, 201), 4, 100},
		{"at the other node, which polls with growing pauses", 0, 20 * duplicates, 2, time.Second, takes(4*time.Second, 201), 25, duplicates},
		{"if the first is released", 0, 20 * duplicates, 1, time.Second, takes(2*time.Second, 503, 201), 4, duplicates - 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &countingStore{Store: newMemory(t, idempotency.MemoryConfig{}), delay: c.delay}
				all := nodes(t, c.nodes, idempotency.Config{Store: store, MaxWaiters: c.maxWaiters}, c.handler)
				c.handler.n.Store(0)
				go do(all[0], post("/", ""))
				if c.arrive > 0 {
					synctest.Wait()
					time.Sleep(10 * time.Millisecond)
				}
				statuses := crowd(duplicates, all[len(all)-1], func(i int) *http.Request {
					time.Sleep(time.Duration(i) * c.arrive / duplicates)
					return post("/", "")
				})
				if statuses[201] < c.replays || statuses[201]+statuses[409] != duplicates {
					t.Errorf("statuses %v", statuses)
				}
				if n := store.claims.Load(); n > c.claims {
					t.Errorf("%d calls of Claim, want %d at most", n, c.claims)
				}
				if n := c.handler.n.Load(); store.finishes.Load() != n {
					t.Errorf("%d executions and %d calls of Finish", n, store.finishes.Load())
				}
				synctest.Wait()
			})
		})
	}
}

// Once all have their response, the next duplicate asks the store itself, and takes no place
// of those that wait.
func TestNobodyWaitsWithoutACall(t *testing.T) {
	for _, duplicates := range []int{1, 5} {
		t.Run(fmt.Sprint("after ", duplicates, " at once"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore(t)
				m := newMiddleware(t, idempotency.Config{Store: store})
				var waiting atomic.Int64 // when the last call of Claim was made
				store.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
					time.Sleep(time.Millisecond)
					waiting.Store(int64(m.Waiting()))
					return store.Store.Claim(ctx, c)
				}
				h := m.Wrap(takes(time.Second, 201))
				if got := crowd(duplicates, h, duplicate); got[201] != duplicates {
					t.Errorf("statuses %v", got)
				}
				if w := do(h, post("/", "")); w.Code != 201 || waiting.Load() != 0 {
					t.Errorf("the next got %d, and %d were waiting", w.Code, waiting.Load())
				}
			})
		})
	}
}

// With NoWait each request asks the store itself, also while another one does: none is refused
// because of a request that has ended.
func TestWithNoWaitEachRequestAsksTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &countingStore{Store: newMemory(t, idempotency.MemoryConfig{}), delay: time.Millisecond}
		h := newMiddleware(t, idempotency.Config{Store: store, Wait: idempotency.NoWait}).Wrap(takes(0, 201))
		do(h, post("/", ""))
		if got := crowd(5, h, duplicate); got[201] != 5 || store.claims.Load() != 6 {
			t.Errorf("statuses %v, %d calls of Claim", got, store.claims.Load())
		}
	})
}

// Each way in which a request in flight ends, and what its duplicates get, and when.
func TestDuplicatesWaitForTheRequestInFlight(t *testing.T) {
	const waiters = 20
	remote := func(t *testing.T) idempotency.Store { return newHookedStore(t) }
	memory := func(t *testing.T) idempotency.Store { return newMemory(t, idempotency.MemoryConfig{}) }
	for _, c := range []struct {
		name     string
		statuses []int
		want     map[int]int
		runs     int64
		after    time.Duration
	}{
		{"that ends", []int{201}, map[int]int{201: waiters}, 1, time.Second},
		{"that is released, so that one of them runs and the others wait for that", []int{503, 201}, map[int]int{201: waiters}, 2, 2 * time.Second},
		{"that is released again and again", []int{503, 503, 503, 201}, map[int]int{503: 2, 201: waiters - 2}, 4, 4 * time.Second},
		{"whose outcome is unknown", []int{500}, map[int]int{409: waiters}, 1, time.Second},
	} {
		for place, store := range map[string]func(*testing.T) idempotency.Store{"a Memory": memory, "another store": remote} {
			t.Run(c.name+", in "+place, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					calls := takes(time.Second, c.statuses...)
					h := newMiddleware(t, idempotency.Config{Store: store(t)}).Wrap(calls)
					began := time.Now()
					go do(h, post("/", ""))
					synctest.Wait()
					if got := crowd(waiters, h, duplicate); fmt.Sprint(got) != fmt.Sprint(c.want) {
						t.Errorf("statuses %v, want %v", got, c.want)
					}
					// They are woken: nobody is late by a pause.
					if d := time.Since(began); d != c.after {
						t.Errorf("after %v, want %v", d, c.after)
					}
					calls.want(t, c.runs)
				})
			})
		}
	}
}

func TestADuplicateTakesOverFromAProcessThatDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory(t, idempotency.MemoryConfig{})
		dying := &hookedStore{Store: store}
		stop := make(chan struct{})
		config := idempotency.Config{Store: dying, Lease: 3 * time.Second, OnError: func(context.Context, error) {}}
		go do(newMiddleware(t, config).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			dying.set(func(f *hookedStore) { f.renew = func(context.Context) error { return errors.New("dead") } })
			<-stop
		})), post("/", ""))
		synctest.Wait()
		config.Store = &hookedStore{Store: store}
		calls := takes(time.Second, 201)
		running := takes(time.Minute, 201)
		h := newMiddleware(t, config).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Idempotency-Key") == "another" {
				running.ServeHTTP(w, r)
				return
			}
			calls.ServeHTTP(w, r)
		}))
		began := time.Now()
		go do(h, post("/", "", key("another"))) // which does not matter
		synctest.Wait()
		if got := crowd(10, h, duplicate); got[201] != 10 {
			t.Errorf("statuses %v", got)
		}
		if d := time.Since(began); d < config.Lease+time.Second || d > config.Lease+time.Second+250*time.Millisecond {
			t.Errorf("after %v", d)
		}
		calls.want(t, 1)
		close(stop)
		time.Sleep(time.Minute)
	})
}

// A result that the store does not accept at once keeps the duplicates waiting, until it is
// accepted.
func TestDuplicatesWaitForAPendingResult(t *testing.T) {
	down := errors.New("down")
	for _, c := range []struct {
		name  string
		claim bool // fails as well
		want  int
	}{
		{"they get the response once it is stored", false, 201},
		{"they are refused if the key cannot be claimed either", true, 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore(t)
				calls := takes(time.Second, 201)
				m := newMiddleware(t, idempotency.Config{Store: store, FinishTimeout: time.Second, OnError: func(context.Context, error) {}})
				h := m.Wrap(calls)
				go do(h, post("/", ""))
				synctest.Wait()
				time.AfterFunc(500*time.Millisecond, func() {
					store.set(func(f *hookedStore) {
						f.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) { return 0, down }
						if c.claim {
							f.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
								return idempotency.Record{}, down
							}
						}
					})
				})
				time.AfterFunc(3*time.Second, func() { store.set(func(f *hookedStore) { f.finish, f.claim = nil, nil }) })
				if got := crowd(10, h, duplicate); got[c.want] != 10 {
					t.Errorf("statuses %v", got)
				}
				if err := m.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				calls.want(t, 1)
			})
		})
	}
}

// A request whose client disconnects while it waits does not run, even if the key is free
// then, and the others wait on.
func TestAWaiterWhoseClientDisconnectsRunsNothing(t *testing.T) {
	for place, store := range map[string]func(*testing.T) idempotency.Store{
		"a Memory":      func(t *testing.T) idempotency.Store { return newMemory(t, idempotency.MemoryConfig{}) },
		"another store": func(t *testing.T) idempotency.Store { return newHookedStore(t) },
	} {
		for _, others := range []int{0, 5} {
			t.Run(fmt.Sprint("in ", place, ", with ", others, " others"), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					calls := takes(time.Second, 503, 201)
					h := newMiddleware(t, idempotency.Config{Store: store(t)}).Wrap(calls)
					go do(h, post("/", ""))
					synctest.Wait()
					var all sync.WaitGroup
					for range 2 { // The first of them polls.
						all.Go(func() {
							began := time.Now()
							r := post("/", "")
							ctx, cancel := context.WithTimeout(r.Context(), 500*time.Millisecond)
							defer cancel()
							wantFailure(t, do(h, r.WithContext(ctx)), 409, usher.CodeIdempotencyInProgress)
							if d := time.Since(began); d != 500*time.Millisecond {
								t.Errorf("the request waited for %v", d)
							}
						})
						synctest.Wait()
					}
					if got := crowd(others, h, duplicate); got[201] != others {
						t.Errorf("statuses %v", got)
					}
					all.Wait()
					time.Sleep(time.Minute)
					calls.want(t, int64(1+min(others, 1)))
				})
			})
		}
	}
}

// A request whose client disconnects leaves at once, also if another one asks the store.
func TestAWaiterThatDoesNotAskLeavesWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newMiddleware(t, idempotency.Config{Store: newHookedStore(t)}).Wrap(takes(2*time.Second, 201))
		for range 2 { // The second one asks.
			go do(h, post("/", ""))
			synctest.Wait()
		}
		began := time.Now()
		r := post("/", "")
		ctx, cancel := context.WithTimeout(r.Context(), 500*time.Millisecond)
		defer cancel()
		wantFailure(t, do(h, r.WithContext(ctx)), 409, usher.CodeIdempotencyInProgress)
		if d := time.Since(began); d != 500*time.Millisecond {
			t.Errorf("it left after %v", d)
		}
		time.Sleep(time.Minute)
	})
}

// A client may also disconnect while the key is being claimed for it.
func TestAWaiterWhoseClientDisconnectsWhileItsKeyIsClaimed(t *testing.T) {
	for _, c := range []struct {
		name string
		dies bool // the process of the request in flight
		runs int64
	}{
		{"runs nothing, and the key is free at once", false, 0},
		// Its claim is the only trace of a request that may have had an effect.
		{"runs if it takes over from a process that has died", true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newMemory(t, idempotency.MemoryConfig{})
				config := idempotency.Config{Lease: 3 * time.Second, OnError: func(context.Context, error) {}}
				first := &hookedStore{Store: store}
				if c.dies {
					first.renew = func(context.Context) error { return errors.New("dead") }
				}
				config.Store = first
				go do(newMiddleware(t, config).Wrap(takes(4*time.Second, 503)), post("/", ""))
				synctest.Wait()

				r := post("/", "")
				ctx, cancel := context.WithCancel(r.Context())
				second := &hookedStore{Store: store}
				second.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
					record, err := store.Claim(ctx, c)
					if record.Won {
						cancel()
					}
					return record, err
				}
				// The record stays for a lease, so that a repeated call of Finish is recognized.
				second.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
					if err := ctx.Err(); err != nil {
						t.Errorf("the claim is released with a context that has ended: %v", err)
					}
					if c.Result.State == idempotency.StateReleased && c.Result.TTL != config.Lease {
						t.Errorf("the claim is released with a TTL of %v", c.Result.TTL)
					}
					return store.Finish(ctx, c)
				}
				config.Store = second
				own, calls := takes(time.Second, 201), takes(time.Second, 201)
				m := newMiddleware(t, config)
				var others sync.WaitGroup
				others.Go(func() {
					time.Sleep(time.Second) // The other one polls.
					if w := do(m.Wrap(calls), post("/", "")); w.Code != 201 {
						t.Errorf("another waiter got %d %s", w.Code, w.Body)
					}
				})
				w := do(m.Wrap(own), r.WithContext(ctx))
				if (w.Code == 201) != c.dies {
					t.Errorf("the waiter got %d %s", w.Code, w.Body)
				}
				own.want(t, c.runs)
				began := time.Now()
				others.Wait()
				if d := time.Since(began); d > time.Second {
					t.Errorf("the other waiter got its response %v later", d)
				}
				calls.want(t, 1-c.runs)
				time.Sleep(time.Minute)
			})
		})
	}
}

// Another body is refused at once, and does not keep the duplicates from waiting.
func TestAnotherBodyDoesNotWait(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Millisecond} {
		t.Run(fmt.Sprint("for a store that takes ", delay), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &countingStore{Store: newMemory(t, idempotency.MemoryConfig{}), delay: delay}
				calls := takes(2*time.Second, 201)
				h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(calls)
				go do(h, post("/", "body"))
				time.Sleep(100 * time.Millisecond)
				var all sync.WaitGroup
				for i := range 50 {
					all.Go(func() {
						began := time.Now()
						if i%2 == 0 {
							if w := do(h, post("/", "body")); w.Code != 201 {
								t.Errorf("a duplicate got %d", w.Code)
							}
							return
						}
						wantFailure(t, do(h, post("/", "other")), 422, usher.CodeIdempotencyKeyReused)
						if d := time.Since(began); d > 10*time.Millisecond {
							t.Errorf("another body waited for %v", d)
						}
					})
				}
				all.Wait()
				calls.want(t, 1)
			})
		})
	}
}

// If a key is released and another request takes it, its duplicates are refused, and not only
// when that has ended.
func TestWaitersLoseTheKeyToAnotherRequest(t *testing.T) {
	for place, open := range map[string]func(*testing.T) idempotency.Store{
		"a Memory":      func(t *testing.T) idempotency.Store { return newMemory(t, idempotency.MemoryConfig{}) },
		"another store": func(t *testing.T) idempotency.Store { return newHookedStore(t) },
	} {
		for node, where := range []string{"elsewhere", "at the node of its duplicates"} {
			t.Run(fmt.Sprint("in ", place, ", ", where), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					calls := takes(time.Second, 503, 201)
					all := nodes(t, 2, idempotency.Config{Store: open(t)}, calls)
					go do(all[0], post("/", "first"))
					synctest.Wait()
					go func() {
						time.Sleep(time.Second + time.Millisecond)
						do(all[node], post("/", "other"))
					}()
					began := time.Now()
					if got := crowd(10, all[1], func(int) *http.Request { return post("/", "first") }); got[422] != 10 {
						t.Errorf("statuses %v", got)
					}
					if d := time.Since(began); d > time.Second+300*time.Millisecond {
						t.Errorf("they waited for %v", d)
					}
					time.Sleep(time.Minute)
					calls.want(t, 2)
				})
			})
		}
	}
}

func TestTheNumberOfWaitersIsLimited(t *testing.T) {
	alice, bert := "alice", "bert"
	// owner returns the i-th of several owners.
	owner := func(name string) func(*http.Request) {
		return as(&usher.Principal{ID: name, Kind: usher.KindAPIKey})
	}
	for _, c := range []struct {
		name       string
		maxWaiters int
		wait       map[string]int // how many of its 200 duplicates may wait, by owner
	}{
		{"to a tenth of 1,000 for each owner by default", 0, map[string]int{alice: 100, bert: 100}},
		{"to a tenth for each owner", 50, map[string]int{alice: 5, bert: 5}},
		{"to one for each owner at least", 3, map[string]int{alice: 1, bert: 1}},
		{"to all", 1, map[string]int{alice: 1, bert: 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMiddleware(t, idempotency.Config{MaxWaiters: c.maxWaiters})
				h := m.Wrap(takes(time.Second, 201))
				for range 2 { // The places are free again.
					key := key(fmt.Sprint(time.Now().UnixNano()))
					var all sync.WaitGroup
					for _, name := range []string{alice, bert} {
						go do(h, post("/", "", key, owner(name)))
						synctest.Wait()
						all.Go(func() {
							got := crowd(200, h, func(int) *http.Request { return post("/", "", key, owner(name)) })
							if got[201] != c.wait[name] || got[409] != 200-c.wait[name] {
								t.Errorf("%s: statuses %v", name, got)
							}
						})
						synctest.Wait()
					}
					all.Wait()
					if n := m.Waiting(); n != 0 {
						t.Errorf("%d are left when nobody waits", n)
					}
				}
			})
		})
	}
}

// Requests with keys of their own are never taken for duplicates, however few may wait.
func TestManyKeysAtOnceOverASlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &countingStore{Store: newMemory(t, idempotency.MemoryConfig{}), delay: time.Millisecond}
		calls := takes(0, 201)
		h := newMiddleware(t, idempotency.Config{Store: store, MaxWaiters: 1}).Wrap(calls)
		const requests = 1000
		if got := crowd(requests, h, func(i int) *http.Request { return post("/", "", key(fmt.Sprint(i))) }); got[201] != requests {
			t.Errorf("statuses %v", got)
		}
		calls.want(t, requests)
		if n := store.claims.Load(); n != requests {
			t.Errorf("%d calls of Claim", n)
		}
	})
}

// A 409 asks for a retry when the lease of the request in flight ends.
func TestRetryAfterIsTheRestOfTheLease(t *testing.T) {
	for _, c := range []struct {
		name  string
		wait  time.Duration
		lease time.Duration
		after time.Duration // after which the duplicate comes
		node  int
		want  string
	}{
		{"the whole of it", idempotency.NoWait, 30 * time.Second, 0, 1, "30"},
		{"rounded up", idempotency.NoWait, 30 * time.Second, 10*time.Second + time.Millisecond, 1, "20"},
		{"one second at least", idempotency.NoWait, 30 * time.Second, 30*time.Second - time.Millisecond, 1, "1"},
		{"less the wait", 0, 30 * time.Second, 10 * time.Second, 1, "15"},
		{"less the wait for a request of the same process", 0, 30 * time.Second, time.Second, 0, "24"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// A claim that nobody renews, as of a process that has died.
				store := newHookedStore(t)
				store.set(func(f *hookedStore) { f.renew = func(context.Context) error { return errors.New("dead") } })
				stop := make(chan struct{})
				config := idempotency.Config{Store: store, Wait: c.wait, Lease: c.lease, OnError: func(context.Context, error) {}}
				all := nodes(t, 2, config, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop }))
				go do(all[0], post("/", ""))
				synctest.Wait()
				time.Sleep(c.after)
				w := do(all[c.node], post("/", ""))
				wantFailure(t, w, 409, usher.CodeIdempotencyInProgress)
				if got := w.Header().Get("Retry-After"); got != c.want {
					t.Errorf("Retry-After %s, want %s", got, c.want)
				}
				close(stop)
				synctest.Wait()
			})
		})
	}
}

func TestRetryAfterHasBounds(t *testing.T) {
	for lease, want := range map[time.Duration]string{0: "1", time.Millisecond: "1", 24 * time.Hour: "30"} {
		t.Run(fmt.Sprint("for a rest of ", lease), func(t *testing.T) {
			store := newHookedStore(t)
			store.set(func(f *hookedStore) {
				f.claim = func(_ context.Context, c idempotency.Claim) (idempotency.Record, error) {
					return idempotency.Record{State: idempotency.StateClaimed, Fingerprint: c.Fingerprint, Lease: lease}, nil
				}
			})
			h := newMiddleware(t, idempotency.Config{Store: store, Wait: idempotency.NoWait}).Wrap(new(counting))
			if got := do(h, post("/", "")).Header().Get("Retry-After"); got != want {
				t.Errorf("Retry-After %s, want %s", got, want)
			}
		})
	}
}

// A zero Config waits for 5 seconds.
func TestTheDefaultWait(t *testing.T) {
	for config, wait := range map[time.Duration]time.Duration{0: 5 * time.Second, idempotency.NoWait: 0, time.Minute: time.Minute} {
		t.Run(config.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMiddleware(t, idempotency.Config{Wait: config})
				h := m.Wrap(takes(time.Hour, 201))
				go do(h, post("/", ""))
				synctest.Wait()
				began := time.Now()
				wantFailure(t, do(h, post("/", "")), 409, usher.CodeIdempotencyInProgress)
				if d := time.Since(began); d != wait {
					t.Errorf("the duplicate is refused after %v, want %v", d, wait)
				}
				if n := m.Waiting(); n != 0 {
					t.Errorf("%d are left when nobody waits", n)
				}
				w := httptest.NewRecorder()
				m.Discovery().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
				if strings.Contains(w.Body.String(), `"in_flight":"wait"`) != (wait > 0) {
					t.Errorf("published: %s", w.Body)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}
