package benchmarks_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/usher-go/usher/internal/telemetry"
)

// An ended is a span processor that exports nothing, as the cost of exporting spans
// is the same for all contestants.
type ended struct{ spans, attributes int }

func (*ended) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (e *ended) OnEnd(s sdktrace.ReadOnlySpan)                 { e.spans++; e.attributes = len(s.Attributes()) }
func (*ended) Shutdown(context.Context) error                  { return nil }
func (*ended) ForceFlush(context.Context) error                { return nil }

// An sdk is telemetry that is collected: every span is sampled.
type sdk struct {
	ended  *ended
	meter  metric.MeterProvider
	tracer trace.TracerProvider
}

func newSDK(tb testing.TB) sdk {
	e := &ended{}
	m := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	t := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithSpanProcessor(e))
	tb.Cleanup(func() { _, _ = m.Shutdown(context.Background()), t.Shutdown(context.Background()) })
	return sdk{e, m, t}
}

// fiveDecisions records a decision for each of five middlewares.
func fiveDecisions(p metric.MeterProvider) http.Handler {
	var five [5]*telemetry.Decisions
	for i := range five {
		result := &telemetry.Attribute{
			Name:   fmt.Sprint("result.", i),
			Values: []telemetry.Value{{"good"}, {"bad"}},
		}
		five[i] = (&telemetry.Instrument{
			Scope: fmt.Sprint("example.com/", i), Name: fmt.Sprint("requests.", i), Attributes: []*telemetry.Attribute{result},
		}).Decisions(p)
	}
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		for _, d := range five {
			d.Record(ctx, 0)
		}
	})
}

// spanned is h in a server span, which must end with this many attributes more
// than otelhttp has by itself.
func spanned(k sdk, h http.Handler, more int) subject {
	handler := func(h http.Handler) http.Handler {
		return otelhttp.NewHandler(h, "server", otelhttp.WithMeterProvider(k.meter), otelhttp.WithTracerProvider(k.tracer))
	}
	c := call{handler: handler(h), request: get(), want: http.StatusOK}
	c.look = func(*httptest.ResponseRecorder) error {
		with := k.ended.attributes
		handler(http.HandlerFunc(nothing)).ServeHTTP(httptest.NewRecorder(), get())
		if k.ended.spans != 2 || with-k.ended.attributes != more {
			return errors.New("the span lacks attributes")
		}
		return nil
	}
	return c.subject()
}

var telemetryWorks = suite{
	"Telemetry/no-provider": {
		"bare":     serving(http.HandlerFunc(nothing)),
		"usher":    serving(fiveDecisions(nil)),
		"otelhttp": serving(otelhttp.NewHandler(http.HandlerFunc(nothing), "server")),
	},
	"Telemetry/sdk-sampled": {
		"bare":     serving(http.HandlerFunc(nothing)),
		"otelhttp": func(tb testing.TB) subject { return spanned(newSDK(tb), http.HandlerFunc(nothing), 0) },
		"usher": func(tb testing.TB) subject {
			k := newSDK(tb)
			return spanned(k, fiveDecisions(k.meter), 5)
		},
	},
}
