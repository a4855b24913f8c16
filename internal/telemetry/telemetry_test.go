package telemetry_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/internal/telemetry"
)

var config = telemetry.Config{
	Scope:       "github.com/usher-go/usher/door",
	Counter:     "usher.door.requests",
	Description: "Requests by what the door did.",
	Attribute:   "usher.door.result",
	Outcomes:    []string{"open", "shut"},
	Fixed:       []attribute.KeyValue{attribute.String("usher.door.name", "front")},
}

func TestDecisions(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	c := config
	c.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	d := telemetry.NewDecisions(c)
	spans := tracetest.NewInMemoryExporter()
	ctx, span := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)).Tracer("test").Start(t.Context(), "server")
	d.Record(ctx, 0)
	d.Count(t.Context(), 1)
	d.Count(t.Context(), 1)
	d.Note(ctx, 1)         // the last note stands
	d.Note(t.Context(), 0) // no span, no note
	span.End()

	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	scope := all.ScopeMetrics[0]
	m := scope.Metrics[0]
	equal(t, "scope", []string{config.Scope, telemetry.Version}, []string{scope.Scope.Name, scope.Scope.Version})
	equal(t, "instrument", []string{config.Counter, config.Description, "{request}"}, []string{m.Name, m.Description, m.Unit})
	sums := map[string]int64{}
	for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
		sums[p.Attributes.Encoded(attribute.DefaultEncoder())] = p.Value
	}
	equal(t, "sums", map[string]int64{
		"usher.door.name=front,usher.door.result=open": 1, "usher.door.name=front,usher.door.result=shut": 2,
	}, sums)

	var notes []string
	for _, kv := range spans.GetSpans()[0].Attributes {
		notes = append(notes, string(kv.Key)+"="+kv.Value.String())
	}
	if !strings.Contains(strings.Join(notes, ","), "usher.door.result=shut") || strings.Contains(strings.Join(notes, ","), "open") {
		t.Errorf("notes %q", notes)
	}
	if len(spans.GetSpans()[0].Events) != 0 {
		t.Error("there are span events")
	}
}

func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s, -want +got:\n%s", what, diff)
	}
}

func TestAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	unsampled, span := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test").Start(t.Context(), "server")
	defer span.End()
	counting := config
	counting.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	none := config
	none.MeterProvider = noop.NewMeterProvider()
	tests := map[string]struct {
		d   *telemetry.Decisions
		ctx context.Context
	}{
		"no SDK":                  {telemetry.NewDecisions(config), t.Context()},
		"no meters":               {telemetry.NewDecisions(none), t.Context()},
		"counting, not sampled":   {telemetry.NewDecisions(counting), unsampled},
		"counting without a span": {telemetry.NewDecisions(counting), t.Context()},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := testing.AllocsPerRun(100, func() { tt.d.Record(tt.ctx, 1) }); got != 0 {
				t.Errorf("%v allocations", got)
			}
		})
	}
}

func BenchmarkRecordOff(b *testing.B) {
	d := telemetry.NewDecisions(config)
	b.ReportAllocs()
	for b.Loop() {
		d.Record(b.Context(), 0)
	}
}
