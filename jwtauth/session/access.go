package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/jose"
	"github.com/usher-go/usher/jwtauth"
)

// maxAccessToken is the default MaxTokenLength of a [jwtauth.Verifier].
const maxAccessToken = 16 << 10

// newTokens returns the response with token and the access token that r names, with these
// scopes.
func (m *Manager) newTokens(ctx context.Context, r Record, scopes []string, token refreshToken, now time.Time) (tokenResponse, error) {
	s := r.Session
	var private map[string]any
	if m.claims != nil {
		var err error
		if private, err = m.claims(ctx, s); err != nil {
			return tokenResponse{}, fmt.Errorf("session: claims of a session: %w", err)
		}
	}
	now, err := m.issueTime(ctx, s, now)
	if err != nil {
		return tokenResponse{}, err
	}
	end := earlier(now.Add(m.access), s.ExpiresAt)
	access, err := m.accessToken(r, scopes, private, now, end)
	if err != nil {
		return tokenResponse{}, err
	}
	a := tokenResponse{
		Access:         access,
		Refresh:        token.text(),
		AccessSeconds:  seconds(now, end),
		RefreshSeconds: seconds(now, s.ExpiresAt),
	}
	if len(scopes) < len(s.Scopes) {
		a.Narrowed = scopes
	}
	return a, nil
}

// seconds returns the seconds from one time to another, both cut to whole seconds as in
// the claims of a token.
func seconds(from, to time.Time) int64 { return max(to.Unix()-from.Unix(), 0) }

// issueTime returns a time of issue at which an access token is not already revoked. That
// is now, unless the tokens of the subject up to this second were revoked: then issueTime
// waits for the next second.
func (m *Manager) issueTime(ctx context.Context, s Session, now time.Time) (time.Time, error) {
	if m.revocations == nil {
		return now, nil
	}
	for waited := false; ; waited = true {
		t := &jwtauth.Token{Issuer: m.name, Subject: s.Subject, SessionID: s.ID, IssuedAt: time.Unix(now.Unix(), 0)}
		switch revoked, err := m.revocations.Revoked(ctx, t); {
		case err != nil:
			return now, fmt.Errorf("session: revocations: %w", err)
		case !revoked:
			return now, nil
		case waited:
			return now, errSessionRevoked
		}
		timer := time.NewTimer(now.Truncate(time.Second).Add(time.Second).Sub(now))
		select {
		case <-timer.C:
			now = timeNow()
		case <-ctx.Done():
			timer.Stop()
			return now, context.Cause(ctx)
		}
	}
}

// errSessionRevoked is the response to a login or refresh of a subject that is revoked in
// Revocations but not in Store.
var errSessionRevoked = &usher.Error{
	Status:  http.StatusForbidden,
	Code:    usher.CodeSessionRevoked,
	Message: "The session was ended.",
}

// reservedClaims are the claims that [Config.Claims] cannot set.
var reservedClaims = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "scope", "client_id"}

func (m *Manager) accessToken(r Record, scopes []string, private map[string]any, now, end time.Time) (string, error) {
	if m.isOAuth() && r.Client == "" {
		return "", misuse("tokens of the type %q must have a client_id: the session needs a Client", m.typ)
	}
	for _, name := range reservedClaims {
		if _, ok := private[name]; ok {
			return "", misuse("Config.Claims must not set the claim %q", name)
		}
	}
	claims := make(map[string]any, len(private)+len(reservedClaims))
	maps.Copy(claims, private)
	claims["iss"] = m.name
	claims["sub"] = r.Subject
	claims["aud"] = m.audiences
	if len(m.audiences) == 1 {
		claims["aud"] = m.audiences[0]
	}
	claims["iat"] = now.Unix()
	claims["exp"] = end.Unix()
	claims["jti"] = r.TokenID
	claims["sid"] = r.ID
	if len(scopes) > 0 {
		claims["scope"] = strings.Join(scopes, " ")
	}
	if r.Client != "" {
		claims["client_id"] = r.Client
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", misuse("encode the claims: %w", err)
	}
	k := m.signers.at(now)
	signed := k.header + jose.Encoding.EncodeToString(payload)
	signature, err := k.key.Sign(signed)
	if err != nil {
		return "", fmt.Errorf("session: sign: %w", err)
	}
	token := signed + "." + jose.Encoding.EncodeToString(signature)
	if len(token) > maxAccessToken {
		return "", misuse("the claims make a token of %d bytes; at most %d are accepted", len(token), maxAccessToken)
	}
	if n := len(m.cookie) + len(token); m.cookie != "" && n > maxCookie {
		return "", misuse("the claims make a cookie whose name and value have %d bytes; browsers keep at most %d", n, maxCookie)
	}
	// A token that no verifier accepts must not reach the client.
	if _, err := jose.Parse(token, nil); err != nil {
		return "", misuse("the claims make a token that no verifier accepts: %w", err)
	}
	return token, nil
}

// isOAuth reports whether the access tokens declare that they are those of RFC 9068.
func (m *Manager) isOAuth() bool {
	return strings.EqualFold(m.typ, "at+jwt") || strings.EqualFold(m.typ, "application/at+jwt")
}

// misuse returns the error for a mistake by the application.
func misuse(format string, args ...any) error {
	return &usher.Error{
		Status: http.StatusInternalServerError,
		Code:   usher.CodeInternal,
		Cause:  fmt.Errorf("session: "+format, args...),
	}
}

// failureOutcome returns the Outcome of an Event for an error.
func failureOutcome(err error) string {
	if e, ok := errors.AsType[*usher.Error](err); ok && e != nil && e.Status >= 400 && e.Status <= 499 {
		return "denied"
	}
	return "unavailable"
}
