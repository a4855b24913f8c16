package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/usher-go/usher"
)

// Sessions returns the live sessions of a subject, the one that was refreshed last first.
// The session of a request is the one whose ID is the SessionID of the token that
// authenticated it. A Session has no JSON tags: show users a type of your own.
func (m *Manager) Sessions(ctx context.Context, subject string) ([]Session, error) {
	if !isSubject(subject) {
		return nil, nil
	}
	short, cancel := context.WithTimeoutCause(ctx, m.timeout, errSlow)
	defer cancel()
	list, err := m.list(short, subject, timeNow())
	m.reportFailure(ctx, err)
	return list, err
}

func (m *Manager) list(ctx context.Context, subject string, now time.Time) ([]Session, error) {
	list, err := m.store.List(ctx, subject, now)
	if slices.ContainsFunc(list, func(s Session) bool { return s.Subject != subject }) {
		err = errOther
	}
	if err != nil {
		return nil, fmt.Errorf("session: list the sessions of a subject: %w", err)
	}
	return list, nil
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
// the token. It may be an old one: any client that has had a token of a session may end
// the session. The error matches [ErrNotFound] if there is no such session, which an
// endpoint for token revocation does not treat as an error (RFC 7009, section 2.2).
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
// live until then. Sessions that are opened later are not affected. Both hold although the
// clocks of the nodes differ, by up to 5 minutes.
func (m *Manager) LogoutAll(ctx context.Context, subject string) ([]Session, error) {
	return m.logoutAll(ctx, Event{Action: "logout_all", Subject: subject}, "")
}

func (m *Manager) logoutAll(ctx context.Context, e Event, own string) ([]Session, error) {
	if !isSubject(e.Subject) {
		e.Outcome = "accepted"
		m.note(ctx, e, nil)
		return nil, nil
	}
	short, cancel := m.ending(ctx)
	defer cancel()
	err := m.endAll(short, &e, own)
	e.Outcome = "accepted"
	if err != nil {
		err = fmt.Errorf("session: end the sessions of a subject: %w", err)
		e.Outcome = failureOutcome(err)
	}
	m.note(ctx, e, err)
	return e.Ended, err
}

// endAll ends all sessions of the subject of e. It ends their access tokens by the IDs of
// the sessions, because clocks differ: a token of a node whose clock is ahead seems to be
// issued after now, and a later one of a node whose clock is behind before.
//
// A call that has failed is repeated, and the store then lists no session that it has
// ended. So endAll ends the access tokens before the sessions, except those of the session
// own, if it is not "": its access token must still permit the caller to try again.
func (m *Manager) endAll(ctx context.Context, e *Event, own string) (err error) {
	now := timeNow()
	refreshed := make(map[string]time.Time) // the sessions whose access tokens have ended
	if m.revocations != nil {
		live, err := m.list(ctx, e.Subject, now)
		if err != nil {
			return err
		}
		live = slices.DeleteFunc(live, func(s Session) bool { return s.ID == own })
		for n := range live {
			live[n].RevokedAt = now
			refreshed[live[n].ID] = live[n].RefreshedAt
		}
		if err := m.endAccessOf(ctx, live, now); err != nil {
			return err
		}
	}
	if e.Ended, err = m.store.RevokeSubject(ctx, e.Subject, now); err != nil {
		// If only the result was lost, the same call returns it again; no later one does.
		e.Ended, err = m.store.RevokeSubject(ctx, e.Subject, now)
	}
	if err != nil || m.revocations == nil {
		return err
	}
	// This ends the access tokens of sessions that the store has lost. The iat of tokens
	// has whole seconds.
	before := now.Truncate(time.Second).Add(-maxSkew)
	if err := m.revocations.RevokeSubject(ctx, m.name, e.Subject, before, m.lastUse(now)); err != nil {
		return err
	}
	// Others may have been opened or refreshed in the meantime.
	rest := slices.DeleteFunc(slices.Clone(e.Ended), func(s Session) bool {
		at, ok := refreshed[s.ID]
		return ok && at.Equal(s.RefreshedAt)
	})
	if own != "" && !slices.ContainsFunc(rest, func(s Session) bool { return s.ID == own }) {
		rest = append(rest, Session{ID: own, RefreshedAt: now, RevokedAt: now})
	}
	return m.endAccessOf(ctx, rest, now)
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

// mayHaveAccess reports whether an access token from the last refresh of s, or from one
// within its grace, may still be valid, by any clock.
func (m *Manager) mayHaveAccess(s Session, now time.Time) bool {
	return !now.After(m.lastUse(s.RefreshedAt.Add(m.grace + m.timeout + maxSkew)))
}

// endAccessOf ends the access tokens of sessions that were just ended, except of sessions
// that can have no such tokens, because their last refresh was too long ago by any clock.
func (m *Manager) endAccessOf(ctx context.Context, ended []Session, now time.Time) error {
	ended = slices.DeleteFunc(slices.Clone(ended), func(s Session) bool { return !m.mayHaveAccess(s, now) })
	return together(ended, func(s Session) error { return m.endAccess(ctx, s, now) })
}

// together calls f for each element of list, several at a time, and returns the errors.
// All calls share a timeout, and a subject may have a thousand sessions.
func together[E any](list []E, f func(E) error) error {
	const most = 8
	var (
		turns   = make(chan struct{}, most)
		errs    = make([]error, len(list))
		running sync.WaitGroup
	)
	for n, e := range list {
		turns <- struct{}{}
		running.Go(func() {
			errs[n] = f(e)
			<-turns
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// lastUse returns the time from which every verifier refuses a token that was issued by
// now, on a node whose clock may be ahead.
func (m *Manager) lastUse(now time.Time) time.Time { return now.Add(m.access + maxSkew + maxLeeway) }

// ending returns a context for ending a session. A client that disconnects does not
// cancel it, so that the session and its access tokens end all the same.
func (m *Manager) ending(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(m.timeout)
	if sooner, ok := ctx.Deadline(); ok {
		end = earlier(end, sooner)
	}
	return context.WithDeadlineCause(context.WithoutCancel(ctx), end, errSlow)
}
