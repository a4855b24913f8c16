package envelope

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"reflect"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
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

// logPanic logs that a handler panicked, and where.
func logPanic(r *http.Request, v any, stack []byte) {
	slog.Default().LogAttrs(r.Context(), slog.LevelError, "envelope: handler panicked",
		append(requestAttrs(r), panicAttrs(v, stack)...)...)
}

// panicAttrs describe a panic with the value v.
func panicAttrs(v any, stack []byte) []slog.Attr {
	return []slog.Attr{slog.String("panic", panicText(v)), slog.Any("stack", frames(stack))}
}

// maxPanicText is the length of the longest text of a panic in the log.
const maxPanicText = 1 << 10

// panicText returns the text of v if v is an error, a string or a number, without what may
// be a credential in it. The fields of another value may be anything, so only its type is
// shown.
func panicText(v any) (text string) {
	switch rv := reflect.ValueOf(v); {
	case isFault(rv.Type()):
		return v.(error).Error() // holds no data of the request
	case rv.Type().Implements(reflect.TypeFor[error]()):
		try(func() { text = v.(error).Error() })
	case rv.Kind() == reflect.String:
		text = rv.String()
	case rv.CanInt() || rv.CanUint() || rv.CanFloat():
		text = fmt.Sprint(v)
	}
	if len(text) > maxPanicText {
		text = lastWord.ReplaceAllString(cut(text, maxPanicText), "") // a part of a credential, perhaps
	}
	if text == "" {
		return fmt.Sprintf("%T", v)
	}
	text = longWord.ReplaceAllStringFunc(strings.ToValidUTF8(text, "\uFFFD"), redact)
	return byteList.ReplaceAllString(text, redacted)
}

// isFault reports whether t is an error of the runtime, and not one of a program that has
// its methods.
func isFault(t reflect.Type) bool {
	if !t.Implements(reflect.TypeFor[runtime.Error]()) {
		return false
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.PkgPath() == "runtime"
}

const redacted = "REDACTED"

var (
	// Words may be credentials, as they are or in the syntax of JSON, URLs or Go.
	longWord = regexp.MustCompile(`[\w.+/=~%\\-]{16,}`)
	lastWord = regexp.MustCompile(`[\w.+/=~%\\-]+$`)
	// byteList matches eight bytes or more, as package fmt prints those of a key.
	byteList = regexp.MustCompile(`(?i)\b(?:(?:0x)?[0-9a-f]{1,3}(?:, |[ ,:])){7,}(?:0x)?[0-9a-f]{1,3}\b`)
)

// redact returns w, or redacted if w may be a credential: those have at least 16
// characters, hardly ever without a digit if they are so short. Base64 may contain slashes
// as a path does, but with them nearly always both a digit and a capital.
func redact(w string) string {
	digit := strings.ContainsAny(w, "0123456789")
	switch {
	case strings.Contains(w, "/") && (!digit || strings.ToLower(w) == w):
		parts := strings.Split(w, "/")
		for i := range parts {
			parts[i] = redact(parts[i])
		}
		return strings.Join(parts, "/")
	case len(w) >= 24, len(w) >= 16 && digit:
		return redacted
	}
	return w
}

// maxFrames is the number of functions of a stack in the log.
const maxFrames = 16

// frames returns the functions of stack from the panic outwards to the envelope, each with
// its place: "notes.find notes/find.go:41". Stack is as [debug.Stack] returns it.
func frames(stack []byte) (short []string) {
	lines := strings.Split(string(stack), "\n")
	for i := range lines {
		if strings.HasPrefix(lines[i], "panic(") {
			short = short[:0] // what follows has panicked; the last one was the first to do so
			continue
		}
		place, ok := "", false
		if i+1 < len(lines) {
			place, ok = strings.CutPrefix(lines[i+1], "\t")
		}
		name, _, called := cutLast(lines[i], "(")
		if !ok || !called || strings.HasPrefix(lines[i], "\t") || strings.HasPrefix(name, "created by ") {
			continue
		}
		if strings.HasSuffix(name, "/envelope.(*Envelope).ServeNext") {
			break
		}
		switch {
		case len(short) == 0 && strings.HasPrefix(name, "runtime."), // between a fault and its panic
			name == "net/http.HandlerFunc.ServeHTTP", strings.HasSuffix(name, "/internal/exchange.Serve"):
			continue
		}
		place, _, _ = strings.Cut(place, " +0x")
		short = append(short, path.Base(name)+" "+path.Join(path.Base(path.Dir(place)), path.Base(place)))
	}
	return short[:min(len(short), maxFrames)]
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
