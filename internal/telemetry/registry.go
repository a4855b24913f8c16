package telemetry

import (
	"cmp"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/attribute"
)

// A Kind is the kind of an instrument.
type Kind string

// The kinds of instruments.
const (
	// Counter counts events.
	Counter Kind = "counter"
	// Histogram measures durations.
	Histogram Kind = "histogram"
	// Gauge says how many of something there are now, in all its instances together. For
	// OpenTelemetry it is an up-down counter.
	Gauge Kind = "gauge"
)

// An Instrument is what a package measures. It is declared once, as a variable of the
// package, and is then in [Instruments].
type Instrument struct {
	Kind Kind
	// Scope is the import path of the package that measures.
	Scope string
	// Name, Unit and Description are those of OpenTelemetry.
	Name, Unit, Description string
	// Attributes are all attributes that a measurement may have. The first of a [Counter]
	// of decisions has their outcome.
	Attributes []*Attribute
	// Buckets are the upper bounds of the buckets of a [Histogram].
	Buckets []float64
}

// An Attribute is an attribute of instruments, of the span of the request, or of both. It
// is declared once, as a variable of the package that sets it, and is then in
// [Attributes].
type Attribute struct {
	Name, Description string
	// Values are all values of the attribute. Without them the values come from the
	// configuration, or, if the attribute is on spans alone, from the request.
	Values []Value
	// Span says that the attribute is on the span of the request.
	Span bool
}

// A Value is one of the values of an attribute, and a sentence on what it means.
type Value [2]string

// Name returns the value.
func (v Value) Name() string { return v[0] }

// Meaning returns what the value means.
func (v Value) Meaning() string { return v[1] }

var registry struct {
	sync.Mutex
	instruments []*Instrument
	attributes  []*Attribute
}

// Declare declares i.
func (i Instrument) Declare() *Instrument {
	registry.Lock()
	defer registry.Unlock()
	registry.instruments = append(registry.instruments, &i)
	return &i
}

// Declare declares a.
func (a Attribute) Declare() *Attribute {
	registry.Lock()
	defer registry.Unlock()
	registry.attributes = append(registry.attributes, &a)
	return &a
}

// String returns the attribute with the value v.
func (a *Attribute) String(v string) attribute.KeyValue { return attribute.String(a.Name, v) }

// Strings returns the attribute with the values v.
func (a *Attribute) Strings(v []string) attribute.KeyValue {
	return attribute.StringSlice(a.Name, v)
}

// Bool returns the attribute with the value v.
func (a *Attribute) Bool(v bool) attribute.KeyValue { return attribute.Bool(a.Name, v) }

// Instruments returns the instruments that the packages of the program have declared, in
// the order of their names.
func Instruments() []*Instrument {
	registry.Lock()
	defer registry.Unlock()
	return slices.SortedFunc(slices.Values(registry.instruments),
		func(a, b *Instrument) int { return cmp.Compare(a.Name, b.Name) })
}

// Attributes returns the attributes that the packages of the program have declared, in the
// order of their names.
func Attributes() []*Attribute {
	registry.Lock()
	defer registry.Unlock()
	return slices.SortedFunc(slices.Values(registry.attributes),
		func(a, b *Attribute) int { return cmp.Compare(a.Name, b.Name) })
}
