package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// The context of a call has the values of its caller's, and outlives it.
func TestTheContextOfACall(t *testing.T) {
	type value struct{}
	t.Run("has the values and the principal", func(t *testing.T) {
		m := newMiddleware(t, idempotency.Config{})
		ctx := context.WithValue(usher.WithPrincipal(post("/", ""), alice).Context(), value{}, "of the caller")
		_, _, err := m.Execute(ctx, message(), func(ctx context.Context) ([]byte, error) {
			if p, ok := usher.PrincipalFrom(ctx); ctx.Value(value{}) != "of the caller" || !ok || p.ID != alice.ID {
				t.Errorf("it has the value %v and the principal %v", ctx.Value(value{}), p)
			}
			e := idempotency.From(ctx)
			if e.Generation() == 0 || len(e.DownstreamKey("bank")) != 64 {
				t.Error("it has no Execution")
			}
			return nil, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("outlives that of the caller", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newMiddleware(t, idempotency.Config{DisconnectTimeout: time.Minute})
			ctx, cancel := context.WithCancel(t.Context())
			_, _, err := m.Execute(ctx, message(), func(ctx context.Context) ([]byte, error) {
				done := ctx.Done()
				cancel()
				began := time.Now()
				time.Sleep(time.Second)
				if ctx.Err() != nil {
					t.Error(ctx.Err())
				}
				<-done
				if d := time.Since(began); d != time.Minute || !errors.Is(context.Cause(ctx), idempotency.ErrDisconnected) {
					t.Errorf("it ends after %v: %v", d, context.Cause(ctx))
				}
				return []byte("done"), nil
			})
			if err != nil {
				t.Error(err)
			}
			reply, replayed, err := execute(m, message(), nil)
			wantReply(t, reply, replayed, err, "done", true)
		})
	})
	t.Run("ends at the deadline of the caller", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newMiddleware(t, idempotency.Config{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, _, err := m.Execute(ctx, message(), func(ctx context.Context) ([]byte, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			_, _, err = execute(m, message(), nil)
			wantCode(t, err, 409, unknown)
		})
	})
}

// A call within a request with a key is another execution.
func TestACallWithinARequest(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{})
	f := new(consumer)
	h := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer := idempotency.From(r.Context())
		reply, _, err := m.Execute(r.Context(), message(), func(ctx context.Context) ([]byte, error) {
			if inner := idempotency.From(ctx); inner == outer || inner == nil {
				t.Error("the call has no execution of its own")
			}
			return f.run(ctx)
		})
		if idempotency.From(r.Context()) != outer {
			t.Error("the request has lost its execution")
		}
		if err != nil {
			usher.Fail(w, r, err)
			return
		}
		_, _ = w.Write(reply)
	}))
	for _, k := range []string{"a", "b", "a"} {
		if w := do(h, post("/", "", key(k))); w.Code != 200 || w.Body.String() != "order 1" {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	}
}

// With Commit the transaction of a call is committed with its result, or rolled back.
func TestCommitInACall(t *testing.T) {
	failure := errors.New("deadlock")
	for name, c := range map[string]struct {
		run       func(ctx context.Context, begin func() error) ([]byte, error)
		around    func(ctx context.Context, commit func() error) error
		committed int
		first     string // what the first error says
		again     string // the code of the second, or runs
	}{
		"committed": {nil, nil, 1, "", ""},
		"an error that is kept": {func(_ context.Context, begin func() error) ([]byte, error) {
			return nil, errors.Join(begin(), &usher.Error{Status: 402, Code: "refused"})
		}, nil, 1, "refused", "refused"},
		"an error that is released": {func(_ context.Context, begin func() error) ([]byte, error) {
			return nil, errors.Join(begin(), &usher.Error{Status: 503, Code: "busy"})
		}, nil, 0, "busy", runs},
		"an error that is kept, and the commit fails": {func(_ context.Context, begin func() error) ([]byte, error) {
			return nil, errors.Join(begin(), &usher.Error{Status: 402, Code: "refused"})
		}, func(context.Context, func() error) error { return failure }, 0, "deadlock", runs},
		"a panic": {func(_ context.Context, begin func() error) ([]byte, error) {
			_ = begin()
			panic("x")
		}, nil, 0, "panic", unknown},
		"a long reply": {func(_ context.Context, begin func() error) ([]byte, error) {
			return bytes.Repeat([]byte("x"), 65), begin()
		}, nil, 0, "longer than MaxResponse", runs},
		"the commit fails": {nil, func(context.Context, func() error) error { return failure }, 0, "deadlock", runs},
		"the reply to the commit is lost": {nil, func(_ context.Context, commit func() error) error {
			return errors.Join(commit(), failure)
		}, 1, "", ""},
		"the claim is lost": {nil, func(context.Context, func() error) error { return idempotency.ErrLost }, 0, usher.CodeIdempotencyInProgress, runs},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t)
			b.around = c.around
			m := newMiddleware(t, idempotency.Config{Store: b, MaxResponse: 64, OnError: func(context.Context, error) {}})
			f := &consumer{next: func(ctx context.Context) ([]byte, error) {
				begin := func() error { return b.begin(post("/", "").WithContext(ctx)) }
				if c.run != nil {
					return c.run(ctx, begin)
				}
				return []byte("paid"), begin()
			}}
			reply, replayed, err := execute(m, message(), f.run)
			b.want(t, c.committed, 1-c.committed)
			switch {
			case c.first == "":
				wantReply(t, reply, replayed, err, "paid", false)
			case err == nil || !strings.Contains(err.Error(), c.first) || reply != "":
				t.Errorf("got %q, %v", reply, err)
			}
			b.around = nil
			reply, replayed, err = execute(m, message(), f.run)
			switch c.again {
			case "":
				wantReply(t, reply, replayed, err, "paid", true)
			case runs:
				if f.n != 2 {
					t.Errorf("%d executions", f.n)
				}
			default:
				if e, ok := errors.AsType[*usher.Error](err); !ok || e.Code != c.again {
					t.Errorf("the second call got %v", err)
				}
			}
		})
	}
}

// A call that ends its goroutine ends its claim as well.
func TestACallThatExits(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _, _ = m.Execute(context.Background(), message(), func(context.Context) ([]byte, error) {
			runtime.Goexit()
			return nil, nil
		})
	}()
	<-ended
	_, _, err := execute(m, message(), nil)
	wantCode(t, err, 409, unknown)
	if m.Leases() != 0 {
		t.Error("the lease is still kept")
	}
}
