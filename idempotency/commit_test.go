package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A bank keeps payments where it keeps the records of the keys.
type bank struct {
	idempotency.Store

	mu                           sync.Mutex
	begun, committed, rolledBack int
	// around runs in place of commit, which it may call, if it is not nil.
	around func(ctx context.Context, commit func() error) error
	// kept is the last completion.
	kept idempotency.Completion
}

func newBank(tb testing.TB) *bank { return &bank{Store: newMemory(tb, idempotency.MemoryConfig{})} }

// A payment is a transaction of a bank.
type payment struct {
	bank        *bank
	completions []idempotency.Completion
	over        bool
}

func (b *bank) FinishTx(ctx context.Context, p *payment, c idempotency.Completion) (idempotency.State, error) {
	if c.IsZero() {
		return 0, nil
	}
	lost, err := b.Renew(ctx, []idempotency.ClaimID{{Key: c.Key, Token: c.Token}}, lease)
	if len(lost) > 0 {
		err = idempotency.ErrLost
	}
	if err != nil {
		return 0, err
	}
	p.completions = append(p.completions, c)
	return c.Result.State, nil
}

func (p *payment) commit(ctx context.Context) error {
	for _, c := range p.completions {
		if _, err := p.bank.Finish(ctx, c); err != nil {
			return err
		}
	}
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	p.over = true
	p.bank.committed++
	return nil
}

func (p *payment) rollback() {
	p.bank.mu.Lock()
	defer p.bank.mu.Unlock()
	if !p.over {
		p.bank.rolledBack++
	}
	p.over = true
}

// begin begins a payment and leaves its end to the middleware.
func (b *bank) begin(r *http.Request) error {
	p := &payment{bank: b}
	b.mu.Lock()
	b.begun++
	b.mu.Unlock()
	return idempotency.From(r.Context()).Commit(r.Context(), func(ctx context.Context, c idempotency.Completion) error {
		commit := func() error {
			if _, err := b.FinishTx(ctx, p, c); err != nil {
				return err
			}
			return p.commit(ctx)
		}
		b.mu.Lock()
		b.kept = c
		around := b.around
		b.mu.Unlock()
		if around != nil {
			return around(ctx, commit)
		}
		return commit()
	}, p.rollback)
}

// pay returns a handler that pays and then responds.
func (b *bank) pay(respond http.HandlerFunc) *counting {
	return &counting{next: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/before")
		w.Header().Set("X-Changed", "by the handler")
		if err := b.begin(r); err != nil {
			usher.Fail(w, r, err)
			return
		}
		w.Header().Set("Etag", `"after"`)
		respond(w, r)
	}}
}

// want fails unless this many payments are committed and rolled back, and all have ended.
func (b *bank) want(tb testing.TB, committed, rolledBack int) {
	tb.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.committed != committed || b.rolledBack != rolledBack || b.begun != committed+rolledBack {
		tb.Errorf("%d payments are begun, %d committed and %d rolled back, want %d and %d",
			b.begun, b.committed, b.rolledBack, committed, rolledBack)
	}
}

// outer wraps h as a middleware that sets header fields does.
func outer(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Outer", "kept")
		w.Header().Set("X-Changed", "by nobody")
		h.ServeHTTP(w, r)
	})
}

// wantNothingOf fails if w has a header field of the handler, or lacks one of the outer
// handlers.
func wantNothingOf(tb testing.TB, w *httptest.ResponseRecorder) {
	tb.Helper()
	h := w.Header()
	if h.Get("Location") != "" || h.Get("Etag") != "" || h.Get("X-Changed") != "by nobody" || h.Get("X-Outer") != "kept" {
		tb.Errorf("the header is %v", h)
	}
}

func writing(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// The transaction is committed if the response is kept. The response is then sent, and a
// retry gets it again.
func TestCommitWithAKeptResponse(t *testing.T) {
	for name, c := range map[string]struct {
		respond http.HandlerFunc
		status  int
		body    string
	}{
		"a response":               {writing(201, "paid"), 201, "paid"},
		"a body of the most bytes": {writing(200, "12345678"), 200, "12345678"},
		"a body alone":             {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "paid") }, 200, "paid"},
		"a copied body": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, strings.NewReader("paid"))
		}, 200, "paid"},
		"nothing":   {func(http.ResponseWriter, *http.Request) {}, 200, ""},
		"no body":   {writing(200, ""), 200, ""},
		"204":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, 204, ""},
		"a refusal": {writing(402, "no money"), 402, "no money"},
		"an outcome that the handler decides": {func(w http.ResponseWriter, r *http.Request) {
			idempotency.From(r.Context()).SetOutcome(idempotency.Keep)
			writing(503, "paid")(w, r)
		}, 503, "paid"},
		"an informational response before it": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(103)
			fmt.Fprint(w, "paid")
		}, 200, "paid"},
		"a status that comes too late": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(201)
			w.WriteHeader(202)
			fmt.Fprint(w, "paid")
		}, 201, "paid"},
		"a header field that comes too late": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(201)
			w.Header().Set("Location", "/late")
		}, 201, ""},
		"a body that the status forbids": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(204)
			if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("Write returns %v", err)
			}
		}, 204, ""},
		"the announced length": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4")
			fmt.Fprint(w, "paid")
		}, 200, "paid"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t)
			calls := b.pay(func(w http.ResponseWriter, r *http.Request) {
				c.respond(w, r)
				if b.committed != 0 {
					t.Error("the payment is committed before the handler has returned")
				}
			})
			calls.next = nothingSent(t, calls.next)
			h := outer(newMiddleware(t, idempotency.Config{Store: b, MaxResponse: 8}).Wrap(calls))
			first := do(h, post("/", ""))
			if first.Code != c.status || first.Body.String() != c.body {
				t.Errorf("got %d %q", first.Code, first.Body)
			}
			for name, want := range map[string]string{
				"Location": "/before", "Etag": `"after"`, "X-Changed": "by the handler", "X-Outer": "kept",
			} {
				if got := first.Header().Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			b.want(t, 1, 0)
			again := do(h, post("/", ""))
			wantReplay(t, again, first)
			if again.Header().Get("Location") != "/before" {
				t.Errorf("the replay has the header %v", again.Header())
			}
			calls.want(t, 1)
			b.want(t, 1, 0)
		})
	}
}

// The transaction is also committed if only the status of the response is kept, or nothing
// of it.
func TestCommitWithAnOutcomeThatStoresNoResponse(t *testing.T) {
	for o, want := range map[idempotency.Outcome]func(*testing.T, *httptest.ResponseRecorder){
		idempotency.KeepStatus: func(t *testing.T, w *httptest.ResponseRecorder) { wantStatusOnly(t, w, 201) },
		idempotency.Forget: func(t *testing.T, w *httptest.ResponseRecorder) {
			wantFailure(t, w, 409, usher.CodeIdempotencyResponseNotKept)
		},
	} {
		b := newBank(t)
		h := newMiddleware(t, idempotency.Config{Store: b}).Wrap(b.pay(func(w http.ResponseWriter, r *http.Request) {
			idempotency.From(r.Context()).SetOutcome(o)
			writing(201, "paid")(w, r)
		}))
		if w := do(h, post("/", "")); w.Code != 201 || w.Body.String() != "paid" {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		if c := b.kept; c.Result.Status != 201 || strings.Contains(string(c.Result.Payload), "paid") {
			t.Errorf("commit got %+v", c)
		}
		b.want(t, 1, 0)
		want(t, do(h, post("/", "")))
	}
}

// The transaction is rolled back if the outcome is not to keep the response. The client gets
// the response of the handler.
func TestCommitWithAnotherOutcome(t *testing.T) {
	decide := func(o idempotency.Outcome) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			idempotency.From(r.Context()).SetOutcome(o)
			writing(201, "paid")(w, r)
		}
	}
	for name, c := range map[string]struct {
		respond http.HandlerFunc
		status  int
		retry   string
	}{
		"503":                         {writing(503, "later"), 503, runs},
		"409":                         {writing(409, "conflict"), 409, runs},
		"500":                         {writing(500, "sorry"), 500, unknown},
		"the handler has released it": {decide(idempotency.Release), 201, runs},
		"the handler does not know":   {decide(idempotency.Unknown), 201, unknown},
		"a panic":                     {func(http.ResponseWriter, *http.Request) { panic("x") }, 0, unknown},
		"a panic after a response": {func(w http.ResponseWriter, r *http.Request) {
			writing(201, "paid")(w, r)
			panic("x")
		}, 0, unknown},
		"a panic with no effect": {func(_ http.ResponseWriter, r *http.Request) {
			idempotency.From(r.Context()).SetOutcome(idempotency.Release)
			panic("x")
		}, 0, runs},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t)
			calls := b.pay(nil)
			pay := b.pay(c.respond).next
			calls.next = func(w http.ResponseWriter, r *http.Request) {
				if calls.n.Load() == 1 {
					pay(w, r)
				}
			}
			h := outer(newMiddleware(t, idempotency.Config{Store: b}).Wrap(calls))
			first := do(h, post("/", ""))
			b.want(t, 0, 1)
			if first.Code != c.status {
				t.Errorf("got %d %q", first.Code, first.Body)
			}
			if c.status == 0 {
				wantNothingOf(t, first)
				if first.Body.Len() > 0 {
					t.Errorf("%q is sent", first.Body)
				}
			} else if first.Header().Get("Location") != "/before" {
				t.Errorf("the header is %v", first.Header())
			}
			again := do(h, post("/", ""))
			if c.retry == runs {
				calls.want(t, 2)
			} else {
				wantFailure(t, again, 409, c.retry)
				calls.want(t, 1)
			}
		})
	}
}

// After a commit that failed, the store may show that another request has the key.
func TestCommitThatFailsWithoutItsClaim(t *testing.T) {
	store := newHookedStore(t)
	b := &bank{Store: store}
	b.around = func(context.Context, func() error) error { return errors.New("deadlock") }
	store.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) {
		return 0, idempotency.ErrLost
	}
	h := newMiddleware(t, idempotency.Config{Store: store, OnError: func(context.Context, error) {}}).Wrap(b.pay(writing(201, "paid")))
	wantFailure(t, do(h, post("/", "")), 409, usher.CodeIdempotencyInProgress)
	b.want(t, 0, 1)
}

// When the transaction is committed the claim has ended. A renewal that finds this out before
// commit returns does not take the claim for lost.
func TestACommitThatReturnsLateHasNotLostItsClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank(t)
		b.around = func(ctx context.Context, commit func() error) error {
			err := commit()
			time.Sleep(2 * lease)
			return errors.Join(err, context.Cause(ctx))
		}
		meter := newMeter()
		h := newMiddleware(t, idempotency.Config{Store: b, MeterProvider: meter, OnError: func(_ context.Context, err error) {
			t.Errorf("OnError got %v", err)
		}}).Wrap(b.pay(writing(201, "paid")))
		first := do(h, post("/", ""))
		if first.Code != 201 {
			t.Errorf("got %d %s", first.Code, first.Body)
		}
		wantReplay(t, do(h, post("/", "")), first)
		if n := meter.counts(t); n["kept"] != 1 || n["lease_lost"] != 0 {
			t.Errorf("claims have ended like this: %v", n)
		}
		b.want(t, 1, 0)
	})
}

// A transaction may lock the record, so that the lease cannot be renewed. That does not end
// the context of commit, which finds out whether the claim is lost.
func TestCommitThatLocksTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank(t)
		store := newHookedStore(t)
		store.Store = b.Store
		b.around = func(ctx context.Context, commit func() error) error {
			store.set(func(f *hookedStore) { f.renew = func(context.Context) error { return errDown } })
			time.Sleep(3 * lease)
			if ctx.Err() != nil {
				t.Error("the context has ended:", context.Cause(ctx))
			}
			return commit()
		}
		h := newMiddleware(t, idempotency.Config{Store: store, OnError: func(context.Context, error) {}}).Wrap(b.pay(writing(201, "paid")))
		first := do(h, post("/", ""))
		wantReplay(t, do(h, post("/", "")), first)
		b.want(t, 1, 0)
	})
}

// The record lives for the TTL from the commit, and the bytes that commit gets are its own.
func TestCommitKeepsTheResponseForTheTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank(t)
		calls := b.pay(writing(201, "paid"))
		h := newMiddleware(t, idempotency.Config{Store: b}).Wrap(calls)
		first := do(h, post("/", ""))
		mine := b.kept
		payload := string(mine.Result.Payload)
		time.Sleep(24*time.Hour - time.Second)
		wantReplay(t, do(h, post("/", "")), first)
		time.Sleep(time.Second)
		do(h, post("/", ""))
		calls.want(t, 2)
		if string(mine.Result.Payload) != payload || mine.Result.TTL != 24*time.Hour || mine.Result.Status != 201 {
			t.Errorf("the completion is now %+v", mine)
		}
	})
}

// A Completion may outlive its request, as in a call of a database that hangs. It does not
// get the bytes of another request.
func TestACompletionBelongsToItsRequest(t *testing.T) {
	b := newBank(t)
	h := newMiddleware(t, idempotency.Config{Store: b}).Wrap(b.pay(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(201)
		fmt.Fprint(w, "order of ", r.Header.Get("Idempotency-Key"))
	}))
	var completions []idempotency.Completion
	for i := range 100 {
		do(h, post("/", strings.Repeat("x", 100), key(fmt.Sprint(i))))
		completions = append(completions, b.kept)
	}
	for i, c := range completions {
		_, _, body, err := idempotency.ReadResponse(c.Result.Payload, c.Key)
		if want := fmt.Sprint("order of ", i); string(body) != want || err != nil {
			t.Fatalf("completion %d has %q, %v; want %q", i, body, err, want)
		}
	}
}

// The end of a claim is counted once, however its transaction has ended.
func TestCommitIsCounted(t *testing.T) {
	for name, c := range map[string]struct {
		around func(ctx context.Context, commit func() error) error
		status int
		want   string
	}{
		"committed":                   {nil, 201, "kept"},
		"rolled back":                 {nil, 503, "released"},
		"unknown":                     {nil, 500, "tombstoned"},
		"failed":                      {func(context.Context, func() error) error { return errors.New("x") }, 201, "released"},
		"committed, the reply lost":   {func(_ context.Context, commit func() error) error { return errors.Join(commit(), errors.New("x")) }, 201, "kept"},
		"lost, as commit has noticed": {func(context.Context, func() error) error { return idempotency.ErrLost }, 201, "released"},
	} {
		t.Run(name, func(t *testing.T) {
			b, m := newBank(t), newMeter()
			b.around = c.around
			h := newMiddleware(t, idempotency.Config{Store: b, MeterProvider: m, OnError: func(context.Context, error) {}}).Wrap(b.pay(writing(c.status, "")))
			do(h, post("/", ""))
			counts := m.counts(t)
			delete(counts, "executed")
			if len(counts) != 1 || counts[c.want] != 1 {
				t.Errorf("counted %v", counts)
			}
		})
	}
}

// Many requests with transactions at once neither mix their responses nor their records.
func TestManyCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank(t)
		h := outer(newMiddleware(t, idempotency.Config{Store: b}).Wrap(b.pay(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/"+r.Header.Get("Idempotency-Key"))
			fmt.Fprint(w, r.Header.Get("Idempotency-Key"))
		})))
		const n = 200
		var all sync.WaitGroup
		for i := range n {
			for range 2 {
				all.Go(func() {
					k := fmt.Sprint("key-", i)
					w := do(h, post("/", "", key(k)))
					if w.Code == 409 {
						return
					}
					if w.Body.String() != k || !slices.Equal(w.Header()["Location"], []string{"/" + k}) {
						t.Errorf("%s got %d %s %v", k, w.Code, w.Body, w.Header())
					}
				})
			}
		}
		all.Wait()
		b.want(t, n, 0)
	})
}
