package apikey

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/refusal"
)

// A Verdict is an [Authenticator]'s decision about the key in a request. It is the
// private cause of every refusal: errors.Is(err, apikey.Revoked).
type Verdict uint8

// The verdicts. By default Malformed, Unknown, Revoked, Expired, Disabled,
// WrongEnvironment and WrongNetwork have the same response, byte for byte.
const (
	Missing          Verdict = iota // no key; usher.Authenticate responds
	Malformed                       // not in the form of any key of this service, or two values in one field
	Ambiguous                       // a key in each of two places
	Unknown                         // well formed, but never issued
	Revoked                         // 401 like Unknown, unless Config.Errors differs
	Expired                         // past its ExpiresAt
	Disabled                        // see Key.DisabledAt
	WrongEnvironment                // issued for another environment
	WrongNetwork                    // used from outside its AllowedNetworks
	Denied                          // refused by Config.Check
	Unavailable                     // the store or a callback failed: 503
	Abandoned                       // the client left before its key was found
	Accepted
	verdicts
)

// String returns the name of the verdict, which is also its name in telemetry.
func (v Verdict) String() string {
	if v < verdicts {
		return verdictValues[v].Name()
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// Error returns the verdict as the text of an error.
func (v Verdict) Error() string { return "apikey: " + v.String() }

type (
	refusals = refusal.Table[Verdict, usher.Field]
	refused  = refusal.Error[usher.Field]
)

// newRefusals returns the error for each verdict: the one in own, or the default.
func newRefusals(own map[Verdict]*usher.Error, challenge, invalidChallenge string, faults config.Faults[usher.ConfigError]) *refusals {
	invalid := refused{
		Status:  http.StatusUnauthorized,
		Code:    usher.CodeInvalidAPIKey,
		Message: "The API key is not valid.",
	}
	t := refusal.New([]string{invalidChallenge}, map[Verdict]refused{
		Malformed:        invalid,
		Unknown:          invalid,
		Revoked:          invalid,
		Expired:          invalid,
		Disabled:         invalid,
		WrongEnvironment: invalid,
		WrongNetwork:     invalid,
		Ambiguous: {
			Status:     http.StatusUnauthorized,
			Code:       usher.CodeAmbiguousCredentials,
			Message:    "The request carries more than one credential.",
			Challenges: []string{challenge},
		},
		Unavailable: {
			Status:     http.StatusServiceUnavailable,
			Code:       usher.CodeAuthenticationUnavailable,
			Message:    "The API key could not be checked. Please try again.",
			RetryAfter: time.Second,
		},
		Abandoned: refused(abandoned),
	})
	for _, v := range slices.Sorted(maps.Keys(own)) {
		if reason := t.Replace(v, (*refused)(own[v])); reason != "" {
			faults.Add("Errors["+v.String()+"]", reason)
		}
	}
	return t
}

// abandoned is the failure of a request whose client has left. Nobody receives it; it
// distinguishes such requests from failures of the server in logs and counters.
var abandoned = usher.Error{
	Status:  usher.StatusClientClosedRequest,
	Code:    usher.CodeClientClosedRequest,
	Message: "The client has closed the request.",
}
