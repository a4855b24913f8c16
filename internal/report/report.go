// Package report brings failures that no response may show to those who operate the
// server.
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
}

// interval is the least time between two lines in the log: a store that is down
// fails for every request.
const interval = time.Second

// New returns a Reporter for the package or type that is named source. Without
// onError it logs to [slog.Default], at most one line a second, which has how many
// were left out before it. Of a [guard.PanicError] it logs the type and the stack.
func New(source string, onError func(context.Context, error)) *Reporter {
	return &Reporter{source: source, onError: onError}
}

// Error reports err, which is not nil. It does not panic if OnError does.
func (r *Reporter) Error(ctx context.Context, err error) {
	if r.onError == nil {
		r.log(ctx, err)
		return
	}
	defer func() {
		if v := recover(); v != nil {
			slog.Default().LogAttrs(ctx, slog.LevelError, r.source+": OnError panicked",
				slog.Any("error", err), slog.String("panic", fmt.Sprintf("%T", v)), slog.String("stack", string(debug.Stack())))
		}
	}()
	r.onError(ctx, err)
}

func (r *Reporter) log(ctx context.Context, err error) {
	now := time.Now().UnixNano()
	next := r.next.Load()
	if now < next || !r.next.CompareAndSwap(next, now+int64(interval)) {
		r.suppressed.Add(1)
		return
	}
	attrs := []slog.Attr{slog.Any("error", err)}
	if p, ok := errors.AsType[*guard.PanicError](err); ok {
		// The value may hold whatever the code that panicked had at hand.
		attrs = []slog.Attr{slog.String("panic", fmt.Sprintf("%T", p.Value)), slog.String("stack", string(p.Stack))}
	}
	if n := r.suppressed.Swap(0); n > 0 {
		attrs = append(attrs, slog.Int64("suppressed", n))
	}
	slog.Default().LogAttrs(ctx, slog.LevelError, r.source+": failure", attrs...)
}
