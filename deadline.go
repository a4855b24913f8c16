package usher

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/httpwriter"
)

// Deadline returns the middleware that gives the context of each request a deadline d
// from now, and responds with e if the handler has missed it: if it returns without
// a response, or fails with [context.DeadlineExceeded], which [Fail] then replaces by
// e. A nil e is a 503 with [CodeDeadlineExceeded]; a gateway gives one with 504.
//
// A handler must obey its context, as it runs on the goroutine of the request and is
// not interrupted. Unlike [http.TimeoutHandler], Deadline buffers nothing, and a response
// that has begun is left alone: a stream simply ends with its context. A handler that
// has succeeded after the deadline must write its status, as no response counts as none.
//
// An earlier deadline of the request remains, with the error of the Deadline that
// set it. The body of the request and the connection have deadlines of their own: see
// ReadTimeout and WriteTimeout of [http.Server].
//
// Deadline stands inside of the envelope, and on either side of idempotency, for which
// its error means that the outcome is unknown, as a retry could repeat what the handler
// did in time. It panics if d is not positive.
func Deadline(d time.Duration, e *Error) Middleware {
	if d <= 0 {
		panic("usher: Deadline must be positive") //nolint:forbidigo // documented
	}
	if e == nil {
		e = errDeadlineExceeded
	}
	return &deadline{d, e}
}

var errDeadlineExceeded = &Error{
	Status:  http.StatusServiceUnavailable,
	Code:    CodeDeadlineExceeded,
	Message: "The server did not respond in time.",
}

type deadline struct {
	d time.Duration
	e *Error
}

func (m *deadline) Wrap(next http.Handler) http.Handler { return wrap(m, next) }

func (m *deadline) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	at := time.Now().Add(m.d)
	if earlier, ok := r.Context().Deadline(); ok && !earlier.After(at) {
		next.ServeHTTP(w, r)
		return
	}
	ctx, cancel := context.WithDeadlineCause(r.Context(), at, m.e)
	defer cancel()
	c := &deadlineCall{Context: ctx, at: at, e: m.e}
	inner := r.WithContext(c)
	c.writer.Init(w, nil)
	c.writer.SetRequest(inner)
	exchange.Serve(next, &c.writer, r, inner)
	if c.missed() && c.writer.Status() == 0 && !c.writer.Hijacked() {
		Fail(w, inner, context.DeadlineExceeded)
	}
}

// A deadlineCall is one request on its way through a Deadline, and its context.
type deadlineCall struct {
	context.Context
	at     time.Time
	e      *Error
	writer httpwriter.Writer
}

// Value returns the call itself for its key. Contexts that are detached from this
// one and have the same deadline still find it.
func (c *deadlineCall) Value(key any) any {
	if key == exchange.DeadlineKey {
		return c
	}
	return c.Context.Value(key)
}

// missed reports whether the deadline is over. A context derived from this one may
// end a moment before it.
func (c *deadlineCall) missed() bool {
	err := c.Err()
	return errors.Is(err, context.DeadlineExceeded) || err == nil && !time.Now().Before(c.at)
}

// Missed implements [exchange.Deadline].
func (c *deadlineCall) Missed() int {
	if c.missed() {
		return c.e.status()
	}
	return 0
}

// missedDeadline returns the error for a handler that has failed with err because of
// a [Deadline], or nil. Its cause is err, which says what took too long.
func missedDeadline(ctx context.Context, err error) *Error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	c, ok := exchange.DeadlineOf(ctx).(*deadlineCall)
	if !ok || !c.missed() {
		return nil
	}
	timeOut(ctx)
	e := *c.e
	e.Cause = cmp.Or(e.Cause, err)
	return &e
}

// noteMissedDeadline notes that a handler has failed with e, if that is the error of a
// [Deadline], which [context.Cause] returns.
func noteMissedDeadline(ctx context.Context, e *Error) {
	if c, ok := exchange.DeadlineOf(ctx).(*deadlineCall); ok && c.e == e && c.missed() {
		timeOut(ctx)
	}
}

// timeOut records in the exchange that a Deadline was missed: the handler may have had an
// effect before, which the status of the error does not say.
func timeOut(ctx context.Context) {
	if x := exchange.From(ctx); x != nil {
		x.TimeOut()
	}
}
