package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// Retries on two nodes ask one at a time, and the first result serves all of them.
func TestRetriesOnTwoNodesAskOneAtATime(t *testing.T) {
	for name, first := range unknowns {
		for _, c := range []struct {
			name string
			s    idempotency.Resolution
			body string
		}{
			{"done", idempotency.Resolution{Outcome: idempotency.Keep, Response: paid}, string(paid.Body)},
			{"absent", idempotency.Resolution{Outcome: idempotency.Release}, `{"execution":1,"body":"body"}`},
		} {
			t.Run(c.name+", of a request "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store, calls := newHookedStore(t), orders()
					var running atomic.Int64
					asks := &resolver{resolve: func(*http.Request, *idempotency.Execution) (idempotency.Resolution, error) {
						if running.Add(1) > 1 {
							t.Error("two calls of Resolve run at the same time")
						}
						time.Sleep(time.Second)
						running.Add(-1)
						return c.s, nil
					}}
					var nodes []http.Handler
					for range 2 {
						nodes = append(nodes, newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve, Wait: time.Minute}).Wrap(calls))
					}
					first.end(store, nodes[0], post("/", "body"))
					var clients sync.WaitGroup
					for i := range 20 {
						clients.Go(func() {
							if w := do(nodes[i%2], post("/", "body")); w.Code != 201 || w.Body.String() != c.body {
								t.Errorf("client %d got %d %s", i, w.Code, w.Body)
							}
						})
					}
					clients.Wait()
					asks.want(t, 1)
				})
			})
		}
	}
}

// Of all retries that come while one cannot find out the outcome, at most one asks again, so
// that a provider that is down is not flooded.
func TestACrowdOfRetriesAsksTwiceAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := newHookedStore(t), orders()
		asks := &resolver{resolve: func(*http.Request, *idempotency.Execution) (idempotency.Resolution, error) {
			time.Sleep(time.Second)
			return idempotency.Resolution{}, nil
		}}
		h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve}).Wrap(calls)
		panics(store, h, post("/", "body"))
		var clients sync.WaitGroup
		for range 20 {
			clients.Go(func() { wantFailure(t, do(h, post("/", "body")), 409, unknown) })
		}
		clients.Wait()
		if n := asks.asked.Load(); n < 1 || n > 2 {
			t.Errorf("Resolve was called %d times", n)
		}
		calls.want(t, 0)
	})
}

// The lease is kept while Resolve runs.
func TestTheLeaseIsKeptWhileResolveRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := newHookedStore(t), orders()
		asks := &resolver{resolve: func(*http.Request, *idempotency.Execution) (idempotency.Resolution, error) {
			time.Sleep(3 * lease)
			return idempotency.Resolution{Outcome: idempotency.Release}, nil
		}}
		h := newMiddleware(t, idempotency.Config{
			Store: store, Resolve: asks.Resolve, ResolveTimeout: time.Hour, Wait: idempotency.NoWait,
		}).Wrap(calls)
		dies(store, h, post("/", "body"))
		var retry sync.WaitGroup
		retry.Go(func() {
			if w := do(h, post("/", "body")); w.Code != 201 {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
		})
		for range 5 {
			time.Sleep(lease / 2)
			wantFailure(t, do(h, post("/", "body")), 409, usher.CodeIdempotencyInProgress)
		}
		retry.Wait()
		asks.want(t, 1)
		calls.want(t, 1)
	})
}

// If the process dies while it resolves, the next retry asks again after the lease.
func TestAProcessThatDiesWhileItResolvesChangesNothing(t *testing.T) {
	for name, first := range unknowns {
		t.Run("a request "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, calls := newHookedStore(t), orders()
				asks := always(idempotency.Resolution{Outcome: idempotency.Keep, Response: paid})
				h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve, Wait: idempotency.NoWait}).Wrap(calls)
				first.end(store, h, post("/", "body"))
				if first.before == idempotency.StateUnknown {
					// The first claim finds the outcome unknown, the second takes the key.
					store.set(func(f *hookedStore) {
						f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
							r, err := f.Store.Claim(ctx, c)
							if r.Won {
								store.set(func(f *hookedStore) { f.claim = nil })
								return idempotency.Record{}, idempotency.ErrOwnerFull
							}
							return r, err
						}
					})
					do(h, post("/", "body"))
					time.Sleep(lease)
				} else {
					dies(store, h, post("/", "body"))
				}
				asks.want(t, 0)
				if w := do(h, post("/", "body")); w.Code != 201 || w.Body.String() != string(paid.Body) {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
				asks.want(t, 1)
				calls.want(t, 0)
			})
		})
	}
}

// A retry whose claim takes effect although it was refused does not free the key: the
// outcome of the first request is as unknown as before.
func TestALostClaimOfARetryDoesNotFreeTheKey(t *testing.T) {
	for name, first := range unknowns {
		for how, lost := range map[string]func(context.Context) error{
			"its reply is lost":         func(context.Context) error { return usher.ErrUnavailable },
			"it comes too late":         func(context.Context) error { time.Sleep(time.Second); return nil },
			"it is too late and fails":  func(context.Context) error { time.Sleep(time.Second); return errDown },
			"the store panics after it": func(context.Context) error { panic("bug") },
		} {
			t.Run(how+", of a request "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store, calls := newHookedStore(t), orders()
					asks := always(idempotency.Resolution{Outcome: idempotency.Keep, Response: paid})
					h := newMiddleware(t, idempotency.Config{
						Store: store, Resolve: asks.Resolve, Wait: idempotency.NoWait, OnError: func(context.Context, error) {},
					}).Wrap(calls)
					first.end(store, h, post("/", "body"))
					var failures atomic.Int64
					failures.Store(1)
					if how == "its reply is lost" {
						failures.Store(2) // as such a call is made twice
					}
					store.set(func(f *hookedStore) {
						f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
							r, err := f.Store.Claim(ctx, c)
							if r.Won && failures.Add(-1) >= 0 {
								if err := lost(ctx); err != nil {
									return idempotency.Record{}, err
								}
							}
							return r, err
						}
					})
					wantFailure(t, do(h, post("/", "body")), 503, usher.CodeIdempotencyUnavailable)
					time.Sleep(10 * time.Second) // less than the lease
					failures.Store(0)
					if w := do(h, post("/", "body")); w.Code != 201 || w.Body.String() != string(paid.Body) {
						t.Errorf("got %d %s", w.Code, w.Body)
					}
					asks.want(t, 1)
					calls.want(t, 0)
				})
			})
		}
	}
}

// A first request whose claim was lost in the same way has not run, and frees its key.
func TestALostClaimOfAFirstRequestFreesTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := newHookedStore(t), orders()
		asks := always(idempotency.Resolution{Outcome: idempotency.Keep, Response: paid})
		h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve, OnError: func(context.Context, error) {}}).Wrap(calls)
		var failures atomic.Int64
		failures.Store(2)
		store.set(func(f *hookedStore) {
			f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
				r, err := f.Store.Claim(ctx, c)
				if failures.Add(-1) >= 0 {
					return idempotency.Record{}, usher.ErrUnavailable
				}
				return r, err
			}
		})
		wantFailure(t, do(h, post("/", "body")), 503, usher.CodeIdempotencyUnavailable)
		time.Sleep(5 * time.Second)
		if w := do(h, post("/", "body")); w.Code != 201 {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		asks.want(t, 0)
		calls.want(t, 1)
	})
}

// If another request has the key by the time the resolution is known, nothing of it counts.
func TestAResolutionThatComesTooLateDoesNotCount(t *testing.T) {
	for _, outcome := range []idempotency.Outcome{
		idempotency.Release, idempotency.Keep, idempotency.KeepStatus, idempotency.Forget, idempotency.Unknown,
	} {
		for _, c := range []struct {
			name  string
			renew bool // Renew shows that the claim is lost, else only Finish does
		}{{"before Resolve returns", true}, {"when it is stored", false}} {
			if outcome == idempotency.Release && !c.renew {
				continue // nothing is stored
			}
			t.Run(fmt.Sprintf("outcome %d, lost %s", outcome, c.name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store, calls, log := newHookedStore(t), orders(), new(changes)
					asks := &resolver{resolve: func(r *http.Request, _ *idempotency.Execution) (idempotency.Resolution, error) {
						if c.renew {
							<-r.Context().Done()
							if !errors.Is(context.Cause(r.Context()), idempotency.ErrLost) {
								t.Errorf("the context ends with %v", context.Cause(r.Context()))
							}
						}
						return idempotency.Resolution{Outcome: outcome, Response: paid}, nil
					}}
					h := newMiddleware(t, idempotency.Config{
						Store: store, Resolve: asks.Resolve, ResolveTimeout: time.Hour, OnChange: log.add, OnError: func(context.Context, error) {},
					}).Wrap(calls)
					panics(store, h, post("/", "body"))
					store.set(func(f *hookedStore) {
						f.renew = func(context.Context) error { return idempotency.ErrLost }
						f.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) {
							return 0, idempotency.ErrLost
						}
					})
					wantFailure(t, do(h, post("/", "body")), 409, usher.CodeIdempotencyInProgress)
					calls.want(t, 0)
					if got := log.take(t); len(got) != 1 || !strings.HasSuffix(got[0], "5 to 0, true") {
						t.Errorf("OnChange got %v", got)
					}
				})
			})
		}
	}
}

// While the store does not accept a resolution, the client gets its response late, the lease
// is kept, and the resolution is stored once the store accepts it.
func TestAResolutionIsStoredLater(t *testing.T) {
	for _, c := range []struct {
		name   string
		s      idempotency.Resolution
		status int
		code   string
		asked  int64 // by the retry and the next
	}{
		{"done", idempotency.Resolution{Outcome: idempotency.Keep, Response: paid}, 201, "", 1},
		{"forgotten", idempotency.Resolution{Outcome: idempotency.Forget}, 409, usher.CodeIdempotencyResponseNotKept, 1},
		{"unknown", idempotency.Resolution{Outcome: idempotency.Unknown}, 409, unknown, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, calls, log := newHookedStore(t), orders(), new(changes)
				asks := always(c.s)
				m := newMiddleware(t, idempotency.Config{
					Store: store, Resolve: asks.Resolve, Wait: idempotency.NoWait, OnChange: log.add, OnError: func(context.Context, error) {},
				})
				h := m.Wrap(calls)
				dies(store, h, post("/", "body"))
				store.set(func(f *hookedStore) {
					f.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) { return 0, errDown }
				})
				began := time.Now()
				w := do(h, post("/", "body"))
				if w.Code != c.status || code(w) != c.code || time.Since(began) > 3*time.Second {
					t.Errorf("got %d %s after %v", w.Code, w.Body, time.Since(began))
				}
				if got := log.take(t); len(got) != 1 || !strings.HasSuffix(got[0], "1 to 0, true") {
					t.Errorf("OnChange got %v", got)
				}
				time.Sleep(2 * lease)
				wantFailure(t, do(h, post("/", "body")), 409, usher.CodeIdempotencyInProgress)
				store.set(func(f *hookedStore) { f.finish = nil })
				time.Sleep(lease)
				again := do(h, post("/", "body"))
				if again.Code != c.status || code(again) != c.code {
					t.Errorf("the next retry got %d %s", again.Code, again.Body)
				}
				asks.want(t, c.asked)
				calls.want(t, 0)
				if n := m.Leases(); n != 0 {
					t.Errorf("%d leases are kept", n)
				}
			})
		})
	}
}
