package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/compare"
)

// A resolver is a Config.Resolve that counts its calls.
type resolver struct {
	asked   atomic.Int64
	resolve func(r *http.Request, e *idempotency.Execution) (idempotency.Resolution, error)
}

func (s *resolver) Resolve(r *http.Request, e *idempotency.Execution) (idempotency.Resolution, error) {
	s.asked.Add(1)
	return s.resolve(r, e)
}

// always is a resolver with a fixed result.
func always(s idempotency.Resolution) *resolver {
	return &resolver{resolve: func(*http.Request, *idempotency.Execution) (idempotency.Resolution, error) { return s, nil }}
}

func (s *resolver) want(tb testing.TB, n int64) {
	tb.Helper()
	if got := s.asked.Load(); got != n {
		tb.Errorf("Resolve was called %d times, want %d", got, n)
	}
}

// changes collects what OnChange gets.
type changes struct {
	mu  sync.Mutex
	all []idempotency.Change
}

func (c *changes) add(_ context.Context, change idempotency.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, change)
}

// take returns the changes since the last call, as text: action, outcome, the states before
// and after, and whether there was an error.
func (c *changes) take(tb testing.TB) (texts []string) {
	tb.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, change := range c.all {
		if change.Time.IsZero() {
			tb.Errorf("%+v has no time", change)
		}
		texts = append(texts, fmt.Sprintf("%s %d: %d to %d, %v", change.Action, change.Outcome, change.Before, change.After, change.Err != nil))
	}
	c.all = nil
	return texts
}

// dies sends r to a process that dies when it has claimed the key, and waits until the lease
// has ended.
func dies(store *hookedStore, h http.Handler, r *http.Request) {
	store.set(func(f *hookedStore) {
		f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
			store.set(func(f *hookedStore) { f.claim = nil })
			if r, err := f.Store.Claim(ctx, c); err != nil || !r.Won {
				return r, errors.Join(err, errDown)
			}
			return idempotency.Record{}, idempotency.ErrOwnerFull // so that the claim is not released
		}
	})
	do(h, r)
	time.Sleep(lease)
}

// panics sends r to a handler that panics, so that the outcome is unknown.
func panics(_ *hookedStore, h http.Handler, r *http.Request) {
	r.Header.Set("X-Panic", "now")
	do(h, r)
}

// unknowns are the ways in which a first request can end without a known outcome.
var unknowns = map[string]struct {
	before idempotency.State
	end    func(store *hookedStore, h http.Handler, r *http.Request)
}{

	"whose process has died":   {idempotency.StateClaimed, dies},
	"whose outcome is unknown": {idempotency.StateUnknown, panics},
}

// orders is a handler that responds with its executions, and panics if a request asks for
// it.
func orders() *counting {
	c := new(counting)
	handler := new(counting)
	c.next = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Panic") != "" {
			c.n.Add(-1) // It counts the others.
			panic(http.ErrAbortHandler)
		}
		handler.ServeHTTP(w, r)
	}
	return c
}

var paid = &idempotency.Response{
	Status: http.StatusCreated,
	Header: http.Header{"Location": {"/payments/1"}, "Content-Type": {"application/json"}, "Set-Cookie": {"a=b"}, "X-Other": {"x"}},
	Body:   []byte(`{"paid":true}`),
}

func TestARetryIsResolved(t *testing.T) {
	errBank := errors.New("the bank is down")
	type want struct {
		status   int
		code     string
		body     string // of a response that is no error
		replayed bool
		state    idempotency.State
		failed   bool
	}
	runsOnce := want{status: 201, body: `{"execution":1,"body":"body"}`, state: idempotency.StateClaimed}
	replaysThat := runsOnce
	replaysThat.replayed = true
	stillUnknown := want{status: 409, code: unknown, state: idempotency.StateUnknown}
	failed := want{status: 503, code: usher.CodeIdempotencyUnavailable, state: idempotency.StateUnknown, failed: true}
	notKept := want{status: 409, code: usher.CodeIdempotencyResponseNotKept, state: idempotency.StateTombstone}
	replaysPaid := want{status: 201, body: string(paid.Body), replayed: true, state: idempotency.StateDone}
	large := strings.Repeat("x", maxResponse+1)
	for _, c := range []struct {
		name    string
		resolve func(*http.Request) (idempotency.Resolution, error)
		first   want
		second  want
		asked   int64 // by both
	}{
		{"absent", resolvesTo(idempotency.Resolution{Outcome: idempotency.Release}), runsOnce, replaysThat, 1},
		{"done", resolvesTo(idempotency.Resolution{Outcome: idempotency.Keep, Response: paid}), replaysPaid, replaysPaid, 1},
		{"done, and the status suffices", resolvesTo(idempotency.Resolution{Outcome: idempotency.KeepStatus, Response: paid}),
			want{status: 201, replayed: true, state: idempotency.StateDone}, want{status: 201, replayed: true}, 1},
		{"done, without a response", resolvesTo(idempotency.Resolution{Outcome: idempotency.Forget}), notKept, notKept, 1},
		{"done, with a response that is ignored", resolvesTo(idempotency.Resolution{Outcome: idempotency.Forget, Response: paid}), notKept, notKept, 1},
		{"done, with a response that cannot be stored",
			resolvesTo(idempotency.Resolution{Outcome: idempotency.Keep, Response: &idempotency.Response{Status: 200, Body: []byte(large)}}),
			want{status: 200, body: large, replayed: true, state: idempotency.StateTombstone}, notKept, 1},
		{"done, with a status that allows no body",
			resolvesTo(idempotency.Resolution{Outcome: idempotency.Keep, Response: &idempotency.Response{Status: 204, Body: []byte(large)}}),
			want{status: 204, replayed: true, state: idempotency.StateDone}, want{status: 204, replayed: true}, 1},
		{"unknown", resolvesTo(idempotency.Resolution{Outcome: idempotency.Unknown}), stillUnknown, stillUnknown, 2},
		{"the zero Resolution", resolvesTo(idempotency.Resolution{}), stillUnknown, stillUnknown, 2},
		{"an error", func(*http.Request) (idempotency.Resolution, error) { return idempotency.Resolution{}, errBank }, failed, failed, 2},
		{"an error beside a resolution", func(*http.Request) (idempotency.Resolution, error) {
			return idempotency.Resolution{Outcome: idempotency.Release}, errBank
		}, failed, failed, 2},
		{"a panic", func(*http.Request) (idempotency.Resolution, error) { panic("bug") }, failed, failed, 2},
		{"a hang", func(r *http.Request) (idempotency.Resolution, error) {
			<-r.Context().Done()
			return idempotency.Resolution{}, context.Cause(r.Context())
		}, failed, failed, 2},
		{"a hang that ignores its context", func(*http.Request) (idempotency.Resolution, error) {
			time.Sleep(time.Minute)
			return idempotency.Resolution{Outcome: idempotency.Release}, nil
		}, failed, failed, 2},
		{"no response", resolvesTo(idempotency.Resolution{Outcome: idempotency.Keep}), failed, failed, 2},
		{"no status", resolvesTo(idempotency.Resolution{Outcome: idempotency.KeepStatus, Response: new(idempotency.Response)}), failed, failed, 2},
		{"a status that is not final",
			resolvesTo(idempotency.Resolution{Outcome: idempotency.Keep, Response: &idempotency.Response{Status: 103}}), failed, failed, 2},
		{"a status that HTTP does not have",
			resolvesTo(idempotency.Resolution{Outcome: idempotency.Keep, Response: &idempotency.Response{Status: 1000}}), failed, failed, 2},
		{"no outcome of this package", resolvesTo(idempotency.Resolution{Outcome: 99, Response: paid}), failed, failed, 2},
	} {
		for name, first := range unknowns {
			t.Run(c.name+", of a request "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store, calls, log := newHookedStore(t), orders(), new(changes)
					var reported atomic.Int64
					asks := &resolver{resolve: func(r *http.Request, _ *idempotency.Execution) (idempotency.Resolution, error) { return c.resolve(r) }}
					m := newMiddleware(t, idempotency.Config{
						Store: store, MaxResponse: maxResponse, Resolve: asks.Resolve, OnChange: log.add,
						OnError: func(context.Context, error) { reported.Add(1) },
					})
					h := m.Wrap(calls)
					first.end(store, h, post("/", "body"))
					before := first.before
					for i, want := range []want{c.first, c.second} {
						w := do(h, post("/", "body"))
						if w.Code != want.status || code(w) != want.code || want.code == "" && w.Body.String() != want.body ||
							(w.Header().Get("Idempotency-Replayed") == "true") != want.replayed {
							t.Errorf("retry %d: got %d %v %s, want %+v", i+1, w.Code, w.Header(), w.Body, want)
						}
						if w.Code == 503 && w.Header().Get("Retry-After") != "1" {
							t.Errorf("retry %d: 503 with Retry-After %q", i+1, w.Header().Get("Retry-After"))
						}
						if w.Code >= 400 {
							wantNewKeySafe(t, w.Body.Bytes(), false)
						}
						outcome := idempotency.Unknown
						if r, err := safely(c.resolve); err == nil && r.Outcome != 0 && !want.failed {
							outcome = r.Outcome
						}
						var wantChanges []string
						if int64(i) < c.asked {
							wantChanges = []string{fmt.Sprintf("ask %d: %d to %d, %v", outcome, before, want.state, want.failed)}
						}
						if diff := compare.Diff(wantChanges, log.take(t)); diff != "" {
							t.Errorf("retry %d: %s", i+1, diff)
						}
						before = idempotency.StateUnknown
					}
					time.Sleep(2 * time.Minute) // until a Resolve that hangs has returned
					if c.first.failed != (reported.Load() == 2) || !c.first.failed && reported.Load() != 0 {
						t.Errorf("OnError was called %d times", reported.Load())
					}
					asks.want(t, c.asked)
					if n := m.Leases(); n != 0 {
						t.Errorf("%d leases are kept", n)
					}
					runs := int64(0)
					if c.first.state == idempotency.StateClaimed {
						runs = 1
					}
					calls.want(t, runs)
				})
			})
		}
	}
}

func resolvesTo(s idempotency.Resolution) func(*http.Request) (idempotency.Resolution, error) {
	return func(*http.Request) (idempotency.Resolution, error) { return s, nil }
}

// safely returns what a resolve returns at once.
func safely(resolve func(*http.Request) (idempotency.Resolution, error)) (s idempotency.Resolution, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	defer func() {
		if recover() != nil {
			err = errDown
		}
	}()
	return resolve(httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil))
}

// Without Resolve nothing changes: a request whose process has died is repeated, and an
// unknown outcome is final.
func TestWithoutResolveNothingIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := newHookedStore(t), orders()
		h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(calls)
		panics(store, h, post("/", "body"))
		for range 2 {
			wantFailure(t, do(h, post("/", "body")), 409, unknown)
		}
		dies(store, h, post("/", "body", key("other")))
		if w := do(h, post("/", "body", key("other"))); w.Code != 201 {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		calls.want(t, 1)
	})
}

// What a retry gets from a Resolution is what is stored: no header field that belongs to a
// single exchange, and the status of the first response while the outcome is unknown.
func TestAResolvedResponseIsSentAsItIsStored(t *testing.T) {
	store := newHookedStore(t)
	h := newMiddleware(t, idempotency.Config{
		Store: store, Resolve: always(idempotency.Resolution{Outcome: idempotency.Keep, Response: paid}).Resolve,
	}).Wrap(orders())
	panics(store, h, post("/", ""))
	resolved, again := do(h, post("/", "")), do(h, post("/", ""))
	if diff := compare.Diff(again.Header(), resolved.Header()); diff != "" {
		t.Error(diff)
	}
	if resolved.Header().Get("Location") != "/payments/1" || len(resolved.Header()) != 3 {
		t.Errorf("got %v", resolved.Header())
	}
	h = newMiddleware(t, idempotency.Config{Store: store, Resolve: always(idempotency.Resolution{}).Resolve}).
		Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }))
	do(h, post("/", "", key("502")))
	for range 2 {
		w := do(h, post("/", "", key("502")))
		wantFailure(t, w, 409, unknown)
		if !strings.Contains(w.Body.String(), `"original_status":502`) {
			t.Errorf("got %s", w.Body)
		}
	}
}

// A Forget of a request whose outcome was unknown never allows a new key, whatever the
// status of the first response was.
func TestAResolvedRequestIsNotARefusal(t *testing.T) {
	h := newMiddleware(t, idempotency.Config{Resolve: always(idempotency.Resolution{Outcome: idempotency.Forget}).Resolve}).
		Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			idempotency.From(r.Context()).SetOutcome(idempotency.Unknown)
			w.WriteHeader(422)
		}))
	do(h, post("/", ""))
	for range 2 {
		w := do(h, post("/", ""))
		wantFailure(t, w, 409, usher.CodeIdempotencyResponseNotKept)
		wantNewKeySafe(t, w.Body.Bytes(), false)
	}
}

// A request with another body is no retry, however the first has ended: nothing is asked
// and nothing changes, and the retry is then resolved.
func TestARequestWithAnotherBodyIsNotResolved(t *testing.T) {
	for name, first := range unknowns {
		t.Run("a request "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, calls := newHookedStore(t), orders()
				asks := always(idempotency.Resolution{Outcome: idempotency.Keep, Response: paid})
				h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve}).Wrap(calls)
				first.end(store, h, post("/", "body"))
				store.set(func(f *hookedStore) {
					f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
						if c.TakeUnknown {
							t.Error("the key is claimed for another request")
						}
						return f.Store.Claim(ctx, c)
					}
				})
				for range 2 {
					wantFailure(t, do(h, post("/", "other")), 422, usher.CodeIdempotencyKeyReused)
				}
				asks.want(t, 0)
				store.set(func(f *hookedStore) { f.claim = nil })
				if w := do(h, post("/", "body")); w.Code != 201 || w.Body.String() != string(paid.Body) {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
				asks.want(t, 1)
				wantFailure(t, do(h, post("/", "other")), 422, usher.CodeIdempotencyKeyReused)
				calls.want(t, 0)
			})
		})
	}
}

// Where requests run unprotected while the store fails, one that is known to have an
// unknown outcome does not.
func TestAnUnknownOutcomeDoesNotFailOpen(t *testing.T) {
	store, calls := newHookedStore(t), orders()
	asks := always(idempotency.Resolution{Outcome: idempotency.Release})
	h := newMiddleware(t, idempotency.Config{
		Store: store, Resolve: asks.Resolve, DangerouslyFailOpen: true, OnError: func(context.Context, error) {},
	}).Wrap(calls)
	panics(store, h, post("/", "body"))
	store.set(func(f *hookedStore) {
		f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
			if c.TakeUnknown {
				return idempotency.Record{}, errDown
			}
			return f.Store.Claim(ctx, c)
		}
	})
	wantFailure(t, do(h, post("/", "body")), 503, usher.CodeIdempotencyUnavailable)
	calls.want(t, 0)
}

// A Memory, which loses its leases with its process, has unknown outcomes too.
func TestTheRecordsOfAMemoryAreResolved(t *testing.T) {
	calls := orders()
	asks := always(idempotency.Resolution{Outcome: idempotency.Keep, Response: paid})
	m := newMiddleware(t, idempotency.Config{Resolve: asks.Resolve})
	h := m.Wrap(calls)
	panics(nil, h, post("/", "body"))
	for range 2 {
		if w := do(h, post("/", "body")); w.Code != 201 || w.Body.String() != string(paid.Body) {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	}
	asks.want(t, 1)
	calls.want(t, 0)
	if n := m.Leases(); n != 0 {
		t.Errorf("%d leases are kept", n)
	}
}
