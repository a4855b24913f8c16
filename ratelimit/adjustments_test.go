package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/ratelimit"
)

// shutDown waits for what runs after the responses.
func shutDown(t testing.TB, l *ratelimit.Limiter) {
	t.Helper()
	if err := l.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// refunding has policies of which a request that succeeds uses nothing afterwards, and each
// of which has room for one request at a time.
func refunding() map[string]ratelimit.Policy {
	one := ratelimit.RollingWindow(1, time.Hour)
	counted := forAll("counted", one)
	counted.Count = func(status int) bool { return status != http.StatusOK }
	settled := forAll("settled", one)
	settled.Settle, settled.Count = true, counted.Count
	return map[string]ratelimit.Policy{
		"a place":                        forAll("places", ratelimit.Concurrency(1)),
		"an outcome that is not counted": counted,
		"a reservation":                  settled,
	}
}

// A slow store adjusts only once it is released.
func slowAtAdjust(release <-chan struct{}) (store *script, takes *atomic.Int64) {
	store, takes = &script{Memory: newMemory()}, new(atomic.Int64)
	store.take = func(ctx context.Context, d *ratelimit.Decision) error {
		takes.Add(1)
		return store.Memory.Take(ctx, d)
	}
	store.adjust = func(ctx context.Context, d *ratelimit.Decision) error {
		<-release
		return store.Memory.Adjust(ctx, d)
	}
	return store, takes
}

func TestAResponseDoesNotWaitForItsRefundOverASocket(t *testing.T) {
	for name, p := range refunding() {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			store, _ := slowAtAdjust(release)
			l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Store: store, StoreTimeout: time.Minute})
			s := httptest.NewServer(l.Wrap(ok))
			defer s.Close()
			// Without a flush, the response leaves when the handler has returned.
			res, _ := get(t, s.URL)
			close(release)
			shutDown(t, l)
			again, _ := get(t, s.URL)
			wantCodes(t, []int{res.StatusCode, again.StatusCode}, 200, 200)
		})
	}
}

func TestADecisionWaitsForTheRefundsOfItsKeyOverAConnection(t *testing.T) {
	for name, p := range refunding() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				store, takes := slowAtAdjust(release)
				p.Key = func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(r.URL.Path), true }
				client := overPipes(t, newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{p}, Store: store, StoreTimeout: time.Minute,
				}).Wrap(ok))
				status := func(path string) int {
					r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://example.com"+path, nil)
					res, err := client.Do(r)
					if err != nil {
						t.Error(err)
						return 0
					}
					_ = res.Body.Close()
					return res.StatusCode
				}
				wantCodes(t, []int{status("/a"), status("/b")}, 200, 200)
				again := make(chan int)
				go func() { again <- status("/a") }()
				synctest.Wait()
				if n := takes.Load(); n != 2 {
					t.Errorf("%d decisions, want that the third waits for the refund of its key", n)
				}
				close(release)
				wantCodes(t, []int{<-again}, 200)
			})
		})
	}
}

func TestADecisionWaitsForAllRefundsOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		store, takes := slowAtAdjust(release)
		p := forAll("p", ratelimit.RollingWindow(3, time.Hour))
		p.Count = func(int) bool { return false }
		end := make(chan struct{})
		l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Store: store, StoreTimeout: time.Minute})
		h := l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-end }))
		var running sync.WaitGroup
		for range 3 {
			running.Go(func() { do(h) })
		}
		synctest.Wait()
		close(end)
		running.Wait()
		release <- struct{}{}
		synctest.Wait()
		before := takes.Load()
		last := make(chan string)
		go func() { last <- do(h).Header().Get("RateLimit") }()
		for range 2 {
			synctest.Wait()
			if takes.Load() != before {
				t.Error("the last decision does not wait for all refunds")
			}
			release <- struct{}{}
		}
		close(release)
		if got := <-last; !strings.HasPrefix(got, `"p";r=2;`) {
			t.Errorf("RateLimit %s, want nothing else in use", got)
		}
	})
}

// A refund that does not end delays a decision by half of its time, and leaves it the rest.
func TestADecisionWaitsForARefundWithinItsTimeout(t *testing.T) {
	for _, c := range []struct {
		name string
		take faulty.Fault
		took time.Duration
		want int
	}{
		{"a store that decides", nil, storeTimeout / 2, 429},
		{"one that takes the rest of the time", faulty.Late(storeTimeout/2 - 1), storeTimeout - 1, 429},
		{"one that hangs", faulty.Late(time.Hour), storeTimeout, 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var takes faulty.Calls
				store := &script{Memory: newMemory(), adjust: hangFor(time.Hour)}
				store.take = func(ctx context.Context, d *ratelimit.Decision) error {
					if err := takes.Call(ctx); err != nil {
						return err
					}
					return store.Memory.Take(ctx, d)
				}
				h := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{forAll("places", ratelimit.Concurrency(1))},
					Store:    store, StoreTimeout: storeTimeout, OnStoreFailure: ratelimit.FailClosed,
				}).Wrap(ok)
				wantCodes(t, codes(1, h), 200)
				takes.Set(c.take)
				began := time.Now()
				wantCodes(t, codes(1, h), c.want)
				if d := time.Since(began); d != c.took {
					t.Errorf("decided after %v, want %v", d, c.took)
				}
				time.Sleep(2 * time.Hour) // until the calls that hang have ended
			})
		})
	}
}

// A client that sends one request after another is never refused under a limit of one at a
// time, however the store delays its calls.
func TestAClientThatComesBackAtOnceIsAdmittedOverASocket(t *testing.T) {
	for name, p := range refunding() {
		t.Run(name, func(t *testing.T) {
			p.Key = func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(r.Header.Get("Client")), true }
			store := &script{Memory: newMemory()}
			var calls atomic.Int64
			store.adjust = func(ctx context.Context, d *ratelimit.Decision) error {
				time.Sleep(time.Duration(calls.Add(1)%5) * time.Millisecond)
				return store.Memory.Adjust(ctx, d)
			}
			l := newLimiter(t, ratelimit.Config{
				Policies: []ratelimit.Policy{p}, Store: store, StoreTimeout: time.Minute,
			})
			s := httptest.NewServer(l.Wrap(ok))
			defer s.Close()
			var clients sync.WaitGroup
			for i := range 8 {
				clients.Go(func() {
					for range 25 {
						if res, _ := get(t, s.URL, "Client", fmt.Sprint(i)); res.StatusCode != http.StatusOK {
							t.Errorf("status %d", res.StatusCode)
							return
						}
					}
				})
			}
			clients.Wait()
			shutDown(t, l)
			if n := store.Len("places"); n != 0 {
				t.Errorf("places of %d keys are still taken", n)
			}
		})
	}
}

// What refunds after the response has a copy of the charges: the decision serves other
// requests meanwhile.
func TestARefundSharesNoMemoryWithLaterRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		store, _ := slowAtAdjust(release)
		places := forAll("places", ratelimit.Concurrency(1))
		places.Key = func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(r.URL.Path), true }
		units := places
		units.Name, units.Limit = "units", ratelimit.RollingWindow(1000, time.Hour)
		units.Cost = func(r *http.Request) int { return len(r.URL.Path) }
		units.Count = func(status int) bool { return status != http.StatusOK }
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{units, places}, Store: store, StoreTimeout: time.Hour,
		}).Wrap(ok)
		path := func(n int) func(*http.Request) {
			return func(r *http.Request) { r.URL.Path = "/" + strings.Repeat("x", n) }
		}
		for n := range 100 {
			do(h, path(n))
		}
		close(release)
		for n := range 100 {
			if got := do(h, path(n)).Header().Get("RateLimit"); !strings.HasPrefix(got, fmt.Sprintf(`"units";r=%d;t=3600, "places";r=0`, 999-n)) {
				t.Fatalf("RateLimit %s after the request of %d units was refunded", got, n+1)
			}
		}
	})
}

func TestRefundsOfAStoreThatHangsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		store := &script{Memory: newMemory()}
		store.adjust = func(context.Context, *ratelimit.Decision) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(time.Hour)
			return nil
		}
		p := forAll("p", ratelimit.RollingWindow(100_000, time.Hour))
		p.Key = func(r *http.Request) (ratelimit.Key, bool) { return ratelimit.TextKey(r.URL.Path), true }
		p.Count = func(int) bool { return false }
		var reported errorsOf
		l := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{p}, Store: store, StoreTimeout: storeTimeout, OnError: reported.add,
		})
		h := l.Wrap(ok)
		began := time.Now()
		for i := range 5000 {
			do(h, func(r *http.Request) { r.URL.Path = fmt.Sprint("/", i) })
		}
		shutDown(t, l)
		if n := most.Load(); n != 128 {
			t.Errorf("%d calls ran at a time, want 128", n)
		}
		if n := len(reported.all()); n != 5000 {
			t.Errorf("OnError was called %d times, want once for each refund", n)
		}
		if d := time.Since(began); d > 2*storeTimeout {
			t.Errorf("the refunds ended after %v, want a timeout", d)
		}
		time.Sleep(2 * time.Hour) // until the calls that hang have ended
	})
}

func TestAnOnErrorThatDoesNotReturnDelaysNoDecision(t *testing.T) {
	for name, onError := range map[string]func(){
		"panics":             func() { panic("OnError") },
		"ends its goroutine": runtime.Goexit,
		"is slow":            func() { time.Sleep(time.Minute) },
	} {
		t.Run("one that "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := forAll("p", ratelimit.RollingWindow(9, time.Hour))
				p.Count = func(int) bool { return false }
				l := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{p},
					Store:    &script{Memory: newMemory(), adjust: func(context.Context, *ratelimit.Decision) error { return faulty.ErrStore }},
					OnError:  func(context.Context, error) { onError() },
				})
				began := time.Now()
				wantCodes(t, codes(3, l.Wrap(ok)), 200, 200, 200)
				if d := time.Since(began); d > 0 {
					t.Errorf("three requests took %v", d)
				}
				shutDown(t, l)
			})
		})
	}
}

func TestShutdownWaitsForRefunds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		store, _ := slowAtAdjust(release)
		l := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{forAll("places", ratelimit.Concurrency(2))}, Store: store, StoreTimeout: time.Hour,
		})
		derived := must(t)(l.With(forAll("more", ratelimit.RollingWindow(9, time.Hour))))
		shutDown(t, l)
		do(l.Wrap(ok))
		for _, l := range []*ratelimit.Limiter{l, derived} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := l.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("while a place is taken: %v", err)
			}
			cancel()
		}
		close(release)
		shutDown(t, derived)
		if n := store.Len("places"); n != 0 {
			t.Error("a place is still taken")
		}
		shutDown(t, limiterOf(t, forAll("p", ratelimit.Concurrency(1))))
	})
}

// In memory nothing waits, so nothing runs after the response.
func TestAMemoryRefundsBeforeTheHandlerReturns(t *testing.T) {
	for name, p := range refunding() {
		h := limiterOf(t, p).Wrap(ok)
		got := codes(100, h)
		if slices.Max(got) != http.StatusOK {
			t.Errorf("%s: %v", name, got)
		}
	}
}
