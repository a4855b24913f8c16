package idempotency_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/leak"
)

// A crowd of callers sends each its own request many times, to two processes that share a
// store. The requests are released, panic, take long, or succeed; clients disconnect; calls
// of the store fail. No two executions of one request overlap, none runs after one has
// succeeded, and every request that gets a success gets the same one.
func TestACrowdOfDuplicates(t *testing.T) {
	for name, newStore := range map[string]func(*testing.T) idempotency.Store{
		"memory": func(t *testing.T) idempotency.Store { return newMemory(t, idempotency.MemoryConfig{}) },
		"remote": func(t *testing.T) idempotency.Store { return newHookedStore(t) },
		"a failing remote": func(t *testing.T) idempotency.Store {
			store := newHookedStore(t)
			var n atomic.Int64
			store.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
				switch n.Add(1) % 7 {
				case 0:
					return idempotency.Record{}, usher.ErrUnavailable
				case 1: // the reply is lost
					_, _ = store.Store.Claim(ctx, c)
					return idempotency.Record{}, usher.ErrUnavailable
				}
				return store.Store.Claim(ctx, c)
			}
			store.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
				switch n.Add(1) % 5 {
				case 0:
					return 0, usher.ErrUnavailable
				case 1:
					_, _ = store.Store.Finish(ctx, c)
					return 0, usher.ErrUnavailable
				}
				return store.Store.Finish(ctx, c)
			}
			t.Cleanup(func() {
				store.set(func(s *hookedStore) { s.claim, s.finish = nil, nil })
				leak.Goroutines() // releases of claims whose reply was lost
			})
			return store
		},
	} {
		t.Run(name, func(t *testing.T) { crowdOfOwners(t, newStore(t)) })
	}
}

func crowdOfOwners(t *testing.T, store idempotency.Store) {
	const owners, duplicates = 100, 10
	type account struct {
		running, runs, successes atomic.Int32
		body                     onceString
	}
	var accounts [owners]account
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		var i int
		_, _ = fmt.Sscan(p.ID, &i)
		a := &accounts[i]
		if a.running.Add(1) != 1 {
			t.Error("two executions of one request overlap")
		}
		defer a.running.Add(-1)
		if a.successes.Load() > 0 {
			t.Error("a request ran after it had succeeded")
		}
		n := a.runs.Add(1)
		body, _ := io.ReadAll(r.Body)
		time.Sleep(rand.N(5 * time.Millisecond))
		switch {
		case n == 1 && i%4 == 0:
			panic(http.ErrAbortHandler)
		case n == 1 && i%4 == 1:
			idempotency.From(r.Context()).SetOutcome(idempotency.Release)
			w.WriteHeader(500)
			return
		case n < 3:
			w.WriteHeader(429)
			return
		}
		a.successes.Add(1)
		fmt.Fprintf(w, "%d %d %s", i, n, body)
	})
	var handlers []http.Handler
	for range 2 {
		handlers = append(handlers, newMiddleware(t, idempotency.Config{
			Store: store, Wait: 2 * time.Second, Profile: idempotency.ProfileReleaseServerErrors, OnError: func(context.Context, error) {},
		}).Wrap(handler))
	}
	var all sync.WaitGroup
	for i := range owners {
		for range duplicates {
			all.Go(func() {
				for attempt := range 40 {
					ctx, cancel := context.WithCancel(t.Context())
					if rand.N(4) == 0 {
						time.AfterFunc(rand.N(10*time.Millisecond), cancel)
					}
					p := &usher.Principal{ID: fmt.Sprint(i), Kind: usher.KindAPIKey}
					r := post("/", fmt.Sprint("body ", i), as(p))
					r = usher.WithPrincipal(r.WithContext(ctx), p)
					w := do(handlers[rand.N(2)], r)
					cancel()
					if w.Code == 200 {
						first, _ := accounts[i].body.LoadOrStore(w.Body.String())
						if w.Body.String() != first {
							t.Errorf("got %q and %q", first, w.Body)
						}
						return
					}
					time.Sleep(time.Duration(attempt) * time.Millisecond)
				}
			})
		}
	}
	all.Wait()
	for i := range accounts {
		if n := accounts[i].successes.Load(); n != 1 {
			t.Errorf("owner %d: %d successes in %d runs", i, n, accounts[i].runs.Load())
		}
	}
}

// A onceString keeps the first string that it gets.
type onceString struct {
	once sync.Once
	s    string
}

func (o *onceString) LoadOrStore(s string) (first string, loaded bool) {
	loaded = true
	o.once.Do(func() { o.s, loaded = s, false })
	return o.s, loaded
}
