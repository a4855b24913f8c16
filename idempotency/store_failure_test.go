package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

var errDown = errors.New("connection refused")

// T7: a store that hangs, is slow or is down.
func TestAStoreThatFails(t *testing.T) {
	type claimFunc = func(context.Context, idempotency.Claim) (idempotency.Record, error)
	for _, c := range []struct {
		name  string
		claim claimFunc
		after time.Duration
	}{
		{"a black hole that obeys its context", func(ctx context.Context, _ idempotency.Claim) (idempotency.Record, error) {
			<-ctx.Done()
			return idempotency.Record{}, ctx.Err()
		}, 250 * time.Millisecond},
		{"a black hole that ignores its context", func(context.Context, idempotency.Claim) (idempotency.Record, error) {
			time.Sleep(time.Minute)
			return idempotency.Record{}, errDown
		}, 250 * time.Millisecond},
		{"2 seconds of latency", func(context.Context, idempotency.Claim) (idempotency.Record, error) {
			time.Sleep(2 * time.Second)
			return idempotency.Record{State: idempotency.StateClaimed, Won: true}, nil
		}, 250 * time.Millisecond},
		{"down", func(context.Context, idempotency.Claim) (idempotency.Record, error) {
			return idempotency.Record{}, errDown
		}, 0},
		{"full", func(context.Context, idempotency.Claim) (idempotency.Record, error) {
			return idempotency.Record{}, usher.ErrFull
		}, 0},
		{"a panic", func(context.Context, idempotency.Claim) (idempotency.Record, error) { panic("bug") }, 0},
	} {
		for _, open := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, open %v", c.name, open), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newHookedStore(t)
					store.set(func(f *hookedStore) { f.claim = c.claim })
					m := newMeter()
					var reported atomic.Int32
					calls := new(counting)
					h := newMiddleware(t, idempotency.Config{
						Store: store, DangerouslyFailOpen: open, MeterProvider: m,
						OnError: func(context.Context, error) { reported.Add(1) },
					}).Wrap(calls)
					began := time.Now()
					w := do(h, post("/", "body"))
					if d := time.Since(began); d != c.after {
						t.Errorf("the response took %v, want %v", d, c.after)
					}
					counts := m.counts(t)
					if open {
						if w.Code != 201 || w.Body.String() != `{"execution":1,"body":"body"}` || w.Header().Get("Idempotency-Status") != "ignored" {
							t.Errorf("got %d %s, status %q", w.Code, w.Body, w.Header().Get("Idempotency-Status"))
						}
						if counts["unprotected"] != 1 {
							t.Errorf("counted %v", counts)
						}
					} else {
						wantFailure(t, w, 503, usher.CodeIdempotencyUnavailable)
						if w.Header().Get("Retry-After") != "1" || counts["store_failed"] != 1 {
							t.Errorf("Retry-After %q, counted %v", w.Header().Get("Retry-After"), counts)
						}
						calls.want(t, 0)
					}
					if reported.Load() != 1 {
						t.Errorf("%d errors were reported", reported.Load())
					}
					time.Sleep(2 * time.Minute) // the goroutines end
				})
			})
		}
	}
}

// A panic of the store is a failure, and the call is retried.
func TestAStoreThatPanicsWhileAResponseIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore(t)
		store.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) {
			store.set(func(f *hookedStore) { f.finish = nil })
			panic("bug")
		}
		store.renew = func(context.Context) error { panic("bug") }
		calls := &counting{next: func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(lease * 2 / 3)
			w.WriteHeader(http.StatusCreated)
		}}
		h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(calls)
		first := do(h, post("/", ""))
		wantReplay(t, do(h, post("/", "")), first)
		calls.want(t, 1)
	})
}

func TestNothingIsReleasedInAClosedStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore(t)
		closed := fmt.Errorf("store: %w", usher.ErrClosed)
		store.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
			return idempotency.Record{}, closed
		}
		store.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) { return 0, closed }
		var reported []error
		h := newMiddleware(t, idempotency.Config{
			Store: store, OnError: func(_ context.Context, err error) { reported = append(reported, err) },
		}).Wrap(new(counting))
		wantFailure(t, do(h, post("/", "")), 503, usher.CodeIdempotencyUnavailable)
		time.Sleep(lease)
		if len(reported) != 1 || !errors.Is(reported[0], usher.ErrClosed) {
			t.Errorf("OnError got %v, want the failure of the claim alone", reported)
		}
	})
}

// T6: a client library repeats each call whose reply was lost.
func TestLostRepliesAreHarmless(t *testing.T) {
	rounds := 200
	if soak {
		rounds = 1000
	}
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore(t)
		var mu sync.Mutex
		random := rand.New(rand.NewPCG(3, 4))
		again := func() bool {
			mu.Lock()
			defer mu.Unlock()
			return random.IntN(2) == 0
		}
		store.set(func(f *hookedStore) {
			f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
				for again() {
					_, _ = f.Store.Claim(ctx, c)
				}
				return f.Store.Claim(ctx, c)
			}
			f.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
				for again() {
					_, _ = f.Store.Finish(ctx, c)
				}
				return f.Store.Finish(ctx, c)
			}
		})
		m := newMeter()
		calls := new(counting)
		h := newMiddleware(t, idempotency.Config{Store: store, MeterProvider: m}).Wrap(calls)
		for i := range rounds {
			first := do(h, post("/", "", key(fmt.Sprint(i))))
			if first.Code != 201 {
				t.Fatalf("the first caller got %d %s", first.Code, first.Body)
			}
			wantReplay(t, do(h, post("/", "", key(fmt.Sprint(i)))), first)
		}
		calls.want(t, int64(rounds))
		if counts := m.counts(t); counts["lease_lost"] != 0 || counts["kept"] != int64(rounds) {
			t.Errorf("counted %v", counts)
		}
	})
}

func TestStoringAResponseIsRetried(t *testing.T) {
	for _, c := range []struct {
		name  string
		down  time.Duration // after the first attempt
		kept  bool
		after time.Duration // at most
	}{
		{"a store that is back after a second", time.Second, true, 2 * time.Second},
		{"a store that is down for an hour", time.Hour, false, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore(t)
				var down time.Time
				store.set(func(f *hookedStore) {
					f.finish = func(ctx context.Context, end idempotency.Completion) (idempotency.State, error) {
						if down.IsZero() {
							down = time.Now()
						}
						if time.Since(down) < c.down {
							return 0, errDown
						}
						return f.Store.Finish(ctx, end)
					}
				})
				m := newMeter()
				calls := new(counting)
				var reported []error
				h := newMiddleware(t, idempotency.Config{
					Store: store, MeterProvider: m, OnError: func(_ context.Context, err error) { reported = append(reported, err) },
				}).Wrap(calls)
				began := time.Now()
				first := do(h, post("/", ""))
				if d := time.Since(began); d > c.after {
					t.Errorf("the response took %v", d)
				}
				if first.Code != 201 {
					t.Errorf("the first client got %d %s, although the work was done", first.Code, first.Body)
				}
				again := do(h, post("/", ""))
				counts := m.counts(t)
				if c.kept {
					wantReplay(t, again, first)
					if counts["kept"] != 1 || len(reported) != 1 || !errors.Is(reported[0], errDown) {
						t.Errorf("counted %v, OnError got %v", counts, reported)
					}
					return
				}
				wantFailure(t, again, 409, usher.CodeIdempotencyInProgress)
				if len(reported) != 1 || !errors.Is(reported[0], errDown) {
					t.Errorf("OnError got %v", reported)
				}
				// The store accepts renewals, but not the response. Once it has recovered
				// it accepts a tombstone.
				time.Sleep(c.down + lease)
				synctest.Wait()
				wantFailure(t, do(h, post("/", "")), 409, notKept)
				if counts := m.counts(t); counts["dropped"] != 1 || counts["finish_failed"] != 0 || len(reported) != 2 || !errors.Is(reported[1], usher.ErrFull) {
					t.Errorf("counted %v, OnError got %v", counts, reported)
				}
				calls.want(t, 1)
			})
		})
	}
}

// A store may read a response long after its time is up. It never reads another one.
func TestASlowStoreGetsTheBytesOfItsOwnResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore(t)
		store.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
			given := bytes.Clone(c.Result.Payload)
			time.Sleep(time.Second) // 4 times as long as it may take
			if !bytes.Equal(given, c.Result.Payload) {
				t.Errorf("the payload %.60q has become %.60q", given, c.Result.Payload)
			}
			return 0, errDown
		}
		h := newMiddleware(t, idempotency.Config{Store: store, FinishTimeout: time.Nanosecond}).Wrap(http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, strings.Repeat(r.Header.Get("Idempotency-Key"), 100))
			}))
		for i := range 30 {
			do(h, post("/", "", key(fmt.Sprint(i))))
		}
		store.set(func(f *hookedStore) { f.finish = nil })
		time.Sleep(lease)
	})
}

// A key that was released cannot be claimed by a delayed copy of the claim.
func TestAReleasedClaimCannotBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore(t)
		var claim idempotency.Claim
		store.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
			claim = c
			return store.Store.Claim(ctx, c)
		}
		h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		do(h, post("/", ""))
		time.Sleep(lease - time.Second)
		if r, err := store.Store.Claim(t.Context(), claim); !errors.Is(err, idempotency.ErrLost) {
			t.Errorf("a delayed copy of the claim got %+v, %v", r, err)
		}
	})
}

// T10: the client disconnects before the handler has finished.
func TestFinishedWorkIsStoredWhenTheClientHasDisconnected(t *testing.T) {
	for name, store := range map[string]func() idempotency.Store{
		"in memory": func() idempotency.Store { return newMemory(t, idempotency.MemoryConfig{}) },
		"in a store that obeys its context": func() idempotency.Store {
			f := newHookedStore(t)
			f.set(func(f *hookedStore) {
				f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
					if err := ctx.Err(); err != nil {
						return idempotency.Record{}, err
					}
					return f.Store.Claim(ctx, c)
				}
				f.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
					if err := ctx.Err(); err != nil {
						return 0, err
					}
					return f.Store.Finish(ctx, c)
				}
			})
			return f
		},
	} {
		t.Run(name, func(t *testing.T) {
			calls := new(counting)
			var gone context.CancelFunc
			calls.next = func(w http.ResponseWriter, r *http.Request) {
				gone()
				if err := r.Context().Err(); err != nil {
					t.Errorf("the work ended with its client: %v", err)
				}
				w.WriteHeader(201)
				fmt.Fprint(w, "done")
			}
			h := newMiddleware(t, idempotency.Config{Store: store()}).Wrap(calls)
			r := post("/", "")
			ctx, cancel := context.WithCancel(r.Context())
			gone = cancel
			do(h, r.WithContext(ctx))
			cancel()
			w := do(h, post("/", ""))
			if w.Code != 201 || w.Body.String() != "done" || w.Header().Get("Idempotency-Replayed") == "" {
				t.Errorf("the retry got %d %s", w.Code, w.Body)
			}
			calls.want(t, 1)
		})
	}
}
