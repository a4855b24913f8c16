package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/bearer"
)

// ErrInvalidRefreshToken is the error for a refresh token that cannot be exchanged: it
// was never issued, or its session has expired or was ended, possibly by this use. No
// response reveals which.
var ErrInvalidRefreshToken = errors.New("session: the refresh token is not valid")

// invalidRefreshToken is the only response to invalid refresh tokens.
var invalidRefreshToken = &usher.Error{
	Status:  http.StatusUnauthorized,
	Code:    usher.CodeInvalidRefreshToken,
	Message: "The refresh token is not valid.",
	Cause:   ErrInvalidRefreshToken,
}

// A refreshOutcome is the result of using a refresh token.
type refreshOutcome uint8

const (
	refreshMalformed   refreshOutcome = iota // not the form of a refresh token
	refreshUnknown                           // of no session, or of one that was removed
	refreshRevoked                           // of a session that was ended
	refreshExpired                           // of a session that has expired
	refreshReused                            // exchanged before: the session is ended
	refreshAmbiguous                         // sent with a token of another subject
	refreshWrongClient                       // sent by another client than the session's
	refreshRotated                           // exchanged for another one
	refreshKept                              // issued within the grace: stays, with another access token
	refreshReplayed                          // exchanged within the grace: gets the same response again
	refreshRecovered                         // exchanged before, but no token of the response was used
	refreshDenied                            // refused by Config.Claims or by revocations
	refreshUnavailable                       // the store failed
	refreshOutcomes
)

// err returns the error for an outcome below refreshRotated.
func (o refreshOutcome) err() error {
	return fmt.Errorf("%w: %s", ErrInvalidRefreshToken, refreshValues[o].Name())
}

// decide returns the outcome for a token of the session with this hash, by the rules in
// the documentation of [Manager]. Without a grace, each second use is reuse.
func (r *Record) decide(hash [sha256.Size]byte, now time.Time, grace time.Duration) refreshOutcome {
	is := func(other [sha256.Size]byte) bool { return subtle.ConstantTimeCompare(hash[:], other[:]) == 1 }
	// A clock that is behind by more must not stretch the grace.
	fresh := now.Sub(r.RefreshedAt).Abs() < grace
	switch {
	case !r.RevokedAt.IsZero():
		return refreshRevoked
	case !now.Before(r.ExpiresAt):
		return refreshExpired
	case is(r.Current) && fresh && len(r.Response) > 0:
		// A request with the previous token may still arrive, so that must stay the previous one.
		return refreshKept
	case is(r.Current):
		return refreshRotated
	case !is(r.Previous):
		return refreshReused
	case fresh:
		return refreshReplayed
	case !r.Delivered && grace > 0:
		return refreshRecovered
	default:
		return refreshReused
	}
}

// A RefreshRequest is what a client asks of [Manager.Refresh].
type RefreshRequest struct {
	// Token is the refresh token.
	Token string
	// Scopes are those that the access token must have, in any order (RFC 6749, section
	// 6). Empty means those of the session, which always keeps its own.
	Scopes []string
	// Client is the client that sends the request. It must be the session's Client, and
	// empty if that has none. Authenticate a client that has a secret before.
	Client string
}

// Format prints the Client and the Scopes, whatever the verb, so that a log of a request
// has no token. Package fmt calls no method of an unexported field.
func (r RefreshRequest) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.text()) }

// MarshalJSON returns a string that Format would print.
func (r RefreshRequest) MarshalJSON() ([]byte, error) { return json.Marshal(r.text()) }

func (r RefreshRequest) text() string {
	return fmt.Sprintf("refresh by client %q with scopes %q", r.Client, r.Scopes)
}

// Refresh exchanges a refresh token for new tokens, or gets another access token for one
// that was issued within [Config.Grace]. The error matches
// [ErrInvalidRefreshToken] if the token is invalid, or if the session has another client,
// which ends nothing. It is an [*usher.Error] with 400 invalid_scope if the session lacks
// a scope; the token is then not exchanged. An [*usher.Error] of [Config.Claims] is
// returned as it is. Any other error means that the token could not be checked or
// exchanged now; the client may retry with the same token.
//
// A repeated request gets the same response again only if it asks for the same scopes.
// Otherwise its access token is another one.
func (m *Manager) Refresh(ctx context.Context, r RefreshRequest) (Tokens, error) {
	return m.exchange(ctx, []string{r.Token}, r, netip.Addr{})
}

// exchange exchanges the token that choose returns. The Token of the request is ignored.
func (m *Manager) exchange(ctx context.Context, texts []string, request RefreshRequest, address netip.Addr) (Tokens, error) {
	short, cancel := context.WithTimeoutCause(ctx, m.timeout, errSlow)
	defer cancel()
	e := Event{Action: "refresh", Address: address}
	t := Tokens{}
	token, outcome, err := m.choose(short, texts, request.Client)
	if err == nil && outcome == refreshRotated {
		// One of several concurrent exchanges succeeds. The others retry and find its
		// response. A conflict is due to a rotation, a delivery or a further access token.
		const tries = 2 + maxFurther + 1
		for range tries {
			t, outcome, err = m.tryExchange(short, token, request, &e)
			if !errors.Is(err, ErrConflict) {
				break
			}
		}
	}
	switch {
	case err != nil:
		if outcome = refreshUnavailable; failureOutcome(err) == "denied" {
			outcome = refreshDenied
		}
		t = Tokens{}
	case outcome < refreshRotated:
		err = outcome.err()
	}
	m.decisions.Record(ctx, int(outcome))
	e.Outcome = refreshValues[outcome].Name()
	m.note(ctx, e, err)
	return t, err
}

// choose returns the token to exchange and refreshRotated, or another outcome if there is
// none. A browser sends several tokens after the path or domain of the cookie was
// changed, and another host of the domain may plant one. So choose returns the token of
// the only live session of the client, or, if several are of one subject, of the session
// with the last login. Of one session it prefers the current token to the previous one.
func (m *Manager) choose(ctx context.Context, texts []string, client string) (token refreshToken, outcome refreshOutcome, err error) {
	if len(texts) > bearer.MaxCookies {
		return token, refreshAmbiguous, nil
	}
	var (
		best   Record
		bestIs refreshOutcome
		parsed bool
		now    = timeNow()
	)
	for _, text := range texts {
		t, ok := parseRefreshToken(text)
		if !ok {
			continue
		}
		if len(texts) == 1 {
			return t, refreshRotated, nil
		}
		if !parsed {
			token, parsed = t, true
		}
		r, err := m.lookup(ctx, t)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return token, refreshUnavailable, err
		}
		is := r.decide(t.hash(), now, m.grace)
		switch {
		case is == refreshRevoked || is == refreshExpired || r.Client != client:
			continue
		case best.ID == "":
		case r.Subject != best.Subject:
			return token, refreshAmbiguous, nil
		case r.ID == best.ID && (is == refreshReused || bestIs == refreshRotated || bestIs == refreshKept):
			continue
		case r.ID != best.ID && r.CreatedAt.Before(best.CreatedAt):
			continue
		}
		token, best, bestIs = t, r, is
	}
	if !parsed {
		return token, refreshMalformed, nil
	}
	return token, refreshRotated, nil
}

// lookup returns the session of token, or ErrNotFound.
func (m *Manager) lookup(ctx context.Context, token refreshToken) (Record, error) {
	r, err := m.store.Lookup(ctx, token.handle())
	if err == nil && r.Handle != token.handle() {
		err = errOther
	}
	if err != nil {
		return Record{}, fmt.Errorf("session: look up a session: %w", err)
	}
	return r, nil
}

// tryExchange uses a token once. It returns ErrConflict if the session was changed
// concurrently.
func (m *Manager) tryExchange(ctx context.Context, token refreshToken, request RefreshRequest, e *Event) (t Tokens, outcome refreshOutcome, err error) {
	r, err := m.lookup(ctx, token)
	if errors.Is(err, ErrNotFound) {
		return t, refreshUnknown, nil
	}
	if err != nil {
		return t, refreshUnavailable, err
	}
	e.SessionID, e.Subject = r.ID, r.Subject
	// Another client's use shows nothing about the tokens of this one.
	if r.Client != request.Client {
		return t, refreshWrongClient, nil
	}
	now := timeNow()
	scopes, scopeErr := narrow(r.Scopes, request.Scopes)
	switch outcome = r.decide(token.hash(), now, m.grace); outcome {
	case refreshReused:
		ending, cancel := m.ending(ctx)
		defer cancel()
		_, err = m.end(ending, e, true)
	case refreshRevoked:
		ending, cancel := m.ending(ctx)
		defer cancel()
		err = m.endAccess(ending, r.Session, now)
	case refreshKept:
		if err = scopeErr; err == nil {
			t, err = m.keep(ctx, r, token, scopes, now)
		}
	case refreshReplayed:
		if err = scopeErr; err == nil {
			t, err = m.replay(ctx, r, token, scopes, now)
		}
	case refreshRotated, refreshRecovered:
		if err = scopeErr; err == nil && outcome == refreshRecovered {
			err = m.endVoid(ctx, r, token, now)
		}
		if err == nil {
			t, err = m.rotate(ctx, r, token, scopes, now)
		}
	}
	return t, outcome, err
}

// narrow returns the scopes in wanted in the order in which a session has them, or all of
// the session if wanted is empty.
func narrow(all, wanted []string) ([]string, error) {
	if len(wanted) == 0 {
		return all, nil
	}
	for _, s := range wanted {
		if !slices.Contains(all, s) {
			return nil, errInvalidScope
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !slices.Contains(wanted, s) }), nil
}

var errInvalidScope = &usher.Error{
	Status:  http.StatusBadRequest,
	Code:    usher.CodeInvalidScope,
	Message: "The session does not have this scope.",
}

// rotate replaces the current token in one step.
func (m *Manager) rotate(ctx context.Context, r Record, token refreshToken, scopes []string, now time.Time) (Tokens, error) {
	next := token.next()
	r.Previous, r.Current = token.hash(), next.hash()
	r.TokenID, r.Delivered = rand.Text(), false
	r.RefreshedAt, r.ExpiresAt = now, earlier(now.Add(m.refresh), r.EndsAt)
	a, err := m.newTokens(ctx, r, scopes, next, now)
	if err != nil {
		return Tokens{}, err
	}
	if r.Response, err = a.encrypt(token); err != nil {
		return Tokens{}, err
	}
	if err := m.store.Update(ctx, r); err != nil {
		return Tokens{}, fmt.Errorf("session: rotate a refresh token: %w", err)
	}
	return a.tokens(r.Session), nil
}

// keep returns the current token with another access token. It extends nothing.
func (m *Manager) keep(ctx context.Context, r Record, token refreshToken, scopes []string, now time.Time) (Tokens, error) {
	named := r
	named.TokenID += subToken + rand.Text()
	a, err := m.newTokens(ctx, named, scopes, token, now)
	if err != nil {
		return Tokens{}, err
	}
	if !r.Delivered {
		// The client has the response with this token. If that counted as lost later, its
		// access tokens would end, but not this one.
		r.Delivered = true
		if err := m.store.Update(ctx, r); err != nil {
			return Tokens{}, fmt.Errorf("session: store a delivery: %w", err)
		}
	}
	return a.tokens(r.Session), nil
}

// FindByToken returns the session of a refresh token that Refresh would exchange now. It
// exchanges nothing and ends nothing, so it is for a token introspection endpoint (RFC
// 7662), for instance, which compares the Client. The error matches
// [ErrInvalidRefreshToken] if the token is invalid, and any other error means that it could
// not be checked now.
func (m *Manager) FindByToken(ctx context.Context, token string) (Session, error) {
	t, ok := parseRefreshToken(token)
	if !ok {
		return Session{}, refreshMalformed.err()
	}
	short, cancel := context.WithTimeoutCause(ctx, m.timeout, errSlow)
	defer cancel()
	r, err := m.lookup(short, t)
	switch {
	case errors.Is(err, ErrNotFound):
		return Session{}, refreshUnknown.err()
	case err != nil:
		m.reportFailure(ctx, err)
		return Session{}, err
	}
	if is := r.decide(t.hash(), timeNow(), m.grace); is < refreshRotated {
		return Session{}, is.err()
	}
	return r.Session, nil
}
