package apikey

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/usher-go/usher"
)

// A Verdict is what an [Authenticator] finds about the key in a request. It is
// the private cause of every refusal: errors.Is(err, apikey.Revoked).
type Verdict uint8

// The verdicts. By default Malformed, Unknown, Revoked, Expired and
// WrongEnvironment get the same answer, to the byte.
const (
	Missing          Verdict = iota // no key; answered by usher.Authenticate
	Malformed                       // no key of this service could look so, or two in one field
	Ambiguous                       // a key in each of two places
	Unknown                         // well formed, but never issued
	Revoked                         // 401 like Unknown, unless Config.Answers differs
	Expired                         // past its ExpiresAt
	WrongEnvironment                // issued for another environment
	Denied                          // refused by Config.Check
	Unavailable                     // the store has failed or hangs: 503
	Abandoned                       // the client has left before its key was found
	Accepted
	verdicts
)

var verdictNames = [verdicts]string{
	"missing", "malformed", "ambiguous", "unknown", "revoked", "expired",
	"wrong_environment", "denied", "unavailable", "abandoned", "accepted",
}

// String returns the name of the verdict, which is also its name in telemetry.
func (v Verdict) String() string {
	if v < verdicts {
		return verdictNames[v]
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// Error returns the verdict as the text of an error.
func (v Verdict) Error() string { return "apikey: " + v.String() }

// abandoned is the failure of a request whose client has left. It is for logs and
// counters, in which it must not look like a failure of ours.
var abandoned = usher.Error{
	Status:  usher.StatusClientClosedRequest,
	Code:    usher.CodeClientClosedRequest,
	Message: "The client has closed the request.",
}

// left reports whether the client of the request with this context has gone. The
// end of a deadline is the server's doing.
func left(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// answers holds the one answer to each verdict.
type answers [verdicts]*usher.Error

// newAnswers builds the default answers and replaces those in custom.
func newAnswers(custom map[Verdict]*usher.Error, challenge, invalidChallenge string) (a answers, errs []error) {
	for v := range verdicts {
		e := usher.Error{
			Status:     http.StatusUnauthorized,
			Code:       usher.CodeInvalidAPIKey,
			Message:    "The API key is not valid.",
			Challenges: []string{invalidChallenge},
		}
		switch v {
		case Missing, Denied, Accepted:
			// Never looked up: their answers come from elsewhere, or are none.
			continue
		case Ambiguous:
			e.Code = usher.CodeAmbiguousCredentials
			e.Message = "The request carries more than one credential."
			e.Challenges = []string{challenge}
		case Unavailable:
			e = usher.Error{
				Status:     http.StatusServiceUnavailable,
				Code:       usher.CodeAuthenticationUnavailable,
				Message:    "The API key could not be checked. Please try again.",
				RetryAfter: time.Second,
			}
		case Abandoned:
			e = abandoned
		}
		e.Cause = v
		a[v] = &e
	}
	for _, v := range slices.Sorted(maps.Keys(custom)) {
		c := custom[v]
		field := "apikey.Config.Answers[" + v.String() + "]"
		switch {
		case v >= verdicts || a[v] == nil:
			errs = append(errs, &usher.ConfigError{Field: field, Reason: "this verdict has no answer that could be replaced"})
		case c == nil:
			errs = append(errs, &usher.ConfigError{Field: field, Reason: "must not be nil"})
		case v == Unavailable && c.Status < 500, v != Unavailable && (c.Status < 400 || c.Status > 499):
			errs = append(errs, &usher.ConfigError{Field: field, Reason: "must have a status from 400 to 499, or at least 500 for Unavailable"})
		default:
			e := *c
			if e.Cause == nil {
				e.Cause = v
			} else {
				e.Cause = fmt.Errorf("%w: %w", v, e.Cause)
			}
			if e.Status == http.StatusUnauthorized && len(e.Challenges) == 0 {
				e.Challenges = []string{invalidChallenge}
			}
			a[v] = &e
		}
	}
	return a, errs
}
