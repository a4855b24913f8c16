package session

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher/internal/jose"
)

// replay returns the response that token was exchanged for. If the access token in it does
// not have these scopes, replay replaces it by another one, which belongs to the same
// refresh token: a repeated request gets neither more nor less than it asks for.
func (m *Manager) replay(ctx context.Context, r Record, token refreshToken, scopes []string, now time.Time) (Tokens, error) {
	first, err := decryptResponse(r.Response, token)
	if err != nil {
		return Tokens{}, err
	}
	if slices.Equal(first.scopes(r.Session), scopes) {
		return first.tokens(r.Session), nil
	}
	next, ok := parseRefreshToken(first.Refresh)
	if !ok {
		return Tokens{}, errUndecryptable
	}
	suffix, added := first.further(scopes)
	named := r
	named.TokenID += suffix
	a, err := m.newTokens(ctx, named, scopes, next, now)
	if err != nil {
		return Tokens{}, err
	}
	if added {
		// Before anybody has the token, or endVoid could not end it.
		if r.Response, err = first.encrypt(token); err != nil {
			return Tokens{}, err
		}
		if err := m.store.Update(ctx, r); err != nil {
			return Tokens{}, fmt.Errorf("session: store a further access token: %w", err)
		}
	}
	return a.tokens(r.Session), nil
}

// subToken follows the TokenID in the jti of a further access token that was issued with
// the same refresh token.
const subToken = "."

// maxFurther bounds the IDs of further access tokens of a response. Beyond it, tokens of
// different scopes share an ID.
const maxFurther = 5

// further returns what follows the TokenID in the ID of a further access token with these
// scopes, and whether it was added to a.
func (a *tokenResponse) further(scopes []string) (suffix string, added bool) {
	h := sha256.Sum256([]byte(strings.Join(scopes, " ")))
	suffix = subToken + jose.Encoding.EncodeToString(h[:12])
	switch {
	case slices.Contains(a.Further, suffix):
		return suffix, false
	case len(a.Further) >= maxFurther:
		return a.Further[maxFurther-1], false
	}
	a.Further = append(a.Further, suffix)
	return suffix, true
}

// endVoid ends the access tokens of a response that no client has used, before the refresh
// token in it becomes void: a thief may have read the response.
func (m *Manager) endVoid(ctx context.Context, r Record, token refreshToken, now time.Time) error {
	if m.revocations == nil || r.TokenID == "" || !m.mayHaveAccess(r.Session, now) {
		return nil
	}
	a, err := decryptResponse(r.Response, token)
	if err != nil {
		return err
	}
	ids := []string{r.TokenID}
	for _, suffix := range a.Further {
		ids = append(ids, r.TokenID+suffix)
	}
	return together(ids, func(id string) error {
		if err := m.revocations.RevokeToken(ctx, m.name, id, m.lastUse(now)); err != nil {
			return fmt.Errorf("session: end an access token: %w", err)
		}
		return nil
	})
}
