package apikey

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"time"

	"github.com/usher-go/usher"
)

func (m *Manager) create(ctx context.Context, by Actor, template Key, see preview) (Record, Secret, error) {
	r, a, err := m.prepare(ctx, by, template)
	if err != nil {
		return r, Secret{}, err
	}
	secret, err := m.generate(&r)
	if err != nil {
		return r, Secret{}, err
	}
	if err := a.mayGrant(&r.Key, nil); err != nil {
		return r, Secret{}, err
	}
	if err := see(r.clone().Key, secret); err != nil {
		return r, Secret{}, err
	}
	return r, secret, m.store.Insert(ctx, r, m.limits.issue())
}

// prepare returns the record of a new key, without its hash, and the authority of its
// creator.
func (m *Manager) prepare(ctx context.Context, by Actor, template Key) (Record, authority, error) {
	now := storedNow()
	r := Record{Key: Key{
		Owner:       template.Owner,
		Environment: template.Environment,
		CreatedAt:   now,
		UpdatedAt:   now,
		Revision:    1,
	}}
	r.set(template)
	a, err := m.authorize(ctx, by)
	if err != nil {
		return r, a, err
	}
	if r.CreatedBy, err = a.name(); err != nil {
		return r, a, err
	}
	r.Owner = cmp.Or(r.Owner, a.Owner)
	r.Plan = cmp.Or(r.Plan, a.Plan)
	if r.Owner == "" {
		return r, a, errors.New("apikey: a key must have an owner")
	}
	if r.ID, err = m.newID(); err != nil {
		return r, a, err
	}
	if r.ExpiresAt.IsZero() && m.maxLifetime > 0 {
		r.ExpiresAt = m.maxExpiry(now)
	}
	if err := m.ask(ctx, by, nil, &r.Key); err != nil {
		return r, a, err
	}
	if err := m.check(&r.Key, nil); err != nil {
		return r, a, err
	}
	r.round(now)
	return r, a, nil
}

func (m *Manager) newID() (string, error) { return randomText(m.random, base62, 22) }

// generate returns the text of a new key for r.Environment, and sets the fields of r that
// are stored of it.
func (m *Manager) generate(r *Record) (secret Secret, err error) {
	err = callback("ManagerConfig.Format", func() error {
		secret, err = m.generateText(r)
		return err
	})
	return secret, err
}

func (m *Manager) generateText(r *Record) (Secret, error) {
	if m.format == nil {
		return Secret{}, errors.New("apikey: a Manager without a Format issues no keys")
	}
	text, err := m.format.Generate(m.random, r.Environment)
	if err != nil {
		return Secret{}, err
	}
	environment, visible, ok := m.format.Parse(text)
	if !ok || len(text) > maxLength {
		return Secret{}, errors.New("apikey: the format does not parse a key that it has generated")
	}
	if environment != "" {
		r.Environment = environment
	}
	r.Hash = m.hasher.newest(text)
	return NewSecret(text), r.show(m.format, text, m.visible, visible)
}

func (m *Manager) updateWith(ctx context.Context, by Actor, owner, id string, change func(*Key), see preview) (Key, error) {
	var r Record
	err := m.edit(ctx, by, owner, id, func(a authority, found Record, now time.Time) (err error) {
		r, err = m.update(ctx, by, a, found, change, now)
		if err != nil {
			return err
		}
		k := r.Key.clone()
		k.Revision++
		if err := see(k, Secret{}); err != nil {
			return err
		}
		err = m.store.Update(ctx, r)
		r.Revision = k.Revision
		return err
	})
	m.note(ctx, "update", by, Key{ID: id, Owner: owner}, err)
	if err != nil {
		return Key{}, err
	}
	return r.Key, nil
}

// update returns found with the settings that the function change has made.
func (m *Manager) update(ctx context.Context, by Actor, a authority, found Record, change func(*Key), now time.Time) (Record, error) {
	edited := found.Key.clone()
	change(&edited)
	r := found
	r.set(edited)
	r.UpdatedAt = now
	if err := m.ask(ctx, by, &found.Key, &r.Key); err != nil {
		return r, err
	}
	if err := m.check(&r.Key, &found.Key); err != nil {
		return r, err
	}
	r.round(now)
	if !narrower(&r.Key, &found.Key) {
		if err := a.mayGrant(&r.Key, &found.Key); err != nil {
			return r, err
		}
	}
	return r, nil
}

// set copies the settings of a key that may be changed.
func (k *Key) set(from Key) {
	k.Name, k.Description = from.Name, from.Description
	k.Metadata = nil
	if len(from.Metadata) > 0 {
		k.Metadata = maps.Clone(from.Metadata)
	}
	k.Scopes, k.Level = distinct(from.Scopes, MaxScopes), from.Level
	k.Plan, k.PlanOverride = from.Plan, from.PlanOverride
	k.AllowedNetworks = canonicalNetworks(from.AllowedNetworks)
	k.ExpiresAt, k.DisabledAt = from.ExpiresAt, from.DisabledAt
}

// ask lets ManagerConfig.Change complete or refuse the change from old to k.
func (m *Manager) ask(ctx context.Context, by Actor, old, k *Key) error {
	if m.change == nil {
		return nil
	}
	edited := k.clone()
	if old != nil {
		c := old.clone()
		old = &c
	}
	if err := callback("ManagerConfig.Change", func() error { return m.change(ctx, by, old, &edited) }); err != nil {
		return err
	}
	k.set(edited)
	if old == nil {
		k.Environment = edited.Environment
	}
	return nil
}

func (m *Manager) rotateWith(ctx context.Context, by Actor, owner, id string, grace time.Duration, see preview) (Key, Secret, error) {
	var (
		next   Record
		secret Secret
	)
	err := m.checkGrace(grace)
	if err == nil {
		err = m.edit(ctx, by, owner, id, func(a authority, found Record, now time.Time) (err error) {
			next, secret, err = m.rotate(ctx, by, a, found, grace, now, see)
			return err
		})
	}
	m.note(ctx, "rotate", by, Key{ID: id, Owner: owner}, err)
	if err != nil {
		return Key{}, Secret{}, err
	}
	return next.Key, secret, nil
}

func (m *Manager) rotate(ctx context.Context, by Actor, a authority, old Record, grace time.Duration, now time.Time, see preview) (Record, Secret, error) {
	next, err := m.successor(ctx, by, a, &old.Key, now)
	if err != nil {
		return Record{}, Secret{}, err
	}
	secret, err := m.generate(&next)
	if err != nil {
		return Record{}, Secret{}, err
	}
	if err := see(next.clone().Key, secret); err != nil {
		return Record{}, Secret{}, err
	}
	if end := canonical(now.Add(grace)); old.ExpiresAt.IsZero() || end.Before(old.ExpiresAt) {
		old.ExpiresAt = end
	}
	old.UpdatedAt, old.ReplacedBy = now, next.ID
	return next, secret, m.store.Rotate(ctx, old, next, m.limits.rotate(old.ExpiresAt.After(now)))
}

// successor returns the record of the key that replaces old, without its hash.
func (m *Manager) successor(ctx context.Context, by Actor, a authority, old *Key, now time.Time) (Record, error) {
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
	var err error
	if next.CreatedBy, err = a.name(); err != nil {
		return Record{}, err
	}
	if next.ID, err = m.newID(); err != nil {
		return Record{}, err
	}
	// The old key may have been issued under other rules.
	if bound := m.maxExpiry(now); next.ExpiresAt.After(bound) || next.ExpiresAt.IsZero() && m.maxLifetime > 0 {
		next.ExpiresAt = bound
	}
	if err := m.ask(ctx, by, old, &next.Key); err != nil {
		return Record{}, err
	}
	// A level above the present bound is lowered only by an explicit Update, never as a
	// side effect that the users of the key do not expect.
	from := *old
	from.Level = usher.LevelNone
	if err := m.check(&next.Key, &from); err != nil {
		return Record{}, err
	}
	next.round(now)
	return next, a.mayGrant(&next.Key, old)
}

func (m *Manager) revoke(ctx context.Context, by Actor, owner, id string) (Record, error) {
	a, err := m.authorizeFor(ctx, by, owner)
	if err != nil {
		return Record{}, err
	}
	if !a.system {
		found, err := m.find(ctx, owner, id)
		if err != nil {
			return Record{}, err
		}
		if err := a.mayChange(&found.Key); err != nil {
			return Record{}, err
		}
	}
	if !isID(id) {
		return Record{}, ErrNotFound
	}
	return m.store.Revoke(ctx, owner, id, storedNow())
}

// edit calls f with a key that has not ended and that the actor may change. It calls f
// again if the key is changed concurrently.
func (m *Manager) edit(ctx context.Context, by Actor, owner, id string, f func(a authority, found Record, now time.Time) error) error {
	const tries = 5
	a, err := m.authorizeFor(ctx, by, owner)
	if err != nil {
		return err
	}
	err = ErrConflict
	for range tries {
		if !errors.Is(err, ErrConflict) {
			break
		}
		found, findErr := m.find(ctx, owner, id)
		if findErr != nil {
			return findErr
		}
		now := storedNow()
		if found.Ended(now) || found.ReplacedBy != "" {
			return ErrConflict
		}
		if err := a.mayChange(&found.Key); err != nil {
			return err
		}
		err = f(a, found, now)
	}
	return err
}
