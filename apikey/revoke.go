package apikey

import (
	"context"
)

// Revoke ends a key immediately and permanently, and returns it. Revoking a revoked
// key changes nothing. The actor must hold what the key grants.
func (m *Manager) Revoke(ctx context.Context, by Actor, owner, id string) (Key, error) {
	e := Event{Action: "revoke", Actor: by, KeyID: id, Owner: owner}
	a, err := m.authorizeFor(ctx, by, owner)
	var r Record
	if err == nil {
		e.Before, r, err = m.revoke(ctx, &a, owner, id)
		e.After = &r.Key
	}
	m.record(ctx, e, err)
	if err != nil {
		return Key{}, err
	}
	return r.Key, nil
}

// revoke revokes a key if the actor may do so. It returns the key as it was, if that is
// known, and as it then is.
func (m *Manager) revoke(ctx context.Context, a *authority, owner, id string) (before *Key, after Record, err error) {
	if !isID(id) {
		return nil, after, ErrNotFound
	}
	if !a.system || m.audit != nil {
		found, err := m.find(ctx, owner, id)
		switch {
		case err == nil:
			before = &found.Key
		case !a.system:
			return nil, after, err
		}
		// The server revokes a key even if it cannot be read for the audit.
		if err := a.mayChange(&found.Key); err != nil {
			return before, after, err
		}
	}
	after, err = m.store.Revoke(ctx, owner, id, storedNow())
	return before, after, err
}
