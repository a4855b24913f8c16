package apikey

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
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

// RevokeLine revokes a key and all keys of its line: those that rotations have led to it
// from, and those that rotations have issued since, even concurrently. It returns all of
// them, in no order. The actor must hold what each key grants that has not ended; otherwise
// none is revoked. After a failure of the store, some may be revoked, and the call can be
// repeated.
func (m *Manager) RevokeLine(ctx context.Context, by Actor, owner, id string) ([]Key, error) {
	a, err := m.authorizeFor(ctx, by, owner)
	var keys []Key
	if err == nil {
		keys, err = m.line(ctx, &a, owner, id)
	}
	// A rotation that comes first has left the ID of the new key in the one that is revoked
	// here, and one that comes later is refused.
	for i := 0; i < len(keys) && err == nil; i++ {
		if keys[i].RevokedAt.IsZero() {
			err = m.revokeOfLine(ctx, by, &keys[i])
		}
		if next := keys[i].ReplacedBy; err == nil && next != "" && !slices.ContainsFunc(keys, func(k Key) bool { return k.ID == next }) {
			keys, err = m.addToLine(ctx, &a, owner, next, keys)
		}
	}
	if err != nil {
		m.note(ctx, "revoke_line", by, Key{ID: id, Owner: owner}, err)
		return nil, err
	}
	return keys, nil
}

// line returns the keys of the line of a key that are stored at present, if the actor may
// revoke them.
func (m *Manager) line(ctx context.Context, a *authority, owner, id string) ([]Key, error) {
	found, err := m.find(ctx, owner, id)
	if err != nil {
		return nil, err
	}
	// A key of the middle may have been purged, so following the links is not enough. One
	// call lists all keys, so that no concurrent purge moves any from one page to another.
	limit := 1000
	all, total, err := m.store.List(ctx, owner, 0, limit)
	for err == nil && total > limit {
		limit = 2 * total
		all, total, err = m.store.List(ctx, owner, 0, limit)
	}
	if err != nil {
		return nil, err
	}
	keys := []Key{found.Key}
	line := cmp.Or(found.Line, found.ID)
	for _, k := range all {
		if k.ID != found.ID && cmp.Or(k.Line, k.ID) == line {
			keys = append(keys, k)
		}
	}
	now := storedNow()
	for i := range keys {
		if err := a.mayEnd(&keys[i], now); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// addToLine adds the owner's key with this ID, if it is stored.
func (m *Manager) addToLine(ctx context.Context, a *authority, owner, id string, keys []Key) ([]Key, error) {
	r, err := m.find(ctx, owner, id)
	switch {
	case errors.Is(err, ErrNotFound): // it was purged
		return keys, nil
	case err == nil:
		err = a.mayEnd(&r.Key, storedNow())
	}
	return append(keys, r.Key), err
}

// revokeOfLine revokes k, unless it was purged.
func (m *Manager) revokeOfLine(ctx context.Context, by Actor, k *Key) error {
	r, err := m.store.Revoke(ctx, k.Owner, k.ID, storedNow())
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		before := *k
		*k = r.Key
		m.record(ctx, Event{Action: "revoke_line", Actor: by, KeyID: k.ID, Owner: k.Owner, Before: &before, After: k}, nil)
	}
	return err
}

// mayEnd returns why the actor may not end k, or nil. Nobody loses a key that has ended.
func (a *authority) mayEnd(k *Key, now time.Time) error {
	if k.Ended(now) {
		return nil
	}
	return a.mayChange(k)
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
