package usher

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/usher-go/usher/internal/exchange"
	"github.com/usher-go/usher/internal/httpwriter"
)

// Deadline returns a middleware that gives each request, as it arrives, a context with a
// deadline d from then, and responds with e if the handler misses the deadline: that is,
// if the handler then returns without a response, or fails with
// [context.DeadlineExceeded], which [Fail] replaces by e. A nil e means a 503 with
// [CodeDeadlineExceeded]; a gateway passes an error with 504.
//
// A handler must obey its context, as it runs on the goroutine of the request and is not
// interrupted. Unlike [http.TimeoutHandler], Deadline buffers nothing, and leaves a
// response that has begun alone: a stream simply ends with its context. A handler that
// succeeds after the deadline must write its status explicitly, as otherwise it counts as
// a handler without a response.
//
// An earlier deadline of the request remains, with the error of the Deadline that set it.
// The request body and the connection have deadlines of their own: see ReadTimeout and
// WriteTimeout of [http.Server].
//
// Put Deadline inside the envelope, and inside or outside idempotency. To idempotency the
// error of Deadline means that the outcome is unknown, as a retry could repeat what the
// handler did in time. Deadline panics if d is not positive.
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

// A deadlineCall is one request inside a Deadline, and the context of that request.
type deadlineCall struct {
	context.Context
	at     time.Time
	e      *Error
	writer httpwriter.Writer
}

// Value returns the call itself for exchange.DeadlineKey. A context that is detached from
// this one and has the same deadline still finds the call.
func (c *deadlineCall) Value(key any) any {
	if key == exchange.DeadlineKey {
		return c
	}
	return c.Context.Value(key)
}

// missed reports whether the deadline has passed. A context derived from this one may end
// a moment before this one does.
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

// missedDeadline returns the error for a handler that has failed with err because of a
// [Deadline], or nil. The cause of the error is err, which describes what took too long.
func missedDeadline(ctx context.Context, err error) *Error {
	if !isTimeout(ctx, err) {
		return nil
	}
	c, ok := exchange.DeadlineOf(ctx).(*deadlineCall)
	if !ok || !c.missed() {
		return nil
	}
	recordTimeout(ctx)
	e := *c.e
	e.Cause = cmp.Or(e.Cause, err)
	return &e
}

// noteMissedDeadline records a missed deadline if e, with which a handler has failed, is
// the error of a [Deadline], which [context.Cause] returns, or is caused by its end.
func noteMissedDeadline(ctx context.Context, e *Error) {
	c, ok := exchange.DeadlineOf(ctx).(*deadlineCall)
	if ok && (c.e == e || errors.Is(e.Cause, context.DeadlineExceeded)) && c.missed() {
		recordTimeout(ctx)
	}
}

// timedOut returns the error for work that has failed with err because its time ran out,
// or nil.
func timedOut(ctx context.Context, err error) *Error {
	status := http.StatusGatewayTimeout
	switch {
	case errors.Is(err, http.ErrHandlerTimeout):
		status = http.StatusServiceUnavailable // which http.TimeoutHandler has sent
	case !isTimeout(ctx, err):
		return nil
	}
	recordTimeout(ctx)
	e := *errDeadlineExceeded
	e.Status, e.Cause = status, err
	return &e
}

// isTimeout reports whether err means that time ran out: that of ctx, or of a part of the
// work, which may have had a context of its own.
func isTimeout(ctx context.Context, err error) bool {
	return errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(ctx.Err(), context.DeadlineExceeded) && (errors.Is(err, os.ErrDeadlineExceeded) || isInterrupted(err))
}

// isInterrupted reports whether err is the query_canceled of PostgreSQL, with which it
// stops a query, for instance because the context of the query has ended.
func isInterrupted(err error) bool {
	type sqlError interface {
		error
		SQLState() string
	}
	e, ok := errors.AsType[sqlError](err)
	return ok && e.SQLState() == "57014"
}

// recordTimeout records in the exchange that a Deadline was missed: the status of the error
// does not show that the handler may already have had an effect.
func recordTimeout(ctx context.Context) {
	if x := exchange.From(ctx); x != nil {
		x.TimeOut()
	}
}
