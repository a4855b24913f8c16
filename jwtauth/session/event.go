package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/usher-go/usher/internal/guard"
)

// An Event is one entry for an audit log. It never holds a token.
type Event struct {
	// Time is when the action ended.
	Time time.Time
	// Action is login, refresh, logout or logout_all.
	Action string
	// Outcome is accepted, denied or unavailable. For a refresh it is rotated, kept,
	// replayed or recovered if the refresh succeeded; malformed, unknown, revoked, expired,
	// reused, ambiguous or wrong_client if the token was invalid; or denied or unavailable.
	// Reused means that the session was ended because two clients have its tokens. Ambiguous
	// means that there were cookies with live tokens of two subjects, or more than four
	// cookies. For a logout it is also unknown, if the subject has no such session.
	Outcome string
	// SessionID and Subject identify the session. They are empty if none was found.
	// SessionID is also empty for logout_all.
	SessionID, Subject string
	// Ended are the sessions that were live until the action ended them: that of a logout
	// or of a reused token, those of a logout_all, or those that a login has ended because
	// there were too many. If the action has failed, some or all may be missing.
	Ended []Session
	// Address is the address of the client ([clientip.Of]), if a [Handler] served the
	// request.
	Address netip.Addr
	// Err is why the action failed, for operators.
	Err error
}

// note reports a failure of the server, and calls Audit.
func (m *Manager) note(ctx context.Context, e Event, err error) {
	if e.Outcome != "unknown" {
		m.reportFailure(ctx, err)
	}
	if m.audit == nil {
		return
	}
	e.Time, e.Err = timeNow(), err
	// The action is done; its response must be sent even if Audit panics.
	if err := guard.Run(func() error { m.audit(ctx, e); return nil }); err != nil {
		m.reporter.Error(ctx, fmt.Errorf("session: Audit: %w", err))
	}
}

// reportFailure reports err unless it is nil, a refusal, or due to a client that has
// left.
func (m *Manager) reportFailure(ctx context.Context, err error) {
	switch {
	case err == nil, errors.Is(err, ErrInvalidRefreshToken), errors.Is(err, context.Canceled), failureOutcome(err) == "denied":
	default:
		m.reporter.Error(ctx, err)
	}
}
