package nodes

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A deserter is a store as a process sees it that dies when it has claimed a key.
type deserter struct{ idempotency.Store }

func (s deserter) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	if _, err := s.Store.Claim(ctx, c); err != nil {
		return idempotency.Record{}, err
	}
	return idempotency.Record{}, idempotency.ErrOwnerFull // so that the claim is not released
}

// TestFull tests requests whose server has no room: fill takes all of it, and empty gives it
// back. What was claimed before ends as it would, except that no response is kept, and what
// was not claimed does not run.
func TestFull(t *testing.T, s idempotency.Store, fill, empty func()) {
	var executions atomic.Int64
	blocked, unblock := make(chan struct{}), make(chan struct{})
	config := idempotency.Config{
		Store: s, StoreTimeout: 250 * time.Millisecond, Lease: time.Second, Wait: idempotency.NoWait,
		DangerouslyAllowAnonymous: true, OnError: func(context.Context, error) {},
	}
	open := func(s idempotency.Store) *idempotency.Middleware {
		config.Store = s
		m, err := idempotency.New(config)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	send := func(m *idempotency.Middleware, key, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/pay", strings.NewReader(body))
		r.Header.Set("Idempotency-Key", key)
		w := httptest.NewRecorder()
		m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			executions.Add(1)
			if key == "running" {
				close(blocked)
				<-unblock
			}
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write([]byte("paid"))
		})).ServeHTTP(w, r)
		return w
	}
	m := open(s)
	want := func(key, body string, status int, code string, runs int64) {
		t.Helper()
		before := executions.Load()
		var w *httptest.ResponseRecorder
		for range 5 { // A loaded machine may not respond in time.
			w = send(m, key, body)
			if w.Code == status || w.Code != http.StatusServiceUnavailable {
				break
			}
		}
		ran := executions.Load() - before
		if w.Code != status || !strings.Contains(w.Body.String(), code) || ran != runs {
			t.Errorf("%s with %q: got %d %s after %d executions, want %d %s after %d", key, body, w.Code, w.Body, ran, status, code, runs)
		}
		if status == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
			t.Errorf("%s with %q: the response has no Retry-After", key, body)
		}
	}
	want("done", "a", 201, "paid", 1)
	send(open(deserter{s}), "dead", "a")
	ended := make(chan *httptest.ResponseRecorder)
	go func() { ended <- send(m, "running", "a") }()
	<-blocked
	time.Sleep(config.Lease)

	fill()
	want("new", "a", 503, usher.CodeIdempotencyUnavailable, 0)
	want("done", "a", 201, "paid", 0)
	want("done", "b", 422, usher.CodeIdempotencyKeyReused, 0)
	want("dead", "b", 422, usher.CodeIdempotencyKeyReused, 0)
	want("running", "a", 409, usher.CodeIdempotencyInProgress, 0)
	want("running", "b", 422, usher.CodeIdempotencyKeyReused, 0)
	time.Sleep(config.Lease)
	want("running", "a", 409, usher.CodeIdempotencyInProgress, 0) // its lease is renewed
	close(unblock)
	if w := <-ended; w.Code != http.StatusCreated || w.Body.String() != "paid" {
		t.Errorf("the running request got %d %s", w.Code, w.Body)
	}
	want("running", "a", 409, usher.CodeIdempotencyResponseNotKept, 0)
	k := idempotency.RequestKey{Method: http.MethodPost, Key: "dead"}
	e, err := m.Lookup(t.Context(), k)
	if err != nil || e.State != idempotency.StateClaimed || e.Lease != 0 {
		t.Errorf("an operator finds %+v, %v", e, err)
	}

	empty()
	want("new", "a", 201, "paid", 1)
	want("dead", "b", 422, usher.CodeIdempotencyKeyReused, 0)
	want("dead", "a", 201, "paid", 1)
	want("dead", "a", 201, "paid", 0)
	want("running", "a", 409, usher.CodeIdempotencyResponseNotKept, 0)
}
