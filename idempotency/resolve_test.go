package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/guard"
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

// A record that cannot be right is not resolved.
func TestADamagedRecordIsNotResolved(t *testing.T) {
	store, calls := newHookedStore(t), orders()
	asks := always(idempotency.Resolution{Outcome: idempotency.Release})
	h := newMiddleware(t, idempotency.Config{
		Store: store, Resolve: asks.Resolve, OnError: func(context.Context, error) {},
	}).Wrap(calls)
	panics(store, h, post("/", "body"))
	store.set(func(f *hookedStore) {
		f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
			r, err := f.Store.Claim(ctx, c)
			r.Payload = []byte("payload") // of an outcome that has none
			return r, err
		}
	})
	wantFailure(t, do(h, post("/", "body")), 500, usher.CodeIdempotencyRecordUnreadable)
	asks.want(t, 0)
	calls.want(t, 0)
}

// Resolve gets the request of the retry and its Execution: the caller, the body, and the
// key that the first execution passed on.
func TestResolveKnowsTheRequest(t *testing.T) {
	var downstream []string
	asks := &resolver{resolve: func(r *http.Request, e *idempotency.Execution) (idempotency.Resolution, error) {
		p, ok := usher.PrincipalFrom(r.Context())
		content, err := io.ReadAll(r.Body)
		if !ok || p.ID != "alice" || string(content) != "body" || err != nil || r.URL.Path != "/pay" || e.Generation() == 0 {
			t.Errorf("got %+v, %q, %v for %s", p, content, err, r.URL)
		}
		if idempotency.From(r.Context()) != nil {
			t.Error("the handler seems to run")
		}
		downstream = append(downstream, e.DownstreamKey("bank"))
		r.Header.Set("X-Changed", "yes")
		e.SetOutcome(idempotency.Forget)
		return idempotency.Resolution{Outcome: idempotency.Release}, nil
	}}
	store, calls := newHookedStore(t), new(counting)
	h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve}).Wrap(calls)
	calls.next = func(w http.ResponseWriter, r *http.Request) {
		e := idempotency.From(r.Context())
		downstream = append(downstream, e.DownstreamKey("bank"))
		if r.Header.Get("X-Panic") != "" {
			panic(http.ErrAbortHandler)
		}
		content, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s, %v, %q", content, err, r.Header.Get("X-Changed"))
	}
	panics(store, h, post("/pay", "body"))
	w := do(h, post("/pay", "body"))
	if w.Body.String() != `body, <nil>, ""` {
		t.Errorf("the handler got %s", w.Body)
	}
	wantReplay(t, do(h, post("/pay", "body")), w) // SetOutcome in Resolve has no effect
	if len(downstream) != 3 || downstream[0] != downstream[1] || downstream[1] != downstream[2] {
		t.Errorf("the downstream keys are %v", downstream)
	}
}

// A multipart form that Resolve parses leaves no temporary file, and the handler parses it
// again.
func TestResolveMayParseAForm(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var form bytes.Buffer
	parts := multipart.NewWriter(&form)
	part, err := parts.CreateFormFile("file", "name")
	if err == nil {
		_, err = part.Write(bytes.Repeat([]byte("x"), 100<<10))
	}
	if err = errors.Join(err, parts.Close()); err != nil {
		t.Fatal(err)
	}
	asks := &resolver{resolve: func(r *http.Request, _ *idempotency.Execution) (idempotency.Resolution, error) {
		if err := r.ParseMultipartForm(1); err != nil || len(r.MultipartForm.File["file"]) != 1 {
			t.Errorf("Resolve: %v", err)
		}
		return idempotency.Resolution{Outcome: idempotency.Release}, nil
	}}
	store, calls := newHookedStore(t), new(counting)
	h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve}).Wrap(calls)
	calls.next = func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Panic") != "" {
			panic(http.ErrAbortHandler)
		}
		if err := r.ParseMultipartForm(1 << 20); err != nil || len(r.MultipartForm.File["file"]) != 1 {
			t.Errorf("the handler: %v", err)
		}
	}
	send := func() *http.Request {
		return post("/", form.String(), func(r *http.Request) { r.Header.Set("Content-Type", parts.FormDataContentType()) })
	}
	panics(store, h, send())
	do(h, send())
	asks.want(t, 1)
	calls.want(t, 2)
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("%d files are left, %v", len(files), err)
	}
}

// Retries on two nodes ask one at a time, and the first result serves all of them.
func TestRetriesOnTwoNodesAskOneAtATime(t *testing.T) {
	for name, first := range unknowns {
		for _, c := range []struct {
			name string
			s    idempotency.Resolution
			body string
		}{
			{"done", idempotency.Resolution{Outcome: idempotency.Keep, Response: paid}, string(paid.Body)},
			{"absent", idempotency.Resolution{Outcome: idempotency.Release}, `{"execution":1,"body":"body"}`},
		} {
			t.Run(c.name+", of a request "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store, calls := newHookedStore(t), orders()
					var running atomic.Int64
					asks := &resolver{resolve: func(*http.Request, *idempotency.Execution) (idempotency.Resolution, error) {
						if running.Add(1) > 1 {
							t.Error("two calls of Resolve run at the same time")
						}
						time.Sleep(time.Second)
						running.Add(-1)
						return c.s, nil
					}}
					var nodes []http.Handler
					for range 2 {
						nodes = append(nodes, newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve, Wait: time.Minute}).Wrap(calls))
					}
					first.end(store, nodes[0], post("/", "body"))
					var clients sync.WaitGroup
					for i := range 20 {
						clients.Go(func() {
							if w := do(nodes[i%2], post("/", "body")); w.Code != 201 || w.Body.String() != c.body {
								t.Errorf("client %d got %d %s", i, w.Code, w.Body)
							}
						})
					}
					clients.Wait()
					asks.want(t, 1)
				})
			})
		}
	}
}

// Of all retries that come while one cannot find out the outcome, at most one asks again, so
// that a provider that is down is not flooded.
func TestACrowdOfRetriesAsksTwiceAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := newHookedStore(t), orders()
		asks := &resolver{resolve: func(*http.Request, *idempotency.Execution) (idempotency.Resolution, error) {
			time.Sleep(time.Second)
			return idempotency.Resolution{}, nil
		}}
		h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve}).Wrap(calls)
		panics(store, h, post("/", "body"))
		var clients sync.WaitGroup
		for range 20 {
			clients.Go(func() { wantFailure(t, do(h, post("/", "body")), 409, unknown) })
		}
		clients.Wait()
		if n := asks.asked.Load(); n < 1 || n > 2 {
			t.Errorf("Resolve was called %d times", n)
		}
		calls.want(t, 0)
	})
}

// The lease is kept while Resolve runs.
func TestTheLeaseIsKeptWhileResolveRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := newHookedStore(t), orders()
		asks := &resolver{resolve: func(*http.Request, *idempotency.Execution) (idempotency.Resolution, error) {
			time.Sleep(3 * lease)
			return idempotency.Resolution{Outcome: idempotency.Release}, nil
		}}
		h := newMiddleware(t, idempotency.Config{
			Store: store, Resolve: asks.Resolve, ResolveTimeout: time.Hour, Wait: idempotency.NoWait,
		}).Wrap(calls)
		dies(store, h, post("/", "body"))
		var retry sync.WaitGroup
		retry.Go(func() {
			if w := do(h, post("/", "body")); w.Code != 201 {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
		})
		for range 5 {
			time.Sleep(lease / 2)
			wantFailure(t, do(h, post("/", "body")), 409, usher.CodeIdempotencyInProgress)
		}
		retry.Wait()
		asks.want(t, 1)
		calls.want(t, 1)
	})
}

// If the process dies while it resolves, the next retry asks again after the lease.
func TestAProcessThatDiesWhileItResolvesChangesNothing(t *testing.T) {
	for name, first := range unknowns {
		t.Run("a request "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, calls := newHookedStore(t), orders()
				asks := always(idempotency.Resolution{Outcome: idempotency.Keep, Response: paid})
				h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve, Wait: idempotency.NoWait}).Wrap(calls)
				first.end(store, h, post("/", "body"))
				if first.before == idempotency.StateUnknown {
					// The first claim finds the outcome unknown, the second takes the key.
					store.set(func(f *hookedStore) {
						f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
							r, err := f.Store.Claim(ctx, c)
							if r.Won {
								store.set(func(f *hookedStore) { f.claim = nil })
								return idempotency.Record{}, idempotency.ErrOwnerFull
							}
							return r, err
						}
					})
					do(h, post("/", "body"))
					time.Sleep(lease)
				} else {
					dies(store, h, post("/", "body"))
				}
				asks.want(t, 0)
				if w := do(h, post("/", "body")); w.Code != 201 || w.Body.String() != string(paid.Body) {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
				asks.want(t, 1)
				calls.want(t, 0)
			})
		})
	}
}

// A retry whose claim takes effect although it was refused does not free the key: the
// outcome of the first request is as unknown as before.
func TestALostClaimOfARetryDoesNotFreeTheKey(t *testing.T) {
	for name, first := range unknowns {
		for how, lost := range map[string]func(context.Context) error{
			"its reply is lost":         func(context.Context) error { return usher.ErrUnavailable },
			"it comes too late":         func(context.Context) error { time.Sleep(time.Second); return nil },
			"it is too late and fails":  func(context.Context) error { time.Sleep(time.Second); return errDown },
			"the store panics after it": func(context.Context) error { panic("bug") },
		} {
			t.Run(how+", of a request "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store, calls := newHookedStore(t), orders()
					asks := always(idempotency.Resolution{Outcome: idempotency.Keep, Response: paid})
					h := newMiddleware(t, idempotency.Config{
						Store: store, Resolve: asks.Resolve, Wait: idempotency.NoWait, OnError: func(context.Context, error) {},
					}).Wrap(calls)
					first.end(store, h, post("/", "body"))
					var failures atomic.Int64
					failures.Store(1)
					if how == "its reply is lost" {
						failures.Store(2) // as such a call is made twice
					}
					store.set(func(f *hookedStore) {
						f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
							r, err := f.Store.Claim(ctx, c)
							if r.Won && failures.Add(-1) >= 0 {
								if err := lost(ctx); err != nil {
									return idempotency.Record{}, err
								}
							}
							return r, err
						}
					})
					wantFailure(t, do(h, post("/", "body")), 503, usher.CodeIdempotencyUnavailable)
					time.Sleep(10 * time.Second) // less than the lease
					failures.Store(0)
					if w := do(h, post("/", "body")); w.Code != 201 || w.Body.String() != string(paid.Body) {
						t.Errorf("got %d %s", w.Code, w.Body)
					}
					asks.want(t, 1)
					calls.want(t, 0)
				})
			})
		}
	}
}

// A first request whose claim was lost in the same way has not run, and frees its key.
func TestALostClaimOfAFirstRequestFreesTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := newHookedStore(t), orders()
		asks := always(idempotency.Resolution{Outcome: idempotency.Keep, Response: paid})
		h := newMiddleware(t, idempotency.Config{Store: store, Resolve: asks.Resolve, OnError: func(context.Context, error) {}}).Wrap(calls)
		var failures atomic.Int64
		failures.Store(2)
		store.set(func(f *hookedStore) {
			f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
				r, err := f.Store.Claim(ctx, c)
				if failures.Add(-1) >= 0 {
					return idempotency.Record{}, usher.ErrUnavailable
				}
				return r, err
			}
		})
		wantFailure(t, do(h, post("/", "body")), 503, usher.CodeIdempotencyUnavailable)
		time.Sleep(5 * time.Second)
		if w := do(h, post("/", "body")); w.Code != 201 {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		asks.want(t, 0)
		calls.want(t, 1)
	})
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

// If another request has the key by the time the resolution is known, nothing of it counts.
func TestAResolutionThatComesTooLateDoesNotCount(t *testing.T) {
	for _, outcome := range []idempotency.Outcome{
		idempotency.Release, idempotency.Keep, idempotency.KeepStatus, idempotency.Forget, idempotency.Unknown,
	} {
		for _, c := range []struct {
			name  string
			renew bool // Renew shows that the claim is lost, else only Finish does
		}{{"before Resolve returns", true}, {"when it is stored", false}} {
			if outcome == idempotency.Release && !c.renew {
				continue // nothing is stored
			}
			t.Run(fmt.Sprintf("outcome %d, lost %s", outcome, c.name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store, calls, log := newHookedStore(t), orders(), new(changes)
					asks := &resolver{resolve: func(r *http.Request, _ *idempotency.Execution) (idempotency.Resolution, error) {
						if c.renew {
							<-r.Context().Done()
							if !errors.Is(context.Cause(r.Context()), idempotency.ErrLost) {
								t.Errorf("the context ends with %v", context.Cause(r.Context()))
							}
						}
						return idempotency.Resolution{Outcome: outcome, Response: paid}, nil
					}}
					h := newMiddleware(t, idempotency.Config{
						Store: store, Resolve: asks.Resolve, ResolveTimeout: time.Hour, OnChange: log.add, OnError: func(context.Context, error) {},
					}).Wrap(calls)
					panics(store, h, post("/", "body"))
					store.set(func(f *hookedStore) {
						f.renew = func(context.Context) error { return idempotency.ErrLost }
						f.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) {
							return 0, idempotency.ErrLost
						}
					})
					wantFailure(t, do(h, post("/", "body")), 409, usher.CodeIdempotencyInProgress)
					calls.want(t, 0)
					if got := log.take(t); len(got) != 1 || !strings.HasSuffix(got[0], "5 to 0, true") {
						t.Errorf("OnChange got %v", got)
					}
				})
			})
		}
	}
}

// While the store does not accept a resolution, the client gets its response late, the lease
// is kept, and the resolution is stored once the store accepts it.
func TestAResolutionIsStoredLater(t *testing.T) {
	for _, c := range []struct {
		name   string
		s      idempotency.Resolution
		status int
		code   string
		asked  int64 // by the retry and the next
	}{
		{"done", idempotency.Resolution{Outcome: idempotency.Keep, Response: paid}, 201, "", 1},
		{"forgotten", idempotency.Resolution{Outcome: idempotency.Forget}, 409, usher.CodeIdempotencyResponseNotKept, 1},
		{"unknown", idempotency.Resolution{Outcome: idempotency.Unknown}, 409, unknown, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, calls, log := newHookedStore(t), orders(), new(changes)
				asks := always(c.s)
				m := newMiddleware(t, idempotency.Config{
					Store: store, Resolve: asks.Resolve, Wait: idempotency.NoWait, OnChange: log.add, OnError: func(context.Context, error) {},
				})
				h := m.Wrap(calls)
				dies(store, h, post("/", "body"))
				store.set(func(f *hookedStore) {
					f.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) { return 0, errDown }
				})
				began := time.Now()
				w := do(h, post("/", "body"))
				if w.Code != c.status || code(w) != c.code || time.Since(began) > 3*time.Second {
					t.Errorf("got %d %s after %v", w.Code, w.Body, time.Since(began))
				}
				if got := log.take(t); len(got) != 1 || !strings.HasSuffix(got[0], "1 to 0, true") {
					t.Errorf("OnChange got %v", got)
				}
				time.Sleep(2 * lease)
				wantFailure(t, do(h, post("/", "body")), 409, usher.CodeIdempotencyInProgress)
				store.set(func(f *hookedStore) { f.finish = nil })
				time.Sleep(lease)
				again := do(h, post("/", "body"))
				if again.Code != c.status || code(again) != c.code {
					t.Errorf("the next retry got %d %s", again.Code, again.Body)
				}
				asks.want(t, c.asked)
				calls.want(t, 0)
				if n := m.Leases(); n != 0 {
					t.Errorf("%d leases are kept", n)
				}
			})
		})
	}
}

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

// OnResult is called once for a retry that is resolved, too.
func TestOnResultIsCalledOncePerResolvedRetry(t *testing.T) {
	for _, c := range []struct {
		outcome idempotency.Outcome
		err     error
		result  string
	}{
		{idempotency.Release, nil, "executed"},
		{idempotency.Keep, nil, "replayed"},
		{idempotency.Forget, nil, "not_replayable"},
		{idempotency.Unknown, nil, "not_replayable"},
		{idempotency.Keep, errDown, "resolve_failed"},
	} {
		store, got := newHookedStore(t), new(results)
		asks := &resolver{resolve: func(*http.Request, *idempotency.Execution) (idempotency.Resolution, error) {
			return idempotency.Resolution{Outcome: c.outcome, Response: paid}, c.err
		}}
		h := newMiddleware(t, idempotency.Config{
			Store: store, Resolve: asks.Resolve, OnResult: got.add, OnError: func(context.Context, error) {},
		}).Wrap(orders())
		panics(store, h, post("/", "body"))
		got.take()
		do(h, post("/", "body"))
		if events := got.take(); len(events) != 1 || events[0].Result != c.result {
			t.Errorf("outcome %d, %v: got %+v, want %s", c.outcome, c.err, events, c.result)
		}
	}
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
