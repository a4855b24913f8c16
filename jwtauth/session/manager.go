package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/report"
	"github.com/usher-go/usher/internal/scope"
	"github.com/usher-go/usher/internal/telemetry"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// A Manager opens, refreshes and ends sessions. A [Handler] is its HTTP side. It is
// safe for concurrent use and has nothing to close. It is also the [jwk.Set] of its
// own tokens.
//
// A session has one valid refresh token at any time. Exchanging it is one atomic step
// that replaces it with another one. If a token that was exchanged before is used again:
//
//   - Within [Config.Grace], the token that was exchanged last gets the same response
//     again, byte for byte. So concurrent requests and a client that retries end up with
//     the same tokens. The response is stored encrypted under the token that was
//     exchanged for it.
//   - Later, the token that was exchanged last is exchanged once more if the response was
//     not recorded as delivered, because the server went down or the client hung up, and
//     if the token in that response was never used. The token in that response is void
//     from then on. See [Manager.Delivered].
//   - Any other use counts as theft and ends the session with all of its tokens, no
//     matter who has them.
//
// So a lost response logs nobody out, and two clients with one token are detected as soon
// as the second one uses its token.
type Manager struct {
	name        string
	audiences   []string
	typ         string
	signers     []signer
	store       Store
	access      time.Duration
	refresh     time.Duration
	session     time.Duration
	grace       time.Duration
	timeout     time.Duration
	claims      claimsFunc
	revoker     jwtauth.Revoker // as in the Config, for verifiers
	revocations jwtauth.Revoker // the same with bounded calls
	audit       func(context.Context, Event)
	reporter    *report.Reporter
	decisions   *telemetry.Decisions
}

var _ jwk.Set = (*Manager)(nil)

// maxLeeway is the largest Leeway of a [jwtauth.Verifier].
const maxLeeway = 5 * time.Minute

// New returns a Manager, or all faults of c.
func New(c Config) (*Manager, error) {
	if c.Store == nil {
		if err := c.completeInMemory(); err != nil {
			return nil, err
		}
	}
	m := &Manager{
		name:      c.Issuer,
		audiences: slices.Clone(c.Audiences),
		typ:       cmp.Or(c.Type, "session+jwt"),
		access:    cmp.Or(c.AccessLifetime, 15*time.Minute),
		refresh:   cmp.Or(c.RefreshLifetime, 7*24*time.Hour),
		session:   cmp.Or(c.SessionLifetime, 30*24*time.Hour),
		grace:     max(cmp.Or(c.Grace, 10*time.Second), 0),
		timeout:   cmp.Or(c.Timeout, 3*time.Second),
		revoker:   c.Revocations,
		audit:     c.Audit,
		reporter:  report.New("session.Manager", c.OnError),
	}
	f := config.Of[usher.ConfigError]("session.Config")
	m.validate(f)
	m.signers = newSigners(f, c.Keys, m.typ, m.access, timeNow())
	if err := f.Err(); err != nil {
		return nil, err
	}
	m.store = guardStore(c.Store, m.timeout)
	m.revocations = guardRevoker(c.Revocations, m.timeout)
	m.claims = guardClaims(c.Claims, m.timeout)
	m.decisions = telemetry.NewDecisions(telemetry.Config{
		MeterProvider: c.MeterProvider,
		Scope:         "github.com/usher-go/usher/jwtauth/session",
		Counter:       "usher.session.refreshes",
		Description:   "Refreshes of sessions by their outcome.",
		Attribute:     "usher.session.result",
		Outcomes:      refreshOutcomeNames[:],
	})
	return m, nil
}

// TrustedIssuer returns m as an issuer for the Config of a [jwtauth.Verifier], with its
// name, audiences, algorithms, keys, profile and revocations. Verifiers in other services
// need another [jwk.Set], for instance a [jwk.Remote] of [Manager.ServeJWKS].
func (m *Manager) TrustedIssuer() jwtauth.TrustedIssuer {
	t := jwtauth.TrustedIssuer{
		Issuer:      m.name,
		Audiences:   slices.Clone(m.audiences),
		Keys:        m,
		Profile:     jwtauth.ProfileSession,
		Type:        m.typ,
		Revocations: m.revoker,
	}
	for n := range m.signers {
		if a := m.signers[n].key.Algorithm(); !slices.Contains(t.Algorithms, a) {
			t.Algorithms = append(t.Algorithms, a)
		}
	}
	return t
}

// Tokens is the result of a login or a refresh. Printing or encoding it does not reveal
// the tokens.
type Tokens struct {
	// Session is the session at the time of the login or refresh.
	Session Session
	// AccessLifetime and RefreshLifetime are how long the tokens are valid from the
	// time of the response, in whole seconds.
	AccessLifetime, RefreshLifetime time.Duration

	// Pointers, because fmt prints unexported fields without calling their methods.
	access, refresh *string
	// undelivered is the session after a rotation whose response has not been delivered
	// yet, or nil.
	undelivered *Record
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

// Login opens a session with the Subject, Scopes and Data of template. The caller must
// have verified that the client is the subject.
//
// If the subject was revoked within the same second, Login waits for the next second,
// because the iat of access tokens has whole seconds.
func (m *Manager) Login(ctx context.Context, template Session) (Tokens, error) {
	return m.login(ctx, template, netip.Addr{})
}

func (m *Manager) login(ctx context.Context, template Session, address netip.Addr) (Tokens, error) {
	e := Event{Action: "login", Outcome: "accepted", Subject: template.Subject, Address: address}
	t, err := m.open(ctx, template)
	e.SessionID = t.Session.ID
	if err != nil {
		e.Outcome = failureOutcome(err)
	}
	m.note(ctx, e, err)
	return t, err
}

func (m *Manager) open(ctx context.Context, template Session) (Tokens, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.timeout, errSlow)
	defer cancel()
	if template.Subject == "" || !isText(template.Subject) {
		return Tokens{}, misuse("the subject of a login must be valid UTF-8 without NUL and not empty")
	}
	for name, value := range template.Data {
		if !isText(name) || !isText(value) {
			return Tokens{}, misuse("the data of a login must be valid UTF-8 without NUL")
		}
	}
	for _, s := range template.Scopes {
		if !scope.Valid(s) {
			return Tokens{}, misuse("a login has the invalid scope %q", s)
		}
	}
	now := timeNow()
	token := newRefreshToken()
	r := Record{
		Session: Session{
			ID:          rand.Text(),
			Subject:     template.Subject,
			Scopes:      template.Scopes,
			Data:        template.Data,
			CreatedAt:   now,
			RefreshedAt: now,
			EndsAt:      now.Add(m.session),
		},
		Handle:   token.handle(),
		Current:  token.hash(),
		Revision: 1,
	}
	r.ExpiresAt = earlier(now.Add(m.refresh), r.EndsAt)
	a, err := m.newTokens(ctx, r.Session, token, now)
	if err != nil {
		return Tokens{}, err
	}
	if err := m.store.Insert(ctx, r); err != nil {
		return Tokens{}, fmt.Errorf("session: insert a session: %w", err)
	}
	return a.tokens(r.Session), nil
}

// isText reports whether every store can keep s. Many databases fail on other text, and
// such failures would stop the calls for other sessions.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// Logout ends the session with this ID, the claim sid of its access tokens. Ending a
// session again, or one that does not exist, is not an error. After an error call Logout
// again: the session may have ended or not. The deadline of ctx applies, but its
// cancellation does not, for instance when a client disconnects.
func (m *Manager) Logout(ctx context.Context, sessionID string) error {
	return m.logout(ctx, Event{Action: "logout", SessionID: sessionID})
}

func (m *Manager) logout(ctx context.Context, e Event) error {
	short, cancel := m.ending(ctx)
	defer cancel()
	e.Outcome = "accepted"
	err := m.end(short, e.SessionID, timeNow())
	if err != nil {
		e.Outcome = failureOutcome(err)
	}
	m.note(ctx, e, err)
	return err
}

// LogoutAll ends all sessions of a subject, as Logout does. Sessions that are opened
// later are not affected.
func (m *Manager) LogoutAll(ctx context.Context, subject string) error {
	return m.logoutAll(ctx, Event{Action: "logout_all", Subject: subject})
}

func (m *Manager) logoutAll(ctx context.Context, e Event) error {
	short, cancel := m.ending(ctx)
	defer cancel()
	e.Outcome = "accepted"
	now := timeNow()
	err := m.store.RevokeSubject(short, e.Subject, now)
	if err == nil && m.revocations != nil {
		err = m.revocations.RevokeSubject(short, m.name, e.Subject, now, m.lastUse(now))
	}
	if err != nil {
		err = fmt.Errorf("session: end the sessions of a subject: %w", err)
		e.Outcome = failureOutcome(err)
	}
	m.note(ctx, e, err)
	return err
}

// end ends a session in the store first, so that no further access token is issued, and
// then its access tokens.
func (m *Manager) end(ctx context.Context, id string, now time.Time) error {
	err := m.store.Revoke(ctx, id, now)
	if err == nil && m.revocations != nil {
		err = m.revocations.RevokeSession(ctx, m.name, id, m.lastUse(now))
	}
	if err != nil {
		return fmt.Errorf("session: end a session: %w", err)
	}
	return nil
}

// endAccess ends the access tokens of an ended session again: the call that ended the
// session may have failed, or its process stopped, before it ended them.
func (m *Manager) endAccess(ctx context.Context, s Session, now time.Time) error {
	until := m.lastUse(s.RevokedAt)
	if m.revocations == nil || now.After(until) {
		return nil
	}
	if err := m.revocations.RevokeSession(ctx, m.name, s.ID, until); err != nil {
		return fmt.Errorf("session: end the access tokens of a session: %w", err)
	}
	return nil
}

// lastUse returns the time from which every verifier refuses a token that was issued by
// now.
func (m *Manager) lastUse(now time.Time) time.Time { return now.Add(m.access + maxLeeway) }

// ending returns a context for ending a session. A client that disconnects does not
// cancel it, so that the session and its access tokens end all the same.
func (m *Manager) ending(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(m.timeout)
	if sooner, ok := ctx.Deadline(); ok {
		end = earlier(end, sooner)
	}
	return context.WithDeadlineCause(context.WithoutCancel(ctx), end, errSlow)
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
