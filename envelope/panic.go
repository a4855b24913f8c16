package envelope

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/telemetry"
)

// The outcomes of a panic, as indices of panicOutcomes.
const (
	responded = iota
	aborted
)

var panicOutcomes = [...]string{responded: "responded", aborted: "aborted"}

func newPanics(provider metric.MeterProvider) *telemetry.Decisions {
	return telemetry.NewDecisions(telemetry.Config{
		MeterProvider: provider,
		Scope:         "github.com/usher-go/usher/envelope",
		Counter:       "usher.envelope.panics",
		Description:   "Panics of handlers, by whether the request could still get a response.",
		Attribute:     "usher.envelope.panic.outcome",
		Outcomes:      panicOutcomes[:],
	})
}

// recovered answers a request whose handler panicked with v. Where a status has
// been sent, all that is left is to abort the connection, so that the client
// cannot take what it got for a whole answer.
func (t *transaction) recovered(inner *http.Request, v any) {
	if v == http.ErrAbortHandler { //nolint:errorlint // the server compares it so
		t.cut()
	}
	t.env.reportPanic(inner, v, debug.Stack())
	if t.sent() {
		t.env.panics.Record(inner.Context(), aborted)
		t.cut()
	}
	t.env.panics.Record(inner.Context(), responded)
	h := t.writer.Header()
	delete(h, "Expires")
	delete(h, "Location")
	delete(h, "Trailer")
	h["Cache-Control"] = []string{"no-store"}
	t.x.Failed(http.StatusInternalServerError)
	if !t.env.guard(inner, func() {
		t.writeError(&t.writer, &usher.Error{Status: http.StatusInternalServerError, Code: usher.CodeInternal})
	}) {
		t.sendBare(http.StatusInternalServerError)
	}
}

// cut aborts the connection. The panic is what the server expects; but a recoverer
// further out may stop it, as gin's does, and the server would then complete the
// response. So what has been begun cannot be completed either.
func (t *transaction) cut() {
	if t.sent() && !t.writer.Hijacked() {
		// A writer further out that cannot do this leaves the panic alone.
		_ = http.NewResponseController(t.writer.Unwrap()).SetWriteDeadline(longAgo)
	}
	panic(http.ErrAbortHandler) //nolint:forbidigo // documented
}

var longAgo = time.Unix(1, 0)

// sendBare sends a status alone, where the shape itself has failed.
func (t *transaction) sendBare(status int) {
	h := t.writer.Header()
	clear(h)
	h["X-Request-Id"] = t.idField[:1:1]
	t.writer.Detach()
	t.writer.WriteHeader(status)
}

// guard calls f and reports whether it has returned. If it panics, OnPanic is
// told.
func (e *Envelope) guard(r *http.Request, f func()) bool {
	v, stack, panicked := try(f)
	if panicked {
		e.reportPanic(r, v, stack)
	}
	return !panicked
}

// reportPanic tells OnPanic, and the log if that panics in turn.
func (e *Envelope) reportPanic(r *http.Request, v any, stack []byte) {
	if v, stack, panicked := try(func() { e.onPanic(r, v, stack) }); panicked {
		try(func() { logPanic(r, v, stack) })
	}
}

// try calls f and returns what it panicked with.
func try(f func()) (v any, stack []byte, panicked bool) {
	err := guard.Run(func() error { f(); return nil })
	if p, ok := errors.AsType[*guard.PanicError](err); ok {
		return p.Value, p.Stack, true
	}
	return nil, nil, false
}

// logPanic logs that a handler panicked, and where. What it panicked with is not
// logged, as nobody can tell what that holds; only the runtime's own errors,
// such as an index out of range, are known to hold nothing of a request.
func logPanic(r *http.Request, v any, stack []byte) {
	what := fmt.Sprintf("%T", v)
	if e, ok := v.(runtime.Error); ok {
		what = e.Error()
	}
	slog.Default().LogAttrs(r.Context(), slog.LevelError, "envelope: handler panicked",
		slog.String("method", cut(r.Method, maxMethod)),
		slog.String("route", r.Pattern),
		slog.String("request_id", RequestID(r.Context())),
		slog.String("panic", what),
		slog.String("stack", string(stack)))
}
