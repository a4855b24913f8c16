package envelope

import "github.com/usher-go/usher/internal/telemetry"

// The outcomes of a panic.
const (
	responded = iota
	aborted
)

var panics = telemetry.Instrument{
	Kind:        telemetry.Counter,
	Scope:       "github.com/usher-go/usher/envelope",
	Name:        "usher.envelope.panics",
	Unit:        "{panic}",
	Description: "Panics of handlers, by whether the request could still get a response.",
	Attributes: []*telemetry.Attribute{telemetry.Attribute{
		Name:        "usher.envelope.panic.outcome",
		Description: "What the client of a handler that panicked got.",
		Values: []telemetry.Value{
			responded: {"responded", "The client got an error: 500."},
			aborted:   {"aborted", "The response had begun, so the connection was aborted."},
		},
		Span: true,
	}.Declare()},
}.Declare()

var requestIDs = telemetry.Attribute{
	Name:        "usher.request.id",
	Description: "The ID of the request, which the client receives as X-Request-Id.",
	Span:        true,
}.Declare()
