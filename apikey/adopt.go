package apikey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// adopt stores the key with this text if o has it, and reports whether it is stored.
func (m *Manager) adopt(ctx context.Context, o *legacy, text string) (bool, error) {
	secret := NewSecret(text)
	k, stored, err := o.search(ctx, secret)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("finding a key: %w", err)
	}
	switch ok, err := o.verify(ctx, stored, secret); {
	case err != nil:
		return false, fmt.Errorf("verifying a key: %w", err)
	case !ok:
		return false, nil
	}
	by := Actor{System: true}
	r, err := m.adopted(ctx, by, &k, o.format, text)
	if err == nil {
		err = m.store.Insert(ctx, r, Limits{})
	}
	if errors.Is(err, ErrConflict) {
		return m.adoptedBefore(ctx, by, &r, text)
	}
	m.note(ctx, "import", by, r.Key, err)
	if err != nil {
		return false, err
	}
	return true, m.recheck(ctx, by, o, &r, secret)
}

// adopted returns the record of a key of a Legacy.
func (m *Manager) adopted(ctx context.Context, by Actor, k *Key, f format, text string) (Record, error) {
	now := storedNow()
	environment, visible, _ := f.Parse(text)
	r := Record{Hash: m.hasher.newest(text), Key: Key{
		ID:          k.ID,
		Owner:       k.Owner,
		Environment: k.Environment,
		CreatedBy:   cmp.Or(k.CreatedBy, "system"),
		Revision:    1,
	}}
	r.set(*k)
	if err := cmp.Or(r.show(f.Format, text, 0, visible), m.ask(ctx, by, nil, &r.Key)); err != nil {
		return r, err
	}
	r.Environment = cmp.Or(environment, r.Environment)
	if bound := m.maxExpiry(now); r.ExpiresAt.After(bound) || r.ExpiresAt.IsZero() && m.maxLifetime > 0 {
		r.ExpiresAt = bound
	}
	switch {
	case !isID(r.ID):
		return r, fmt.Errorf("a key must have an ID of 1 to %d letters, digits, %q and %q", MaxID, "-", "_")
	case !isOwner(r.Owner):
		return r, errors.New("a key must have an owner")
	case !isText(r.CreatedBy, MaxCreatedBy) || !isText(k.DisabledBy, MaxCreatedBy):
		return r, errors.New("the name of an actor is too long, or not text")
	}
	if err := r.date(k, now); err != nil {
		return r, err
	}
	if !r.DisabledAt.IsZero() {
		r.DisabledBy = cmp.Or(k.DisabledBy, "system")
	}
	// The rules for a new key, except that this one may have expired already.
	rules := r.Key
	rules.CreatedAt, rules.UpdatedAt, rules.ExpiresAt = now, now, m.maxExpiry(now)
	if err := m.check(&rules, nil); err != nil {
		return r, err
	}
	r.round(now)
	return r, nil
}

// date sets the times of k that are in the past, as stores keep them.
func (r *Record) date(k *Key, now time.Time) error {
	for _, t := range []time.Time{k.CreatedAt, k.UpdatedAt, k.RevokedAt, k.LastUsedAt, r.ExpiresAt} {
		// The first microsecond of the year 1 would become never.
		if !t.IsZero() && (canonical(t).IsZero() || t.Before(time.Time{}) || t.After(latest)) {
			return errors.New("a time must be in the years 1 to 9999")
		}
	}
	past := func(t time.Time) time.Time {
		if t.After(now) {
			t = now
		}
		return canonical(t)
	}
	r.CreatedAt, r.UpdatedAt, r.RevokedAt = past(k.CreatedAt), past(k.UpdatedAt), past(k.RevokedAt)
	if r.CreatedAt.IsZero() {
		r.CreatedAt = now
	}
	if r.UpdatedAt.Before(r.CreatedAt) {
		r.UpdatedAt = r.CreatedAt
	}
	if r.LastUsedAt = past(k.LastUsedAt); !r.LastUsedAt.IsZero() {
		r.LastUsedFrom = k.LastUsedFrom.Unmap().WithZone("")
	}
	return nil
}

// adoptedBefore reports whether the store has the key with this text, after it has refused
// r because its ID or its hash is in use.
func (m *Manager) adoptedBefore(ctx context.Context, by Actor, r *Record, text string) (bool, error) {
	found, err := m.store.Find(ctx, r.Owner, r.ID)
	if errors.Is(err, ErrNotFound) {
		found, err = m.store.Lookup(ctx, r.Hash)
	}
	if err == nil {
		i := slices.IndexFunc(m.hasher.peppers, func(p pepper) bool { return p.version == found.Hash[0] })
		switch {
		case i < 0:
			err = fmt.Errorf("the key is stored under pepper version %d, which is not configured", found.Hash[0])
		case m.hasher.peppers[i].hash(text) == found.Hash:
			if c, ok := m.source.(*Cache); ok {
				c.entries.Forget(found.Hash) // it may be known as unknown
			}
			return true, nil
		default:
			// Verify accepts several texts for the row, or the row has had another text.
			m.note(ctx, "import", by, r.Key, errors.New("the key is stored already, with another text"))
			return false, nil
		}
	} else if errors.Is(err, ErrNotFound) {
		err = errors.New("another key has the ID of this one")
	}
	m.note(ctx, "import", by, r.Key, err)
	return false, err
}

// recheck revokes r, which was stored a moment ago, if the old system has revoked or removed
// it since it was found.
func (m *Manager) recheck(ctx context.Context, by Actor, o *legacy, r *Record, text Secret) error {
	if !r.RevokedAt.IsZero() {
		return nil
	}
	k, _, err := o.search(ctx, text)
	switch {
	case err == nil && k.RevokedAt.IsZero():
		return nil
	case err != nil && !errors.Is(err, ErrNotFound):
		return fmt.Errorf("finding a key: %w", err)
	}
	revoked, err := m.store.Revoke(ctx, r.Owner, r.ID, storedNow())
	m.record(ctx, Event{Action: "revoke", Actor: by, KeyID: r.ID, Owner: r.Owner, Before: &r.Key, After: &revoked.Key}, err)
	return err
}
