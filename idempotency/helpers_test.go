package idempotency_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/leak"
	"github.com/usher-go/usher/internal/oteltest"
)

// No request leaves a goroutine behind.
func TestMain(m *testing.M) { leak.Main(m) }

func newMiddleware(tb testing.TB, c idempotency.Config) *idempotency.Middleware {
	tb.Helper()
	m, err := idempotency.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

var alice = &usher.Principal{ID: "alice", Kind: usher.KindAPIKey}

// post returns a request of alice with the key k, which options may change.
func post(target, body string, options ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
	r.Pattern = "POST /test"
	r.Header.Set("Idempotency-Key", "k")
	r.Header.Set("Content-Type", "application/json")
	for _, o := range options {
		o(r)
	}
	if r.Context().Value(anonymousKey{}) != nil {
		return r
	}
	if _, ok := usher.PrincipalFrom(r.Context()); !ok {
		r = usher.WithPrincipal(r, alice)
	}
	return r
}

type anonymousKey struct{}

func anonymous(r *http.Request) {
	*r = *r.WithContext(context.WithValue(r.Context(), anonymousKey{}, true))
}

func key(values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header["Idempotency-Key"] = values }
}

func as(p *usher.Principal) func(*http.Request) {
	return func(r *http.Request) { *r = *usher.WithPrincipal(r, p) }
}

// counting is a handler that counts its executions and responds with the count.
type counting struct {
	n    atomic.Int64
	next http.HandlerFunc // if not nil
}

func (c *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := c.n.Add(1)
	if c.next != nil {
		c.next(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, `{"execution":%d,"body":%q}`, n, body)
}

func (c *counting) want(tb testing.TB, n int64) {
	tb.Helper()
	if got := c.n.Load(); got != n {
		tb.Errorf("%d executions, want %d", got, n)
	}
}

// do serves r and recovers from panics, which have the status 0.
func do(h http.Handler, r *http.Request) (w *httptest.ResponseRecorder) {
	w = httptest.NewRecorder()
	defer func() {
		if v := recover(); v != nil {
			w.Code = 0
		}
	}()
	h.ServeHTTP(w, r)
	return w
}

// code returns the code of an error response.
func code(w *httptest.ResponseRecorder) string {
	var e struct{ Code string }
	_ = json.Unmarshal(w.Body.Bytes(), &e)
	return e.Code
}

func wantFailure(tb testing.TB, w *httptest.ResponseRecorder, status int, want string) {
	tb.Helper()
	if w.Code != status || code(w) != want {
		tb.Errorf("got %d %s, want %d %s", w.Code, w.Body, status, want)
	}
}

func wantReplay(tb testing.TB, w, first *httptest.ResponseRecorder) {
	tb.Helper()
	if w.Code != first.Code || w.Body.String() != first.Body.String() || w.Header().Get("Idempotency-Replayed") != "true" {
		tb.Errorf("got %d %s, marked %q; want a replay of %d %s",
			w.Code, w.Body, w.Header().Get("Idempotency-Replayed"), first.Code, first.Body)
	}
}

// A hookedStore is a store whose calls run a hook instead, if that is set.
type hookedStore struct {
	idempotency.Store
	mu     sync.Mutex
	claim  func(context.Context, idempotency.Claim) (idempotency.Record, error)
	renew  func(context.Context) error
	finish func(context.Context, idempotency.Completion) (idempotency.State, error)
}

func newHookedStore(tb testing.TB) *hookedStore {
	return &hookedStore{Store: newMemory(tb, idempotency.MemoryConfig{})}
}

// errGoOn is returned by a hook of Renew that lets the store renew the leases. ErrLost
// means that all claims are lost.
var errGoOn = errors.New("go on")

// set changes the hooks.
func (f *hookedStore) set(change func(*hookedStore)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *hookedStore) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	f.mu.Lock()
	hook := f.claim
	f.mu.Unlock()
	if hook != nil {
		return hook(ctx, c)
	}
	return f.Store.Claim(ctx, c)
}

func (f *hookedStore) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) ([]idempotency.ClaimID, error) {
	f.mu.Lock()
	hook := f.renew
	f.mu.Unlock()
	if hook != nil {
		err := hook(ctx)
		if errors.Is(err, idempotency.ErrLost) {
			return claims, nil
		}
		if !errors.Is(err, errGoOn) {
			return nil, err
		}
	}
	return f.Store.Renew(ctx, claims, lease)
}

func (f *hookedStore) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	f.mu.Lock()
	hook := f.finish
	f.mu.Unlock()
	if hook != nil {
		return hook(ctx, c)
	}
	return f.Store.Finish(ctx, c)
}

// A meter collects the counters of a middleware.
type meter struct{ *provider }

type provider = oteltest.Meter

func newMeter() meter { return meter{new(provider)} }

// counts returns every count, by the value of its attribute.
func (m meter) counts(testing.TB) map[string]int64 {
	counts := map[string]int64{}
	for _, c := range m.Counts() {
		for _, a := range c.Attributes.ToSlice() {
			counts[a.Value.AsString()] += c.Value
		}
	}
	return counts
}
