package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/usher-go/usher/internal/guard"
)

// A Event is one entry for an audit log. It never holds a token.
type Event struct {
	// Time is when it happened.
	Time time.Time
	// Action is login, refresh, logout or logout_all.
	Action string
	// Outcome is accepted, denied or unavailable. That of a refresh is rotated,
	// replayed or recovered if it went well; malformed, unknown, revoked, expired,
	// reused or ambiguous if the token was not good; or denied or unavailable. Reused
	// means that the session was ended, as two hold its tokens; ambiguous that there
	// were cookies with live tokens of two subjects, or more than four.
	Outcome string
	// SessionID and Subject name the session. They are empty where none was found,
	// and SessionID is for logout_all; Subject may be for logout.
	SessionID, Subject string
	// Address is where the client is, if the request came through a
	// [Handler].
	Address string
	// Err is why the action failed. It is for operators.
	Err error
}

// note reports what the server failed at, and tells Audit of the event.
func (m *Manager) note(ctx context.Context, e Event, err error) {
	m.reportFailure(ctx, err)
	if m.audit == nil {
		return
	}
	e.Time, e.Err = timeNow(), err
	// What the event is of is done, and its response must be sent whatever becomes of
	// the audit.
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
