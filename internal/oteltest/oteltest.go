// Package oteltest keeps in memory what a package under test counts and what it notes on
// spans, by the API of OpenTelemetry alone. The module tests compares it with the SDK.
package oteltest

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// A Meter is a [metric.MeterProvider] that keeps the sums of counters of integers.
// Other instruments do nothing. The zero value is ready for use.
type Meter struct {
	noop.MeterProvider

	mu     sync.Mutex
	counts []Count
}

// A Count is the sum of a counter for one set of attributes.
type Count struct {
	Instrument
	Attributes attribute.Set
	Value      int64
}

// An Instrument is what a counter was made with.
type Instrument struct {
	Scope, Version, Schema  string
	Name, Description, Unit string
}

// Counts returns all sums, in the order of their names and attributes.
func (m *Meter) Counts() []Count {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := slices.Clone(m.counts)
	text := func(c Count) string {
		return c.Scope + " " + c.Name + " " + c.Attributes.Encoded(attribute.DefaultEncoder())
	}
	slices.SortFunc(counts, func(a, b Count) int { return cmp.Compare(text(a), text(b)) })
	return counts
}

// Meter returns what makes the counters of a scope.
func (m *Meter) Meter(scope string, options ...metric.MeterOption) metric.Meter {
	c := metric.NewMeterConfig(options...)
	return meter{m: m, of: Instrument{Scope: scope, Version: c.InstrumentationVersion(), Schema: c.SchemaURL()}}
}

func (m *Meter) add(of Instrument, attributes attribute.Set, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := slices.IndexFunc(m.counts, func(c Count) bool { return c.Instrument == of && c.Attributes.Equals(&attributes) })
	if at < 0 {
		at = len(m.counts)
		m.counts = append(m.counts, Count{Instrument: of, Attributes: attributes})
	}
	m.counts[at].Value += n
}

type meter struct {
	noop.Meter
	m  *Meter
	of Instrument
}

func (m meter) Int64Counter(name string, options ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	c := metric.NewInt64CounterConfig(options...)
	m.of.Name, m.of.Description, m.of.Unit = name, c.Description(), c.Unit()
	return counter{m: m.m, of: m.of}, nil
}

type counter struct {
	noop.Int64Counter
	m  *Meter
	of Instrument
}

func (counter) Enabled(context.Context) bool { return true }

func (c counter) Add(_ context.Context, n int64, options ...metric.AddOption) {
	set := metric.NewAddConfig(options).Attributes()
	c.m.add(c.of, set, n)
}
