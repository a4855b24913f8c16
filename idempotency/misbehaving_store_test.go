package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/internal/guard"
)

// A misbehavingStore misbehaves before it does its work, or after it.
type misbehavingStore struct {
	idempotency.Store
	beforeClaim, afterClaim, beforeFinish, afterFinish, beforeRenew faulty.Calls
}

func (s *misbehavingStore) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	if err := s.beforeClaim.Call(ctx); err != nil {
		return idempotency.Record{}, err
	}
	r, err := s.Store.Claim(ctx, c)
	if lost := s.afterClaim.Call(ctx); lost != nil {
		return idempotency.Record{}, lost
	}
	return r, err
}

func (s *misbehavingStore) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) ([]idempotency.ClaimID, error) {
	if err := s.beforeRenew.Call(ctx); err != nil {
		return nil, err
	}
	return s.Store.Renew(ctx, claims, lease)
}

func (s *misbehavingStore) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	if err := s.beforeFinish.Call(ctx); err != nil {
		return 0, err
	}
	kept, err := s.Store.Finish(ctx, c)
	if lost := s.afterFinish.Call(ctx); lost != nil {
		return 0, lost
	}
	return kept, err
}

// A service is a handler with a store that misbehaves. It counts what happens.
type service struct {
	t     *testing.T
	store *misbehavingStore
	m     *idempotency.Middleware
	http.Handler

	mu         sync.Mutex
	executions map[string]int
	refused    map[string]bool // the clients that were, by their keys
	failures   []error         // as OnError got them
}

func newService(t *testing.T) *service {
	s := &service{
		t: t, store: &misbehavingStore{Store: newMemory(t, idempotency.MemoryConfig{})},
		executions: make(map[string]int), refused: make(map[string]bool),
	}
	s.m = newMiddleware(t, idempotency.Config{Store: s.store, OnError: func(ctx context.Context, err error) {
		if p, ok := usher.PrincipalFrom(ctx); !ok || p.ID != "alice" {
			t.Errorf("OnError got a context without the principal, and %v", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failures = append(s.failures, err)
	}})
	s.Handler = s.m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := r.Header.Get("Idempotency-Key")
		s.mu.Lock()
		s.executions[k]++
		n := s.executions[k]
		s.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, k, ", execution ", n)
	}))
	return s
}

// call sends a request with the key k, as often as the responses ask for a retry.
func (s *service) call(k string) *httptest.ResponseRecorder {
	for range 60 {
		w := do(s, post("/", "", key(k)))
		switch {
		case w.Code == 201:
			return w
		case w.Code == 503 && code(w) == usher.CodeIdempotencyUnavailable, w.Code == 409 && code(w) == usher.CodeIdempotencyInProgress:
			s.mu.Lock()
			s.refused[k] = true
			s.mu.Unlock()
		default:
			s.t.Errorf("a client got %d %s", w.Code, w.Body)
			return w
		}
		after, err := strconv.Atoi(w.Header().Get("Retry-After"))
		if err != nil || w.Code == 503 && after != 1 || after < 1 || time.Duration(after)*time.Second > lease {
			s.t.Errorf("%d with Retry-After %q", w.Code, w.Header().Get("Retry-After"))
		}
		time.Sleep(time.Duration(after) * time.Second)
	}
	s.t.Error("a client has retried 60 times")
	return httptest.NewRecorder()
}

// load has n clients send a request each, one after the other with this pause between them.
// It returns when all of them have a response.
func (s *service) load(n int, pause time.Duration) {
	var clients sync.WaitGroup
	for i := range n {
		clients.Go(func() { s.call(fmt.Sprint("load-", i)) })
		time.Sleep(pause)
	}
	clients.Wait()
}

// wantRecovered fails the test unless the store, which works again, has every result, and
// new requests run at once. No key may have had more than one execution.
func (s *service) wantRecovered() {
	s.t.Helper()
	time.Sleep(lease)
	if n, bytes := s.m.Pending(); n != 0 || bytes != 0 || s.m.Leases() != 0 {
		s.t.Errorf("%d results of %d bytes are pending, %d leases are kept", n, bytes, s.m.Leases())
	}
	for i := range 20 {
		k := fmt.Sprint("new-", i)
		if w := do(s, post("/", "", key(k))); w.Code != 201 {
			s.t.Errorf("a new request got %d %s", w.Code, w.Body)
		}
	}
	for k, n := range s.executions {
		if n != 1 {
			s.t.Errorf("%s has %d executions", k, n)
		}
		w := do(s, post("/", "", key(k)))
		if w.Code != 201 || w.Body.String() != k+", execution 1" || w.Header().Get("Idempotency-Replayed") != "true" {
			s.t.Errorf("%s: the retry got %d %s", k, w.Code, w.Body)
		}
	}
}

// wantReported fails the test unless OnError got the cause, and only errors that a
// failing store explains.
func (s *service) wantReported(isCause func(error) bool) {
	s.t.Helper()
	causes := 0
	for _, err := range s.failures {
		switch {
		case isCause(err):
			causes++
		case errors.Is(err, guard.ErrTimeout), errors.Is(err, guard.ErrBusy), errors.Is(err, guard.ErrOpen):
		default:
			s.t.Errorf("OnError got %v", err)
		}
	}
	if causes == 0 {
		s.t.Errorf("OnError got %d errors, and never the cause", len(s.failures))
	}
}

// misbehaviors are the faults of a call, and the causes that OnError gets.
var misbehaviors = []struct {
	name    string
	fault   faulty.Fault
	isCause func(error) bool
}{
	{"fails", faulty.Fail, func(err error) bool { return errors.Is(err, faulty.ErrStore) }},
	{"panics", faulty.Panic, func(err error) bool {
		_, ok := errors.AsType[*guard.PanicError](err)
		return ok
	}},
	{"responds after the deadline", faulty.Late(time.Second), func(err error) bool { return errors.Is(err, guard.ErrTimeout) }},
	{"ignores its context", faulty.Late(8 * time.Second), func(err error) bool { return errors.Is(err, guard.ErrTimeout) }},
}

// places are where a store misbehaves.
var places = []struct {
	name string
	// claims is set if it is where keys are claimed.
	claims bool
	calls  func(*misbehavingStore) []*faulty.Calls
}{
	{"before a claim", true, func(s *misbehavingStore) []*faulty.Calls { return []*faulty.Calls{&s.beforeClaim} }},
	{"after a claim", true, func(s *misbehavingStore) []*faulty.Calls { return []*faulty.Calls{&s.afterClaim} }},
	{"before a result is stored", false, func(s *misbehavingStore) []*faulty.Calls { return []*faulty.Calls{&s.beforeFinish} }},
	{"after a result is stored", false, func(s *misbehavingStore) []*faulty.Calls { return []*faulty.Calls{&s.afterFinish} }},
	{"everywhere", true, func(s *misbehavingStore) []*faulty.Calls {
		return []*faulty.Calls{&s.beforeClaim, &s.afterFinish, &s.beforeRenew}
	}},
}

// If one call in a hundred fails or is slow, that affects only the request that made the
// call. No request of another client is refused because of it.
func TestOneCallIn100ThatMisbehavesConcernsItsOwnRequest(t *testing.T) {
	clients := 500
	if soak {
		clients = 5000
	}
	for _, place := range places {
		for _, c := range misbehaviors {
			t.Run(place.name+" it "+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newService(t)
					var faults atomic.Int64 // of calls that claim keys
					for i, calls := range place.calls(s.store) {
						calls.Set(faulty.Every(100, func(ctx context.Context, n int64) error {
							if place.claims && i == 0 {
								faults.Add(1)
							}
							return c.fault(ctx, n)
						}))
					}
					s.load(clients, 20*time.Millisecond)
					if int64(len(s.refused)) > faults.Load() || place.claims && faults.Load() < int64(clients/100) {
						t.Errorf("%d clients were refused because of %d calls", len(s.refused), faults.Load())
					}
					for _, calls := range place.calls(s.store) {
						calls.Set(nil)
					}
					s.wantRecovered()
					s.wantReported(c.isCause)
				})
			})
		}
	}
}

// While the store misbehaves for 10 seconds, keys cannot be claimed and requests are
// refused. Those that run get their responses, and are not repeated later.
func TestAStoreThatMisbehavesFor10Seconds(t *testing.T) {
	const outage = 10 * time.Second
	clients := 300
	if soak {
		clients = 3000
	}
	for _, place := range places {
		for _, c := range misbehaviors {
			t.Run(place.name+" it "+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newService(t)
					s.call("before")
					for _, calls := range place.calls(s.store) {
						calls.Set(faulty.For(outage, c.fault))
					}
					began := time.Now()
					s.load(clients, 15*time.Second/time.Duration(clients)) // and until all clients have a response
					if !place.claims && len(s.refused) != 0 {
						t.Errorf("%d clients were refused although their keys could be claimed", len(s.refused))
					}
					// At least all clients that called in the first 9 seconds.
					if place.claims && len(s.refused) < clients*9/15 {
						t.Errorf("only %d clients were refused during the outage", len(s.refused))
					}
					// A client whose claim took effect without a reply may be asked to wait for the
					// rest of the lease.
					if d := time.Since(began); d > outage+lease+5*time.Second {
						t.Errorf("all clients have a response after %v", d)
					}
					s.wantRecovered()
					if n := len(s.executions); n != clients+1+20 {
						t.Errorf("%d keys have an execution", n)
					}
					s.wantReported(c.isCause)
				})
			})
		}
	}
}

// Whatever happens to each call, at random, no key has two executions, and each client
// gets the response of the only one.
func TestAStoreThatMisbehavesAtRandomRunsNoKeyTwice(t *testing.T) {
	runs := 3
	if soak {
		runs = 100
	}
	for seed := range runs {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newService(t)
				var mu sync.Mutex
				random := rand.New(rand.NewPCG(uint64(seed), 11))
				fault := func(ctx context.Context, n int64) error {
					mu.Lock()
					i := random.IntN(10 * len(misbehaviors))
					mu.Unlock()
					if i < len(misbehaviors) {
						return misbehaviors[i].fault(ctx, n)
					}
					return nil
				}
				all := []*faulty.Calls{&s.store.beforeClaim, &s.store.afterClaim, &s.store.beforeFinish, &s.store.afterFinish, &s.store.beforeRenew}
				for _, calls := range all {
					calls.Set(fault)
				}
				const keys, duplicates = 100, 5
				bodies := make([]string, keys*duplicates)
				var clients sync.WaitGroup
				for i := range bodies {
					clients.Go(func() {
						time.Sleep(time.Duration(i) * 20 * time.Millisecond)
						bodies[i] = s.call(fmt.Sprint(i % keys)).Body.String()
					})
				}
				clients.Wait()
				for i, body := range bodies {
					if want := fmt.Sprint(i%keys, ", execution 1"); body != want {
						t.Errorf("a client got %q, want %q", body, want)
					}
				}
				for _, calls := range all {
					calls.Set(nil)
				}
				time.Sleep(lease)
				s.wantRecovered()
			})
		})
	}
}
