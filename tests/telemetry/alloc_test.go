package telemetry_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/internal/telemetry"
)

var (
	name   = &telemetry.Attribute{Name: "usher.entrance.name"}
	result = &telemetry.Attribute{
		Name:   "usher.entrance.result",
		Values: []telemetry.Value{{"open", "The request is admitted."}, {"shut", "It is not."}},
	}
	decisions = &telemetry.Instrument{
		Kind:        telemetry.Counter,
		Scope:       "github.com/usher-go/usher/entrance",
		Name:        "usher.entrance.decisions",
		Unit:        "{request}",
		Description: "Requests by what the entrance did.",
		Attributes:  []*telemetry.Attribute{result, name},
	}
)

func TestDecisionsAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	unsampled, span := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test").Start(t.Context(), "server")
	defer span.End()
	front := name.String("front")
	counting := decisions.Decisions(sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())), front)
	tests := map[string]struct {
		d   *telemetry.Decisions
		ctx context.Context
	}{
		"no SDK":                  {decisions.Decisions(nil, front), t.Context()},
		"no meters":               {decisions.Decisions(noop.NewMeterProvider(), front), t.Context()},
		"counting, not sampled":   {counting, unsampled},
		"counting without a span": {counting, t.Context()},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := testing.AllocsPerRun(100, func() { tt.d.Record(tt.ctx, 1) }); got != 0 {
				t.Errorf("%v allocations", got)
			}
		})
	}
}

func TestAuthenticateAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	off := usher.Authenticate(constant{&usher.Principal{ID: "ann"}})
	global := otel.GetMeterProvider()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())))
	counted := usher.Authenticate(constant{&usher.Principal{ID: "ann"}})
	otel.SetMeterProvider(global)
	unsampled := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test")
	for name, m := range map[string]usher.Middleware{"off": off, "counted, not sampled": counted} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
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

// constant is an Authenticator that accepts every request for one principal.
type constant struct{ p *usher.Principal }

func (c constant) Authenticate(*http.Request) (*usher.Principal, error) { return c.p, nil }

func (constant) Detect(*http.Request) (string, bool) { return "X-Api-Key", true }
func (constant) Challenge() string                   { return "" }
func (constant) Carriers() []string                  { return []string{"X-Api-Key"} }

// discard is a response writer that keeps its header alone.
type discard struct{ header http.Header }

func (d discard) Header() http.Header       { return d.header }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
