package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

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
