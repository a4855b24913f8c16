package jwtauth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/jose"
)

// A Token has the claims of a verified token, or an authorization server's response about
// one. It is the Details of the [usher.Principal], as a *Token. All requests with the token
// share it; treat it as read-only. Absent claims are zero. Issuer is that of the Config, even
// if iss is an alias.
type Token struct {
	Issuer    string
	Subject   string
	Audience  []string // aud, or [TrustedIssuer.AudienceClaim]
	ID        string   // jti
	SessionID string   // sid
	ClientID  string
	IssuedAt  time.Time
	NotBefore time.Time
	ExpiresAt time.Time
	// Scopes are the scopes granted by scope, scp and the ScopeClaims of the Config, in
	// that order and without duplicates. Text that is not a scope-token (RFC 6749,
	// section 3.3) is left out.
	Scopes []string

	payload string
	bound   bool // to a key of its sender
	own     bool // without a subject: the token of the client itself
}

// Claims decodes all claims into v as encoding/json does, except that a claim is decoded
// into a field only if its name equals that of the field, in case too: give the fields
// tags. It is an error if a field without a tag would get its value from a claim whose
// name is in another case. All of this holds at any depth, but not in types that decode
// themselves. Claims decodes at each call, so callers share nothing but the Token itself.
func (t *Token) Claims(v any) error {
	if err := jose.UnmarshalExact(t.payload, v); err != nil {
		return fmt.Errorf("jwtauth: the claims do not fit %T: %w", v, err)
	}
	return nil
}

// ErrNoToken is returned by [Claims] if no token was verified.
var ErrNoToken = errors.New("jwtauth: no token was verified for this request")

// Claims returns the claims of the token that authenticated the request of ctx, decoded
// into a T as [Token.Claims] does. It decodes them at each call. The error matches
// [ErrNoToken] if there is no such token.
func Claims[T any](ctx context.Context) (T, error) {
	var claims T
	p, _ := usher.PrincipalFrom(ctx)
	t, ok := p.Details.(*Token)
	if !ok {
		return claims, ErrNoToken
	}
	err := t.Claims(&claims)
	return claims, err
}

// checkTime returns the verdict on t at this time, and its reason.
func (t *Token) checkTime(now time.Time, leeway time.Duration) (Verdict, error) {
	switch {
	case !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt.Add(leeway)):
		return Expired, untimely("exp", t.ExpiresAt, now, leeway)
	case now.Add(leeway).Before(t.NotBefore):
		return NotYetValid, untimely("nbf", t.NotBefore, now, leeway)
	case now.Add(leeway).Before(t.IssuedAt):
		return NotYetValid, untimely("iat", t.IssuedAt, now, leeway)
	}
	return Accepted, nil
}

// principalID returns the ID of t's subject, which is unique among all issuers. Without a
// subject, it returns the ID of the client if t is the client's own, or else "". No issuer
// has a bar in its name, and none has an empty name. So the ID of a client, which begins
// with a bar, is never that of a subject.
func (t *Token) principalID() string {
	switch {
	case t.Subject != "":
		return t.Issuer + "|" + t.Subject
	case t.own && t.ClientID != "":
		return "|" + t.Issuer + "|" + t.ClientID
	default:
		return ""
	}
}
