package jwtauth

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/usher-go/usher"
)

// A Verdict is what a [Verifier] or an [Introspection] finds about the token in
// a request. It is the private cause of every refusal: errors.Is(err,
// jwtauth.Expired).
type Verdict uint8

// The verdicts. By default all from Malformed to Inactive but Ambiguous get the
// same answer, to the byte: 401 with error="invalid_token".
const (
	Missing        Verdict = iota // no token; answered by usher.Authenticate
	Ambiguous                     // a token in each of two places: 400
	Malformed                     // no token of the form that is accepted
	UnknownIssuer                 // of an issuer that is not trusted
	WrongAlgorithm                // signed with an algorithm that is not its issuer's
	WrongType                     // a token of another kind
	UnknownKey                    // signed with a key that its issuer does not have
	BadSignature                  // not signed by its issuer
	InvalidClaims                 // a claim is missing, or not as its issuer's profile asks
	WrongAudience                 // meant for somebody else
	Expired                       // past its exp
	NotYetValid                   // before its nbf, or issued in the future
	Unconfirmed                   // bound to a key of its sender, which Config.Confirm has not seen
	Revoked                       // named by Config.Revocations
	Inactive                      // the authorization server says so
	Denied                        // refused by Config.Check or Config.Confirm
	Unavailable                   // keys, revocations or the authorization server do not respond: 503
	Abandoned                     // the client has left before its token was judged
	Accepted
	verdicts
)

var verdictNames = [verdicts]string{
	"missing", "ambiguous", "malformed", "unknown_issuer", "wrong_algorithm", "wrong_type",
	"unknown_key", "bad_signature", "invalid_claims", "wrong_audience", "expired",
	"not_yet_valid", "unconfirmed", "revoked", "inactive", "denied", "unavailable", "abandoned", "accepted",
}

// String returns the name of the verdict, which is also its name in telemetry.
func (v Verdict) String() string {
	if v < verdicts {
		return verdictNames[v]
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// Error returns the verdict as the text of an error.
func (v Verdict) Error() string { return "jwtauth: " + v.String() }

// answers holds the one answer to each verdict.
type answers [verdicts]*usher.Error

// newAnswers builds the default answers and replaces those in custom. Challenge
// makes a challenge with an error code of RFC 6750.
func newAnswers(custom map[Verdict]*usher.Error, path string, challenge func(code string) string) (a answers, errs []error) {
	invalid := []string{challenge(usher.CodeInvalidToken)}
	for v := range verdicts {
		e := usher.Error{
			Status:     http.StatusUnauthorized,
			Code:       usher.CodeInvalidToken,
			Message:    "The token is not valid.",
			Challenges: invalid,
		}
		switch v {
		case Missing, Denied, Accepted:
			// Never looked up: their answers come from elsewhere, or are none.
			continue
		case Ambiguous:
			e = usher.Error{
				Status:     http.StatusBadRequest,
				Code:       usher.CodeInvalidRequest,
				Message:    "The request carries more than one token.",
				Challenges: []string{challenge(usher.CodeInvalidRequest)},
			}
		case Unavailable:
			e = usher.Error{
				Status:     http.StatusServiceUnavailable,
				Code:       usher.CodeAuthenticationUnavailable,
				Message:    "The token could not be checked. Please try again.",
				RetryAfter: time.Second,
			}
		case Abandoned:
			e = usher.Error{
				Status:  usher.StatusClientClosedRequest,
				Code:    usher.CodeClientClosedRequest,
				Message: "The client has closed the request.",
			}
		}
		e.Cause = v
		a[v] = &e
	}
	for _, v := range slices.Sorted(maps.Keys(custom)) {
		c := custom[v]
		fault := func(reason string) {
			errs = append(errs, &usher.ConfigError{Field: path + "[" + v.String() + "]", Reason: reason})
		}
		switch {
		case v >= verdicts || a[v] == nil:
			fault("this verdict has no answer that could be replaced")
		case c == nil:
			fault("must not be nil")
		case v == Unavailable && c.Status < 500, v != Unavailable && (c.Status < 400 || c.Status > 499):
			fault("must have a status from 400 to 499, or at least 500 for Unavailable")
		default:
			a[v] = answerLike(c, v, invalid)
		}
	}
	return a, errs
}

// answerLike returns a copy of c that is the answer to v.
func answerLike(c *usher.Error, v Verdict, challenges []string) *usher.Error {
	e := *c
	if e.Cause == nil {
		e.Cause = v
	} else {
		e.Cause = fmt.Errorf("%w: %w", v, e.Cause)
	}
	if e.Status == http.StatusUnauthorized && len(e.Challenges) == 0 {
		e.Challenges = challenges
	}
	return &e
}

// to returns the error for a verdict that has come about by cause, if that is
// not nil.
func (a *answers) to(v Verdict, cause error) error {
	if v == Denied {
		return cause
	}
	e := a[v]
	if cause == nil {
		return e
	}
	own := *e
	own.Cause = fmt.Errorf("%w: %w", e.Cause, cause)
	if u, ok := errors.AsType[delayError](cause); ok {
		own.RetryAfter = max(own.RetryAfter, u.RetryAfter())
	}
	return &own
}

// A delayError says when it is worth trying again.
type delayError interface {
	error
	RetryAfter() time.Duration
}
