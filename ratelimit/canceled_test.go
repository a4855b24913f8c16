package ratelimit_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/ratelimit"
)

var modes = map[string]ratelimit.FailureMode{
	"falling back": ratelimit.FallBackToMemory, "open": ratelimit.DangerouslyFailOpen, "closed": ratelimit.FailClosed,
}

// A canceledServer is a server whose clients disconnect while it calls its store.
type canceledServer struct {
	url      string
	store    *flakyStore
	ran      atomic.Int64
	reported errorsOf
	asked    chan struct{}
	gone     chan context.Context // of the request, at the server
	over     chan struct{}        // the server has finished the request
}

func newCanceledServer(t *testing.T, mode ratelimit.FailureMode, policies ...ratelimit.Policy) *canceledServer {
	t.Helper()
	l := &canceledServer{
		store: &flakyStore{Memory: newMemory()},
		asked: make(chan struct{}), gone: make(chan context.Context, 1), over: make(chan struct{}, 1),
	}
	h := newLimiter(t, ratelimit.Config{
		Policies: policies, Store: l.store, OnStoreFailure: mode, StoreTimeout: time.Minute, OnError: l.reported.add,
	}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { l.ran.Add(1) }))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { l.over <- struct{}{} }()
		l.gone <- r.Context()
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	l.url = s.URL
	return l
}

// leave sends a request and cancels it when the store is called. The store then returns
// err, once the server has noticed that the client has disconnected.
func (l *canceledServer) leave(t *testing.T, err error) {
	t.Helper()
	response := make(chan struct{})
	l.store.Set(func(context.Context, int64) error {
		l.asked <- struct{}{}
		<-response
		return err
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
		if err != nil {
			t.Error(err)
			return
		}
		if res, err := http.DefaultClient.Do(r); err == nil {
			_ = res.Body.Close()
			t.Errorf("the client has not left: status %d", res.StatusCode)
		}
	}()
	at := <-l.gone
	<-l.asked
	cancel()
	<-at.Done()
	// Later calls of this request, which refund, do not block.
	l.store.Set(nil)
	close(response)
	<-done
	<-l.over
}

// get sends a request whose client stays, after requests whose clients have disconnected.
func (l *canceledServer) get(t *testing.T) int {
	t.Helper()
	res, _ := get(t, l.url)
	<-l.gone
	<-l.over
	return res.StatusCode
}

func TestClientsThatLeaveAreLimitedOverASocket(t *testing.T) {
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			l := newCanceledServer(t, mode, forAll("p", ratelimit.RollingWindow(5, time.Hour)))
			for range 20 {
				l.leave(t, nil)
			}
			if code := l.get(t); code != http.StatusTooManyRequests {
				t.Errorf("status %d after 20 requests of 5", code)
			}
			if n := l.ran.Load(); n != 0 {
				t.Errorf("the handler ran for %d clients that had gone", n)
			}
			if reported := l.reported.all(); len(reported) != 0 {
				t.Errorf("a client that leaves is a failure of the store: %v", reported)
			}
		})
	}
}

func TestClientsThatLeaveAStoreThatFailsAreNotServed(t *testing.T) {
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			l := newCanceledServer(t, mode, forAll("p", ratelimit.RollingWindow(2, time.Hour)))
			l.leave(t, faulty.ErrStore)
			if n := l.ran.Load(); n != 0 {
				t.Error("the handler ran for a client that had gone")
			}
			if reported := l.reported.all(); len(reported) != 1 {
				t.Errorf("OnError was called with %v, want the failure of the store", reported)
			}
			if mode == ratelimit.FallBackToMemory {
				// Nothing was charged locally either.
				wantCodes(t, []int{l.get(t), l.get(t), l.get(t)}, 200, 200, 429)
			}
		})
	}
}

func TestAClientThatLeavesKeepsNoPlaceAndCountsByItsStatus(t *testing.T) {
	failures := forAll("failures", ratelimit.RollingWindow(1, time.Hour))
	failures.Count = func(status int) bool { return status == http.StatusUnauthorized }
	l := newCanceledServer(t, ratelimit.FailClosed, forAll("places", ratelimit.Concurrency(1)), failures)
	for range 3 {
		l.leave(t, nil)
	}
	if code := l.get(t); code != http.StatusOK {
		t.Errorf("status %d, want the place and the failure to be free", code)
	}
}

func TestARequestThatHasEndedCallsNoStore(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(context.Context) (context.Context, context.CancelFunc)
		want int
	}{
		"by its client": {context.WithCancel, 499},
		"by a server that shuts down": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			return ctx, func() { cancel(errors.New("interrupt signal received")) }
		}, http.StatusServiceUnavailable},
		"by a deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithDeadline(ctx, time.Now().Add(-time.Second))
		}, http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			store := &flakyStore{Memory: newMemory()}
			h := newLimiter(t, ratelimit.Config{
				Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(9, time.Hour))}, Store: store,
			}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") }))
			ctx, cancel := c.end(t.Context())
			cancel()
			if code := do(h, func(r *http.Request) { *r = *r.WithContext(ctx) }).Code; code != c.want {
				t.Errorf("status %d, want %d", code, c.want)
			}
			if n := store.N(); n != 0 {
				t.Errorf("the store was called %d times", n)
			}
		})
	}
}
