package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-go/usher"
)

// Sessions returns the live sessions of a subject, the one that was refreshed last first.
// The session of a request is the one whose ID is the SessionID of the token that
// authenticated it.
func (m *Manager) Sessions(ctx context.Context, subject string) ([]Session, error) {
	if !isSubject(subject) {
		return nil, nil
	}
	short, cancel := context.WithTimeoutCause(ctx, m.timeout, errSlow)
	defer cancel()
	list, err := m.store.List(short, subject, timeNow())
	if slices.ContainsFunc(list, func(s Session) bool { return s.Subject != subject }) {
		list, err = nil, errOther
	}
	if err != nil {
		err = fmt.Errorf("session: list the sessions of a subject: %w", err)
		m.reportFailure(ctx, err)
	}
	return list, err
}

// errOther is the error if a store returns data that was not asked for.
var errOther = fmt.Errorf("the store has returned another session: %w", usher.ErrCorrupt)

// Logout ends the subject's session with this ID, the claims sub and sid of its access
// tokens, and returns it as it then is. If there is no such session, or if it is of
// another subject, Logout does nothing and returns [ErrNotFound]; so the ID may be one
// that the subject has chosen from its [Manager.Sessions]. Ending an ended session again
// is not an error while the store keeps it. After any other error call Logout again: the
// session may have ended or not. The deadline of ctx applies, but its cancellation does
// not, for instance when a client disconnects.
func (m *Manager) Logout(ctx context.Context, subject, sessionID string) (Session, error) {
	return m.logout(ctx, Event{Action: "logout", SessionID: sessionID, Subject: subject}, false)
}

// LogoutByToken ends the session of a refresh token, as Logout does, without exchanging
// the token. It may be an old one: any client that has had a token of a session may end the
// session. The error matches [ErrNotFound] if there is no such session, which an endpoint for token
// revocation does not treat as an error (RFC 7009, section 2.2).
func (m *Manager) LogoutByToken(ctx context.Context, token string) (Session, error) {
	return m.logoutByToken(ctx, token, netip.Addr{})
}

func (m *Manager) logoutByToken(ctx context.Context, text string, address netip.Addr) (Session, error) {
	token, ok := parseRefreshToken(text)
	if !ok {
		return Session{}, fmt.Errorf("session: end a session: %w", ErrNotFound)
	}
	short, cancel := m.ending(ctx)
	defer cancel()
	r, err := m.lookup(short, token)
	if err != nil {
		if !errors.Is(err, ErrNotFound) {
			m.reportFailure(ctx, err)
		}
		return Session{}, err
	}
	s, err := m.logout(ctx, Event{Action: "logout", SessionID: r.ID, Subject: r.Subject, Address: address}, true)
	if s.ID == "" { // the store has it no more, or has failed
		s = r.Session
	}
	return s, err
}

// logout ends the session that e identifies. If certain is set, the session is known to
// be the subject's, and it is not an error if the store has it no more.
func (m *Manager) logout(ctx context.Context, e Event, certain bool) (Session, error) {
	short, cancel := m.ending(ctx)
	defer cancel()
	s, err := m.end(short, &e, certain)
	switch {
	case err == nil:
		e.Outcome = "accepted"
	case errors.Is(err, ErrNotFound):
		e.Outcome = "unknown"
	default:
		e.Outcome = failureOutcome(err)
	}
	m.note(ctx, e, err)
	return s, err
}

// LogoutAll ends all sessions of a subject, as Logout does, and returns those that were
// live until then. Sessions that are opened later are not affected.
func (m *Manager) LogoutAll(ctx context.Context, subject string) ([]Session, error) {
	return m.logoutAll(ctx, Event{Action: "logout_all", Subject: subject})
}

func (m *Manager) logoutAll(ctx context.Context, e Event) ([]Session, error) {
	if !isSubject(e.Subject) {
		e.Outcome = "accepted"
		m.note(ctx, e, nil)
		return nil, nil
	}
	short, cancel := m.ending(ctx)
	defer cancel()
	now := timeNow()
	var err error
	e.Ended, err = m.store.RevokeSubject(short, e.Subject, now)
	if err == nil && m.revocations != nil {
		// This also ends the access tokens of sessions that have ended before.
		err = m.revocations.RevokeSubject(short, m.name, e.Subject, now, m.lastUse(now))
	}
	if err == nil {
		// This also ends those that were issued by a node whose clock is ahead.
		err = m.endAccessOf(short, e.Ended, now)
	}
	e.Outcome = "accepted"
	if err != nil {
		err = fmt.Errorf("session: end the sessions of a subject: %w", err)
		e.Outcome = failureOutcome(err)
	}
	m.note(ctx, e, err)
	return e.Ended, err
}

// end ends the session that e identifies in the store first, so that no further access
// token is issued, and then its access tokens. See logout.
func (m *Manager) end(ctx context.Context, e *Event, certain bool) (Session, error) {
	now := timeNow()
	s, err := Session{}, ErrNotFound
	if isSubject(e.Subject) && isID(e.SessionID) {
		s, err = m.store.Revoke(ctx, e.Subject, e.SessionID, now)
	}
	switch {
	case certain && errors.Is(err, ErrNotFound):
		err = nil
	case err == nil && (s.ID != e.SessionID || s.Subject != e.Subject):
		err = errOther
	case err == nil && s.endedAt(now):
		e.Ended = []Session{s}
	}
	if err == nil && m.revocations != nil {
		err = m.revocations.RevokeSession(ctx, m.name, e.SessionID, m.lastUse(now))
	}
	if err != nil {
		return Session{}, fmt.Errorf("session: end a session: %w", err)
	}
	return s, nil
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

// endAccessOf ends the access tokens of sessions that were just ended, except of sessions
// that can have no such tokens, because their last refresh was too long ago by any clock.
func (m *Manager) endAccessOf(ctx context.Context, ended []Session, now time.Time) error {
	var errs []error
	for _, s := range ended {
		if !now.After(m.lastUse(s.RefreshedAt.Add(m.timeout + maxLeeway))) {
			errs = append(errs, m.endAccess(ctx, s, now))
		}
	}
	return errors.Join(errs...)
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
