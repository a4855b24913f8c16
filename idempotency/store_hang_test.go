package idempotency_test

import (
	"context"
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
)

// A store that hangs forever holds a bounded number of goroutines.
func TestAHangingStoreKeepsFewGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore(t)
		var asked, hanging atomic.Int32
		end := make(chan struct{})
		store.set(func(f *hookedStore) {
			f.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
				asked.Add(1)
				hanging.Add(1)
				defer hanging.Add(-1)
				<-end
				return idempotency.Record{}, usher.ErrFull
			}
		})
		calls := new(counting)
		h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(calls)
		for i := range 500 {
			wantFailure(t, do(h, post("/", "", key(fmt.Sprint(i)))), 503, usher.CodeIdempotencyUnavailable)
		}
		if n := hanging.Load(); n != 64 {
			t.Errorf("%d calls hang after 500 requests, want 64", n)
		}
		close(end)
		store.set(func(f *hookedStore) { f.claim = nil })
		synctest.Wait()
		if w := do(h, post("/", "")); w.Code != 201 {
			t.Errorf("after it has recovered: %d %s", w.Code, w.Body)
		}
	})
}

// However many clients call at once, a store that hangs gets a bounded number of calls.
func TestAStoreThatHangsIsCalledFewTimesAtOnce(t *testing.T) {
	store := newHookedStore(t)
	var calls, most atomic.Int32
	end := make(chan struct{})
	store.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
		n := calls.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-end
		calls.Add(-1)
		return idempotency.Record{}, usher.ErrFull
	}
	executions := new(counting)
	s := httptest.NewServer(asAlice(newMiddleware(t, idempotency.Config{Store: store}).Wrap(executions)))
	t.Cleanup(s.Close)
	var clients sync.WaitGroup
	for i := range 200 {
		clients.Go(func() {
			if got := send(t, s, fmt.Sprint(i), nil); got.status != 503 || !strings.Contains(got.text, usher.CodeIdempotencyUnavailable) {
				t.Errorf("got %d %s", got.status, got.text)
			}
		})
	}
	clients.Wait()
	if n := most.Load(); n != 64 {
		t.Errorf("%d calls at once, want 64", n)
	}
	executions.want(t, 0)
	close(end)
}

// Requests with a claim can finish it while other claims hang.
func TestClaimsThatHangDelayNoRequestWithAClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore(t)
		leave, end := make(chan struct{}), make(chan struct{})
		calls := &counting{next: func(w http.ResponseWriter, _ *http.Request) {
			<-leave
			w.WriteHeader(http.StatusCreated)
		}}
		h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(calls)
		first := make(chan *httptest.ResponseRecorder)
		go func() { first <- do(h, post("/", "")) }()
		synctest.Wait()
		store.set(func(f *hookedStore) {
			f.claim = func(context.Context, idempotency.Claim) (idempotency.Record, error) {
				<-end
				return idempotency.Record{}, usher.ErrFull
			}
		})
		var others sync.WaitGroup
		for i := range 100 {
			others.Go(func() { do(h, post("/", "", key(fmt.Sprint("other-", i)))) })
		}
		others.Wait()
		began := time.Now()
		close(leave)
		got := <-first
		if got.Code != 201 || time.Since(began) != 0 {
			t.Errorf("the first got %d after %v", got.Code, time.Since(began))
		}
		close(end)
		store.set(func(f *hookedStore) { f.claim = nil })
		time.Sleep(time.Second) // until the store is called again
		wantReplay(t, do(h, post("/", "")), got)
	})
}

// A claim that succeeds after its request was refused is released.
func TestALateClaimIsReleased(t *testing.T) {
	for name, fail := range map[string]func(f *hookedStore, ctx context.Context, c idempotency.Claim) (idempotency.Record, error){
		"the claim comes after the time": func(f *hookedStore, ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
			time.Sleep(time.Second)
			return f.Store.Claim(ctx, c)
		},
		"the reply is lost": func(f *hookedStore, ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
			_, _ = f.Store.Claim(ctx, c)
			return idempotency.Record{}, errDown
		},
		"the reply comes after the time and is lost": func(f *hookedStore, ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
			_, _ = f.Store.Claim(ctx, c)
			time.Sleep(time.Second)
			return idempotency.Record{}, errDown
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore(t)
				store.set(func(f *hookedStore) {
					f.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) { return fail(f, ctx, c) }
				})
				calls := new(counting)
				h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(calls)
				wantFailure(t, do(h, post("/", "")), 503, usher.CodeIdempotencyUnavailable)
				store.set(func(f *hookedStore) { f.claim = nil })
				time.Sleep(2 * time.Second)
				if w := do(h, post("/", "")); w.Code != 201 {
					t.Errorf("the retry got %d %s", w.Code, w.Body)
				}
				calls.want(t, 1)
			})
		})
	}
}

// A server that was silent for a moment executes the claim when it continues. Until then it
// does not release it either.
func TestAClaimOfASilentServerIsReleasedWhenItContinues(t *testing.T) {
	for name, c := range map[string]struct{ silence, delay time.Duration }{
		"soon":                     {700 * time.Millisecond, 0},
		"late":                     {lease / 2, 0},
		"the release first":        {700 * time.Millisecond, 900 * time.Millisecond},
		"the release first, later": {lease / 2, 900 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore(t)
				continues := make(chan struct{})
				store.set(func(f *hookedStore) {
					f.claim = func(ctx context.Context, claim idempotency.Claim) (idempotency.Record, error) {
						go func() {
							<-continues
							time.Sleep(c.delay)
							_, _ = f.Store.Claim(context.WithoutCancel(ctx), claim)
						}()
						<-ctx.Done()
						return idempotency.Record{}, usher.ErrUnavailable
					}
					f.finish = func(ctx context.Context, _ idempotency.Completion) (idempotency.State, error) {
						<-ctx.Done()
						return 0, usher.ErrUnavailable
					}
				})
				calls := new(counting)
				var reported atomic.Int32
				h := newMiddleware(t, idempotency.Config{
					Store: store, OnError: func(context.Context, error) { reported.Add(1) },
				}).Wrap(calls)
				began := time.Now()
				wantFailure(t, do(h, post("/", "")), 503, usher.CodeIdempotencyUnavailable)
				time.Sleep(time.Until(began.Add(c.silence)))
				close(continues)
				store.set(func(f *hookedStore) { f.claim, f.finish = nil, nil })
				time.Sleep(3 * time.Second) // much less than a lease
				if w := do(h, post("/", "")); w.Code != 201 {
					t.Errorf("the retry got %d %s", w.Code, w.Body)
				}
				calls.want(t, 1)
				if n := reported.Load(); n != 1 {
					t.Errorf("OnError was called %d times, want once, for the claim", n)
				}
			})
		})
	}
}
