package telemetry

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Durations are the upper bounds of the buckets of histograms of calls of other systems,
// in seconds: from a store in the same rack to a timeout.
var Durations = []float64{
	0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
}

// The values of [CallFailure].
const (
	Busy     = "busy"
	Canceled = "canceled"
	Closed   = "closed"
	Corrupt  = "corrupt"
	Full     = "full"
	Open     = "open"
	Panic    = "panic"
	Timeout  = "timeout"
	Other    = "_OTHER" // of the semantic conventions
)

// CallFailure is set on calls that have failed.
var CallFailure = Attribute{
	Name:        "error.type",
	Description: "Why the call has failed; calls that have not failed lack it.",
	Values: []Value{
		{Busy, "Too many calls were running or waiting, so there was no call."},
		{Canceled, "The client left, or the time of the request ended, before the response came."},
		{Closed, "The store was closed."},
		{Corrupt, "What the store has cannot be read."},
		{Full, "The store has no room."},
		{Open, "The circuit breaker was open, so there was no call."},
		{Panic, "The call panicked."},
		{Timeout, "No response came in time."},
		{Other, "Any other error."},
	},
}.Declare()

// CallFailureOf returns the value of [CallFailure] for a call with ctx that has returned
// err, or the empty text if err is nil.
func CallFailureOf(ctx context.Context, err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		return ""
	case errors.Is(ctx.Err(), context.Canceled), errors.Is(err, context.Canceled):
		return Canceled
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Timeout
	default:
		return Other
	}
}

// A Timer measures how long calls take. It is safe for concurrent use. A nil Timer
// measures nothing.
type Timer struct {
	histogram metric.Float64Histogram
	operation *Attribute
	fixed     []attribute.KeyValue

	mu      sync.RWMutex
	options map[call][]metric.RecordOption
}

// A call is an operation with its [CallFailure].
type call struct{ operation, failure string }

// Timer makes the histogram i of calls, whose operation is in an attribute, if that is not
// nil. The attributes in fixed are added to every measurement; they come from the program,
// never from a request. A nil provider means the global one.
func (i *Instrument) Timer(p metric.MeterProvider, operation *Attribute, fixed ...attribute.KeyValue) *Timer {
	// An instrument that is returned with an error works, or does nothing.
	histogram, _ := i.meter(p).Float64Histogram(i.Name, metric.WithDescription(i.Description),
		metric.WithUnit(i.Unit), metric.WithExplicitBucketBoundaries(i.Buckets...))
	return &Timer{histogram: histogram, operation: operation, fixed: fixed, options: make(map[call][]metric.RecordOption)}
}

// Enabled reports whether measurements go anywhere.
func (t *Timer) Enabled(ctx context.Context) bool { return t != nil && t.histogram.Enabled(ctx) }

// Record records a call that began at a time and has ended now, with a value of
// [CallFailure], or the empty text if it has not failed. The operation comes from the program.
func (t *Timer) Record(ctx context.Context, began time.Time, operation, failure string) {
	if t.Enabled(ctx) {
		t.histogram.Record(ctx, time.Since(began).Seconds(), t.of(call{operation, failure})...)
	}
}

// of returns the attributes of c, which are made once.
func (t *Timer) of(c call) []metric.RecordOption {
	t.mu.RLock()
	options, ok := t.options[c]
	t.mu.RUnlock()
	if ok {
		return options
	}
	attributes := slices.Clone(t.fixed)
	if t.operation != nil {
		attributes = append(attributes, t.operation.String(c.operation))
	}
	if c.failure != "" {
		attributes = append(attributes, CallFailure.String(c.failure))
	}
	options = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attributes...))}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.options[c] = options
	return options
}
