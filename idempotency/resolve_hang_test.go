package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/guard"
)

// Resolve goes on when its client disconnects, and the next retry gets the result.
func TestResolveOutlivesItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := newHookedStore(t), orders()
		asks := &resolver{resolve: func(r *http.Request, _ *idempotency.Execution) (idempotency.Resolution, error) {
			select {
			case <-r.Context().Done():
				return idempotency.Resolution{}, context.Cause(r.Context())
			case <-time.After(2 * time.Second):
				return idempotency.Resolution{Outcome: idempotency.Keep, Response: paid}, nil
			}
		}}
		h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve}).Wrap(calls)
		panics(store, h, post("/", "body"))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		do(h, post("/", "body").WithContext(ctx))
		r := post("/", "body")
		ctx, cancel = context.WithCancel(r.Context())
		time.AfterFunc(time.Second, cancel)
		do(h, r.WithContext(ctx))
		if w := do(h, post("/", "body")); w.Code != 201 || w.Body.String() != string(paid.Body) {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		asks.want(t, 1)
		calls.want(t, 0)
	})
}

// A Resolve that goes on after its time reads no body, which may belong to another request
// by then, and its result does not count.
func TestAResolveThatGoesOnReachesNoOtherRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := newHookedStore(t), orders()
		read := make(chan error, 1)
		asks := &resolver{resolve: func(r *http.Request, e *idempotency.Execution) (idempotency.Resolution, error) {
			time.Sleep(time.Minute)
			_, err := io.ReadAll(r.Body)
			read <- err
			e.SetOutcome(idempotency.Release)
			return idempotency.Resolution{Outcome: idempotency.Release}, nil
		}}
		h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve, OnError: func(context.Context, error) {}}).Wrap(calls)
		panics(store, h, post("/", "body"))
		began := time.Now()
		wantFailure(t, do(h, post("/", "body")), 503, usher.CodeIdempotencyUnavailable)
		if d := time.Since(began); d != 10*time.Second {
			t.Errorf("the client got its response after %v", d)
		}
		if err := <-read; !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Errorf("the body is read with %v", err)
		}
		synctest.Wait()
		calls.want(t, 0)
		h = newMiddleware(t, idempotency.Config{Store: store}).Wrap(calls)
		wantFailure(t, do(h, post("/", "body")), 409, unknown)
	})
}

// A Resolve that hangs costs a place of 64. When all are taken, further retries fail, and
// neither their keys nor first requests are affected.
func TestResolvesThatHangAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := newHookedStore(t), orders()
		asks := &resolver{resolve: func(*http.Request, *idempotency.Execution) (idempotency.Resolution, error) {
			time.Sleep(time.Hour)
			return idempotency.Resolution{}, nil
		}}
		var reported atomic.Int64
		h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve, OnError: func(_ context.Context, err error) {
			if errors.Is(err, guard.ErrBusy) || errors.Is(err, guard.ErrTimeout) {
				reported.Add(1)
			}
		}}).Wrap(calls)
		var clients sync.WaitGroup
		for i := range 100 {
			k := key(fmt.Sprint("k", i))
			panics(store, h, post("/", "", k))
			clients.Go(func() { wantFailure(t, do(h, post("/", "", k)), 503, usher.CodeIdempotencyUnavailable) })
		}
		clients.Wait()
		asks.want(t, 64)
		if reported.Load() != 100 {
			t.Errorf("OnError got %d failures", reported.Load())
		}
		if w := do(h, post("/", "", key("first"))); w.Code != 201 {
			t.Errorf("a first request got %d %s", w.Code, w.Body)
		}
		time.Sleep(time.Hour)
	})
}

// A Resolve that fails for many keys is still called for the next: which keys it fails for
// may depend on their clients.
func TestAResolveThatFailsForOthersIsCalled(t *testing.T) {
	store, calls := newHookedStore(t), orders()
	asks := &resolver{resolve: func(r *http.Request, _ *idempotency.Execution) (idempotency.Resolution, error) {
		if r.Header.Get("Idempotency-Key") != "good" {
			return idempotency.Resolution{}, errDown
		}
		return idempotency.Resolution{Outcome: idempotency.Keep, Response: paid}, nil
	}}
	h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve, OnError: func(context.Context, error) {}}).Wrap(calls)
	for i := range 30 {
		k := key(fmt.Sprint("bad-", i))
		panics(store, h, post("/", "", k))
		wantFailure(t, do(h, post("/", "", k)), 503, usher.CodeIdempotencyUnavailable)
	}
	panics(store, h, post("/", "", key("good")))
	if w := do(h, post("/", "", key("good"))); w.Code != 201 || w.Body.String() != string(paid.Body) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	asks.want(t, 31)
}
