package apikey

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/usher-go/usher/internal/exchange"
)

// An Event is one entry for an audit log. It never holds key material.
type Event struct {
	// Time is when the event happened.
	Time time.Time
	// Action is authenticate, create, import, derive, update, rotate, revoke, revoke_line,
	// revoke_all or purge.
	Action string
	// Verdict is the outcome of authenticate, and [Accepted] or [Denied] for the
	// other actions.
	Verdict Verdict
	// KeyID and Owner identify the key. They are empty if no key was found, because the
	// caller's own claims cannot be trusted without a valid key, and for a purge. A derive
	// that fails has the ID of the key from which it was to derive another.
	KeyID, Owner string
	// Actor is the caller. For authenticate, its Principal is the key's, if the key was
	// accepted.
	Actor Actor
	// Before and After are copies of the key before and after a change. Before is nil for
	// a new key, for revoke_all, and if the key could not be read; After is nil if the
	// action failed. Both are nil for authenticate and purge.
	Before, After *Key
	// Successor is a copy of the key that a rotation has issued, and nil for other
	// actions.
	Successor *Key
	// Err is why the action failed. It is for operators.
	Err error
}

// note passes the outcome of an action to Audit, and a failure to OnError. k is the key
// after the action, or identifies it if the action has failed.
func (m *Manager) note(ctx context.Context, action string, by Actor, k Key, err error) {
	m.record(ctx, Event{Action: action, Actor: by, KeyID: k.ID, Owner: k.Owner, After: &k}, err)
}

// record completes e and passes it to Audit, and err to OnError. Audit gets copies of the
// keys.
func (m *Manager) record(ctx context.Context, e Event, err error) {
	m.failed(ctx, e.Action, err)
	if m.audit == nil {
		return
	}
	e.Time, e.Verdict, e.Err = time.Now(), Accepted, err
	if err != nil {
		e.Verdict, e.After, e.Successor = Denied, nil, nil
	}
	for _, k := range []**Key{&e.Before, &e.After, &e.Successor} {
		if *k != nil {
			c := (*k).clone()
			*k = &c
		}
	}
	m.failed(ctx, e.Action, callback("ManagerConfig.Audit", func() error { m.audit(ctx, e); return nil }))
}

// failed passes err to OnError if err is a failure of the server: not a result of the
// store, not a response to the client, and not caused by a client that has left.
func (m *Manager) failed(ctx context.Context, action string, err error) {
	if err == nil || isResult(err) || isClientError(err) || exchange.Left(ctx) && errors.Is(err, context.Cause(ctx)) {
		return
	}
	m.report.Error(ctx, fmt.Errorf("apikey: %s: %w", action, err))
}
