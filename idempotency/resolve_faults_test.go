package idempotency_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/faulty"
)

// A paymentProvider makes payments. It accepts keys, and does not compare them: each call is a
// payment.
type paymentProvider struct {
	mu       sync.Mutex
	payments map[string]int // by key
}

func (p *paymentProvider) pay(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.payments[key]++
}

func (p *paymentProvider) paid(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.payments[key] > 0
}

// A mortalStore is the store as a process sees it. When the process is dead, it reaches the
// store no more, and its claims are lost, so that it does not go on.
type mortalStore struct {
	idempotency.Store
	dead atomic.Bool
}

func (s *mortalStore) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	if s.dead.Load() {
		return idempotency.Record{}, usher.ErrClosed
	}
	return s.Store.Claim(ctx, c)
}

func (s *mortalStore) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) ([]idempotency.ClaimID, error) {
	if s.dead.Load() {
		return claims, nil
	}
	return s.Store.Renew(ctx, claims, lease)
}

func (s *mortalStore) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	if s.dead.Load() {
		return 0, idempotency.ErrLost
	}
	return s.Store.Finish(ctx, c)
}

// A paymentNode is one process of a payment service.
type paymentNode struct {
	store *mortalStore
	http.Handler
}

// newPaymentNode returns a process whose handler fails in every way: before its payment,
// after it, and by dying in either case.
func newPaymentNode(t *testing.T, store idempotency.Store, provider *paymentProvider) *paymentNode {
	n := &paymentNode{store: &mortalStore{Store: store}}
	m := newMiddleware(t, idempotency.Config{
		Store: n.store, FinishTimeout: time.Second, OnError: func(context.Context, error) {},
		Resolve: func(_ *http.Request, e *idempotency.Execution) (idempotency.Resolution, error) {
			time.Sleep(rand.N(time.Second))
			switch {
			case rand.N(10) == 0:
				return idempotency.Resolution{}, errDown
			case rand.N(10) == 0:
				panic("bug")
			case provider.paid(e.DownstreamKey("payment")):
				return idempotency.Resolution{Outcome: idempotency.Keep, Response: &idempotency.Response{
					Status: http.StatusCreated, Body: []byte("paid"),
				}}, nil
			}
			return idempotency.Resolution{Outcome: idempotency.Release}, nil
		},
	})
	n.Handler = m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := idempotency.From(r.Context()).DownstreamKey("payment")
		time.Sleep(rand.N(time.Second))
		fate := rand.N(10)
		if fate < 2 {
			n.store.dead.Store(fate == 0)
			panic(http.ErrAbortHandler)
		}
		if fate == 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		provider.pay(key)
		if fate < 6 {
			n.store.dead.Store(fate == 3)
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, "paid")
	}))
	return n
}

// Handlers panic and processes die before and after they have paid, the store fails in every
// way, and so does Resolve. Each payment is made exactly once all the same, and each client,
// which retries until it gets a response, gets that of the payment.
func TestResolvedPaymentsAreMadeOnce(t *testing.T) {
	for _, fault := range misbehaviors {
		t.Run("a store that "+fault.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &misbehavingStore{Store: newMemory(t, idempotency.MemoryConfig{})}
				for _, calls := range []*faulty.Calls{
					&store.beforeClaim, &store.afterClaim, &store.beforeFinish, &store.afterFinish, &store.beforeRenew,
				} {
					calls.Set(faulty.Every(7, fault.fault))
				}
				provider := &paymentProvider{payments: make(map[string]int)}
				var mu sync.Mutex
				nodes := []*paymentNode{newPaymentNode(t, store, provider), newPaymentNode(t, store, provider)}
				node := func(i int) *paymentNode {
					mu.Lock()
					defer mu.Unlock()
					if nodes[i].store.dead.Load() {
						nodes[i] = newPaymentNode(t, store, provider)
					}
					return nodes[i]
				}
				const keys = 100
				var clients sync.WaitGroup
				for i := range 2 * keys { // two clients with each key
					k := fmt.Sprint("payment-", i%keys)
					clients.Go(func() {
						for range 200 {
							time.Sleep(rand.N(5 * time.Second))
							w := do(node(rand.N(2)), post("/", "", key(k)))
							if w.Code == 201 {
								if w.Body.String() != "paid" {
									t.Errorf("%s: got %s", k, w.Body)
								}
								return
							}
						}
						t.Errorf("%s: the client has given up", k)
					})
				}
				clients.Wait()
				for k, n := range provider.payments {
					if n != 1 {
						t.Errorf("%s was paid %d times", k, n)
					}
				}
				if n := len(provider.payments); n != keys {
					t.Errorf("%d payments were made, want %d", n, keys)
				}
				for _, n := range nodes {
					n.store.dead.Store(true)
				}
				time.Sleep(time.Minute) // until late calls have returned
			})
		})
	}
}
