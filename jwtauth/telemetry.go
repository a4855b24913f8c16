package jwtauth

import "github.com/usher-go/usher/internal/telemetry"

const telemetryScope = "github.com/usher-go/usher/jwtauth"

var (
	verifications = telemetry.Instrument{
		Kind:        telemetry.Counter,
		Scope:       telemetryScope,
		Name:        "usher.jwt.verifications",
		Unit:        "{verification}",
		Description: "Verifications of JSON Web Tokens by their verdict.",
		Attributes: []*telemetry.Attribute{telemetry.Attribute{
			Name:        "usher.jwt.result",
			Description: "The verdict on the token.",
			Values:      verdictValues[:],
			Span:        true,
		}.Declare()},
	}.Declare()

	introspections = telemetry.Instrument{
		Kind:        telemetry.Counter,
		Scope:       telemetryScope,
		Name:        "usher.introspection.verifications",
		Unit:        "{verification}",
		Description: "Verifications of opaque tokens by their verdict.",
		Attributes: []*telemetry.Attribute{telemetry.Attribute{
			Name:        "usher.introspection.result",
			Description: "The verdict on the token.",
			Values:      verdictValues[:],
			Span:        true,
		}.Declare()},
	}.Declare()

	introspectionDuration = telemetry.Instrument{
		Kind:        telemetry.Histogram,
		Scope:       telemetryScope,
		Name:        "usher.introspection.request.duration",
		Unit:        "s",
		Description: "How long requests to the introspection endpoint take.",
		Attributes:  []*telemetry.Attribute{telemetry.CallFailure},
		Buckets:     telemetry.Durations,
	}.Declare()

	cacheLookups = telemetry.Instrument{
		Kind:        telemetry.Counter,
		Scope:       telemetryScope,
		Name:        "usher.jwt.cache.lookups",
		Unit:        "{lookup}",
		Description: "Lookups in the cache of verified tokens.",
		Attributes: []*telemetry.Attribute{telemetry.Attribute{
			Name:        "usher.jwt.cache.result",
			Description: "Whether the token was in the cache.",
			Values: []telemetry.Value{
				hit:  {"hit", "The token was in the cache."},
				miss: {"miss", "The token was not in the cache, and is verified in full."},
			},
		}.Declare()},
	}.Declare()
)

// The outcomes of a lookup.
const (
	hit = iota
	miss
)

// verdictValues has the name of each verdict.
var verdictValues = [verdicts]telemetry.Value{
	Missing:        {"missing", "There is no token."},
	Ambiguous:      {"ambiguous", "There are several tokens."},
	Malformed:      {"malformed", "The text is not a token of the accepted form."},
	UnknownIssuer:  {"unknown_issuer", "The issuer is neither configured nor resolved."},
	WrongAlgorithm: {"wrong_algorithm", "The token is signed with an algorithm that its issuer does not use."},
	WrongType:      {"wrong_type", "It is another kind of token."},
	UnknownKey:     {"unknown_key", "The token is signed with a key that its issuer does not have."},
	BadSignature:   {"bad_signature", "The token is not signed by its issuer."},
	InvalidClaims:  {"invalid_claims", "A required claim is missing, or a claim is invalid."},
	WrongAudience:  {"wrong_audience", "The token is for another service."},
	Expired:        {"expired", "The token has expired."},
	NotYetValid:    {"not_yet_valid", "The token is not valid yet, or was issued in the future."},
	Unconfirmed:    {"unconfirmed", "The token is bound to a key of its sender, which is not confirmed."},
	Revoked:        {"revoked", "The token was revoked."},
	Inactive:       {"inactive", "The authorization server says that the token is inactive."},
	CrossOrigin:    {"cross_origin", "The token came in a cookie, or from a proxy, for a page of another origin."},
	Denied:         {"denied", "Config.Check or Config.Confirm refused the token."},
	Unavailable:    {"unavailable", "Keys, revocations, the authorization server or a callback failed."},
	Abandoned:      {"abandoned", "The client left before its token was verified."},
	Accepted:       {"accepted", "The token is valid."},
}
