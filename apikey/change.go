package apikey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/usher-go/usher"
)

func (m *Manager) create(ctx context.Context, by Actor, template Key, see preview) (Record, Secret, error) {
	var secret Secret
	r, err := m.prepare(ctx, by, template, m.issue(&secret))
	if err != nil {
		return r, Secret{}, err
	}
	if err := see(r.clone().Key, secret); err != nil {
		return r, Secret{}, err
	}
	return r, secret, m.store.Insert(ctx, r, m.limits.issue())
}

// prepare returns the record of a new key. text sets what is stored of the text of the key.
func (m *Manager) prepare(ctx context.Context, by Actor, template Key, text func(*Record) error) (Record, error) {
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
		return r, err
	}
	r.Owner = cmp.Or(r.Owner, a.Owner)
	r.Plan = cmp.Or(r.Plan, a.Plan)
	if r.Owner == "" {
		return r, errors.New("apikey: a key must have an owner")
	}
	if err := m.identify(&r, &a); err != nil {
		return r, err
	}
	if r.ExpiresAt.IsZero() && m.maxLifetime > 0 {
		r.ExpiresAt = m.maxExpiry(now)
	}
	return r, m.settle(ctx, by, &a, &r, nil, text)
}

// identify sets the ID of a new key and who has created it.
func (m *Manager) identify(r *Record, a *authority) (err error) {
	if r.CreatedBy, err = a.name(); err != nil {
		return err
	}
	r.ID, err = randomText(m.random, base62, 22)
	return err
}

// settle completes r, which is about to be stored, or returns why it must not be. Every
// method that makes or changes a key calls it, so that each rule holds for all of them. old
// is the key before the change, or the one that r replaces or is derived from, or nil. text,
// if not nil, sets what is stored of the text of a new key, and may set its environment.
func (m *Manager) settle(ctx context.Context, by Actor, a *authority, r *Record, old *Key, text func(*Record) error) error {
	if err := m.ask(ctx, by, old, &r.Key); err != nil {
		return err
	}
	// Change may have taken its time, and a key that has ended stays so.
	if old != nil && old.Ended(storedNow()) {
		return ErrConflict
	}
	if err := m.check(&r.Key, unchecked(&r.Key, old)); err != nil {
		return err
	}
	r.round(r.UpdatedAt)
	if err := a.disable(&r.Key, old); err != nil {
		return err
	}
	if text != nil {
		if err := text(r); err != nil {
			return err
		}
	}
	if old != nil && old.ID == r.ID {
		switch {
		case narrower(&r.Key, old):
			return nil
		case old.ReplacedBy != "" || old.DerivedFrom != "":
			return errNarrow
		}
	}
	return a.mayGrant(&r.Key, old)
}

// unchecked returns the key whose settings k may have even if they break a rule, because
// they stem from other rules; or nil.
func unchecked(k, old *Key) *Key {
	switch {
	case old == nil || k.DerivedFrom == old.ID:
		return nil
	case old.ID == k.ID:
		return old
	}
	// A level above the present bound is lowered only by an explicit Update, never as a
	// side effect of a rotation that the users of the key do not expect.
	from := *old
	from.Level = usher.LevelNone
	return &from
}

// issue returns a function that generates the text of a new key for r.Environment, sets
// what is stored of it, and sets secret.
func (m *Manager) issue(secret *Secret) func(r *Record) error {
	return func(r *Record) error {
		return callback("ManagerConfig.Format", func() (err error) {
			*secret, err = m.generate(r)
			return err
		})
	}
}

func (m *Manager) generate(r *Record) (Secret, error) {
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
	e := Event{Action: "update", Actor: by, KeyID: id, Owner: owner}
	var r Record
	err := m.edit(ctx, by, owner, id, func(a *authority, found Record, now time.Time) (err error) {
		e.Before = &found.Key
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
	e.After = &r.Key
	m.record(ctx, e, err)
	if err != nil {
		return Key{}, err
	}
	return r.Key, nil
}

// update returns found with the settings that the function change has made.
func (m *Manager) update(ctx context.Context, by Actor, a *authority, found Record, change func(*Key), now time.Time) (Record, error) {
	edited := found.Key.clone()
	change(&edited)
	r := found
	r.set(edited)
	r.UpdatedAt = now
	return r, m.settle(ctx, by, a, &r, &found.Key, nil)
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

// edit calls f with a key that has not ended and that the actor may change. It calls f
// again if the key is changed concurrently.
func (m *Manager) edit(ctx context.Context, by Actor, owner, id string, f func(a *authority, found Record, now time.Time) error) error {
	const tries = 5
	a, err := m.authorizeFor(ctx, by, owner)
	if err != nil {
		return err
	}
	for range tries {
		found, findErr := m.find(ctx, owner, id)
		if findErr != nil {
			return findErr
		}
		now := storedNow()
		if found.Ended(now) {
			return ErrConflict
		}
		if err := a.mayChange(&found.Key); err != nil {
			return err
		}
		if err = f(&a, found, now); !errors.Is(err, ErrConflict) || errors.Is(err, errNarrow) {
			break
		}
	}
	return err
}

// errNarrow is the conflict of a change with the key as it is, which no repetition solves.
var errNarrow = fmt.Errorf("%w: a key that is replaced or derived can only be narrowed", ErrConflict)
