package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
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

// nothingSent wraps a handler. It fails if the handler's writer has sent anything.
func nothingSent(t *testing.T, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		next(w, r)
		for {
			u, ok := w.(interface{ Unwrap() http.ResponseWriter })
			if !ok {
				break
			}
			w = u.Unwrap()
		}
		if recorder, ok := w.(*httptest.ResponseRecorder); ok && (recorder.Body.Len() > 0 || recorder.Flushed) {
			t.Errorf("%q is sent before the commit", recorder.Body)
		}
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

// A response that cannot be stored is not sent. Its transaction is rolled back, and a retry
// runs.
func TestCommitWithAResponseThatCannotBeStored(t *testing.T) {
	wantError := func(t *testing.T, what string, err error) {
		t.Helper()
		if err == nil {
			t.Error(what, "returns no error")
		}
	}
	for name, respond := range map[string]func(*testing.T, http.ResponseWriter){
		"a flush": func(t *testing.T, w http.ResponseWriter) {
			wantError(t, "Flush", http.NewResponseController(w).Flush())
			_, err := w.Write([]byte("x"))
			wantError(t, "Write", err)
		},
		"a flush after a write": func(t *testing.T, w http.ResponseWriter) {
			_, _ = w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			_, err := io.WriteString(w, "x")
			wantError(t, "Write", err)
		},
		"a flush after a body that becomes long": func(t *testing.T, w http.ResponseWriter) {
			_, first := w.Write([]byte("123456789"))
			_ = http.NewResponseController(w).Flush()
			if _, err := w.Write([]byte("x")); first == nil || !errors.Is(err, first) {
				t.Errorf("Write returns %v, and then %v", first, err)
			}
		},
		"a hijack": func(t *testing.T, w http.ResponseWriter) {
			_, _, err := http.NewResponseController(w).Hijack()
			wantError(t, "Hijack", err)
		},
		"another protocol": func(_ *testing.T, w http.ResponseWriter) { w.WriteHeader(101) },
		"a long body": func(t *testing.T, w http.ResponseWriter) {
			_, err := w.Write([]byte("123456789"))
			wantError(t, "Write", err)
		},
		"a body that becomes long": func(t *testing.T, w http.ResponseWriter) {
			_, _ = w.Write([]byte("12345678"))
			_, err := w.Write([]byte("9"))
			wantError(t, "Write", err)
			_, err = w.Write(nil)
			wantError(t, "a second Write", err)
		},
		"a long copied body": func(t *testing.T, w http.ResponseWriter) {
			_, err := io.Copy(w, strings.NewReader(strings.Repeat("x", 9)))
			wantError(t, "Copy", err)
			usher.Fail(w, httptest.NewRequest(http.MethodPost, "/", nil), err)
		},
		"an announced length": func(t *testing.T, w http.ResponseWriter) {
			w.Header().Set("Content-Length", "9")
			_, err := w.Write([]byte("1"))
			wantError(t, "Write", err)
		},
		"too little of the announced length": func(_ *testing.T, w http.ResponseWriter) {
			w.Header().Set("Content-Length", "8")
			_, _ = w.Write([]byte("1"))
		},
		"too much of the announced length": func(t *testing.T, w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1")
			_, err := w.Write([]byte("12"))
			wantError(t, "Write", err)
		},
		"a trailer": func(t *testing.T, w http.ResponseWriter) {
			w.Header().Set("Trailer", "Sum")
			_, err := w.Write([]byte("x"))
			wantError(t, "Write", err)
		},
		"a trailer that was not announced": func(_ *testing.T, w http.ResponseWriter) {
			_, _ = w.Write([]byte("x"))
			w.Header().Set(http.TrailerPrefix+"Sum", "1")
		},
		"an error after a success": func(_ *testing.T, w http.ResponseWriter) {
			w.WriteHeader(200)
			http.Error(w, "oh", 500)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t)
			calls := new(counting)
			calls.next = func(w http.ResponseWriter, r *http.Request) {
				if calls.n.Load() > 1 {
					return
				}
				b.pay(func(w http.ResponseWriter, _ *http.Request) { respond(t, w) }).next(w, r)
			}
			var reported []error
			h := outer(newMiddleware(t, idempotency.Config{Store: b, MaxResponse: 8, OnError: func(_ context.Context, err error) {
				reported = append(reported, err)
			}}).Wrap(calls))
			first := do(h, post("/", ""))
			wantFailure(t, first, 500, usher.CodeInternal)
			wantNothingOf(t, first)
			if first.Flushed || len(first.Result().Trailer) > 0 || len(reported) != 1 {
				t.Errorf("flushed %v, trailer %v, reported %v", first.Flushed, first.Result().Trailer, reported)
			}
			b.want(t, 0, 1)
			do(h, post("/", ""))
			calls.want(t, 2)
		})
	}
}

// With a Memory the header is again what it was when Commit was called.
func TestCommitWithAMemory(t *testing.T) {
	for _, fails := range []bool{false, true} {
		h := outer(newMiddleware(t, idempotency.Config{OnError: func(context.Context, error) {}}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			err := idempotency.From(r.Context()).Commit(r.Context(), func(context.Context, idempotency.Completion) error {
				if fails {
					return errors.New("deadlock")
				}
				return nil
			}, nil)
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("Location", "/7")
			w.Header().Set("X-Changed", "by the handler")
			fmt.Fprint(w, "paid")
		})))
		w := do(h, post("/", ""))
		if fails {
			wantFailure(t, w, 500, usher.CodeInternal)
			wantNothingOf(t, w)
		} else if w.Code != 200 || w.Header().Get("Location") != "/7" || w.Header().Get("X-Outer") != "kept" {
			t.Errorf("got %d %v", w.Code, w.Header())
		}
	}
}

// A handler that returns silently once its time is over has not responded, so its
// transaction is rolled back.
func TestCommitOfAHandlerThatIsSilentAfterItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank(t)
		h := outer(newMiddleware(t, idempotency.Config{Store: b}).Wrap(b.pay(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		})))
		r := post("/", "")
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		w := do(h, r.WithContext(ctx))
		b.want(t, 0, 1)
		wantNothingOf(t, w)
		wantFailure(t, do(h, post("/", "")), 409, unknown)
	})
}

// A handler that writes nothing leaves the status to outer handlers, as without Commit.
func TestCommitOfASilentHandler(t *testing.T) {
	b := newBank(t)
	m := newMiddleware(t, idempotency.Config{Store: b}).Wrap(b.pay(func(http.ResponseWriter, *http.Request) {}))
	w := do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.ServeHTTP(w, r)
		w.WriteHeader(http.StatusAccepted)
	}), post("/", ""))
	if w.Code != http.StatusAccepted || w.Header().Get("Location") != "/before" {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
	b.want(t, 1, 0)
}

// A failure that commit writes, but does not return, changes nothing of the response.
func TestCommitThatWritesAFailureWithinAnEnvelope(t *testing.T) {
	h := newEnvelope(t).Wrap(newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := idempotency.From(r.Context()).Commit(r.Context(), func(context.Context, idempotency.Completion) error {
			usher.Fail(w, r, &usher.Error{Status: 404})
			return nil
		}, nil)
		if err != nil {
			t.Error(err)
		}
		usher.Respond(w, r, usher.Reply{Status: 201, Data: "paid"})
	})))
	if w := do(h, post("/", "")); w.Code != 201 || strings.Count(w.Body.String(), "status_code") != 1 || !strings.Contains(w.Body.String(), "paid") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// The first reason for which a response cannot be stored is reported.
func TestCommitReportsWhyAResponseCannotBeStored(t *testing.T) {
	b := newBank(t)
	var reported error
	h := newMiddleware(t, idempotency.Config{Store: b, MaxResponse: 8, OnError: func(_ context.Context, err error) { reported = err }}).Wrap(
		b.pay(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "123456789")
			w.(http.Flusher).Flush()
		}))
	do(h, post("/", ""))
	if reported == nil || !strings.Contains(reported.Error(), "MaxResponse") {
		t.Errorf("reported %v", reported)
	}
}

// A status that is none is a fault of the handler, as a panic is.
func TestCommitWithAnImpossibleStatus(t *testing.T) {
	for _, status := range []int{42, 1000} {
		b := newBank(t)
		h := newMiddleware(t, idempotency.Config{Store: b, OnError: func(context.Context, error) {}}).Wrap(b.pay(writing(status, "paid")))
		wantFailure(t, do(h, post("/", "")), 500, usher.CodeInternal)
		b.want(t, 0, 1)
		wantFailure(t, do(h, post("/", "")), 409, unknown)
	}
}

// Without a committed transaction nothing of the response is sent. What the client gets in
// its place, and what a retry gets, depends on how commit has failed.
func TestCommitThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		commit    func(commit func() error) error
		status    int
		code      string
		retry     string
		committed bool
	}{
		"nothing is committed": {
			func(func() error) error { return errors.New("deadlock") }, 500, usher.CodeInternal, runs, false,
		},
		"only the reply is lost": {
			func(commit func() error) error { return errors.Join(commit(), errors.New("connection reset")) }, 201, "", replays, true,
		},
		"the claim is lost": {
			func(func() error) error { return fmt.Errorf("finish: %w", idempotency.ErrLost) }, 409, usher.CodeIdempotencyInProgress, runs, false,
		},
		"with an error for the client": {
			func(func() error) error { return &usher.Error{Status: 503, Code: "busy", RetryAfter: time.Second} }, 503, "busy", runs, false,
		},
		"with a panic": {
			func(func() error) error { panic("x") }, 0, "", unknown, false,
		},
		"with a panic when all is committed": {
			func(commit func() error) error { _ = commit(); panic("x") }, 0, "", replays, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t)
			b.around = func(_ context.Context, commit func() error) error { return c.commit(commit) }
			var reported []error
			calls := b.pay(writing(201, "paid"))
			h := outer(newMiddleware(t, idempotency.Config{Store: b, OnError: func(_ context.Context, err error) {
				reported = append(reported, err)
			}}).Wrap(calls))
			first := do(h, post("/", ""))
			if first.Code != c.status || code(first) != c.code {
				t.Errorf("got %d %s", first.Code, first.Body)
			}
			if c.status != 201 {
				wantNothingOf(t, first)
			}
			if c.committed {
				b.want(t, 1, 0)
			} else {
				b.want(t, 0, 1)
			}
			if c.status != 0 && len(reported) == 0 {
				t.Error("the error of commit is not reported")
			}
			b.around = nil
			again := do(h, post("/", ""))
			switch c.retry {
			case runs:
				calls.want(t, 2)
				b.want(t, 1, 1)
			case replays:
				if again.Code != 201 || again.Body.String() != "paid" || again.Header().Get("Idempotency-Replayed") != "true" {
					t.Errorf("the retry got %d %s", again.Code, again.Body)
				}
				calls.want(t, 1)
			default:
				wantFailure(t, again, 409, c.retry)
			}
		})
	}
}

// If the store fails when a claim is released after a failed commit, the claim is released
// later, unless the transaction was committed.
func TestCommitThatFailsWithItsStore(t *testing.T) {
	for _, committed := range []bool{false, true} {
		t.Run(fmt.Sprint("committed: ", committed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore(t)
				b := &bank{Store: store}
				b.around = func(_ context.Context, commit func() error) error {
					if committed {
						if err := commit(); err != nil {
							t.Error(err)
						}
					}
					store.set(func(f *hookedStore) {
						f.finish = func(context.Context, idempotency.Completion) (idempotency.State, error) {
							return 0, usher.ErrUnavailable
						}
					})
					return errors.New("connection reset")
				}
				calls := b.pay(writing(201, "paid"))
				h := newMiddleware(t, idempotency.Config{Store: store, Lease: 10 * time.Second, OnError: func(context.Context, error) {}}).Wrap(calls)
				wantFailure(t, do(h, post("/", "")), 500, usher.CodeInternal)
				b.around = nil
				store.set(func(f *hookedStore) { f.finish = nil })
				time.Sleep(5 * time.Second)
				again := do(h, post("/", ""))
				if again.Code != 201 {
					t.Errorf("the retry got %d %s", again.Code, again.Body)
				}
				if replayed := again.Header().Get("Idempotency-Replayed") == "true"; replayed != committed {
					t.Errorf("replayed: %v", replayed)
				}
				if committed {
					b.want(t, 1, 0)
				} else {
					b.want(t, 1, 1)
				}
			})
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

// A process that was paused for longer than its lease commits nothing if another has taken
// the key.
func TestCommitOfALostClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank(t)
		paused := newHookedStore(t)
		paused.Store = b.Store
		paused.renew = func(context.Context) error { return errDown }
		slow := b.pay(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(lease + time.Second)
			writing(201, "slow")(w, r)
		})
		config := idempotency.Config{Store: paused, OnError: func(context.Context, error) {}}
		late := make(chan *httptest.ResponseRecorder)
		go func() { late <- do(outer(newMiddleware(t, config).Wrap(slow)), post("/", "")) }()
		time.Sleep(lease + time.Millisecond)
		next := newMiddleware(t, idempotency.Config{Store: b}).Wrap(b.pay(writing(201, "next")))
		first := do(next, post("/", ""))
		w := <-late
		wantFailure(t, w, 409, usher.CodeIdempotencyInProgress)
		wantNothingOf(t, w)
		b.want(t, 1, 1)
		wantReplay(t, do(next, post("/", "")), first)
		synctest.Wait()
	})
}

// The claim is kept while the transaction is committed, however long that takes.
func TestCommitThatTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank(t)
		store := &hookedStore{Store: b.Store}
		b.around = func(ctx context.Context, commit func() error) error {
			time.Sleep(3 * lease)
			if ctx.Err() != nil {
				t.Error("the context has ended:", context.Cause(ctx))
			}
			return commit()
		}
		calls := b.pay(writing(201, "paid"))
		h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(calls)
		done := make(chan *httptest.ResponseRecorder)
		go func() { done <- do(h, post("/", "")) }()
		time.Sleep(2 * lease)
		r := post("/", "")
		ctx, cancel := context.WithTimeout(r.Context(), time.Millisecond)
		defer cancel()
		wantFailure(t, do(h, r.WithContext(ctx)), 409, usher.CodeIdempotencyInProgress)
		first := <-done
		wantReplay(t, do(h, post("/", "")), first)
		calls.want(t, 1)
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

// A commit that does not call FinishTx is followed by Finish, before the response is sent.
func TestCommitWithoutFinishTx(t *testing.T) {
	b := newBank(t)
	b.around = func(context.Context, func() error) error {
		b.committed++
		return nil
	}
	calls := b.pay(writing(201, "paid"))
	h := newMiddleware(t, idempotency.Config{Store: b}).Wrap(calls)
	first := do(h, post("/", ""))
	wantReplay(t, do(h, post("/", "")), first)
	calls.want(t, 1)
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
func TestACompletionBelongsToItsRequestAlone(t *testing.T) {
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

// Commit that is called too late or twice returns an error, and rolls back what it was
// called with.
func TestCommitAtAWrongTime(t *testing.T) {
	for name, c := range map[string]struct {
		before     func(b *bank, w http.ResponseWriter, r *http.Request)
		committed  int
		rolledBack int
	}{
		"after the status": {func(_ *bank, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) }, 0, 1},
		"after a body":     {func(_ *bank, w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x") }, 0, 1},
		"after a flush":    {func(_ *bank, w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() }, 0, 1},
		"twice": {func(b *bank, _ http.ResponseWriter, r *http.Request) {
			if err := b.begin(r); err != nil {
				t.Error(err)
			}
		}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t)
			h := newMiddleware(t, idempotency.Config{Store: b}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c.before(b, w, r)
				if err := b.begin(r); err == nil {
					t.Error("Commit returns no error")
				}
			}))
			do(h, post("/", ""))
			b.want(t, c.committed, c.rolledBack)
		})
	}
}

// The functions of Commit may call whatever the handler may. It has no effect, as the
// response is complete and its outcome decided.
func TestCommitFunctionsThatMeddle(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("fails: ", fails), func(t *testing.T) {
			b := newBank(t)
			h := outer(newMiddleware(t, idempotency.Config{Store: b, OnError: func(context.Context, error) {}}).Wrap(
				http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					e := idempotency.From(r.Context())
					meddle := func(ctx context.Context) {
						if idempotency.From(ctx) != e {
							t.Error("From returns another Execution")
						}
						e.SetOutcome(idempotency.Unknown)
						w.Header().Set("Location", "/late")
						w.WriteHeader(500)
						if _, err := w.Write([]byte("late")); err == nil {
							t.Error("Write returns no error")
						}
						if http.NewResponseController(w).Flush() == nil {
							t.Error("Flush returns no error")
						}
						if b.begin(r) == nil {
							t.Error("Commit returns no error")
						}
					}
					err := e.Commit(r.Context(), func(ctx context.Context, _ idempotency.Completion) error {
						meddle(ctx)
						if fails {
							return errors.New("deadlock")
						}
						return nil
					}, func() { meddle(r.Context()) })
					if err != nil {
						t.Error(err)
					}
					w.Header().Set("Location", "/7")
					fmt.Fprint(w, "paid")
				})))
			w := do(h, post("/", ""))
			if fails {
				wantFailure(t, w, 500, usher.CodeInternal)
				wantNothingOf(t, w)
				return
			}
			if w.Code != 200 || w.Body.String() != "paid" || w.Header().Get("Location") != "/7" {
				t.Errorf("got %d %s %v", w.Code, w.Body, w.Header())
			}
			wantReplay(t, do(h, post("/", "")), w)
		})
	}
}

// A goroutine that the handler has left behind cannot write while the transaction is
// committed, nor delay that.
func TestCommitAndAGoroutineLeftBehind(t *testing.T) {
	b := newBank(t)
	committing, written := make(chan struct{}), make(chan error)
	b.around = func(_ context.Context, commit func() error) error {
		close(committing)
		if err := <-written; err == nil {
			t.Error("Write returns no error")
		}
		return commit()
	}
	h := newMiddleware(t, idempotency.Config{Store: b}).Wrap(b.pay(func(w http.ResponseWriter, r *http.Request) {
		writing(201, "paid")(w, r)
		go func() {
			<-committing
			_, err := w.Write([]byte("late"))
			written <- err
		}()
	}))
	if w := do(h, post("/", "")); w.Code != 201 || w.Body.String() != "paid" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	b.want(t, 1, 0)
}

// A handler or commit that ends its goroutine ends the transaction and the claim as well.
func TestCommitAndGoexit(t *testing.T) {
	for name, exits := range map[string]func(b *bank, w http.ResponseWriter, r *http.Request){
		"in the handler": func(*bank, http.ResponseWriter, *http.Request) { runtime.Goexit() },
		"in commit": func(b *bank, w http.ResponseWriter, r *http.Request) {
			b.around = func(context.Context, func() error) error { runtime.Goexit(); return nil }
			writing(201, "paid")(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t)
			m := newMiddleware(t, idempotency.Config{Store: b})
			h := m.Wrap(b.pay(func(w http.ResponseWriter, r *http.Request) { exits(b, w, r) }))
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				do(h, post("/", ""))
			}()
			<-ended
			b.want(t, 0, 1)
			wantFailure(t, do(h, post("/", "")), 409, unknown)
			if m.Leases() != 0 {
				t.Error("the lease is still kept")
			}
		})
	}
}

// If rollback panics the outcome is unknown, and no claim stays behind.
func TestCommitWhoseRollbackPanics(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		commit error
		retry  string
	}{
		"after a released response": {503, nil, unknown},
		"after a failed commit":     {201, errors.New("deadlock"), unknown},
		"after a panic":             {0, nil, unknown},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMiddleware(t, idempotency.Config{OnError: func(context.Context, error) {}})
			h := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				err := idempotency.From(r.Context()).Commit(r.Context(),
					func(context.Context, idempotency.Completion) error { return c.commit },
					func() { panic("rollback") })
				if err != nil {
					t.Error(err)
				}
				if c.status == 0 {
					panic("handler")
				}
				w.WriteHeader(c.status)
			}))
			if w := do(h, post("/", "")); w.Code != 0 || w.Body.Len() > 0 {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			wantFailure(t, do(h, post("/", "")), 409, c.retry)
			if m.Leases() != 0 {
				t.Error("the lease is still kept")
			}
		})
	}
}

// A transaction without a rollback may fail as well.
func TestCommitWithoutRollback(t *testing.T) {
	failure := errors.New("deadlock")
	commit := func(context.Context, idempotency.Completion) error { return failure }
	h := newMiddleware(t, idempotency.Config{OnError: func(context.Context, error) {}}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := idempotency.From(r.Context()).Commit(r.Context(), commit, nil); err != nil {
			t.Error(err)
		}
	}))
	wantFailure(t, do(h, post("/", "")), 500, usher.CodeInternal)
	if err := idempotency.From(t.Context()).Commit(t.Context(), commit, nil); !errors.Is(err, failure) {
		t.Errorf("on nil: %v", err)
	}
}

// A request without a key commits at once.
func TestCommitWithoutAKey(t *testing.T) {
	failure := errors.New("deadlock")
	for name, fails := range map[string]func(func() error) error{
		"committed": func(commit func() error) error { return commit() },
		"fails":     func(func() error) error { return failure },
		"panics":    func(func() error) error { panic("x") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t)
			type value struct{}
			b.around = func(ctx context.Context, commit func() error) error {
				if ctx.Value(value{}) != "of the handler" || !b.kept.IsZero() {
					t.Errorf("commit got the value %v and %+v", ctx.Value(value{}), b.kept)
				}
				return fails(commit)
			}
			var err error
			h := newMiddleware(t, idempotency.Config{Store: b}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				err = b.begin(r.WithContext(context.WithValue(r.Context(), value{}, "of the handler")))
			}))
			w := do(h, post("/", "", func(r *http.Request) { r.Header.Del("Idempotency-Key") }))
			switch name {
			case "committed":
				b.want(t, 1, 0)
			case "fails":
				b.want(t, 0, 1)
				if !errors.Is(err, failure) {
					t.Errorf("Commit returns %v", err)
				}
			case "panics":
				b.want(t, 0, 1)
				if w.Code != 0 {
					t.Error("the panic is lost")
				}
			}
		})
	}
}

// The context of commit has the values of the handler's, but does not end with it.
func TestTheContextOfCommit(t *testing.T) {
	type value struct{}
	b := newBank(t)
	b.around = func(ctx context.Context, commit func() error) error {
		if ctx.Value(value{}) != "of the handler" || ctx.Err() != nil {
			t.Errorf("the context has the value %v and the error %v", ctx.Value(value{}), ctx.Err())
		}
		derived, cancel := context.WithCancel(ctx)
		defer cancel()
		if derived.Err() != nil {
			t.Error("a derived context has ended")
		}
		return commit()
	}
	h := newMiddleware(t, idempotency.Config{Store: b}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(context.WithValue(r.Context(), value{}, "of the handler"))
		defer cancel()
		if err := b.begin(r.WithContext(ctx)); err != nil {
			t.Error(err)
		}
	}))
	do(h, post("/", ""))
	b.want(t, 1, 0)
}

// A client that has disconnected does not keep the transaction from being committed until
// its time is over.
func TestCommitAfterTheClientHasDisconnected(t *testing.T) {
	for _, over := range []bool{false, true} {
		t.Run(fmt.Sprint("its time is over: ", over), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBank(t)
				b.around = func(ctx context.Context, commit func() error) error {
					if !over {
						return errors.Join(ctx.Err(), commit())
					}
					<-ctx.Done()
					if err := context.Cause(ctx); !errors.Is(err, idempotency.ErrDisconnected) && !errors.Is(err, context.Canceled) {
						t.Errorf("the cause is %v", err)
					}
					return ctx.Err()
				}
				r := post("/", "")
				ctx, cancel := context.WithCancel(r.Context())
				calls := b.pay(func(w http.ResponseWriter, r *http.Request) {
					cancel()
					time.Sleep(time.Second)
					writing(201, "paid")(w, r)
				})
				h := newMiddleware(t, idempotency.Config{Store: b, OnError: func(context.Context, error) {}}).Wrap(calls)
				do(h, r.WithContext(ctx))
				b.around = nil
				if again := do(h, post("/", "")); again.Code != 201 {
					t.Errorf("the retry got %d %s", again.Code, again.Body)
				}
				if over {
					b.want(t, 1, 1)
					calls.want(t, 2)
				} else {
					b.want(t, 1, 0)
					calls.want(t, 1)
				}
			})
		})
	}
}

// A deadline, wherever it is, ends the transaction, and not the response alone.
func TestCommitAndDeadlines(t *testing.T) {
	const limit = time.Second
	deadline := usher.Deadline(limit, nil)
	for name, c := range map[string]struct {
		wrap  func(m *idempotency.Middleware, h http.Handler) http.Handler
		retry string
	}{
		"http.TimeoutHandler outside": {func(m *idempotency.Middleware, h http.Handler) http.Handler {
			return http.TimeoutHandler(m.Wrap(h), limit, "slow")
		}, runs},
		"usher.Deadline outside": {func(m *idempotency.Middleware, h http.Handler) http.Handler {
			return deadline.Wrap(m.Wrap(h))
		}, runs},
		// The handler misses the deadline, and the response says so.
		"usher.Deadline inside": {func(m *idempotency.Middleware, h http.Handler) http.Handler {
			return m.Wrap(deadline.Wrap(h))
		}, unknown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBank(t)
				b.around = func(ctx context.Context, commit func() error) error {
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-time.After(2 * limit):
						return commit()
					}
				}
				calls := new(counting)
				calls.next = func(w http.ResponseWriter, r *http.Request) {
					if calls.n.Load() > 1 {
						return
					}
					b.pay(func(w http.ResponseWriter, r *http.Request) {
						if name == "usher.Deadline inside" {
							<-r.Context().Done()
							usher.Fail(w, r, r.Context().Err())
							return
						}
						writing(201, "paid")(w, r)
					}).next(w, r)
				}
				m := newMiddleware(t, idempotency.Config{Store: b, OnError: func(context.Context, error) {}})
				h := c.wrap(m, calls)
				if w := do(h, post("/", "")); w.Code < 500 || strings.Contains(w.Body.String(), "paid") {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
				synctest.Wait()
				b.want(t, 0, 1)
				again := do(h, post("/", ""))
				if c.retry == runs {
					calls.want(t, 2)
				} else {
					wantFailure(t, again, 409, c.retry)
				}
			})
		})
	}
}

// Of two nested middlewares the outer one has the claim and the transaction.
func TestCommitWithinNestedMiddlewares(t *testing.T) {
	b := newBank(t)
	inner := newMiddleware(t, idempotency.Config{})
	calls := b.pay(writing(201, "paid"))
	h := newMiddleware(t, idempotency.Config{Store: b}).Wrap(inner.Wrap(calls))
	first := do(h, post("/", ""))
	wantReplay(t, do(h, post("/", "")), first)
	b.want(t, 1, 0)
}

// Within an envelope and around one, a response with a transaction is what it is without
// one, and so is its replay. If the transaction fails, the error has the shape of the
// service.
func TestCommitAndEnvelopes(t *testing.T) {
	places := map[string]func(m *idempotency.Middleware, h http.Handler) http.Handler{
		"within": func(m *idempotency.Middleware, h http.Handler) http.Handler { return newEnvelope(t).Wrap(m.Wrap(h)) },
		"around": func(m *idempotency.Middleware, h http.Handler) http.Handler { return m.Wrap(newEnvelope(t).Wrap(h)) },
		"between": func(m *idempotency.Middleware, h http.Handler) http.Handler {
			return newEnvelope(t).Wrap(m.Wrap(newEnvelope(t).Wrap(h)))
		},
	}
	for place, wrap := range places {
		for _, c := range responding {
			t.Run(place+"/"+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var got [2][2]*httptest.ResponseRecorder
					for i, with := range []bool{false, true} {
						b := newBank(t)
						calls := &counting{next: func(w http.ResponseWriter, r *http.Request) {
							if with {
								if err := b.begin(r); err != nil {
									t.Error(err)
								}
							}
							c.handler(w, r)
						}}
						h := wrap(newMiddleware(t, idempotency.Config{Store: b}), calls)
						for j := range 2 {
							got[i][j] = do(h, post("/", "", requestID(fmt.Sprint(j))))
						}
						calls.want(t, 1)
						if with {
							b.want(t, 1, 0)
						}
					}
					for j, with := range got[1] {
						without := got[0][j]
						if with.Code != without.Code || with.Body.String() != without.Body.String() || !reflect.DeepEqual(with.Header(), without.Header()) {
							t.Errorf("response %d:\n%d %s %v, without a transaction\n%d %s %v",
								j, with.Code, with.Body, with.Header(), without.Code, without.Body, without.Header())
						}
					}
				})
			})
		}
		t.Run(place+"/a failed transaction", func(t *testing.T) {
			b := newBank(t)
			b.around = func(context.Context, func() error) error { return errors.New("deadlock") }
			m := newMiddleware(t, idempotency.Config{Store: b, OnError: func(context.Context, error) {}})
			w := do(outer(wrap(m, b.pay(responding[2].handler))), post("/", ""))
			if w.Code != 500 || strings.Contains(w.Body.String(), `"id":7`) {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			if place != "around" && !strings.Contains(w.Body.String(), `"status_code":500`) {
				t.Errorf("got %s", w.Body)
			}
			wantNothingOf(t, w)
			b.want(t, 0, 1)
		})
	}
}

// A failure after a success that an envelope has noticed rolls the transaction back.
func TestCommitAndALateFailureWithinAnEnvelope(t *testing.T) {
	for place, wrap := range map[string]func(m *idempotency.Middleware, h http.Handler) http.Handler{
		"within": func(m *idempotency.Middleware, h http.Handler) http.Handler { return newEnvelope(t).Wrap(m.Wrap(h)) },
		"around": func(m *idempotency.Middleware, h http.Handler) http.Handler { return m.Wrap(newEnvelope(t).Wrap(h)) },
	} {
		t.Run(place, func(t *testing.T) {
			b := newBank(t)
			m := newMiddleware(t, idempotency.Config{Store: b, OnError: func(context.Context, error) {}})
			h := wrap(m, b.pay(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `{"paid":true}`)
				usher.Fail(w, r, errors.New("oh"))
			}))
			if w := do(h, post("/", "")); w.Code == 200 || strings.Contains(w.Body.String(), "paid") {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			b.want(t, 0, 1)
		})
	}
}

// An outer compressor compresses the response once it is committed.
func TestCommitWithinACompressor(t *testing.T) {
	long := strings.Repeat("a long text ", 500)
	for _, fails := range []bool{false, true} {
		b := newBank(t)
		if fails {
			b.around = func(context.Context, func() error) error { return errors.New("deadlock") }
		}
		m := newMiddleware(t, idempotency.Config{DangerouslyAllowAnonymous: true, Store: b, OnError: func(context.Context, error) {}})
		s := httptest.NewServer(compress(m.Wrap(b.pay(writing(200, long)))))
		defer s.Close()
		got := postOver(t, s, "gzip")
		switch {
		case fails && (got.status != 500 || !strings.Contains(got.body, usher.CodeInternal)):
			t.Errorf("got %+v", got)
		case !fails && (got.status != 200 || got.body != long || got.encoding != "gzip"):
			t.Errorf("got %d %s, %d bytes", got.status, got.encoding, len(got.body))
		}
	}
}

// Over real connections a response with a transaction arrives as one without.
func TestCommitOverTheNetwork(t *testing.T) {
	forProtocols(t, func(t *testing.T, serve func(http.Handler) *httptest.Server) {
		long := strings.Repeat("x", 100_000)
		for _, fails := range []bool{false, true} {
			b := newBank(t)
			if fails {
				b.around = func(context.Context, func() error) error { return errors.New("deadlock") }
			}
			m := newMiddleware(t, idempotency.Config{Store: b, OnError: func(context.Context, error) {}})
			s := serve(asAlice(m.Wrap(b.pay(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100000")
				w.Header()["Set-Cookie"] = []string{"a=b"}
				w.WriteHeader(103)
				w.WriteHeader(201)
				_, _ = io.WriteString(w, long)
			}))))
			got := send(t, s, "k", strings.NewReader("body"))
			switch {
			case fails && (got.status != 500 || !strings.Contains(got.text, usher.CodeInternal) || got.header["Set-Cookie"] != nil):
				t.Errorf("got %d %s %v", got.status, got.text, got.header)
			case !fails && (got.status != 201 || got.text != long || got.header["Set-Cookie"] == nil):
				t.Errorf("got %d, %d bytes, %v", got.status, len(got.text), got.header)
			}
			if !fails {
				if again := send(t, s, "k", strings.NewReader("body")); !again.replayed() || again.text != long {
					t.Errorf("the retry got %d, %d bytes", again.status, len(again.text))
				}
			}
		}
	})
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
