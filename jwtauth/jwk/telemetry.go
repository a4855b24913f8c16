package jwk

import "github.com/usher-go/usher/internal/telemetry"

var fetches = telemetry.Instrument{
	Kind:        telemetry.Histogram,
	Scope:       "github.com/usher-go/usher/jwtauth/jwk",
	Name:        "usher.jwk.fetch.duration",
	Unit:        "s",
	Description: "How long fetches of key sets take, with the discovery of where they are.",
	Attributes:  []*telemetry.Attribute{telemetry.CallFailure},
	Buckets:     telemetry.Durations,
}.Declare()
