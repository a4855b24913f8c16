package nodes

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// TestDuplicates tests that the duplicates of a request wait for its response, on its own
// node and on another, while the server fails. A failure of the server costs some of them
// another attempt.
func TestDuplicates(t *testing.T, s RecordServer) {
	var executions atomic.Int64
	var nodes [2]http.Handler
	for i := range nodes {
		m, err := idempotency.New(idempotency.Config{
			Store: s.Open(t), Lease: patience, StoreTimeout: patience / 4, Wait: patience,
			DangerouslyAllowAnonymous: true, OnError: func(context.Context, error) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		nodes[i] = m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			n := executions.Add(1)
			time.Sleep(time.Second)
			w.WriteHeader(http.StatusCreated)
			_, _ = fmt.Fprint(w, "execution ", n)
		}))
	}
	var clients sync.WaitGroup
	for i := range 40 {
		clients.Go(func() {
			for began := time.Now(); time.Since(began) < 3*patience; time.Sleep(50 * time.Millisecond) {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("a"))
				r.Header.Set("Idempotency-Key", "key")
				w := httptest.NewRecorder()
				nodes[i%2].ServeHTTP(w, r)
				if w.Code == http.StatusServiceUnavailable {
					continue
				}
				if w.Code != http.StatusCreated || w.Body.String() != "execution 1" {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
				return
			}
			t.Error("a client has no response")
		})
	}
	for _, fault := range s.Faults {
		time.Sleep(100 * time.Millisecond)
		fault()
	}
	clients.Wait()
	if n := executions.Load(); n != 1 {
		t.Errorf("%d executions", n)
	}
}
