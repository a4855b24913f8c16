package jwtauth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/telemetry"
)

// IssuerConfig configures an [Issuer].
type IssuerConfig struct {
	// Issuer is the iss of the access tokens. Required, without a "|".
	Issuer string
	// Audiences is their aud: the names of the services that they are for. At least
	// one is required.
	Audiences []string
	// Keys sign the access tokens. One that signs now is required.
	Keys []SigningKey
	// Store keeps the sessions. Required.
	Store RefreshStore

	// AccessLifetime is how long an access token is good; zero means 15 minutes.
	AccessLifetime time.Duration
	// RefreshLifetime is how long a session lives on without a refresh; zero means
	// 7 days.
	RefreshLifetime time.Duration
	// SessionLifetime is how long a session lives in any case; zero means 30 days.
	SessionLifetime time.Duration
	// Grace is how long after its exchange a refresh token still gets the answer
	// that it was exchanged for, to the byte; zero means 10 seconds, a negative
	// number none, and at most 5 minutes. It must be above the difference of the
	// clocks of the nodes.
	Grace time.Duration

	// Type is the typ of the access tokens; empty means "session+jwt", that of
	// [ProfileSession].
	Type string
	// Claims, if not nil, returns further claims for an access token. It is called
	// at the login and at each refresh, so that a token says what is so now. It
	// cannot set iss, sub, aud, exp, nbf, iat, jti, sid or scope. An [*usher.Error]
	// is the answer, for instance to somebody who is no longer a customer; any other
	// error, and a panic, is a 503. It is called on a goroutine of its own.
	Claims func(ctx context.Context, s Session) (map[string]any, error)
	// Revocations, if not nil, learns of each session that has ended, so that its
	// access tokens end at once and not at their exp. Give the same to the
	// [Verifier].
	Revocations Revoker

	// Timeout bounds how long a login, refresh or logout may wait for Store, Claims
	// and Revocations, also if these ignore their context; zero means 3 seconds. Of
	// each of the three at most 64 calls run at a time, those that hang included, and
	// 16 wait for each; further ones fail at once. [MemoryRefreshStore] and
	// [RevocationList], which wait for nothing, are called directly.
	Timeout time.Duration
	// Audit, if not nil, is called after each of them, on the caller's goroutine.
	Audit func(ctx context.Context, e SessionEvent)
	// OnError, if not nil, is told of what no response and no event shows: a panic of
	// Audit, and what a [SessionHandler] could not do once it had responded.
	OnError func(err error)
	// MeterProvider makes the counter usher.session.refreshes, which has the outcome
	// as the attribute usher.session.result; nil means the global one.
	MeterProvider metric.MeterProvider
}

// An Issuer opens sessions, refreshes and ends them. Its [SessionHandler] is the
// HTTP side of that. It is also the [KeySet] of its own tokens, for a [Verifier]
// in the same process. It is safe for concurrent use and has nothing to close.
//
// A session has one good refresh token at any time. Exchanging it is one atomic
// step, which leaves another one in its place. What becomes of a token that was
// exchanged before:
//
//   - Within [IssuerConfig.Grace], the one that was exchanged last gets the same
//     answer again, to the byte. So two requests at once, and a client that tries
//     again, end up with the same tokens. The answer is kept sealed under the token
//     that it was given for.
//   - Later, the one that was exchanged last is exchanged once more if the server
//     knows that its answer was not delivered, as it went down or the client hung
//     up, and the token in that answer was never used. That one is void from then
//     on. See [Issuer.Delivered].
//   - Any other use of it is taken for theft and ends the session, with whatever
//     tokens came of it, for whoever has them.
//
// So an answer that was lost logs nobody out, and two who hold one token are told
// apart as soon as the second uses its own.
type Issuer struct {
	name        string
	audiences   []string
	typ         string
	signers     []signer
	store       RefreshStore
	access      time.Duration
	refresh     time.Duration
	session     time.Duration
	grace       time.Duration
	timeout     time.Duration
	claims      claimsFunc
	revocations Revoker
	audit       func(context.Context, SessionEvent)
	onError     func(error)
	decisions   *telemetry.Decisions
}

var _ KeySet = (*Issuer)(nil)

// maxLeeway is the most that a [Verifier] may be told that clocks are off.
const maxLeeway = 5 * time.Minute

// NewIssuer returns an Issuer, or all faults of c.
func NewIssuer(c IssuerConfig) (*Issuer, error) {
	i := &Issuer{
		name:      c.Issuer,
		audiences: slices.Clone(c.Audiences),
		typ:       c.Type,
		access:    orDefault(c.AccessLifetime, 15*time.Minute),
		refresh:   orDefault(c.RefreshLifetime, 7*24*time.Hour),
		session:   orDefault(c.SessionLifetime, 30*24*time.Hour),
		grace:     max(orDefault(c.Grace, 10*time.Second), 0),
		timeout:   orDefault(c.Timeout, 3*time.Second),
		audit:     c.Audit,
		onError:   c.OnError,
	}
	patience := max(i.timeout, 0)
	i.store = guardStore(c.Store, patience)
	i.revocations = guardRevoker(c.Revocations, patience)
	i.claims = guardClaims(c.Claims, patience)
	if i.typ == "" {
		i.typ = typSession
	}
	errs := i.faults()
	var more []error
	i.signers, more = newSigners(c.Keys, i.typ, i.access, timeNow())
	if err := errors.Join(append(errs, more...)...); err != nil {
		return nil, err
	}
	i.decisions = telemetry.NewDecisions(telemetry.Config{
		MeterProvider: c.MeterProvider,
		Scope:         "github.com/usher-go/usher/jwtauth",
		Counter:       "usher.session.refreshes",
		Description:   "Refreshes of sessions by their outcome.",
		Attribute:     "usher.session.result",
		Outcomes:      refreshOutcomeNames[:],
	})
	return i, nil
}

// faults returns all that is wrong with the configuration, but for the keys.
func (i *Issuer) faults() (errs []error) {
	fault := func(field, reason string) {
		errs = append(errs, &usher.ConfigError{Field: "jwtauth.IssuerConfig." + field, Reason: reason})
	}
	switch {
	case i.name == "":
		fault("Issuer", "is required")
	case strings.Contains(i.name, "|"):
		fault("Issuer", "must not have a bar")
	}
	if len(i.audiences) == 0 || slices.Contains(i.audiences, "") {
		fault("Audiences", "at least one is required, and none may be empty")
	}
	if i.store == nil {
		fault("Store", "is required")
	}
	if i.access < time.Second {
		fault("AccessLifetime", "must be at least a second")
	}
	if i.refresh < i.access {
		fault("RefreshLifetime", "must not be shorter than AccessLifetime")
	}
	if i.session < i.refresh {
		fault("SessionLifetime", "must not be shorter than RefreshLifetime")
	}
	if i.grace >= i.access || i.grace > 5*time.Minute {
		// The access token in an answer that is given again must still be good.
		fault("Grace", "must be shorter than AccessLifetime, and at most 5 minutes")
	}
	if i.timeout < 0 {
		fault("Timeout", "must not be negative")
	}
	return errs
}

// Tokens are what a login or a refresh gives. However they are printed or
// encoded, the texts of the tokens are not seen.
type Tokens struct {
	// Session is the session as it then was.
	Session Session
	// AccessLifetime and RefreshLifetime are how long the tokens are good from the
	// time of the answer, in whole seconds.
	AccessLifetime, RefreshLifetime time.Duration

	// Pointers, because fmt prints unexported fields without asking any method.
	access, refresh *string
	// undelivered is the session after a rotation of which nobody has said yet that
	// its answer was delivered.
	undelivered *RefreshRecord
}

// AccessToken returns the text of the access token. Send it to the client and
// nowhere else.
func (t Tokens) AccessToken() string {
	return reveal(t.access)
}

// RefreshToken returns the text of the refresh token. Send it to the client and
// nowhere else.
func (t Tokens) RefreshToken() string {
	return reveal(t.refresh)
}

func reveal(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

// Login opens a session. Of template it uses Subject, Scopes and Data. That the
// client is who Subject says is for the caller to know.
//
// Where the subject was revoked within the same second, Login waits for the next
// one, as access tokens tell the time of their issue by the second.
func (i *Issuer) Login(ctx context.Context, template Session) (Tokens, error) {
	return i.login(ctx, template, "")
}

func (i *Issuer) login(ctx context.Context, template Session, address string) (Tokens, error) {
	e := SessionEvent{Action: "login", Outcome: "accepted", Subject: template.Subject, Address: address}
	t, err := i.open(ctx, template)
	e.SessionID = t.Session.ID
	if err != nil {
		e.Outcome = failureOutcome(err)
	}
	i.note(ctx, e, err)
	return t, err
}

func (i *Issuer) open(ctx context.Context, template Session) (Tokens, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, i.timeout, errSlow)
	defer cancel()
	if template.Subject == "" || !utf8.ValidString(template.Subject) {
		return Tokens{}, misuse("a login without a subject, or one that is no Unicode text")
	}
	for _, s := range template.Scopes {
		if !isScope(s) {
			return Tokens{}, misuse("a login with the scope %q, which is none", s)
		}
	}
	now := timeNow()
	token := newRefreshToken()
	r := RefreshRecord{
		Session: Session{
			ID:          rand.Text(),
			Subject:     template.Subject,
			Scopes:      template.Scopes,
			Data:        template.Data,
			CreatedAt:   now,
			RefreshedAt: now,
			EndsAt:      now.Add(i.session),
		},
		Handle:   token.handle(),
		Current:  token.hash(),
		Revision: 1,
	}
	r.ExpiresAt = earlier(now.Add(i.refresh), r.EndsAt)
	a, err := i.answerFor(ctx, r.Session, token, now)
	if err != nil {
		return Tokens{}, err
	}
	if err := i.store.Insert(ctx, r); err != nil {
		return Tokens{}, fmt.Errorf("jwtauth: insert a session: %w", err)
	}
	return a.tokens(r.Session), nil
}

// Logout ends the session with this ID, the claim sid of its access tokens, for
// good. Ending it again, or one that does not exist, is no error. After an error
// call it again: the session may have ended or not. A deadline of ctx counts, but not
// that it is canceled, as by a client that leaves.
func (i *Issuer) Logout(ctx context.Context, sessionID string) error {
	return i.logout(ctx, SessionEvent{Action: "logout", SessionID: sessionID})
}

func (i *Issuer) logout(ctx context.Context, e SessionEvent) error {
	short, cancel := i.ending(ctx)
	defer cancel()
	e.Outcome = "accepted"
	err := i.end(short, e.SessionID, timeNow())
	if err != nil {
		e.Outcome = failureOutcome(err)
	}
	i.note(ctx, e, err)
	return err
}

// LogoutAll ends all sessions of a subject, as Logout does. Sessions that are
// opened later are not touched.
func (i *Issuer) LogoutAll(ctx context.Context, subject string) error {
	return i.logoutAll(ctx, SessionEvent{Action: "logout_all", Subject: subject})
}

func (i *Issuer) logoutAll(ctx context.Context, e SessionEvent) error {
	short, cancel := i.ending(ctx)
	defer cancel()
	e.Outcome = "accepted"
	now := timeNow()
	err := i.store.RevokeSubject(short, e.Subject, now)
	if err == nil && i.revocations != nil {
		err = i.revocations.RevokeSubject(short, i.name, e.Subject, now, i.lastUse(now))
	}
	if err != nil {
		err = fmt.Errorf("jwtauth: end the sessions of a subject: %w", err)
		e.Outcome = failureOutcome(err)
	}
	i.note(ctx, e, err)
	return err
}

// end ends one session: first the store's, so that no further access token comes
// of it, and then the access tokens that are about.
func (i *Issuer) end(ctx context.Context, id string, now time.Time) error {
	err := i.store.Revoke(ctx, id, now)
	if err == nil && i.revocations != nil {
		err = i.revocations.RevokeSession(ctx, i.name, id, i.lastUse(now))
	}
	if err != nil {
		return fmt.Errorf("jwtauth: end a session: %w", err)
	}
	return nil
}

// endAccess ends the access tokens of a session that has ended, once more: what ended
// it may have failed, or its process ended, before it came to them.
func (i *Issuer) endAccess(ctx context.Context, s Session, now time.Time) error {
	until := i.lastUse(s.RevokedAt)
	if i.revocations == nil || now.After(until) {
		return nil
	}
	if err := i.revocations.RevokeSession(ctx, i.name, s.ID, until); err != nil {
		return fmt.Errorf("jwtauth: end the access tokens of a session: %w", err)
	}
	return nil
}

// lastUse is when a token that was issued by now is refused by every verifier.
func (i *Issuer) lastUse(now time.Time) time.Time { return now.Add(i.access + maxLeeway) }

// ending returns a context to end sessions with, in which a client that leaves does
// not keep its session, or the access tokens of one that has been ended.
func (i *Issuer) ending(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(i.timeout)
	if sooner, ok := ctx.Deadline(); ok {
		end = earlier(end, sooner)
	}
	return context.WithDeadlineCause(context.WithoutCancel(ctx), end, errSlow)
}

// errSlow is why a call is given up that has taken too long.
var errSlow = errors.New("jwtauth: the store takes too long")

// timeNow is the present as stores keep it.
func timeNow() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
