package guard_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/guard"
)

const timeout = time.Second

var errStore = errors.New("store")

func TestACallReturnsWhatTheStoreReturns(t *testing.T) {
	g := guard.New(timeout, 1)
	if err := g.Do(t.Context(), "", func(context.Context) error { return errStore }); !errors.Is(err, errStore) {
		t.Errorf("got %v, want the error of the store", err)
	}
	n, err := guard.Call(t.Context(), g, "", func(context.Context) (int, error) { return 7, nil }, nil)
	if n != 7 || err != nil {
		t.Errorf("got %d, %v, want 7", n, err)
	}
}

func TestACallEndsInTime(t *testing.T) {
	var release chan struct{}
	cause := errors.New("the client has gone")
	for name, c := range map[string]struct {
		ctx  func(context.Context) (context.Context, func())
		call func(context.Context) error
		want error
		took time.Duration
	}{
		"of a store that ignores its context": {
			call: func(context.Context) error { <-release; return nil },
			want: guard.ErrTimeout, took: timeout,
		},
		"of a store that ends its goroutine": {
			call: func(context.Context) error { runtime.Goexit(); return nil },
			want: guard.ErrTimeout, took: timeout,
		},
		"of a store that obeys its context": {
			call: func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) },
			want: guard.ErrTimeout, took: timeout,
		},
		"of a caller whose context ends": {
			ctx: func(ctx context.Context) (context.Context, func()) {
				ctx, cancel := context.WithCancelCause(ctx)
				time.AfterFunc(timeout/2, func() { cancel(cause) })
				return ctx, func() { cancel(nil) }
			},
			call: func(context.Context) error { <-release; return nil },
			want: cause, took: timeout / 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release = make(chan struct{})
				defer close(release)
				ctx := t.Context()
				if c.ctx != nil {
					var cancel func()
					ctx, cancel = c.ctx(ctx)
					defer cancel()
				}
				began := time.Now()
				err := guard.New(timeout, 1).Do(ctx, "", c.call)
				if !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
			})
		})
	}
}

func TestAPanicIsAnErrorThatMatchesNoOther(t *testing.T) {
	err := guard.New(timeout, 1).Do(t.Context(), "", func(context.Context) error { panic(errStore) })
	var panicked *guard.PanicError
	if !errors.As(err, &panicked) || panicked.Value != any(errStore) || len(panicked.Stack) == 0 {
		t.Fatalf("got %v, want a PanicError with value and stack", err)
	}
	if errors.Is(err, errStore) {
		t.Error("a panic with an error passes for that error")
	}
}

func TestAStoreThatHangsHasABoundedNumberOfCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls, callers = 4, 1000
		g := guard.New(timeout, calls)
		release := make(chan struct{})
		var called atomic.Int32
		errs := make(chan error, callers)
		for range callers {
			go func() {
				errs <- g.Do(t.Context(), "", func(context.Context) error { called.Add(1); <-release; return nil })
			}()
		}
		synctest.Wait()
		if n := len(errs); n != callers-17*calls {
			t.Errorf("%d callers were refused at once, want all but the %d that call and the %d that wait", n, calls, 16*calls)
		}
		timeouts, busy := 0, 0
		for range callers {
			switch err := <-errs; {
			case errors.Is(err, guard.ErrTimeout):
				timeouts++
			case errors.Is(err, guard.ErrBusy):
				busy++
			}
		}
		if called.Load() != calls || timeouts != calls || busy != callers-calls {
			t.Errorf("%d called, %d timed out, %d busy", called.Load(), timeouts, busy)
		}
		// A call that hangs keeps its place until it returns.
		if err := g.Do(t.Context(), "", func(context.Context) error { return nil }); !errors.Is(err, guard.ErrBusy) {
			t.Errorf("got %v, want ErrBusy while all calls hang", err)
		}
		close(release)
		synctest.Wait()
		if err := g.Do(t.Context(), "", func(context.Context) error { return nil }); err != nil {
			t.Errorf("got %v after the store has recovered", err)
		}
	})
}

func TestAWaitingCallRunsWithHalfItsTimeLeftOrNotAtAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := guard.New(timeout, 1)
		for _, c := range []struct {
			lasts time.Duration
			want  error
		}{{timeout/2 - 1, nil}, {timeout/2 + 1, guard.ErrBusy}} {
			var first sync.WaitGroup
			first.Go(func() {
				_ = g.Do(t.Context(), "", func(context.Context) error { time.Sleep(c.lasts); return nil })
			})
			synctest.Wait()
			err := g.Do(t.Context(), "", func(ctx context.Context) error {
				if deadline, _ := ctx.Deadline(); time.Until(deadline) < timeout/2 {
					t.Error("called with less than half of the time left")
				}
				return nil
			})
			if !errors.Is(err, c.want) {
				t.Errorf("behind a call of %v: got %v, want %v", c.lasts, err, c.want)
			}
			first.Wait()
		}
	})
}

func TestALateResultReachesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := guard.New(timeout, 1)
		late := make(chan int, 1)
		_, err := guard.Call(t.Context(), g, "", func(context.Context) (int, error) {
			time.Sleep(2 * timeout)
			return 7, errStore
		}, func(n int, err error) {
			if !errors.Is(err, errStore) {
				t.Errorf("late with %v", err)
			}
			late <- n
		})
		if !errors.Is(err, guard.ErrTimeout) {
			t.Errorf("got %v, want ErrTimeout", err)
		}
		if n := <-late; n != 7 {
			t.Errorf("late with %d, want 7", n)
		}
	})
}

func TestRunTurnsAPanicIntoAnError(t *testing.T) {
	if err := guard.Run(func() error { return errStore }); !errors.Is(err, errStore) {
		t.Errorf("got %v", err)
	}
	var panicked *guard.PanicError
	if err := guard.Run(func() error { panic("x") }); !errors.As(err, &panicked) {
		t.Errorf("got %v, want a PanicError", err)
	}
}
