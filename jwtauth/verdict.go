package jwtauth

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/refusal"
)

// A Verdict is an authenticator's decision about the token in a request. It is the
// private cause of every refusal: errors.Is(err, jwtauth.Expired). The text of the cause
// also has the value that came, cut after 100 bytes, and the value that was expected.
type Verdict uint8

// The verdicts. By default those from Malformed to Inactive get the same response,
// byte for byte: 401 with error="invalid_token".
const (
	Missing        Verdict = iota // no token: usher.Authenticate decides
	Ambiguous                     // one token in the header field and another in the cookie, or several: 400
	Malformed                     // not a token of the accepted form
	UnknownIssuer                 // from an issuer that is neither configured nor resolved
	WrongAlgorithm                // signed with an algorithm that its issuer does not use
	WrongType                     // another kind of token
	UnknownKey                    // signed with a key that its issuer does not have
	BadSignature                  // not signed by its issuer
	InvalidClaims                 // a required claim is missing, or a claim is invalid
	WrongAudience                 // for another service
	Expired                       // after its exp
	NotYetValid                   // before its nbf, or issued in the future
	Unconfirmed                   // bound to a key of its sender, not confirmed by Config.Confirm
	Revoked                       // revoked, according to Revocations
	Inactive                      // inactive, according to the authorization server
	CrossOrigin                   // in a cookie or added by a proxy, for a page of another origin: 403
	Denied                        // refused by Config.Check or Config.Confirm, with its error
	Unavailable                   // keys, revocations or the authorization server failed: 503
	Abandoned                     // the client left before its token was verified
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

// Error implements error.
func (v Verdict) Error() string { return "jwtauth: " + v.String() }

// refusals has the error for each verdict that is a refusal.
type refusals struct {
	table *refusal.Table[Verdict, usher.Field]
}

// newRefusals returns the default errors, replaced by those in custom, and adds the
// faults of custom to f. The function challenge makes a challenge with an error code of
// RFC 6750.
func newRefusals(f config.Faults[usher.ConfigError], custom map[Verdict]*usher.Error, challenge func(code string) string) *refusals {
	errs := map[Verdict]refusal.Error[usher.Field]{
		Ambiguous: {
			Status:     http.StatusBadRequest,
			Code:       usher.CodeInvalidRequest,
			Message:    "The request carries more than one token.",
			Challenges: []string{challenge(usher.CodeInvalidRequest)},
		},
		CrossOrigin: {
			Status:  http.StatusForbidden,
			Code:    usher.CodeCrossOriginRequest,
			Message: "Pages of this origin may not do this.",
		},
		Unavailable: {
			Status:     http.StatusServiceUnavailable,
			Code:       usher.CodeAuthenticationUnavailable,
			Message:    "The token could not be checked. Please try again.",
			RetryAfter: time.Second,
		},
		Abandoned: {
			Status:  usher.StatusClientClosedRequest,
			Code:    usher.CodeClientClosedRequest,
			Message: "The client has closed the request.",
		},
	}
	for v := Malformed; v <= Inactive; v++ {
		errs[v] = refusal.Error[usher.Field]{
			Status:  http.StatusUnauthorized,
			Code:    usher.CodeInvalidToken,
			Message: "The token is not valid.",
		}
	}
	r := &refusals{refusal.New([]string{challenge(usher.CodeInvalidToken)}, errs)}
	for _, v := range slices.Sorted(maps.Keys(custom)) {
		if reason := r.table.Replace(v, (*refusal.Error[usher.Field])(custom[v])); reason != "" {
			f.Add("Errors["+v.String()+"]", reason)
		}
	}
	return r
}

// error returns the error for v. If cause is not nil, it is a further cause of that
// error.
func (r *refusals) error(v Verdict, cause error) error {
	e := (*usher.Error)(r.table.Error(v, cause))
	if d, ok := errors.AsType[retryError](cause); ok {
		e.RetryAfter = max(e.RetryAfter, d.RetryAfter()) // e is a copy, as there is a cause
	}
	return e
}

// A retryError reports how long to wait before a retry.
type retryError interface {
	error
	RetryAfter() time.Duration
}
