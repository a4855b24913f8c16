package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

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
