package main

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// identified adds to each line the IDs by which the trace and the client's response are
// found. It has them for lines that are logged with the context of a request: those of
// usher are.
type identified struct{ slog.Handler }

func (h identified) Handle(ctx context.Context, line slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		line.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	if id := envelope.RequestID(ctx); id != "" && !has(line, "request_id") {
		line.AddAttrs(slog.String("request_id", id))
	}
	return h.Handler.Handle(ctx, line)
}

func (h identified) WithAttrs(attrs []slog.Attr) slog.Handler {
	return identified{h.Handler.WithAttrs(attrs)}
}

func (h identified) WithGroup(name string) slog.Handler {
	return identified{h.Handler.WithGroup(name)}
}

// has reports whether the line has an attribute already, as those of the envelope do.
func has(line slog.Record, name string) (found bool) {
	line.Attrs(func(a slog.Attr) bool {
		found = found || a.Key == name
		return !found
	})
	return found
}

// accessLog logs each request once it has been served. Outside the envelope it sees the
// request as it came and the response as the client gets it. It logs the route and not the
// path, which may have anything in it.
func accessLog(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		out := &status{ResponseWriter: w}
		tracked := usher.Track(r)
		defer func() {
			r.MultipartForm, r.Pattern = tracked.MultipartForm, tracked.Pattern // for the server, and for tracers
			line := []slog.Attr{
				slog.String("method", r.Method), slog.String("route", r.Pattern),
				slog.Int("status", cmp.Or(out.status, http.StatusOK)), slog.Duration("duration", time.Since(began)),
			}
			if p, known := usher.PrincipalFrom(tracked.Context()); known {
				line = append(line, slog.String("principal", p.ID))
			}
			slog.LogAttrs(tracked.Context(), slog.LevelInfo, "request", line...)
		}()
		next.ServeHTTP(out, tracked)
	})
}

// status is a writer that remembers the status of the response, or zero if the server sends
// 200 for a handler that has written nothing.
type status struct {
	http.ResponseWriter
	status int
}

func (s *status) WriteHeader(status int) {
	if s.status < http.StatusOK { // an informational response precedes the final one
		s.status = status
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s *status) Write(p []byte) (int, error) {
	if s.status < http.StatusOK {
		s.status = http.StatusOK
	}
	return s.ResponseWriter.Write(p)
}

// Unwrap is for [http.ResponseController].
func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }
