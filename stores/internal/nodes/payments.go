package nodes

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A RecordServer is a server of idempotency records that keeps them over a crash.
type RecordServer struct {
	// Open returns the store of another process. It is closed when its test ends.
	Open func(testing.TB) idempotency.Store
	// Faults damage the server or the connections to it, each for less than a second.
	Faults []func()
}

// TestPayments tests that each payment is made once. Two processes serve the retries of
// clients; they die, their handlers panic, and operators resolve requests, while the server
// fails in every way. A provider that knows which payments it has made refuses those of
// an execution that has been replaced.
func TestPayments(t *testing.T, s RecordServer) {
	const keys, clients = 40, 2 // clients of each key
	p := &provider{payments: make(map[string]*payment)}
	nodes := []*paymentNode{newPaymentNode(t, s.Open(t), p), newPaymentNode(t, s.Open(t), p)}
	var mu sync.Mutex // of nodes
	node := func() *paymentNode {
		mu.Lock()
		defer mu.Unlock()
		i := rand.N(len(nodes))
		if nodes[i].dead.Load() {
			nodes[i] = newPaymentNode(t, nodes[i].Store, p)
		}
		return nodes[i]
	}
	stop := make(chan struct{})
	var faults, operators, all sync.WaitGroup
	faults.Go(func() {
		for i := range 3 * len(s.Faults) {
			select {
			case <-stop:
				return
			case <-time.After(100*time.Millisecond + rand.N(200*time.Millisecond)):
				s.Faults[i%len(s.Faults)]()
			}
		}
	})
	var operated atomic.Int64
	operators.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(rand.N(20 * time.Millisecond)):
				operators.Go(func() {
					if node().operate(fmt.Sprint("payment-", rand.N(keys))) {
						operated.Add(1)
					}
				})
			}
		}
	})
	for i := range keys * clients {
		key := fmt.Sprint("payment-", i%keys)
		all.Go(func() {
			for began := time.Now(); time.Since(began) < 3*patience; time.Sleep(rand.N(100 * time.Millisecond)) {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/pay", strings.NewReader(key))
				r.Header.Set("Idempotency-Key", key)
				w := httptest.NewRecorder()
				node().serve(w, r)
				if w.Code == http.StatusCreated {
					if w.Body.String() != "paid" {
						t.Errorf("%s: the response is %q", key, w.Body)
					}
					return
				}
				if w.Code == http.StatusUnprocessableEntity || w.Code >= 200 && w.Code < 300 {
					t.Errorf("%s: got %d %s", key, w.Code, w.Body)
				}
			}
			t.Errorf("%s has no response", key)
		})
	}
	all.Wait()
	close(stop)
	faults.Wait()
	operators.Wait()
	t.Logf("%d processes have died, operators have resolved %d requests", p.deaths.Load(), operated.Load())
	for i := range keys {
		key := fmt.Sprint("payment-", i)
		if n := p.of(key).made; n != 1 {
			t.Errorf("%s is made %d times", key, n)
		}
	}
}

// A provider makes payments. It does not compare keys: each call is a payment.
type provider struct {
	deaths atomic.Int64

	mu       sync.Mutex
	payments map[string]*payment // by key
}

type payment struct {
	made       int
	generation uint64 // of the first execution that may make it
}

// of returns the payment with a key.
func (p *provider) of(key string) payment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *p.get(key)
}

func (p *provider) get(key string) *payment {
	if p.payments[key] == nil {
		p.payments[key] = new(payment)
	}
	return p.payments[key]
}

// pay makes a payment, unless the execution with this generation has been replaced.
func (p *provider) pay(key string, generation uint64) (ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.get(key)
	if generation < a.generation {
		return false
	}
	a.made++
	return true
}

// resolve returns what has become of a payment, which no earlier generation can make any
// more.
func (p *provider) resolve(key string, generation uint64) idempotency.Resolution {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.get(key)
	a.generation = max(a.generation, generation)
	if a.made == 0 {
		return idempotency.Resolution{Outcome: idempotency.Release}
	}
	return idempotency.Resolution{Outcome: idempotency.Keep, Response: &idempotency.Response{
		Status: http.StatusCreated, Body: []byte("paid"),
	}}
}

// A paymentNode is one process, and the store as it sees it. When the process is dead it
// makes no more calls.
type paymentNode struct {
	idempotency.Store
	m       *idempotency.Middleware
	handler http.Handler
	p       *provider
	dead    atomic.Bool
}

func (n *paymentNode) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	if n.dead.Load() {
		return idempotency.Record{}, usher.ErrClosed
	}
	return n.Store.Claim(ctx, c)
}

func (n *paymentNode) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) ([]idempotency.ClaimID, error) {
	if n.dead.Load() {
		return claims, nil
	}
	return n.Store.Renew(ctx, claims, lease)
}

func (n *paymentNode) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	if n.dead.Load() {
		return 0, idempotency.ErrLost
	}
	return n.Store.Finish(ctx, c)
}

func newPaymentNode(t testing.TB, s idempotency.Store, p *provider) *paymentNode {
	n := &paymentNode{Store: s, p: p}
	m, err := idempotency.New(idempotency.Config{
		Store: n, StoreTimeout: 250 * time.Millisecond, Lease: time.Second, FinishTimeout: 100 * time.Millisecond, Wait: 200 * time.Millisecond,
		DangerouslyAllowAnonymous: true, OnError: func(context.Context, error) {},
		Resolve: func(r *http.Request, e *idempotency.Execution) (idempotency.Resolution, error) {
			time.Sleep(rand.N(20 * time.Millisecond))
			switch rand.N(10) {
			case 0:
				return idempotency.Resolution{}, errors.New("the provider does not respond")
			case 1:
				n.die()
			case 2:
				fail()
			}
			return p.resolve(r.Header.Get("Idempotency-Key"), e.Generation()), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.m, n.handler = m, m.Wrap(http.HandlerFunc(n.pay))
	return n
}

func (n *paymentNode) die() {
	n.p.deaths.Add(1)
	n.dead.Store(true)
}

// serve serves a request. If the handler panics there is no response.
func (n *paymentNode) serve(w *httptest.ResponseRecorder, r *http.Request) {
	defer func() {
		if recover() != nil {
			w.Code = 0
		}
	}()
	n.handler.ServeHTTP(w, r)
}

// fail fails as code with a fault does.
func fail() {
	panic(http.ErrAbortHandler) //nolint:forbidigo // "Their handlers panic", as TestPayments says.
}

// pay is the handler. It fails in every way, before and after the payment.
func (n *paymentNode) pay(w http.ResponseWriter, r *http.Request) {
	time.Sleep(rand.N(20 * time.Millisecond))
	fate := rand.N(16)
	switch fate {
	case 0:
		n.die()
		fail()
	case 1:
		fail()
	case 2:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if n.dead.Load() { // killed by another request
		fail()
	}
	if !n.p.pay(r.Header.Get("Idempotency-Key"), idempotency.From(r.Context()).Generation()) {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	switch fate {
	case 3, 4:
		n.die()
		fail()
	case 5, 6:
		fail()
	}
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write([]byte("paid"))
}

// operate is an operator who asks the provider what has become of a request whose outcome
// is not known, and resolves it, or deletes its record if it had no effect. It takes so long
// that a retry may run meanwhile.
func (n *paymentNode) operate(key string) (resolved bool) {
	ctx := context.Background()
	k := idempotency.RequestKey{Method: http.MethodPost, Key: key}
	e, err := n.m.Lookup(ctx, k)
	if err != nil || e.State != idempotency.StateUnknown && (e.State != idempotency.StateClaimed || e.Lease > 0) {
		return false
	}
	s := n.p.resolve(key, e.Generation+1)
	k.Generation = e.Generation
	time.Sleep(rand.N(2 * time.Second))
	if s.Outcome == idempotency.Release && rand.N(2) == 0 {
		err = n.m.Delete(ctx, k)
	} else {
		err = n.m.Resolve(ctx, k, s)
	}
	return err == nil
}
