package envelope

import (
	"errors"
	"log/slog"
	"net/http"
	"path"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
)

// logError logs failures with a cause, and every 500. A service that sends another status
// without a cause is unavailable on purpose.
func logError(r *http.Request, e *usher.Error) {
	if errorStatus(e) != http.StatusInternalServerError && e.Cause == nil {
		return
	}
	attrs := requestAttrs(r)
	if p, ok := errors.AsType[*guard.PanicError](e.Cause); ok {
		own := *e
		own.Cause = nil
		e = &own
		attrs = append(attrs, panicAttrs(p.Value, p.Stack)...)
	}
	attrs = append(attrs, slog.String("error", e.Error()))
	slog.Default().LogAttrs(r.Context(), slog.LevelError, "envelope: request failed", attrs...)
}

// requestAttrs are the attributes of a request in the log.
func requestAttrs(r *http.Request) []slog.Attr {
	return []slog.Attr{
		slog.String("method", cut(r.Method, maxMethod)),
		slog.String("route", r.Pattern),
		slog.String("request_id", RequestID(r.Context())),
	}
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

// maxFrames is the number of functions of a stack in the log.
const maxFrames = 16

// frames returns the functions of stack from the panic outwards to the envelope, each with
// its place: "notes.find notes/find.go:41". Stack is as [debug.Stack] returns it.
func frames(stack []byte) (short []string) {
	lines := strings.Split(string(stack), "\n")
	for i, line := range lines[:len(lines)-1] {
		if strings.HasPrefix(line, "panic(") {
			short = short[:0] // what follows has panicked; the last one was the first to do so
			continue
		}
		arguments := strings.LastIndexByte(line, '(')
		place, ok := strings.CutPrefix(lines[i+1], "\t")
		if !ok || arguments < 0 || strings.HasPrefix(line, "\t") || strings.HasPrefix(line, "created by ") {
			continue
		}
		name := line[:arguments]
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
