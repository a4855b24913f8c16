package oteltest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// A Tracer is a [trace.Tracer] that keeps the spans that were started with it. The
// zero value is ready for use.
type Tracer struct {
	noop.Tracer

	mu    sync.Mutex
	spans []Span
}

// A Span is what was noted on a span until it ended.
type Span struct {
	Name string
	// Attributes has the last value of each key, in the place of the first.
	Attributes []attribute.KeyValue
	// Events are events with their attributes, and errors that were recorded.
	Events []string
	Status codes.Code
	// Message came with Status.
	Message string
}

// Spans returns the spans that have ended, in that order.
func (t *Tracer) Spans() []Span {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.spans)
}

// Reset forgets all spans that have ended.
func (t *Tracer) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spans = nil
}

// Start starts a span that records until it ends.
func (t *Tracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	c := trace.NewSpanStartConfig(options...)
	s := &recorder{t: t, recording: true, span: Span{Name: name, Attributes: c.Attributes()}}
	return trace.ContextWithSpan(ctx, s), s
}

// A recorder is a span that is being recorded.
type recorder struct {
	noop.Span
	t *Tracer

	mu        sync.Mutex
	recording bool
	span      Span
}

func (r *recorder) IsRecording() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recording
}

func (r *recorder) note(f func(*Span)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recording {
		f(&r.span)
	}
}

func (r *recorder) End(...trace.SpanEndOption) {
	r.note(func(s *Span) {
		r.recording = false
		r.t.mu.Lock()
		defer r.t.mu.Unlock()
		r.t.spans = append(r.t.spans, *s)
	})
}

func (r *recorder) SetName(name string) { r.note(func(s *Span) { s.Name = name }) }

func (r *recorder) SetAttributes(attributes ...attribute.KeyValue) {
	r.note(func(s *Span) {
		for _, a := range attributes {
			at := slices.IndexFunc(s.Attributes, func(old attribute.KeyValue) bool { return old.Key == a.Key })
			if at < 0 {
				s.Attributes = append(s.Attributes, a)
			} else {
				s.Attributes[at] = a
			}
		}
	})
}

func (r *recorder) SetStatus(code codes.Code, message string) {
	r.note(func(s *Span) { s.Status, s.Message = code, message })
}

func (r *recorder) AddEvent(name string, options ...trace.EventOption) {
	c := trace.NewEventConfig(options...)
	r.note(func(s *Span) { s.Events = append(s.Events, fmt.Sprint(name, " ", c.Attributes())) })
}

func (r *recorder) RecordError(err error, options ...trace.EventOption) {
	r.AddEvent("exception "+err.Error(), options...)
}
