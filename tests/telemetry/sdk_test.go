// Package telemetry_test holds what packages count and note against the SDK of
// OpenTelemetry.
package telemetry_test

import (
	"errors"
	"fmt"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/usher-go/usher/internal/oteltest"
)

// collect returns the sums that reader has, as oteltest keeps them.
func collect(t *testing.T, reader sdkmetric.Reader) (counts []oteltest.Count) {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if !ok || !sum.IsMonotonic {
				t.Fatalf("%s is a %T", m.Name, m.Data)
			}
			for _, p := range sum.DataPoints {
				counts = append(counts, oteltest.Count{
					Instrument: oteltest.Instrument{
						Scope: scope.Scope.Name, Version: scope.Scope.Version, Schema: scope.Scope.SchemaURL,
						Name: m.Name, Description: m.Description, Unit: m.Unit,
					},
					Attributes: p.Attributes,
					Value:      p.Value,
				})
			}
		}
	}
	return counts
}

// TestTheMeterOfTestsCountsAsTheSDK holds what the tests of packages count with
// against the SDK.
func TestTheMeterOfTestsCountsAsTheSDK(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	var meter oteltest.Meter
	for _, provider := range []metric.MeterProvider{sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), &meter} {
		one := decisions.Decisions(provider, name.String("front"))
		more := *decisions
		more.Name = "usher.entrance.requests"
		other := more.Decisions(provider)
		for _, outcome := range []int{0, 1, 1} {
			one.Count(t.Context(), outcome)
		}
		other.Count(t.Context(), 0)
		again := more.Decisions(provider) // the same instrument once more
		again.Count(t.Context(), 0)
	}
	want := make(map[string]oteltest.Count)
	for _, c := range collect(t, reader) {
		want[key(c)] = c
	}
	got := make(map[string]oteltest.Count)
	for _, c := range meter.Counts() {
		got[key(c)] = c
	}
	if len(want) != 3 {
		t.Fatalf("the SDK has %d sums", len(want))
	}
	for name, w := range want {
		g := got[name]
		if g.Instrument != w.Instrument || !g.Attributes.Equals(&w.Attributes) || g.Value != w.Value {
			t.Errorf("%s: the SDK has %+v, the meter of tests %+v", name, w, g)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the meter of tests has %d sums, the SDK %d", len(got), len(want))
	}
}

func key(c oteltest.Count) string {
	return c.Name + " " + c.Attributes.Encoded(attribute.DefaultEncoder())
}

func TestTheTracerOfTestsRecordsAsTheSDK(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	sdk := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter)).Tracer("test")
	var own oteltest.Tracer
	for _, tracer := range []trace.Tracer{sdk, &own} {
		ctx, span := tracer.Start(t.Context(), "server", trace.WithAttributes(attribute.String("a", "first")))
		d := decisions.Decisions(nil, name.String("front"))
		d.Note(ctx, 0)
		d.Note(ctx, 1) // the last note stands
		span.SetName("route")
		span.SetAttributes(attribute.String("a", "last"))
		span.AddEvent("event", trace.WithAttributes(attribute.Int("n", 1)))
		span.RecordError(errors.New("failed"))
		span.SetStatus(codes.Error, "bad")
		if !span.IsRecording() || trace.SpanFromContext(ctx) != span {
			t.Errorf("%T is not being recorded", span)
		}
		span.End()
		span.SetAttributes(attribute.Bool("late", true))
		if span.IsRecording() {
			t.Errorf("%T is still being recorded", span)
		}
		d.Note(ctx, 0)
	}
	want, got := exporter.GetSpans()[0], own.Spans()[0]
	if got.Name != want.Name || got.Status != want.Status.Code || got.Message != want.Status.Description || len(got.Events) != len(want.Events) {
		t.Errorf("the tracer of tests has %+v, the SDK %+v", got, want)
	}
	if w, g := fmt.Sprint(want.Attributes), fmt.Sprint(got.Attributes); w != g {
		t.Errorf("the tracer of tests has the attributes %s, the SDK %s", g, w)
	}
	own.Reset()
	if n := len(own.Spans()); n != 0 {
		t.Errorf("%d spans after Reset", n)
	}
}
