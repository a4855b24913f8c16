package telemetry

import (
	"context"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/trace"
)

// The attributes of a span whose request was refused or has failed. The second is that of
// the semantic conventions.
var (
	errorCode = Attribute{
		Name:        "usher.error.code",
		Description: "The code of the error that ends the request, before a catalogue replaces it.",
		Span:        true,
	}.Declare()
	errorType = Attribute{
		Name:        "error.type",
		Description: "The code of the error, or else its status, if the server has failed: from 500 on.",
		Span:        true,
	}.Declare()
)

// IsRecording reports whether the current span is being recorded.
func IsRecording(ctx context.Context) bool { return trace.SpanFromContext(ctx).IsRecording() }

// NoteError notes on the current span, if it is being recorded, the error with which a
// request ends. Code may be empty.
func NoteError(ctx context.Context, status int, code string) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	if code != "" {
		span.SetAttributes(errorCode.String(code))
	}
	if status < http.StatusInternalServerError {
		return
	}
	if code == "" {
		code = strconv.Itoa(status)
	}
	span.SetAttributes(errorType.String(code))
}
