package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

const lease = 30 * time.Second

// Neither the lease nor the record ends before the handler does.
func TestAHandlerKeepsItsKeyForAsLongAsItRuns(t *testing.T) {
	for name, store := range map[string]func(*testing.T) idempotency.Store{
		"a Memory": func(t *testing.T) idempotency.Store { return newMemory(t, idempotency.MemoryConfig{}) },
		// In which the lease is renewed, and the record with it.
		"another store": func(t *testing.T) idempotency.Store { return newHookedStore(t) },
	} {
		for _, ttl := range []time.Duration{24 * time.Hour, 2 * lease} {
			t.Run(fmt.Sprint("in ", name, ", with a TTL of ", ttl), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
						time.Sleep(10 * lease)
						fmt.Fprint(w, "done")
					}}
					h := newMiddleware(t, idempotency.Config{Store: store(t), TTL: ttl, Wait: idempotency.NoWait}).Wrap(calls)
					go do(h, post("/", ""))
					for range 9 {
						time.Sleep(lease)
						wantFailure(t, do(h, post("/", "")), 409, usher.CodeIdempotencyInProgress)
					}
					time.Sleep(2 * lease)
					if w := do(h, post("/", "")); w.Body.String() != "done" {
						t.Errorf("got %s", w.Body)
					}
					calls.want(t, 1)
				})
			})
		}
	}
}

// P05: the keys of a process that dies are free after the lease.
func TestARetryAfterADeadProcessRunsAfterTheLease(t *testing.T) {
	for _, c := range []struct {
		name string
		// die ends the process of the request from within its handler.
		die func(*hookedStore)
	}{
		{"before the handler's end", func(*hookedStore) {}},
		{"while the response is stored", func(f *hookedStore) {
			f.set(func(f *hookedStore) {
				f.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) {
					return 0, errors.New("down")
				}
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newMemory(t, idempotency.MemoryConfig{})
				dying := &hookedStore{Store: store}
				stop := make(chan struct{})
				dead := newMiddleware(t, idempotency.Config{Store: dying, FinishTimeout: time.Second}).Wrap(
					http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
						dying.set(func(f *hookedStore) { f.renew = func(context.Context) error { return errors.New("dead") } })
						c.die(dying)
						if c.name == "before the handler's end" {
							<-stop
						}
					}))
				go do(dead, post("/", ""))
				synctest.Wait()
				calls := new(counting)
				h := newMiddleware(t, idempotency.Config{Store: &hookedStore{Store: store}, Wait: idempotency.NoWait}).Wrap(calls)
				time.Sleep(lease - time.Millisecond)
				wantFailure(t, do(h, post("/", "")), 409, usher.CodeIdempotencyInProgress)
				time.Sleep(time.Millisecond)
				// The key still belongs to the request.
				wantFailure(t, do(h, post("/", "other")), 422, usher.CodeIdempotencyKeyReused)
				calls.want(t, 0)
				first := do(h, post("/", ""))
				if first.Code != 201 {
					t.Errorf("after the lease: %d %s", first.Code, first.Body)
				}
				wantReplay(t, do(h, post("/", "")), first)
				calls.want(t, 1)
				close(stop)
				synctest.Wait()
			})
		})
	}
}

// T5: an owner is paused for three leases, its successor completes, and the owner
// continues.
func TestALateOwnerChangesNothing(t *testing.T) {
	for _, end := range []string{"completes", "releases", "panics", "streams"} {
		t.Run("and "+end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newMemory(t, idempotency.MemoryConfig{})
				paused := &hookedStore{Store: store}
				m := newMeter()
				var mu sync.Mutex // of reported
				var reported []error
				var generation [2]uint64
				lateEnd := make(chan *idempotency.Execution, 1)
				late := newMiddleware(t, idempotency.Config{
					Store: paused, MeterProvider: m,
					OnError: func(_ context.Context, err error) {
						mu.Lock()
						defer mu.Unlock()
						reported = append(reported, err)
					},
				}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					e := idempotency.From(r.Context())
					generation[0] = e.Generation()
					// A stopped process renews nothing.
					paused.set(func(f *hookedStore) {
						f.renew = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
					})
					time.Sleep(3 * lease)
					paused.set(func(f *hookedStore) { f.renew = nil })
					lateEnd <- e
					w.Header().Set("Location", "/late")
					switch end {
					case "releases":
						w.WriteHeader(503)
					case "panics":
						panic("late")
					case "streams":
						_ = http.NewResponseController(w).Flush()
					}
					fmt.Fprint(w, "late")
				}))
				node := newMiddleware(t, idempotency.Config{Store: &hookedStore{Store: store}}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					generation[1] = idempotency.From(r.Context()).Generation()
					w.Header().Set("Location", "/successor")
					fmt.Fprint(w, "successor")
				}))
				finished := make(chan string)
				go func() { finished <- do(late, post("/", "")).Body.String() }()
				time.Sleep(lease + time.Second)
				first := do(node, post("/", ""))
				body := <-finished
				synctest.Wait()
				if e := <-lateEnd; !isClosed(lost(e)) {
					t.Error("the late handler is not notified")
				}
				if end == "completes" && body != "late" {
					t.Errorf("the late client got %q", body)
				}
				again := do(node, post("/", ""))
				wantReplay(t, again, first)
				if again.Header().Get("Location") != "/successor" {
					t.Errorf("Location: %q", again.Header().Get("Location"))
				}
				if generation[0] >= generation[1] {
					t.Errorf("generations %d and then %d", generation[0], generation[1])
				}
				mu.Lock()
				defer mu.Unlock()
				losses := 0
				for _, err := range reported {
					if strings.Contains(err.Error(), "the lease is lost") {
						losses++
					}
				}
				// The process that was paused has tried to renew its lease, in the test.
				if n := m.counts(t)["lease_lost"]; n != 1 || losses != 1 || len(reported) < 2 {
					t.Errorf("%d lost leases are counted, OnError got %v", n, reported)
				}
			})
		})
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// lost returns a channel that is closed when the claim of e is lost.
func lost(e *idempotency.Execution) <-chan struct{} {
	ctx, cancel := e.Context(context.Background())
	context.AfterFunc(ctx, cancel)
	return ctx.Done()
}

func TestAHandlerIsNotifiedOfALostClaim(t *testing.T) {
	fail := func(err error) func(*hookedStore) {
		return func(f *hookedStore) { f.renew = func(context.Context) error { return err } }
	}
	for _, c := range []struct {
		name string
		err  error
		lost time.Duration // after the beginning
	}{
		{"as soon as the store returns it", idempotency.ErrLost, lease / 3},
		{"when the lease has ended and the store fails", errors.New("down"), lease},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore(t)
				store.set(fail(c.err))
				h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					began := time.Now()
					ctx, cancel := idempotency.From(r.Context()).Context(r.Context())
					defer cancel()
					select {
					case <-ctx.Done():
					case <-time.After(time.Hour):
						t.Error("the handler is never notified")
						return
					}
					if d := time.Since(began); d != c.lost {
						t.Errorf("the handler is notified after %v, want %v", d, c.lost)
					}
					if err := context.Cause(ctx); !errors.Is(err, idempotency.ErrLost) {
						t.Errorf("the cause is %v", err)
					}
					if r.Context().Err() != nil {
						t.Error("the context of the request has ended as well")
					}
					if !isClosed(lost(idempotency.From(r.Context()))) {
						t.Error("a second context has not ended")
					}
				}))
				do(h, post("/", ""))
			})
		})
	}
	t.Run("not if the store recovers in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := newHookedStore(t)
			store.set(fail(errors.New("down")))
			h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(lease * 2 / 3)
				store.set(func(f *hookedStore) { f.renew = nil })
				time.Sleep(3 * lease)
				if isClosed(lost(idempotency.From(r.Context()))) {
					t.Error("the claim counts as lost")
				}
			}))
			do(h, post("/", ""))
		})
	})
}

func TestExecutionOfARequestWithoutAKey(t *testing.T) {
	e := idempotency.From(t.Context())
	if e != nil {
		t.Fatal("a request without a key has an Execution")
	}
	e.SetOutcome(idempotency.Keep)
	ctx, cancel := e.Context(t.Context())
	if e.Generation() != 0 || e.DownstreamKey("a") != "" || ctx.Err() != nil {
		t.Error("a nil Execution is not empty")
	}
	if cancel(); ctx.Err() == nil {
		t.Error("the context does not end")
	}
}

func TestDownstreamKeysAreStableAndApart(t *testing.T) {
	var got []string
	h := newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := idempotency.From(r.Context())
		got = append(got, e.DownstreamKey("pay"), e.DownstreamKey("mail"))
		w.WriteHeader(503)
	}))
	do(h, post("/", ""))
	do(h, post("/", ""))
	do(h, post("/", "", key("other")))
	if len(got) != 6 || got[0] != got[2] || got[1] != got[3] || got[0] == got[1] || got[0] == got[4] || len(got[0]) != 64 {
		t.Errorf("got %q", got)
	}
}

// renewed records when Renew is called, by the token of the request, and fails when fail
// returns true.
type renewed struct {
	idempotency.Store
	begun time.Time
	fail  func(since time.Duration) bool

	mu sync.Mutex
	at map[idempotency.Token][]time.Duration
}

func (r *renewed) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) ([]idempotency.ClaimID, error) {
	since := time.Since(r.begun)
	r.mu.Lock()
	for _, c := range claims {
		r.at[c.Token] = append(r.at[c.Token], since)
	}
	r.mu.Unlock()
	if r.fail != nil && r.fail(since) {
		return nil, errors.New("down")
	}
	return r.Store.Renew(ctx, claims, lease)
}

// sleeping is a handler that sleeps for the duration in its path.
var sleeping = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
	d, _ := time.ParseDuration(r.URL.Path[1:])
	time.Sleep(d)
})

func TestTheEndOfOneExecutionDelaysNoRenewalOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &renewed{Store: newMemory(t, idempotency.MemoryConfig{}), begun: time.Now(), at: make(map[idempotency.Token][]time.Duration)}
		m := newMiddleware(t, idempotency.Config{Store: store})
		h := m.Wrap(sleeping)
		go do(h, post("/1s", "", key("a")))
		time.Sleep(5 * time.Second)
		if n := m.Leases(); n != 0 {
			t.Errorf("%d leases of requests that have ended are kept", n)
		}
		do(h, post("/21s", "", key("b")))
		store.mu.Lock()
		defer store.mu.Unlock()
		for _, at := range store.at {
			if want := []time.Duration{15 * time.Second, 25 * time.Second}; !slices.Equal(at, want) {
				t.Errorf("renewed at %v, want %v", at, want)
			}
		}
		if len(store.at) != 1 {
			t.Errorf("%d executions were renewed, want one", len(store.at))
		}
	})
}

func TestAFailedRenewalIsRetriedBeforeOthersAreDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &renewed{
			Store: newMemory(t, idempotency.MemoryConfig{}), begun: time.Now(), at: make(map[idempotency.Token][]time.Duration),
			fail: func(since time.Duration) bool { return since == 10*time.Second },
		}
		h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(sleeping)
		go do(h, post("/14s", "", key("a")))
		time.Sleep(8 * time.Second)
		do(h, post("/11s", "", key("b")))
		store.mu.Lock()
		defer store.mu.Unlock()
		var all []time.Duration
		for _, at := range store.at {
			all = append(all, at...)
		}
		slices.Sort(all)
		if want := []time.Duration{10 * time.Second, 12500 * time.Millisecond, 18 * time.Second}; !slices.Equal(all, want) {
			t.Errorf("renewed at %v, want %v", all, want)
		}
	})
}
