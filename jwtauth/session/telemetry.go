package session

import "github.com/usher-go/usher/internal/telemetry"

var refreshes = telemetry.Instrument{
	Kind:        telemetry.Counter,
	Scope:       "github.com/usher-go/usher/jwtauth/session",
	Name:        "usher.session.refreshes",
	Unit:        "{refresh}",
	Description: "Refreshes of sessions by their outcome.",
	Attributes: []*telemetry.Attribute{telemetry.Attribute{
		Name:        "usher.session.result",
		Description: "The outcome of the refresh.",
		Values:      refreshValues[:],
		Span:        true,
	}.Declare()},
}.Declare()

// refreshValues has the name of each outcome.
var refreshValues = [refreshOutcomes]telemetry.Value{
	refreshMalformed:   {"malformed", "The text is not a refresh token."},
	refreshUnknown:     {"unknown", "The token is of no session, or of one that was removed."},
	refreshRevoked:     {"revoked", "The session was ended."},
	refreshExpired:     {"expired", "The session has expired."},
	refreshReused:      {"reused", "The token was exchanged before, so it may be stolen: the session is ended."},
	refreshAmbiguous:   {"ambiguous", "The token came with a token of another subject."},
	refreshWrongClient: {"wrong_client", "Another client than that of the session sent the token."},
	refreshRotated:     {"rotated", "The token was exchanged for another one."},
	refreshKept:        {"kept", "The token was issued within the grace: it stays, and gets another access token."},
	refreshReplayed:    {"replayed", "The token was exchanged within the grace, and gets the same response again."},
	refreshRecovered:   {"recovered", "The token was exchanged before, but no token of the response was used."},
	refreshDenied:      {"denied", "Config.Claims or revocations refused the refresh."},
	refreshUnavailable: {"unavailable", "The store or a callback failed."},
}
