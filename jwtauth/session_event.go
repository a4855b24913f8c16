package jwtauth

import (
	"context"
	"fmt"
	"time"

	"github.com/usher-go/usher/internal/guard"
)

// A SessionEvent is one entry for an audit log. It never holds a token.
type SessionEvent struct {
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
	// [SessionHandler].
	Address string
	// Err is why the action failed. It is for operators.
	Err error
}

func (i *Issuer) note(ctx context.Context, e SessionEvent, err error) {
	if i.audit == nil {
		return
	}
	e.Time, e.Err = timeNow(), err
	// What the event is of is done, and its response must be sent whatever becomes of
	// the audit.
	if err := guard.Run(func() error { i.audit(ctx, e); return nil }); err != nil {
		tell(i.onError, fmt.Errorf("jwtauth: Audit: %w", err))
	}
}
