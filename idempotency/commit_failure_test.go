package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

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
