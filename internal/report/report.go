// Package report sends the server's operators the failures that no response may show.
package report

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher/internal/guard"
)

// A Reporter calls an OnError function, or logs where there is none. It is safe for
// concurrent use.
type Reporter struct {
	source  string
	onError func(context.Context, error)

	next       atomic.Int64 // the Unix time in ns at which the next line may be logged
	suppressed atomic.Int64
	background atomic.Bool // a call of Background is running
}

// interval is the least time between two lines in the log: a store that is down
// fails for every request.
const interval = time.Second

// New returns a Reporter for the package or type that is named source. Without onError it
// logs to [slog.Default], at most one line a second, with the number of lines left out
// before it. Of a [guard.PanicError] it logs the type and the stack.
func New(source string, onError func(context.Context, error)) *Reporter {
	return &Reporter{source: source, onError: onError}
}

// Error reports err, which is not nil. A panic of OnError is logged as a failure is
// without OnError.
func (r *Reporter) Error(ctx context.Context, err error) {
	if r.onError == nil {
		r.log(ctx, "failure", func() []slog.Attr { return cause(err) })
		return
	}
	defer func() {
		if v := recover(); v != nil {
			r.log(ctx, "OnError panicked", func() []slog.Attr {
				failure := slog.Attr{Key: "failure", Value: slog.GroupValue(cause(err)...)}
				return append(panicked(v, debug.Stack()), failure)
			})
		}
	}()
	r.onError(ctx, err)
}

// Background is Error for a loop that must go on even if OnError does not return. It does
// not wait for OnError, and drops failures while OnError is running, which it reports as
// false.
func (r *Reporter) Background(ctx context.Context, err error) bool {
	if r.onError == nil {
		r.Error(ctx, err)
		return true
	}
	if !r.background.CompareAndSwap(false, true) {
		return false
	}
	go func() {
		defer r.background.Store(false)
		r.Error(ctx, err)
	}()
	return true
}

// cause returns the attributes of a failure.
func cause(err error) []slog.Attr {
	if p, ok := errors.AsType[*guard.PanicError](err); ok {
		return panicked(p.Value, p.Stack)
	}
	return []slog.Attr{slog.Any("error", err)}
}

// panicked returns the attributes of a panic. The value may hold whatever the code that
// panicked had at hand.
func panicked(v any, stack []byte) []slog.Attr {
	return []slog.Attr{slog.String("panic", fmt.Sprintf("%T", v)), slog.String("stack", string(stack))}
}

// log logs what has happened, at most once per interval.
func (r *Reporter) log(ctx context.Context, what string, attrs func() []slog.Attr) {
	now := time.Now().UnixNano()
	next := r.next.Load()
	// A clock that was set back must not silence the log.
	early := now < next && next-now <= int64(interval)
	if early || !r.next.CompareAndSwap(next, now+int64(interval)) {
		r.suppressed.Add(1)
		return
	}
	all := attrs()
	if n := r.suppressed.Swap(0); n > 0 {
		all = append(all, slog.Int64("suppressed", n))
	}
	slog.Default().LogAttrs(ctx, slog.LevelError, r.source+": "+what, all...)
}
