package benchmarks_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/usher-go/usher/benchmarks/internal/stacks"
)

// An ended is a span processor that only counts: what becomes of spans is the
// same for all.
type ended struct{ spans, attributes int }

func (*ended) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (e *ended) OnEnd(s sdktrace.ReadOnlySpan)                 { e.spans++; e.attributes = len(s.Attributes()) }
func (*ended) Shutdown(context.Context) error                  { return nil }
func (*ended) ForceFlush(context.Context) error                { return nil }

// An sdk is telemetry that is listened to: every span is sampled.
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

// repeating sends one POST request with an idempotency key again and again, so
// that each of the middlewares has something to decide: the envelope, the key,
// two limits, and the idempotency key.
func repeating(h http.Handler, r *http.Request, work stacks.Work) call {
	reader := bytes.NewReader(work.Body)
	body := &struct {
		io.Reader
		io.Closer
	}{reader, io.NopCloser(nil)}
	return call{handler: h, request: r, want: work.Status, prepare: func() {
		reader.Reset(work.Body)
		r.Body = body
	}}
}

// telling is a stack with these providers.
func telling(tb testing.TB, c stacks.Config) subject {
	work := stacks.Works()[2]
	c.Credential = work.Credential
	s := must(stacks.New(c))
	tb.Cleanup(func() { _ = s.Close() })
	subject := repeating(s, work.NewRequest("run", 0), work).subject()
	check := subject.check
	subject.check = func() error { return errors.Join(s.Check(), check()) }
	return subject
}

// heard is a subject of which spans must be left.
func heard(s subject, e *ended, attributes int) subject {
	after := s.after
	s.after = func() error {
		if e.spans == 0 || e.attributes < attributes {
			return errors.New("the telemetry tells less than it should")
		}
		return after()
	}
	return s
}

var telemetryWorks = suite{
	"Telemetry/no-provider": {
		"bare":     func(tb testing.TB) subject { return telling(tb, stacks.Config{Stack: stacks.Bare}) },
		"otelhttp": func(tb testing.TB) subject { return telling(tb, stacks.Config{Stack: stacks.Bare, Server: true}) },
		"usher":    func(tb testing.TB) subject { return telling(tb, stacks.Config{Stack: stacks.Usher}) },
		"usher-without": func(tb testing.TB) subject {
			return telling(tb, stacks.Config{Stack: stacks.Usher, MeterProvider: noop.NewMeterProvider()})
		},
	},
	"Telemetry/sdk-sampled": {
		"bare": func(tb testing.TB) subject { return telling(tb, stacks.Config{Stack: stacks.Bare}) },
		"otelhttp": func(tb testing.TB) subject {
			k := newSDK(tb)
			return heard(telling(tb, stacks.Config{Stack: stacks.Bare, Server: true, MeterProvider: k.meter, TracerProvider: k.tracer}), k.ended, 1)
		},
		"usher": func(tb testing.TB) subject {
			k := newSDK(tb)
			return heard(telling(tb, stacks.Config{Stack: stacks.Usher, Server: true, MeterProvider: k.meter, TracerProvider: k.tracer}), k.ended, 10)
		},
		"usher-beside": func(tb testing.TB) subject {
			k := newSDK(tb)
			work := stacks.Works()[2]
			s := must(stacks.New(stacks.Config{Stack: stacks.Usher, Credential: work.Credential, MeterProvider: noop.NewMeterProvider()}))
			tb.Cleanup(func() { _ = s.Close() })
			r := work.NewRequest("run", 0)
			// The five get the request as it came, so they do not find the span.
			beside := otelhttp.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { s.ServeHTTP(w, r) }), "server",
				otelhttp.WithMeterProvider(k.meter), otelhttp.WithTracerProvider(k.tracer))
			return heard(repeating(beside, r, work).subject(), k.ended, 1)
		},
	},
}
