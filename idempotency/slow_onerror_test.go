package idempotency_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// OnError may be slow, for instance because it sends the error elsewhere. It delays no
// renewal: the lease is kept, and no other request gets the key.
func TestAnOnErrorThatIsSlowLosesNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &renewed{
			Store: newMemory(t, idempotency.MemoryConfig{}), begun: time.Now(), at: make(map[idempotency.Token][]time.Duration),
			fail: func(since time.Duration) bool { return since == 10*time.Second },
		}
		calls := &counting{next: func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(2 * time.Minute)
			w.WriteHeader(http.StatusCreated)
		}}
		h := newMiddleware(t, idempotency.Config{Store: store, OnError: func(context.Context, error) { time.Sleep(time.Minute) }}).Wrap(calls)
		done := make(chan int)
		go func() { done <- do(h, post("/", "")).Code }()
		time.Sleep(50 * time.Second)
		wantFailure(t, do(h, post("/", "")), 409, usher.CodeIdempotencyInProgress)
		if got := <-done; got != 201 {
			t.Errorf("%d", got)
		}
		calls.want(t, 1)
		time.Sleep(10 * time.Minute)
	})
}
