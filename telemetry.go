package usher

import "github.com/usher-go/usher/internal/telemetry"

const telemetryScope = "github.com/usher-go/usher"

var (
	authenticationRequests = telemetry.Instrument{
		Kind:        telemetry.Counter,
		Scope:       telemetryScope,
		Name:        "usher.authentication.requests",
		Unit:        "{request}",
		Description: "Requests by the outcome of their authentication.",
		Attributes:  []*telemetry.Attribute{authenticationResult, inShadow},
	}.Declare()
	authenticationResult = telemetry.Attribute{
		Name:        "usher.authentication.result",
		Description: "The outcome of authentication.",
		Values:      authenticationOutcomes[:],
		Span:        true,
	}.Declare()

	authorizationRequests = telemetry.Instrument{
		Kind:        telemetry.Counter,
		Scope:       telemetryScope,
		Name:        "usher.authorization.requests",
		Unit:        "{request}",
		Description: "Requests by the outcome of their authorization.",
		Attributes:  []*telemetry.Attribute{authorizationResult, inShadow},
	}.Declare()
	authorizationResult = telemetry.Attribute{
		Name:        "usher.authorization.result",
		Description: "The outcome of authorization.",
		Values:      authorizationOutcomes[:],
		Span:        true,
	}.Declare()

	inShadow = telemetry.Attribute{
		Name:        "usher.shadow",
		Description: "Set if a result is that of an Access with Shadow, which refuses nothing.",
		Values:      []telemetry.Value{{"true", "The request was admitted whatever the result."}},
		Span:        true,
	}.Declare()

	// Attributes of Access.TracePrincipal. The first is that of the semantic conventions.
	userID = telemetry.Attribute{
		Name:        "user.id",
		Description: "The ID of the principal, if Access.TracePrincipal is set.",
		Span:        true,
	}.Declare()
	principalKind = telemetry.Attribute{
		Name:        "usher.principal.kind",
		Description: "The kind of the principal's credential, if Access.TracePrincipal is set.",
		Span:        true,
	}.Declare()
	principalOwner = telemetry.Attribute{
		Name:        "usher.principal.owner",
		Description: "The account that the principal belongs to, if Access.TracePrincipal is set.",
		Span:        true,
	}.Declare()
)

// The outcomes of authentication, as indices of authenticationOutcomes.
const (
	accepted = iota
	anonymous
	missing
	ambiguous
	refused
	unavailable
	abandoned
)

var authenticationOutcomes = [...]telemetry.Value{
	accepted:    {"accepted", "The credential is valid."},
	anonymous:   {"anonymous", "There is no credential, and none is required."},
	missing:     {"missing", "There is no credential: 401."},
	ambiguous:   {"ambiguous", "There are credentials of several kinds: 401."},
	refused:     {"refused", "The credential is not valid, or its holder is not admitted: 401 or 403."},
	unavailable: {"unavailable", "The credential could not be checked, as a store, a key set or a callback failed: 503."},
	abandoned:   {"abandoned", "The client left before its credential was checked."},
}

// The outcomes of authorization, as indices of authorizationOutcomes. Refusals of a
// principal are in the order of the checks: a higher one is nearer to passing.
const (
	allowed = iota
	noPrincipal
	wrongKind
	insufficientScope
	insufficientPermission
	noOwner
	wrongOwner
)

var authorizationOutcomes = [...]telemetry.Value{
	allowed:                {"allowed", "The caller meets the requirement."},
	noPrincipal:            {"missing", "There is no principal: 401."},
	wrongKind:              {"wrong_kind", "The credential is of a kind that is not accepted here: 403."},
	insufficientScope:      {"insufficient_scope", "The credential lacks a scope: 403."},
	insufficientPermission: {"insufficient_permission", "The level of the caller is too low: 403."},
	noOwner:                {"no_owner", "The route has no owner, often because Require is outside the router: 404 or 403."},
	wrongOwner:             {"wrong_owner", "The route belongs to another owner: 404 or 403."},
}
