package httpwriter

import (
	"log/slog"
	"net/http"
	"runtime"
	"strings"
)

// complain logs a call of WriteHeader that has no effect as the server logs it, but with
// its caller: the server knows only w.
func (w *Writer) complain(what string) {
	logger := slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn)
	if w.request != nil {
		if s, ok := w.request.Context().Value(http.ServerContextKey).(*http.Server); ok && s.ErrorLog != nil {
			logger = s.ErrorLog
		}
	}
	f := caller()
	logger.Printf("http: %s from %s (%s:%d)", what, f.Function, f.File[strings.LastIndexByte(f.File, '/')+1:], f.Line) //nolint:forbidigo // the log of the server
}

// caller returns the innermost function that is neither one of net/http nor the WriteHeader
// of some writer.
func caller() (f runtime.Frame) {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for more := true; more; {
		f, more = frames.Next()
		if !strings.HasPrefix(f.Function, "net/http.") && !strings.HasSuffix(f.Function, ".WriteHeader") {
			break
		}
	}
	return f
}
