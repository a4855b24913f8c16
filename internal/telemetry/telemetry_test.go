package telemetry_test

import (
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"

	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/oteltest"
	"github.com/usher-go/usher/internal/telemetry"
)

var (
	name   = &telemetry.Attribute{Name: "usher.example.name"}
	result = &telemetry.Attribute{
		Name:   "usher.example.result",
		Values: []telemetry.Value{{"allowed", "The request is admitted."}, {"refused", "It is not."}},
	}
	requests = &telemetry.Instrument{
		Kind:        telemetry.Counter,
		Scope:       "github.com/usher-go/usher/example",
		Name:        "usher.example.requests",
		Unit:        "{request}",
		Description: "Requests by their outcome.",
		Attributes:  []*telemetry.Attribute{result, name},
	}
)

func TestDecisions(t *testing.T) {
	var meter oteltest.Meter
	d := requests.Decisions(&meter, name.String("front"))
	var tracer oteltest.Tracer
	ctx, span := tracer.Start(t.Context(), "server")
	d.Record(ctx, 0)
	d.Count(t.Context(), 1)
	d.Count(t.Context(), 1)
	d.Note(ctx, 1)         // the last note remains
	d.Note(t.Context(), 0) // no span, no note
	span.End()

	want := oteltest.Instrument{
		Scope: requests.Scope, Version: telemetry.Version, Schema: telemetry.SchemaURL,
		Name: requests.Name, Description: requests.Description, Unit: "{request}",
	}
	sums := map[string]int64{}
	for _, c := range meter.Counts() {
		equal(t, "instrument", want, c.Instrument)
		sums[c.Attributes.Encoded(attribute.DefaultEncoder())] = c.Value
	}
	equal(t, "sums", map[string]int64{
		"usher.example.name=front,usher.example.result=allowed": 1, "usher.example.name=front,usher.example.result=refused": 2,
	}, sums)

	var notes []string
	for _, kv := range tracer.Spans()[0].Attributes {
		notes = append(notes, string(kv.Key)+"="+kv.Value.String())
	}
	if !strings.Contains(strings.Join(notes, ","), "usher.example.result=refused") || strings.Contains(strings.Join(notes, ","), "allowed") {
		t.Errorf("notes %q", notes)
	}
	if len(tracer.Spans()[0].Events) != 0 {
		t.Error("there are span events")
	}
}

func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := compare.Diff(want, got); diff != "" {
		t.Errorf("%s, -want +got:\n%s", what, diff)
	}
}

func BenchmarkRecordOff(b *testing.B) {
	d := requests.Decisions(nil, name.String("front"))
	b.ReportAllocs()
	for b.Loop() {
		d.Record(b.Context(), 0)
	}
}
