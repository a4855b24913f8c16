package ratelimit_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/usher-go/usher/ratelimit"
)

func TestDecisionsAreCountedAndNoted(t *testing.T) {
	reader := metric.NewManualReader()
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	shadow := everyone("shadow", ratelimit.RollingWindow(1, time.Hour))
	shadow.Shadow = true
	h := newLimiter(t, ratelimit.Config{
		Policies:      []ratelimit.Policy{everyone("real", ratelimit.RollingWindow(2, time.Hour)), shadow},
		MeterProvider: metric.NewMeterProvider(metric.WithReader(reader)),
		Allow:         func(r *http.Request) bool { return r.Header.Get("List") == "allow" },
		Block:         func(r *http.Request) bool { return r.Header.Get("List") == "block" },
	}).Wrap(ok)
	list := func(name string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("List", name)
			ctx, span := tracer.Start(r.Context(), name)
			*r = *r.WithContext(ctx)
			context.AfterFunc(t.Context(), func() { span.End() })
		}
	}
	codes(3, h)
	do(h, list("allow"))
	do(h, list("block"))
	do(h, func(r *http.Request) {
		ctx, span := tracer.Start(r.Context(), "refused")
		*r = *r.WithContext(ctx)
		t.Cleanup(func() {
			span.End()
			var got []attribute.KeyValue
			for _, s := range spans.Ended() {
				if s.Name() == "refused" {
					got = s.Attributes()
				}
			}
			want := []attribute.KeyValue{
				attribute.String("usher.rate_limiting.result", "refused"),
				attribute.String("usher.rate_limiting.policy", "real"),
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(attribute.Value{})); diff != "" {
				t.Errorf("span attributes:\n%s", diff)
			}
		})
	})

	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
				result, _ := p.Attributes.Value("usher.rate_limiting.result")
				policy, _ := p.Attributes.Value("usher.rate_limiting.policy")
				got[fmt.Sprintf("%s %s %s", m.Name, result.AsString(), policy.AsString())] = p.Value
			}
		}
	}
	want := map[string]int64{
		"usher.rate_limiting.requests acquired ":             2,
		"usher.rate_limiting.requests refused real":          2,
		"usher.rate_limiting.requests shadow_refused shadow": 3,
		"usher.rate_limiting.requests exempt ":               1,
		"usher.rate_limiting.requests blocked ":              1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
