package session

import (
	"context"
	"crypto/rand"
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

// maxAccessToken is what a [jwtauth.Verifier] takes unless it is told otherwise.
const maxAccessToken = 8 << 10

// answerFor returns what a session gets at this time for a refresh token that is
// new.
func (m *Manager) answerFor(ctx context.Context, s Session, token refreshToken, now time.Time) (answer, error) {
	var private map[string]any
	if m.claims != nil {
		var err error
		if private, err = m.claims(ctx, s); err != nil {
			return answer{}, fmt.Errorf("session: claims of a session: %w", err)
		}
	}
	now, err := m.admitted(ctx, s, now)
	if err != nil {
		return answer{}, err
	}
	end := earlier(now.Add(m.access), s.EndsAt)
	access, err := m.accessToken(s, private, now, end)
	if err != nil {
		return answer{}, err
	}
	return answer{
		Access:         access,
		Refresh:        token.text(),
		AccessSeconds:  seconds(now, end),
		RefreshSeconds: seconds(now, s.ExpiresAt),
	}, nil
}

// seconds returns how many whole seconds lie between two times, as tokens tell
// them.
func seconds(from, to time.Time) int64 { return max(to.Unix()-from.Unix(), 0) }

// admitted returns the time for which a session can be given an access token that
// is not refused at once. That is now, unless the subject's tokens up to this
// second were revoked: then it waits for the next one.
func (m *Manager) admitted(ctx context.Context, s Session, now time.Time) (time.Time, error) {
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

// errSessionRevoked is the answer to a login or refresh of somebody who was
// revoked elsewhere than in the store.
var errSessionRevoked = &usher.Error{
	Status:  http.StatusForbidden,
	Code:    usher.CodeSessionRevoked,
	Message: "The session was ended.",
}

// reservedClaims are those that [Config.Claims] cannot set.
var reservedClaims = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "scope"}

func (m *Manager) accessToken(s Session, private map[string]any, now, end time.Time) (string, error) {
	for _, name := range reservedClaims {
		if _, ok := private[name]; ok {
			return "", misuse("the claim %q is not for Config.Claims to set", name)
		}
	}
	claims := make(map[string]any, len(private)+len(reservedClaims))
	maps.Copy(claims, private)
	claims["iss"] = m.name
	claims["sub"] = s.Subject
	claims["aud"] = m.audiences
	if len(m.audiences) == 1 {
		claims["aud"] = m.audiences[0]
	}
	claims["iat"] = now.Unix()
	claims["exp"] = end.Unix()
	claims["jti"] = rand.Text()
	claims["sid"] = s.ID
	if len(s.Scopes) > 0 {
		claims["scope"] = strings.Join(s.Scopes, " ")
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", misuse("claims that have no JSON: %w", err)
	}
	k := m.signer(now)
	signed := k.header + jose.Encoding.EncodeToString(payload)
	signature, err := k.key.Sign(signed)
	if err != nil {
		return "", fmt.Errorf("session: sign: %w", err)
	}
	token := signed + "." + jose.Encoding.EncodeToString(signature)
	if len(token) > maxAccessToken {
		return "", misuse("the claims make a token of %d bytes; at most %d are accepted", len(token), maxAccessToken)
	}
	// What no verifier would read shall not be found out by the client.
	if _, err := jose.Parse(token); err != nil {
		return "", misuse("the claims make no token that is accepted: %w", err)
	}
	return token, nil
}

// misuse is the answer to what no client and no store is to blame for.
func misuse(format string, args ...any) error {
	return &usher.Error{
		Status: http.StatusInternalServerError,
		Code:   usher.CodeInternal,
		Cause:  fmt.Errorf("session: "+format, args...),
	}
}

// failureOutcome says in one word for an audit why a call has failed.
func failureOutcome(err error) string {
	if e, ok := errors.AsType[*usher.Error](err); ok && e != nil && e.Status >= 400 && e.Status <= 499 {
		return "denied"
	}
	return "unavailable"
}
