package apikey

import (
	"cmp"
	"context"
	"time"
)

// Rotate issues a key in place of one that has neither ended nor been replaced, with the
// same settings and prefix; the key that replaces a disabled one is disabled. The plan of
// the new key is the actor's, if it has one, and otherwise the one of the old key. The old
// key remains valid for grace, or until its own expiry if that is sooner; it cannot be
// rotated again, and [Manager.Update] can only narrow it. The new key expires when the old
// one would have, or sooner if [ManagerConfig.MaxLifetime] requires it. The actor must hold
// what the key grants, because it gets the text of a key that grants the same.
func (m *Manager) Rotate(ctx context.Context, by Actor, owner, id string, grace time.Duration) (Key, Secret, error) {
	return m.rotateWith(ctx, by, owner, id, grace, noPreview)
}

func (m *Manager) rotateWith(ctx context.Context, by Actor, owner, id string, grace time.Duration, see preview) (Key, Secret, error) {
	var (
		old, next Record
		secret    Secret
	)
	e := Event{Action: "rotate", Actor: by, KeyID: id, Owner: owner}
	err := m.checkGrace(grace)
	if err == nil {
		err = m.edit(ctx, by, owner, id, func(a *authority, found Record, now time.Time) (err error) {
			e.Before = &found.Key
			old, next, secret, err = m.rotate(ctx, by, a, found, grace, now, see)
			return err
		})
	}
	e.After, e.Successor = &old.Key, &next.Key
	m.record(ctx, e, err)
	if err != nil {
		return Key{}, Secret{}, err
	}
	return next.Key, secret, nil
}

// rotate replaces found, and returns it as it then is, and the key in its place.
func (m *Manager) rotate(ctx context.Context, by Actor, a *authority, found Record, grace time.Duration, now time.Time, see preview) (old, next Record, secret Secret, err error) {
	old = found
	if old.ReplacedBy != "" || old.DerivedFrom != "" {
		return old, next, secret, ErrConflict
	}
	if next, err = m.successor(&old.Key, a, now); err != nil {
		return old, next, secret, err
	}
	if err = m.settle(ctx, by, a, &next, &old.Key, m.issue(&secret)); err != nil {
		return old, next, secret, err
	}
	if err = see(next.clone().Key, secret); err != nil {
		return old, next, secret, err
	}
	if end := canonical(now.Add(grace)); old.ExpiresAt.IsZero() || end.Before(old.ExpiresAt) {
		old.ExpiresAt = end
	}
	old.UpdatedAt, old.ReplacedBy = now, next.ID
	err = m.store.Rotate(ctx, old, next, m.limits.rotate(old.ExpiresAt.After(now)))
	old.Revision++
	return old, next, secret, err
}

// successor returns the record of the key that replaces old, as it is before it is
// settled.
func (m *Manager) successor(old *Key, a *authority, now time.Time) (Record, error) {
	next := Record{Key: Key{
		Owner:       old.Owner,
		Environment: old.Environment,
		CreatedAt:   now,
		UpdatedAt:   now,
		Parent:      old.ID,
		Line:        cmp.Or(old.Line, old.ID),
		Revision:    1,
	}}
	next.set(*old)
	// The account may have another plan by now.
	next.Plan = cmp.Or(a.account, next.Plan)
	// The old key may have been issued under other rules.
	if bound := m.maxExpiry(now); next.ExpiresAt.After(bound) || next.ExpiresAt.IsZero() && m.maxLifetime > 0 {
		next.ExpiresAt = bound
	}
	return next, m.identify(&next, a)
}
