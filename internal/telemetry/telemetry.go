// Package telemetry declares what the module measures and notes on spans, counts decisions
// and notes them on the current span. Everything is built in advance: recording a decision
// allocates nothing, and costs a few nanoseconds if telemetry is off.
package telemetry

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

const (
	// Version is the version of every instrumentation scope of this module.
	Version = "0.1.0"
	// SchemaURL is that of the semantic conventions that this module follows.
	SchemaURL = "https://opentelemetry.io/schemas/1.43.0"
)

// meter returns what makes i. A nil provider means the global one.
func (i *Instrument) meter(p metric.MeterProvider) metric.Meter {
	if p == nil {
		p = otel.GetMeterProvider()
	}
	return p.Meter(i.Scope, metric.WithInstrumentationVersion(Version), metric.WithSchemaURL(SchemaURL))
}

// Counter makes the counter i, for code that adds to it more than one at a time. A nil
// provider means the global one.
func (i *Instrument) Counter(p metric.MeterProvider) metric.Int64Counter {
	// An instrument that is returned with an error works, or does nothing.
	counter, _ := i.meter(p).Int64Counter(i.Name,
		metric.WithDescription(i.Description), metric.WithUnit(i.Unit))
	return counter
}

// Decisions counts the outcomes of one kind of decision. It is safe for
// concurrent use.
type Decisions struct {
	counter metric.Int64Counter
	counts  [][]metric.AddOption
	notes   [][]attribute.KeyValue
}

// Decisions makes the counter i and all that recording needs. An outcome is the index of
// a value of the first attribute of i. The attributes in fixed are added to every outcome;
// they come from the program, never from a request.
func (i *Instrument) Decisions(p metric.MeterProvider, fixed ...attribute.KeyValue) *Decisions {
	d := &Decisions{counter: i.Counter(p)}
	outcome := i.Attributes[0]
	for _, v := range outcome.Values {
		note := append([]attribute.KeyValue{outcome.String(v.Name())}, fixed...)
		d.notes = append(d.notes, note)
		set := attribute.NewSet(slices.Clone(note)...) // sorts its arguments
		d.counts = append(d.counts, []metric.AddOption{metric.WithAttributeSet(set)})
	}
	return d
}

// Count counts the outcome with this index.
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
