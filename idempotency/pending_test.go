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

// If the store fails for a while just when the result of a request is to be stored, the
// request does not run twice: the result is stored later.
func TestAStoreThatFailsAtTheEndOfARequestRunsItOnce(t *testing.T) {
	const lease = time.Second
	for _, c := range []struct {
		name   string
		flush  bool
		status int
		code   string
	}{
		{"when the response is stored", false, 201, ""},
		{"when the response begins to be sent", true, 409, notKept},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := newHookedStore(t)
			stored := make(chan struct{})
			var tries atomic.Int32
			store.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
				// Far more attempts than FinishTimeout has room for.
				if tries.Add(1) < 4 {
					return 0, errDown
				}
				kept, err := store.Store.Finish(ctx, c)
				if tries.Load() == 4 {
					close(stored)
				}
				return kept, err
			}
			leave := make(chan struct{})
			calls := new(counting)
			calls.next = func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusCreated)
				fmt.Fprint(w, "paid")
				if c.flush && calls.n.Load() == 1 {
					_ = http.NewResponseController(w).Flush()
					<-leave
				}
			}
			m := newMiddleware(t, idempotency.Config{Store: store, Lease: lease, StoreTimeout: lease / 4, FinishTimeout: time.Millisecond})
			s := httptest.NewServer(asAlice(m.Wrap(calls)))
			t.Cleanup(s.Close)
			resp, err := s.Client().Do(request(t, s.URL, "k"))
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != 201 {
				t.Errorf("the first request got %d, although the work was done", resp.StatusCode)
			}
			select {
			case <-stored:
			case <-time.After(10 * lease): // or the key is free
			}
			again := roundTrip(t, s, request(t, s.URL, "k"))
			if again.status != c.status || !strings.Contains(again.text, c.code) || c.code == "" && !again.replayed() {
				t.Errorf("the retry got %d %s", again.status, again.text)
			}
			calls.want(t, 1)
			close(leave)
			_ = resp.Body.Close()
		})
	}
}

// down makes Finish fail, and Renew if renew is set, for d from the first Finish on.
func down(f *hookedStore, d time.Duration, renew bool) {
	var since time.Time
	isDown := func() bool { return !since.IsZero() && time.Since(since) < d }
	f.set(func(f *hookedStore) {
		f.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
			if since.IsZero() {
				since = time.Now()
			}
			if isDown() {
				return 0, errDown
			}
			return f.Store.Finish(ctx, c)
		}
		f.renew = func(ctx context.Context) error {
			if renew && isDown() {
				return errDown
			}
			return errGoOn
		}
	})
}

func TestAResultIsPendingUntilTheStoreTakesIt(t *testing.T) {
	for _, c := range []struct {
		name string
		// down is how long the store accepts no result, and no renewal if renew is set.
		down  time.Duration
		renew bool
		// The rest is of the request.
		config idempotency.Config
		status int
		size   int
		want   string
		ends   map[string]int64
	}{
		{"for longer than FinishTimeout", 5 * time.Second, true, idempotency.Config{}, 201, 4, replays, map[string]int64{"kept": 1}},
		{
			"for longer than a lease that is shorter than FinishTimeout", 3 * time.Second, false,
			idempotency.Config{Lease: time.Second, FinishTimeout: 4 * time.Second}, 201, 4, replays, map[string]int64{"kept": 1},
		},
		{"of an outcome that is unknown", 5 * time.Second, true, idempotency.Config{}, 500, 4, unknown, map[string]int64{"tombstoned": 1}},
		{
			"of an outcome that is unknown, however often it is refused", 6 * lease, false,
			idempotency.Config{}, 500, 4, unknown, map[string]int64{"tombstoned": 1},
		},
		{
			"of a response that is not kept", 5 * time.Second, true,
			idempotency.Config{MaxResponse: 3}, 201, 4, notKept, map[string]int64{"tombstoned": 1},
		},
		{"as a tombstone if the store never takes the response", 24 * time.Hour, false, idempotency.Config{}, 201, 4, notKept, map[string]int64{"dropped": 1}},
		{"if the key is to be free", 5 * time.Second, true, idempotency.Config{}, 503, 4, runs, map[string]int64{"released": 1}},
		{"and no longer than a lease if the key is to be free", 24 * time.Hour, false, idempotency.Config{}, 503, 4, runs, map[string]int64{"finish_failed": 1}},
		{"and not after the record has expired", 24 * time.Hour, true, idempotency.Config{TTL: time.Hour}, 201, 4, runs, map[string]int64{"finish_failed": 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore(t)
				down(store, c.down, c.renew)
				if c.want == notKept && c.down > time.Hour {
					// The store accepts small results.
					hook := store.finish
					store.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
						if len(c.Result.Payload) == 0 {
							return store.Store.Finish(ctx, c)
						}
						return hook(ctx, c)
					}
				}
				meter := newMeter()
				c.config.Store, c.config.MeterProvider = store, meter
				calls := new(counting)
				calls.next = func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(c.status)
					fmt.Fprint(w, strings.Repeat("x", c.size))
				}
				m := newMiddleware(t, c.config)
				h := m.Wrap(calls)
				first := make(chan *httptest.ResponseRecorder, 1)
				go func() { first <- do(h, post("/", "body")) }()
				began := time.Now()
				ends := began.Add(10 * lease)
				if c.want == runs {
					ends = began.Add(2 * time.Hour)
				}
				for c.want != runs && time.Now().Before(ends) {
					time.Sleep(100 * time.Millisecond)
					w := do(h, post("/", "body"))
					if w.Code != 409 && w.Code != c.status {
						t.Fatalf("a duplicate got %d %s", w.Code, w.Body)
					}
					// Finish is retried twelve times per lease.
					if since := time.Since(began); since > c.down+lease/12+time.Second && code(w) == usher.CodeIdempotencyInProgress && c.down < time.Hour {
						t.Fatalf("the request is still in progress after %v", since)
					}
				}
				time.Sleep(time.Until(ends))
				calls.want(t, 1)
				if n, bytes := m.Pending(); n != 0 || bytes != 0 {
					t.Errorf("%d results of %d bytes are still pending", n, bytes)
				}
				if n := m.Leases(); n != 0 {
					t.Errorf("%d leases are still kept", n)
				}
				for _, end := range []string{"kept", "dropped", "tombstoned", "released", "lease_lost", "finish_failed"} {
					if n := meter.counts(t)[end]; n != c.ends[end] {
						t.Errorf("%s: %d", end, n)
					}
				}
				store.set(func(f *hookedStore) { f.finish, f.renew = nil, nil })
				wantRetry(t, h, calls, <-first, c.want)
			})
		})
	}
}

// pendingService returns a Middleware with the pending results of n requests. Its store
// fails until the hook of Finish is removed.
func pendingService(t *testing.T, n, size int) (m *idempotency.Middleware, store *hookedStore, meter meter, reported *atomic.Int32) {
	store, meter, reported = newHookedStore(t), newMeter(), new(atomic.Int32)
	store.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) { return 0, errDown }
	m = newMiddleware(t, idempotency.Config{
		Store: store, MeterProvider: meter, FinishTimeout: time.Nanosecond, OnError: func(context.Context, error) { reported.Add(1) },
	})
	h := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, size)) }))
	for i := range n {
		if w := do(h, post("/", "", key(fmt.Sprint(i)))); w.Code != 200 {
			t.Fatalf("request %d got %d %s", i, w.Code, w.Body)
		}
	}
	return m, store, meter, reported
}

func TestPendingResultsAreBounded(t *testing.T) {
	t.Run("in number", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m, store, meter, reported := pendingService(t, 1100, 10)
			if n, _ := m.Pending(); n != 1024 || meter.counts(t)["finish_failed"] != 1100-1024 || reported.Load() != 1100+76 {
				t.Errorf("%d are pending, %d errors were reported, counted %v", n, reported.Load(), meter.counts(t))
			}
			store.set(func(f *hookedStore) { f.finish = nil })
			time.Sleep(lease)
			if n, bytes := m.Pending(); n != 0 || bytes != 0 || meter.counts(t)["kept"] != 1024 {
				t.Errorf("%d of %d bytes are pending, counted %v", n, bytes, meter.counts(t))
			}
		})
	})
	t.Run("in bytes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m, store, meter, reported := pendingService(t, 20, 1<<20)
			if n, bytes := m.Pending(); n != 20 || bytes > 16<<20 || bytes < 15<<20 {
				t.Errorf("%d of %d bytes are pending", n, bytes)
			}
			store.set(func(f *hookedStore) { f.finish = nil })
			time.Sleep(lease)
			if counts := meter.counts(t); counts["kept"] != 15 || counts["dropped"] != 5 || reported.Load() != 20+5 {
				t.Errorf("counted %v, %d errors were reported", counts, reported.Load())
			}
		})
	})
}

func TestShutdownStoresPendingResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, store, meter, _ := pendingService(t, 100, 10)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "100 results") {
			t.Errorf("while the store fails: %v", err)
		}
		go func() {
			time.Sleep(time.Second)
			store.set(func(f *hookedStore) {
				f.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
					time.Sleep(time.Millisecond)
					return f.Store.Finish(ctx, c)
				}
			})
		}()
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				if err := m.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if n, _ := m.Pending(); n != 0 || m.Leases() != 0 || meter.counts(t)["kept"] != 100 {
			t.Errorf("%d are pending, %d leases are kept, counted %v", n, m.Leases(), meter.counts(t))
		}
	})
	if err := newMiddleware(t, idempotency.Config{}).Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown with a Memory: %v", err)
	}
}

// If the store fails for longer than a lease while the handler runs, the lease seems
// lost. If the store still fails when the handler returns, the result is pending like any
// other.
func TestAResultIsPendingEvenIfTheLeaseSeemsLost(t *testing.T) {
	for _, c := range []struct {
		name      string
		handler   func(w http.ResponseWriter)
		successor bool
		ends      map[string]int64
		want      string
	}{
		{
			"a response", func(w http.ResponseWriter) { fmt.Fprint(w, "paid") },
			false, map[string]int64{"lease_lost": 1, "kept": 1}, replays,
		},
		{
			"an unknown outcome", func(w http.ResponseWriter) { w.WriteHeader(500) },
			false, map[string]int64{"lease_lost": 1, "tombstoned": 1}, unknown,
		},
		{
			"a response that has been sent",
			func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
			false, map[string]int64{"lease_lost": 1, "tombstoned": 1}, notKept,
		},
		{
			"a response whose key another request has taken",
			func(w http.ResponseWriter) { fmt.Fprint(w, "paid") },
			true, map[string]int64{"lease_lost": 1}, "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, meter := newHookedStore(t), newMeter()
				store.renew = func(context.Context) error { return errDown }
				store.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) { return 0, errDown }
				m := newMiddleware(t, idempotency.Config{Store: store, MeterProvider: meter})
				calls := new(counting)
				calls.next = func(w http.ResponseWriter, _ *http.Request) {
					time.Sleep(lease + lease/3)
					c.handler(w)
				}
				h := m.Wrap(calls)
				first := do(h, post("/", "body"))
				if c.successor {
					other := newMiddleware(t, idempotency.Config{Store: &hookedStore{Store: store.Store}}).Wrap(new(counting))
					if w := do(other, post("/", "body")); w.Code != 201 {
						t.Fatalf("the successor got %d %s", w.Code, w.Body)
					}
				}
				store.set(func(f *hookedStore) { f.finish, f.renew = nil, nil })
				time.Sleep(lease)
				if n, bytes := m.Pending(); n != 0 || bytes != 0 || m.Leases() != 0 {
					t.Errorf("%d results of %d bytes are pending, %d leases are kept", n, bytes, m.Leases())
				}
				for _, end := range []string{"kept", "dropped", "tombstoned", "released", "lease_lost", "finish_failed"} {
					if n := meter.counts(t)[end]; n != c.ends[end] {
						t.Errorf("%s: %d, want %d", end, n, c.ends[end])
					}
				}
				if c.want != "" {
					wantRetry(t, h, calls, first, c.want)
				}
			})
		})
	}
}

// A pending result does not overwrite that of a successor.
func TestAResultIsPendingUntilAnotherRequestHasTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory(t, idempotency.MemoryConfig{})
		cut := &hookedStore{Store: store}
		down(cut, 2*lease, true)
		meter := newMeter()
		m := newMiddleware(t, idempotency.Config{Store: cut, MeterProvider: meter})
		do(m.Wrap(new(counting)), post("/", ""))
		time.Sleep(lease)
		node := newMiddleware(t, idempotency.Config{Store: &hookedStore{Store: store}}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "successor")
		}))
		first := do(node, post("/", ""))
		time.Sleep(2 * lease)
		wantReplay(t, do(node, post("/", "")), first)
		if n, _ := m.Pending(); n != 0 || meter.counts(t)["lease_lost"] != 1 {
			t.Errorf("%d are pending, counted %v", n, meter.counts(t))
		}
	})
}

// A renewal just after a result was stored finds no claim. This does not count as a lost
// claim.
func TestARenewalWhileTheResultIsStoredLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore(t)
		renewals := 0
		store.renew = func(context.Context) error {
			renewals++
			return errGoOn
		}
		store.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
			kept, err := store.Store.Finish(ctx, c)
			time.Sleep(200 * time.Millisecond) // until the reply arrives
			return kept, err
		}
		meter := newMeter()
		m := newMiddleware(t, idempotency.Config{
			Store: store, Lease: time.Second, MeterProvider: meter, OnError: func(_ context.Context, err error) { t.Error(err) },
		})
		do(m.Wrap(sleeping), post("/300ms", ""))
		time.Sleep(lease)
		if counts := meter.counts(t); renewals == 0 || counts["lease_lost"] != 0 || counts["kept"] != 1 || m.Leases() != 0 {
			t.Errorf("%d renewals, counted %v, %d leases", renewals, counts, m.Leases())
		}
	})
}
