package apikey

import "github.com/usher-go/usher/internal/telemetry"

var (
	verifications = telemetry.Instrument{
		Kind:        telemetry.Counter,
		Scope:       "github.com/usher-go/usher/apikey",
		Name:        "usher.apikey.verifications",
		Unit:        "{verification}",
		Description: "Verifications of API keys by their verdict.",
		Attributes:  []*telemetry.Attribute{verificationResult},
	}.Declare()
	verificationResult = telemetry.Attribute{
		Name:        "usher.apikey.result",
		Description: "The verdict on the API key.",
		Values:      verdictValues[:],
		Span:        true,
	}.Declare()
)

// verdictValues has the name of each verdict.
var verdictValues = [verdicts]telemetry.Value{
	Missing:          {"missing", "There is no key."},
	Malformed:        {"malformed", "The text is not in the form of any key of this service, or there are two in one field."},
	Ambiguous:        {"ambiguous", "There is a key in each of two places."},
	Unknown:          {"unknown", "The key is well formed, but was never issued."},
	Revoked:          {"revoked", "The key was revoked."},
	Expired:          {"expired", "The key has expired."},
	Disabled:         {"disabled", "The key is disabled."},
	WrongEnvironment: {"wrong_environment", "The key was issued for another environment."},
	WrongNetwork:     {"wrong_network", "The key was used from outside its networks."},
	Denied:           {"denied", "Config.Check refused the key."},
	Unavailable:      {"unavailable", "The store or a callback failed."},
	Abandoned:        {"abandoned", "The client left before its key was found."},
	Accepted:         {"accepted", "The key is valid."},
}
