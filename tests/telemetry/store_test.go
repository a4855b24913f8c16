package telemetry_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/internal/telemetry"
	"github.com/usher-go/usher/ratelimit"
)

// A meter is the SDK of OpenTelemetry with all that it has measured.
type meter struct {
	*sdkmetric.MeterProvider
	reader *sdkmetric.ManualReader
}

func newMeter() meter {
	reader := sdkmetric.NewManualReader()
	return meter{sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), reader}
}

// metric returns what was measured by the instrument i, or nil.
func (m meter) metric(t *testing.T, i *telemetry.Instrument) metricdata.Aggregation {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := m.reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, got := range scope.Metrics {
			if got.Name != i.Name {
				continue
			}
			if got.Unit != i.Unit || got.Description != i.Description || scope.Scope.Name != i.Scope ||
				scope.Scope.Version != telemetry.Version || scope.Scope.SchemaURL != telemetry.SchemaURL {
				t.Errorf("%s was made as %+v of %+v", i.Name, got, scope.Scope)
			}
			return got.Data
		}
	}
	return nil
}

// calls returns how many calls a histogram has, by their attributes.
func (m meter) calls(t *testing.T, i *telemetry.Instrument) map[string]uint64 {
	t.Helper()
	counts := make(map[string]uint64)
	h, _ := m.metric(t, i).(metricdata.Histogram[float64])
	for _, p := range h.DataPoints {
		if !slices.Equal(p.Bounds, i.Buckets) {
			t.Errorf("%s has the buckets %v", i.Name, p.Bounds)
		}
		counts[p.Attributes.Encoded(values{})] = p.Count
	}
	return counts
}

// now returns the values of a gauge, by their attributes.
func (m meter) now(t *testing.T, i *telemetry.Instrument) map[string]int64 {
	t.Helper()
	counts := make(map[string]int64)
	sum, _ := m.metric(t, i).(metricdata.Sum[int64])
	for _, p := range sum.DataPoints {
		if sum.IsMonotonic {
			t.Errorf("%s only grows", i.Name)
		}
		counts[p.Attributes.Encoded(values{})] = p.Value
	}
	return counts
}

// instrument returns what is declared by this name.
func instrument(t *testing.T, name string) *telemetry.Instrument {
	t.Helper()
	at := slices.IndexFunc(telemetry.Instruments(), func(i *telemetry.Instrument) bool { return i.Name == name })
	if at < 0 {
		t.Fatalf("%s is not declared", name)
	}
	return telemetry.Instruments()[at]
}

// remote is a Store that is not a Memory, so it may hang and fail, and does if fail is set.
type remote struct {
	ratelimit.Store
	fail error
}

func (s *remote) Take(ctx context.Context, d *ratelimit.Decision) error {
	if s.fail != nil {
		return s.fail
	}
	return s.Store.Take(ctx, d)
}

func newLimiter(t *testing.T, m meter, s ratelimit.Store) http.Handler {
	t.Helper()
	l, err := ratelimit.New(ratelimit.Config{
		Store:         s,
		Policies:      []ratelimit.Policy{ratelimit.PerAddress(1000, time.Minute)},
		MeterProvider: m,
		OnError:       func(context.Context, error) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	return l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
}

func newMemory(t *testing.T) *ratelimit.Memory {
	t.Helper()
	memory, err := ratelimit.NewMemory(ratelimit.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return memory
}

func serve(h http.Handler) {
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
}

// Operators see how long a store takes, and why its calls fail.
func TestCallsOfARemoteStoreAreMeasured(t *testing.T) {
	m := newMeter()
	s := &remote{Store: newMemory(t)}
	h := newLimiter(t, m, s)
	serve(h)
	serve(h)
	s.fail = errors.New("no connection")
	serve(h)
	want := map[string]uint64{
		"usher.store=limits,usher.store.operation=take":                   2,
		"error.type=_OTHER,usher.store=limits,usher.store.operation=take": 1,
	}
	equal(t, want, m.calls(t, instrument(t, "usher.store.operation.duration")))
}

// A Memory waits for nothing outside the process.
func TestCallsOfAMemoryAreNotMeasured(t *testing.T) {
	m := newMeter()
	serve(newLimiter(t, m, newMemory(t)))
	if got := m.calls(t, instrument(t, "usher.store.operation.duration")); len(got) != 0 {
		t.Errorf("measured: %v", got)
	}
}

// During an outage operators see that the store is not called, until it is again.
func TestABreakerThatOpensIsCounted(t *testing.T) {
	m := newMeter()
	s := &remote{Store: newMemory(t)}
	h := newLimiter(t, m, s)
	open := instrument(t, "usher.store.breakers.open")
	equal(t, map[string]int64{"usher.store=limits": 0}, m.now(t, open))
	s.fail = errors.New("no connection")
	for range 20 {
		serve(h)
	}
	equal(t, map[string]int64{"usher.store=limits": 1}, m.now(t, open))
	if n := m.calls(t, instrument(t, "usher.store.operation.duration"))["error.type=open,usher.store=limits,usher.store.operation=take"]; n != 10 {
		t.Errorf("%d calls of 20 failed as the breaker was open, want the last 10", n)
	}
	runtime.KeepAlive(h)
}

// A limiter that nobody uses any more is no longer counted, and its memory is freed.
func TestGaugesDoNotKeepWhatTheyCount(t *testing.T) {
	m := newMeter()
	open := instrument(t, "usher.store.breakers.open")
	func() {
		h := newLimiter(t, m, &remote{Store: newMemory(t)})
		serve(h)
		equal(t, map[string]int64{"usher.store=limits": 0}, m.now(t, open))
	}()
	for range 100 {
		runtime.GC()
		if len(m.now(t, open)) == 0 {
			return
		}
	}
	t.Error("the limiter is still counted")
}

// The kinds of errors are few, and each has one name.
func TestWhyACallHasFailed(t *testing.T) {
	m := newMeter()
	result := errors.New("not found")
	g := guard.New(time.Minute, 1).Results(func(err error) bool { return errors.Is(err, result) }).NeverOpen().Measured(m, guard.Sessions)
	left, leave := context.WithCancel(t.Context())
	for operation, f := range map[string]func(context.Context) error{
		"":         func(context.Context) error { return nil },
		"result":   func(context.Context) error { return result },
		"_OTHER":   func(context.Context) error { return errors.New("no connection") },
		"panic":    func(context.Context) error { panic("store") },
		"corrupt":  func(context.Context) error { return guard.ErrCorrupt },
		"full":     func(context.Context) error { return guard.ErrFull },
		"closed":   func(context.Context) error { return guard.ErrClosed },
		"timeout":  func(context.Context) error { return guard.ErrTimeout },
		"canceled": func(ctx context.Context) error { leave(); <-ctx.Done(); return ctx.Err() },
	} {
		ctx := t.Context()
		if operation == "canceled" {
			ctx = left
		}
		_ = g.Do(ctx, operation, f)
	}
	var got []string
	for attributes := range m.calls(t, instrument(t, "usher.store.operation.duration")) {
		attributes = strings.ReplaceAll(attributes, ",usher.store=sessions", "")
		got = append(got, strings.TrimPrefix(attributes, "usher.store=sessions,"))
	}
	slices.Sort(got)
	equal(t, []string{
		"error.type=_OTHER,usher.store.operation=_OTHER",
		"error.type=canceled,usher.store.operation=canceled",
		"error.type=closed,usher.store.operation=closed",
		"error.type=corrupt,usher.store.operation=corrupt",
		"error.type=full,usher.store.operation=full",
		"error.type=panic,usher.store.operation=panic",
		"error.type=timeout,usher.store.operation=timeout",
		"usher.store.operation=",
		"usher.store.operation=result",
	}, got)
}

// What a call of a store costs is hardly more with telemetry.
func TestMeasuredCallsAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	allocs := func(g *guard.Guard) float64 {
		f := func(context.Context) error { return nil }
		return testing.AllocsPerRun(1000, func() { _ = g.Do(t.Context(), "lookup", f) })
	}
	plain := allocs(guard.New(time.Minute, 1))
	if got := allocs(guard.New(time.Minute, 1).Measured(newMeter(), guard.Sessions)); got > plain {
		t.Errorf("%v allocations, and %v without a meter", got, plain)
	}
}
