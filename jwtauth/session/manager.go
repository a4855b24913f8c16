package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/report"
	"github.com/usher-go/usher/internal/telemetry"
	"github.com/usher-go/usher/jwtauth"
)

// A Manager opens, refreshes and ends sessions. A [Handler] is its HTTP side. It is
// safe for concurrent use and has nothing to close.
//
// A session has one valid refresh token at any time. Exchanging it is one atomic step
// that replaces it with another one. If a token that was exchanged before is used again:
//
//   - Within [Config.Grace], the token that was exchanged last gets the same response
//     again, byte for byte. So concurrent requests and a client that retries end up with
//     the same tokens. The response is stored encrypted under the token that was
//     exchanged for it. The refresh token in it is not exchanged until then: it stays,
//     with another access token, so a request with the token before it may arrive later.
//   - Later, the token that was exchanged last is exchanged once more if nobody has used a
//     token of that response, because the response was lost, wherever on its way that was.
//     The tokens in that response are void from then on, its access tokens if there are
//     [Config.Revocations].
//   - Any other use counts as theft and ends the session with all of its tokens, no
//     matter who has them.
//
// So a lost response logs nobody out. If a thief and the user exchange one token, only one
// of them has valid tokens, and the session ends as soon as the other one uses its refresh
// token again. But two clients that refresh within the grace have the same refresh token
// afterwards: a thief who always refreshes at about the same time as the user is not
// noticed, and a short grace makes that difficult. Nothing but an exchange begins a grace.
//
// A response counts as delivered when its refresh token or its access token is used. Any [jwtauth.Verifier] with the Manager's [Manager.TrustedIssuer] records the
// latter. So a client must store the refresh token before it uses the access token, and so
// must a server that refreshes for a browser: the browser may never receive its response.
// A service that verifies the tokens with published keys records nothing; see
// [Manager.Used].
type Manager struct {
	name        string
	audiences   []string
	typ         string
	signers     signers
	store       Store
	access      time.Duration
	refresh     time.Duration
	session     time.Duration
	maxSessions int
	grace       time.Duration
	timeout     time.Duration
	claims      claimsFunc
	deliveries  *deliveries
	revoker     jwtauth.Revoker // as in the Config, for verifiers
	revocations jwtauth.Revoker // the same with bounded calls
	audit       func(context.Context, Event)
	reporter    *report.Reporter
	decisions   *telemetry.Decisions

	cookie string // the name of the cookie of the access tokens, if a Handler has one
}

const (
	maxLeeway = 5 * time.Minute // the largest Leeway of a [jwtauth.Verifier]
	maxSkew   = 5 * time.Minute // by which the clocks of two nodes may differ
)

// New returns a Manager, or all faults of c.
func New(c Config) (*Manager, error) {
	if c.Store == nil {
		if err := c.completeInMemory(); err != nil {
			return nil, err
		}
	}
	m := &Manager{
		name:        c.Issuer,
		audiences:   slices.Clone(c.Audiences),
		typ:         cmp.Or(c.Type, "session+jwt"),
		access:      cmp.Or(c.AccessLifetime, 15*time.Minute),
		refresh:     cmp.Or(c.RefreshLifetime, 7*24*time.Hour),
		session:     cmp.Or(c.SessionLifetime, 30*24*time.Hour),
		maxSessions: cmp.Or(c.MaxSessions, 100),
		grace:       max(cmp.Or(c.Grace, 30*time.Second), 0),
		timeout:     cmp.Or(c.Timeout, 3*time.Second),
		revoker:     c.Revocations,
		audit:       c.Audit,
		reporter:    report.New("session.Manager", c.OnError),
	}
	f := config.Of[usher.ConfigError]("session.Config")
	m.validate(f)
	m.signers = newSigners(f, c.Keys, m.typ, m.access, timeNow())
	if err := f.Err(); err != nil {
		return nil, err
	}
	m.store = guardStore(c.Store, m.timeout, c.MeterProvider)
	m.deliveries = newDeliveries(m.store, m.timeout)
	m.revocations = guardRevoker(c.Revocations, m.timeout, c.MeterProvider)
	m.claims = guardClaims(c.Claims, m.timeout)
	m.decisions = refreshes.Decisions(c.MeterProvider)
	return m, nil
}

// TrustedIssuer returns m as an issuer for the Config of a [jwtauth.Verifier], with its
// name, audiences, algorithms, keys, profile and revocations, and with [Manager.Used].
// Verifiers in other services need another [jwk.Set], for instance a [jwk.Remote] of
// [Manager.ServeJWKS].
func (m *Manager) TrustedIssuer() jwtauth.TrustedIssuer {
	t := jwtauth.TrustedIssuer{
		Issuer:      m.name,
		Audiences:   slices.Clone(m.audiences),
		Keys:        m.Keys(),
		Profile:     jwtauth.ProfileSession,
		Types:       []string{m.typ},
		Revocations: m.revoker,
		OnVerified:  m.Used,
	}
	for n := range m.signers {
		if a := m.signers[n].key.Algorithm(); !slices.Contains(t.Algorithms, a) {
			t.Algorithms = append(t.Algorithms, a)
		}
	}
	return t
}

// forCookie returns m for a Handler that delivers the access tokens in a cookie. They
// share everything else.
func (m *Manager) forCookie(name string) *Manager {
	limited := *m
	limited.cookie = name
	return &limited
}

// Tokens is the result of a login or a refresh. Printing or encoding it does not reveal
// the tokens.
type Tokens struct {
	// Session is the session at the time of the login or refresh.
	Session Session
	// Scopes are those of the access token: the session's, or fewer if a refresh asked for
	// fewer.
	Scopes []string
	// AccessLifetime and RefreshLifetime are how long the tokens are valid from the
	// time of the response, in whole seconds.
	AccessLifetime, RefreshLifetime time.Duration

	// Pointers, because fmt prints unexported fields without calling their methods.
	access, refresh *string
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

// Login opens a session with the Subject, Client, Scopes and Data of template. If its
// EndsAt is not zero, the session ends then, unless [Config.SessionLifetime] ends it
// sooner. The caller must have verified that the client is the subject.
//
// If the subject has [Config.MaxSessions] sessions already, Login ends the one that was
// refreshed least recently. If the access tokens of that session cannot be revoked, the
// login fails, and they are accepted until they expire or the refresh token of that
// session is used.
//
// If the application itself has revoked the subject, with [Config.Revocations] and within
// the same second, Login waits for the next second, because the iat of access tokens has
// whole seconds. After a [Manager.LogoutAll] it does not wait.
func (m *Manager) Login(ctx context.Context, template Session) (Tokens, error) {
	return m.login(ctx, template, netip.Addr{})
}

func (m *Manager) login(ctx context.Context, template Session, address netip.Addr) (Tokens, error) {
	e := Event{Action: "login", Outcome: "accepted", Subject: template.Subject, Address: address}
	t, err := m.open(ctx, template, &e)
	if err != nil {
		e.Outcome = failureOutcome(err)
	}
	m.note(ctx, e, err)
	if err != nil && e.SessionID != "" {
		// Nobody receives the tokens of this session. If it cannot be ended, it expires.
		_, _ = m.logout(ctx, Event{Action: "logout", SessionID: e.SessionID, Subject: e.Subject, Address: address}, true)
	}
	return t, err
}

func (m *Manager) open(ctx context.Context, template Session, e *Event) (Tokens, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.timeout, errSlow)
	defer cancel()
	now := timeNow()
	if err := checkTemplate(&template, now); err != nil {
		return Tokens{}, err
	}
	token := newRefreshToken()
	r := Record{
		Session: Session{
			ID:          rand.Text(),
			Subject:     template.Subject,
			Client:      template.Client,
			Scopes:      template.Scopes,
			Data:        template.Data,
			CreatedAt:   now,
			RefreshedAt: now,
			EndsAt:      now.Add(m.session),
		},
		Handle:   token.handle(),
		Current:  token.hash(),
		TokenID:  rand.Text(),
		Revision: 1,
	}
	if !template.EndsAt.IsZero() {
		r.EndsAt = earlier(template.EndsAt.UTC().Truncate(time.Microsecond), r.EndsAt)
	}
	r.ExpiresAt = earlier(now.Add(m.refresh), r.EndsAt)
	a, err := m.newTokens(ctx, r, r.Scopes, token, now)
	if err != nil {
		return Tokens{}, err
	}
	ended, err := m.store.Insert(ctx, r, m.maxSessions)
	if err != nil {
		return Tokens{}, fmt.Errorf("session: insert a session: %w", err)
	}
	e.SessionID, e.Ended = r.ID, ended
	if err := m.endAccessOf(ctx, ended, now); err != nil {
		return Tokens{}, err
	}
	return a.tokens(r.Session), nil
}

// errSlow is the cause when a call takes too long and is abandoned. The guard of the last
// call takes it for its own timeout. That is needed because calls share one timeout, so
// that no call exhausts its own.
var errSlow = fmt.Errorf("session: no result within the timeout: %w", guard.ErrTimeout)

// timeNow returns the present time as stores keep it.
func timeNow() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
