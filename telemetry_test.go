package usher_test

import (
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/race"
)

// counts returns the sums of all counters by name and attributes.
func counts(t *testing.T, reader sdkmetric.Reader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	sums := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if !ok {
				t.Fatalf("%s is a %T", m.Name, m.Data)
			}
			for _, p := range sum.DataPoints {
				name := strings.Join([]string{scope.Scope.Name, m.Name, m.Unit, p.Attributes.Encoded(attribute.DefaultEncoder())}, " ")
				sums[name] += p.Value
			}
		}
	}
	return sums
}

func TestTelemetry(t *testing.T) {
	const (
		secret  = "canary-credential"
		counter = "github.com/usher-go/usher usher.authentication.requests {request} usher.authentication.result="
	)
	reader := sdkmetric.NewManualReader()
	spans := tracetest.NewInMemoryExporter()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)).Tracer("test")
	global := otel.GetMeterProvider()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	defer otel.SetMeterProvider(global)

	one := usher.Authenticate(field("A"))
	two := usher.Authenticate(detector{field: "A"}, detector{field: "B"})
	optional := usher.Authenticate(usher.Optional(field("A")))
	tests := []struct {
		outcome string
		m       usher.Middleware
		fields  []string
	}{
		{"accepted", one, []string{"A", "good"}},
		{"refused", one, []string{"A", secret}},
		{"missing", one, nil},
		{"unavailable", one, []string{"A", "error"}},
		{"unavailable", one, []string{"A", "own 503"}},
		{"unavailable", one, []string{"A", "nothing"}},
		{"abandoned", one, []string{"A", "own 499"}},
		{"ambiguous", two, []string{"A", "good", "B", secret}},
		{"anonymous", optional, nil},
		{"accepted", optional, []string{"A", "good"}},
	}
	want := map[string]int64{}
	for _, tt := range tests {
		want[counter+tt.outcome]++
		r := get(tt.fields...)
		ctx, span := tracer.Start(r.Context(), "server")
		serve(tt.m.Wrap(http.NotFoundHandler()), r.WithContext(ctx))
		span.End()

		got := spans.GetSpans()
		spans.Reset()
		if len(got) != 1 {
			t.Fatalf("%s: %d spans", tt.outcome, len(got))
		}
		equal(t, tt.outcome+": attributes", []string{"usher.authentication.result=" + tt.outcome}, attributes(got[0]))
		if len(got[0].Events) != 0 || got[0].Status != (sdktrace.Status{}) {
			t.Errorf("%s: events %v, status %v", tt.outcome, got[0].Events, got[0].Status)
		}
	}
	sums := counts(t, reader)
	equal(t, "counters", want, sums)
	for name := range sums {
		if strings.Contains(name, secret) {
			t.Errorf("a credential is in %q", name)
		}
	}
}

func attributes(span tracetest.SpanStub) (list []string) {
	for _, kv := range span.Attributes {
		list = append(list, string(kv.Key)+"="+kv.Value.String())
	}
	return list
}

func TestTelemetryAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	off := usher.Authenticate(constant{caller})
	global := otel.GetMeterProvider()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())))
	counted := usher.Authenticate(constant{caller})
	otel.SetMeterProvider(global)
	unsampled := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test")
	for name, m := range map[string]usher.Middleware{"off": off, "counted, not sampled": counted} {
		t.Run(name, func(t *testing.T) {
			r := get()
			if name != "off" {
				ctx, span := unsampled.Start(r.Context(), "server")
				defer span.End()
				r = r.WithContext(ctx)
			}
			r = usher.Track(r)
			h := m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			w := discard{http.Header{}}
			if got := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); got != 0 {
				t.Errorf("%v allocations", got)
			}
		})
	}
}
