package idempotency_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// Inside the middleware, http.TimeoutHandler responds while the handler goes on. Whenever
// that calls Commit, its transaction ends once, and a success is sent only if it was
// committed.
func TestATransactionEndsOnceWhenTheHandlerIsAbandoned(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{Store: newHookedStore(t), OnError: func(context.Context, error) {}})
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			var commits, rollbacks atomic.Int32
			handled := make(chan struct{})
			h := m.Wrap(http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(handled)
				time.Sleep(rand.N(4 * time.Millisecond))
				err := idempotency.From(r.Context()).Commit(r.Context(), func(context.Context, idempotency.Completion) error {
					commits.Add(1)
					return nil
				}, func() { rollbacks.Add(1) })
				if err == nil {
					time.Sleep(rand.N(4 * time.Millisecond))
				}
				w.Header().Set("X-Late", "1")
				_, _ = io.WriteString(w, "done")
			}), 4*time.Millisecond, "late"))
			w := do(h, post("/", "", key("k"+strconv.Itoa(i))))
			<-handled
			c, r := commits.Load(), rollbacks.Load()
			if c+r != 1 || (w.Code == 200) != (c == 1) {
				t.Errorf("status %d with %d commits and %d rollbacks", w.Code, c, r)
			}
		})
	}
	all.Wait()
}
