package envelope

import (
	"errors"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/header"
	"github.com/usher-go/usher/internal/telemetry"
)

// recovered responds to a request whose handler panicked with v. Once a status has been
// sent, recovered can only abort the connection, so that the client does not mistake what
// it received for a complete response.
func (t *transaction) recovered(inner *http.Request, v any) {
	if v == http.ErrAbortHandler { //nolint:errorlint // as the server compares it
		t.cut(http.ErrAbortHandler)
	}
	passed := any(http.ErrAbortHandler)
	if t.env.passPanics {
		passed = v // an outer recoverer reports it
	} else {
		t.env.reportPanic(inner, v, debug.Stack())
	}
	telemetry.NoteError(inner.Context(), http.StatusInternalServerError, usher.CodeInternal)
	if t.sent() {
		t.env.panics.Record(inner.Context(), aborted)
		t.cut(passed)
	}
	t.env.panics.Record(inner.Context(), responded)
	t.flushes = t.env.passPanics
	h := t.writer.Header()
	header.MakeError(h, http.StatusInternalServerError, new([1]string))
	delete(h, "Trailer") // which the handler would have set
	if !t.env.guard(inner, func() {
		t.writeError(&t.writer, 0, &usher.Error{Status: http.StatusInternalServerError, Code: usher.CodeInternal})
	}) {
		t.sendBare(http.StatusInternalServerError)
	}
	if t.flushes {
		// If nobody recovers v, the server closes the connection and sends nothing more.
		_ = http.NewResponseController(t.writer.Unwrap()).Flush()
		panic(v) //nolint:forbidigo // documented
	}
}

// cut aborts the connection with a panic, that of [http.ErrAbortHandler] if the server
// must not log it. An outer recoverer may stop the panic, as gin's does, and the server
// would then complete the response; the deadline prevents that.
func (t *transaction) cut(v any) {
	if t.sent() && !t.writer.Hijacked() {
		// If an outer writer does not support deadlines, only the panic remains.
		_ = http.NewResponseController(t.writer.Unwrap()).SetWriteDeadline(longAgo)
	}
	panic(v) //nolint:forbidigo // documented
}

var longAgo = time.Unix(1, 0)

// sendBare sends only a status. It is for when the shape itself has failed.
func (t *transaction) sendBare(status int) {
	h := t.writer.Header()
	clear(h)
	t.setID(h)
	t.writer.Detach()
	t.writer.WriteHeader(status)
}

// guard calls f and reports whether it returned. If f panics, guard calls OnPanic.
func (e *Envelope) guard(r *http.Request, f func()) bool {
	v, stack, panicked := try(f)
	if panicked {
		e.reportPanic(r, v, stack)
	}
	return !panicked
}

// reportPanic calls OnPanic. If that panics in turn, reportPanic logs both.
func (e *Envelope) reportPanic(r *http.Request, v any, stack []byte) {
	if own, ownStack, panicked := try(func() { e.onPanic(r, v, stack) }); panicked {
		try(func() { logPanic(r, v, stack) })
		try(func() { logPanic(r, own, ownStack) })
	}
}

// try calls f and returns the value and the stack of its panic, if there was one.
func try(f func()) (v any, stack []byte, panicked bool) {
	err := guard.Run(func() error { f(); return nil })
	if p, ok := errors.AsType[*guard.PanicError](err); ok {
		return p.Value, p.Stack, true
	}
	return nil, nil, false
}
