package telemetry

import (
	"context"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// The attributes of a span whose request was refused or has failed.
const (
	// errorCode is the code of the error, as a program sees it before a catalogue replaces it.
	errorCode = attribute.Key("usher.error.code")
	// errorType is that of the semantic conventions, for failures of the server alone.
	errorType = attribute.Key("error.type")
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
