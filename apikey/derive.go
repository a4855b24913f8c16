package apikey

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/usher-go/usher"
)

// derivedLifetime is the lifetime of a derived key that is not specified.
const derivedLifetime = time.Hour

// Derive issues a key for a job or an agent that works for the key with this ID, its parent:
// a key that grants no more, and that ends soon. It is refused as soon as its parent is
// revoked, disabled or removed, has expired, or is used from a network that the parent does
// not allow; and it never grants more than the parent does at that moment.
//
// Derive uses of template what [Manager.Update] may set. The scopes, the level and the
// networks must be among the parent's; no networks mean the parent's. A zero ExpiresAt means
// the earliest of one hour from now, [ManagerConfig.MaxDerivedLifetime], and the expiries of
// the parent and of the actor's own key; a later one than MaxDerivedLifetime or the
// parent's is refused. The environment is the parent's, and so are both plans; only the
// server can give others. The actor must hold what the key grants, as for [Manager.Create],
// so it may be the parent itself.
//
// The parent must be neither ended, disabled nor replaced, and not derived itself; otherwise
// the result is ErrConflict. A derived key can be found, revoked and narrowed like others,
// but neither widened nor rotated, and can manage no keys.
func (m *Manager) Derive(ctx context.Context, by Actor, owner, id string, template Key) (Key, Secret, error) {
	return m.deriveWith(ctx, by, owner, id, template, noPreview)
}

func (m *Manager) deriveWith(ctx context.Context, by Actor, owner, id string, template Key, see preview) (Key, Secret, error) {
	r, secret, err := m.derive(ctx, by, owner, id, template, see)
	if err != nil {
		m.note(ctx, "derive", by, Key{ID: id, Owner: owner}, err)
		return Key{}, Secret{}, err
	}
	m.note(ctx, "derive", by, r.Key, nil)
	return r.Key, secret, nil
}

func (m *Manager) derive(ctx context.Context, by Actor, owner, id string, template Key, see preview) (Record, Secret, error) {
	var secret Secret
	a, err := m.authorizeFor(ctx, by, owner)
	if err != nil {
		return Record{}, secret, err
	}
	parent, err := m.find(ctx, owner, id)
	if err != nil {
		return Record{}, secret, err
	}
	now := storedNow()
	if !parent.Active(now) || parent.ReplacedBy != "" || parent.DerivedFrom != "" {
		return Record{}, secret, ErrConflict
	}
	if e := template.Environment; e != "" && e != parent.Environment {
		return Record{}, secret, errEnvironment
	}
	r := m.child(&parent, template, &a, now)
	if err := m.identify(&r, &a); err != nil {
		return r, secret, err
	}
	err = m.settle(ctx, by, &a, &r, &parent.Key, func(r *Record) error {
		if err := m.issue(&secret)(r); err != nil {
			return err
		}
		return mayDerive(&r.Key, &parent.Key)
	})
	if err != nil {
		return r, secret, err
	}
	if err := see(r.clone().Key, secret); err != nil {
		return r, secret, err
	}
	return r, secret, m.store.Insert(ctx, r, m.limits.derive())
}

// child returns the record of a key that is derived from parent, as it is before it is
// settled.
func (m *Manager) child(parent *Record, template Key, a *authority, now time.Time) Record {
	r := Record{DerivedFromHash: parent.Hash, Key: Key{
		Owner:       parent.Owner,
		Environment: parent.Environment,
		CreatedAt:   now,
		UpdatedAt:   now,
		DerivedFrom: parent.ID,
		Revision:    1,
	}}
	r.set(template)
	if len(r.AllowedNetworks) == 0 {
		r.AllowedNetworks = slices.Clone(parent.AllowedNetworks)
	}
	if a.system {
		r.Plan, r.PlanOverride = cmp.Or(r.Plan, parent.Plan), cmp.Or(r.PlanOverride, parent.PlanOverride)
	} else {
		r.Plan, r.PlanOverride = parent.Plan, parent.PlanOverride
	}
	if r.ExpiresAt.IsZero() {
		r.ExpiresAt = now.Add(min(derivedLifetime, m.maxDerived))
		for _, end := range []time.Time{m.maxExpiry(now), parent.ExpiresAt, a.expires} {
			if !end.IsZero() && end.Before(r.ExpiresAt) {
				r.ExpiresAt = end
			}
		}
	}
	return r
}

var errEnvironment = forbidden("A derived key must belong to the environment of its parent.")

// mayDerive returns why nobody may derive k from parent, or nil.
func mayDerive(k, parent *Key) error {
	switch {
	case k.Environment != parent.Environment: // the format has named another
		return errEnvironment
	case slices.ContainsFunc(k.Scopes, func(s string) bool { return !slices.Contains(parent.Scopes, s) }):
		return &usher.Error{
			Status:  http.StatusForbidden,
			Code:    usher.CodeInsufficientScope,
			Message: "A derived key cannot have a scope that its parent lacks.",
		}
	case k.Level > parent.Level:
		return forbidden("A derived key cannot have a higher level than its parent.")
	case !within(k.AllowedNetworks, parent.AllowedNetworks):
		return forbidden("A derived key cannot be accepted from more networks than its parent.")
	case !parent.ExpiresAt.IsZero() && k.ExpiresAt.After(parent.ExpiresAt):
		return forbidden("A derived key cannot outlive its parent.")
	}
	return nil
}
