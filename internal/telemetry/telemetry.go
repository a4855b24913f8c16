// Package telemetry counts decisions and notes them on the current span. Everything is
// built in advance: recording a decision allocates nothing, and costs a few nanoseconds
// if telemetry is off.
package telemetry

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Version is the version of every instrumentation scope of this module.
const Version = "0.1.0"

// Config describes one counter of decisions.
type Config struct {
	// MeterProvider makes the counter; nil means the global one.
	MeterProvider metric.MeterProvider
	// Scope is the import path of the package that decides.
	Scope string
	// Counter and Description are the counter's; its unit is {request}.
	Counter, Description string
	// Attribute is the name of the attribute with the outcome, on the counter and on the
	// span.
	Attribute string
	// Outcomes are all values that Attribute may have. They come from the
	// program, never from a request.
	Outcomes []string
	// Fixed are attributes besides the outcome. They come from the program.
	Fixed []attribute.KeyValue
}

// NewCounter makes the counter of c, for code that adds to it more than one at a time.
func NewCounter(c Config) metric.Int64Counter {
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	meter := c.MeterProvider.Meter(c.Scope, metric.WithInstrumentationVersion(Version))
	// An instrument that is returned with an error works, or does nothing.
	counter, _ := meter.Int64Counter(c.Counter,
		metric.WithDescription(c.Description), metric.WithUnit("{request}"))
	return counter
}

// Decisions counts the outcomes of one kind of decision. It is safe for
// concurrent use.
type Decisions struct {
	counter metric.Int64Counter
	counts  [][]metric.AddOption
	notes   [][]attribute.KeyValue
}

// NewDecisions makes the counter of c and all that recording needs.
func NewDecisions(c Config) *Decisions {
	d := &Decisions{counter: NewCounter(c)}
	for _, outcome := range c.Outcomes {
		note := attribute.String(c.Attribute, outcome)
		set := attribute.NewSet(append([]attribute.KeyValue{note}, c.Fixed...)...)
		d.counts = append(d.counts, []metric.AddOption{metric.WithAttributeSet(set)})
		d.notes = append(d.notes, append([]attribute.KeyValue{note}, c.Fixed...))
	}
	return d
}

// Count counts the outcome with this index in Config.Outcomes.
func (d *Decisions) Count(ctx context.Context, outcome int) {
	d.counter.Add(ctx, 1, d.counts[outcome]...)
}

// Note notes the outcome on the current span if the span is being recorded.
func (d *Decisions) Note(ctx context.Context, outcome int) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(d.notes[outcome]...)
	}
}

// Record counts and notes the outcome.
func (d *Decisions) Record(ctx context.Context, outcome int) {
	d.Count(ctx, outcome)
	d.Note(ctx, outcome)
}
