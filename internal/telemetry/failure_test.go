package telemetry_test

import (
	"slices"
	"testing"

	"github.com/usher-go/usher/internal/oteltest"
	"github.com/usher-go/usher/internal/telemetry"
)

func TestNoteError(t *testing.T) {
	for _, tt := range []struct {
		status int
		code   string
		want   []string
	}{
		{404, "", nil},
		{404, "not_found", []string{"usher.error.code=not_found"}},
		{499, "left", []string{"usher.error.code=left"}},
		{500, "", []string{"error.type=500"}},
		{500, "internal", []string{"error.type=internal", "usher.error.code=internal"}},
		{503, "", []string{"error.type=503"}},
	} {
		var tracer oteltest.Tracer
		ctx, span := tracer.Start(t.Context(), "server")
		telemetry.NoteError(ctx, tt.status, tt.code)
		span.End()
		var got []string
		for _, a := range tracer.Spans()[0].Attributes {
			got = append(got, string(a.Key)+"="+a.Value.String())
		}
		if slices.Sort(got); !slices.Equal(got, tt.want) {
			t.Errorf("%d %q: got %q, want %q", tt.status, tt.code, got, tt.want)
		}
	}
	telemetry.NoteError(t.Context(), 500, "internal") // without a span
}
