package jwtauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/usher-go/usher"
)

// A Token is one that was verified, or what an authorization server has said
// about one. It is shared by all requests that present it; treat it as
// read-only. Absent claims are zero.
type Token struct {
	Issuer    string
	Subject   string
	Audience  []string
	ID        string // jti
	SessionID string // sid
	ClientID  string
	IssuedAt  time.Time
	NotBefore time.Time
	ExpiresAt time.Time
	// Scopes is what scope, scp and the ScopeClaims of the Config grant, each once,
	// in that order. Text that is no scope-token (RFC 6749, section 3.3) is left out.
	Scopes []string

	payload string
	bound   bool // to a key of its sender
}

// Claims decodes all claims into v as encoding/json does. It decodes anew each
// time, so callers share nothing but what the Token itself holds.
func (t *Token) Claims(v any) error {
	if err := json.Unmarshal([]byte(t.payload), v); err != nil {
		return fmt.Errorf("jwtauth: the claims do not fit %T: %w", v, err)
	}
	return nil
}

// ErrNoToken is what [Claims] answers where no token was verified.
var ErrNoToken = errors.New("jwtauth: no token was verified for this request")

// Claims returns the claims of the token that the request with this context was
// let in with, decoded into a T by encoding/json. It decodes each time that it
// is called. The error matches [ErrNoToken] if there is no such token.
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

// timely returns whether now is within the life of t.
func (t *Token) timely(now time.Time, leeway time.Duration) Verdict {
	switch {
	case !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt.Add(leeway)):
		return Expired
	case now.Add(leeway).Before(t.NotBefore), now.Add(leeway).Before(t.IssuedAt):
		return NotYetValid
	}
	return Accepted
}

// qualified returns the name of t's subject that is unique among all issuers, or
// "" if there is no subject. No issuer has a bar in its name.
func (t *Token) qualified() string {
	if t.Subject == "" {
		return ""
	}
	return t.Issuer + "|" + t.Subject
}
