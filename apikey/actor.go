package apikey

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-go/usher"
)

// An Actor is the caller that asks for a change of a key. The zero value may do
// nothing.
type Actor struct {
	// Principal is the caller, and its Owner is the caller's account. A principal without
	// an Owner may do nothing, because its ID may equal the name of another account. It
	// may change only keys of its own account, and only those that grant no more than it
	// holds: scopes among its own, a level no higher, and its environment if it has one.
	// A key that it creates, or whose plan it changes, must have the principal's plan. It
	// cannot enable a key that the server itself has disabled. If
	// its credential is an API key, a key that it creates or extends must neither outlive
	// that API key nor be accepted from a network from which that API key is not. A derived
	// key may do nothing. If its
	// Details are a [Key] that has changed since, the result is ErrConflict: the caller may
	// have lost what it would grant.
	Principal *usher.Principal
	// System marks a call by the server itself, which may do anything. Principal is then
	// only recorded in the audit.
	System bool
	// Address is the client's address, for the audit.
	Address netip.Addr
}

// An authority describes what an actor may do at this moment.
type authority struct {
	system bool
	usher.Principal
	// account is the plan of the actor's account, if that is known: its own plan, unless
	// that is one of its API key alone.
	account string
	// expires is when the API key of the actor expires, and networks are those from which
	// it is accepted; zero means never, and none means any.
	expires  time.Time
	networks []netip.Prefix
}

// authorize returns what the actor may do, or an error if it may do nothing.
func (m *Manager) authorize(ctx context.Context, by Actor) (authority, error) {
	if by.System {
		return authority{system: true}, nil
	}
	if by.Principal == nil || by.Principal.Owner == "" {
		return authority{}, forbidden("The caller has no account whose API keys it could manage.")
	}
	a := authority{Principal: *by.Principal, account: by.Principal.Plan}
	if a.Kind != usher.KindAPIKey {
		return a, nil
	}
	// The principal does not carry the expiry of its key, and a cache may not have seen
	// yet that the key was revoked or narrowed.
	own, err := m.find(ctx, a.Owner, a.ID)
	switch {
	case errors.Is(err, ErrNotFound), err == nil && (!own.Active(storedNow()) || own.DerivedFrom != ""):
		return authority{}, forbidden("The caller's API key cannot manage others.")
	case err != nil:
		return authority{}, err
	}
	if seen, ok := a.Details.(*Key); ok && seen.Revision != own.Revision {
		return authority{}, ErrConflict
	}
	if own.PlanOverride != "" && a.Plan == own.PlanOverride {
		a.account = own.Plan
	}
	a.expires, a.networks = own.ExpiresAt, own.AllowedNetworks
	return a, nil
}

// system is the name of the server itself. That of a principal has a colon.
const system = "system"

// name returns the actor in the form of [Key.CreatedBy].
func (a *authority) name() (string, error) {
	if a.system {
		return system, nil
	}
	name := string(a.Kind) + ":" + a.ID
	if !isText(name, MaxCreatedBy) {
		return "", forbidden("The caller has an ID that cannot be recorded.")
	}
	return name, nil
}

// authorizeFor is authorize for an action on a key of owner. For an actor, the keys of
// other owners do not exist.
func (m *Manager) authorizeFor(ctx context.Context, by Actor, owner string) (authority, error) {
	a, err := m.authorize(ctx, by)
	if err == nil && (!isOwner(owner) || !a.system && a.Owner != owner) {
		err = ErrNotFound
	}
	return a, err
}

// mayChange returns why the actor may not change or revoke k, or nil.
func (a *authority) mayChange(k *Key) error {
	if !a.system && (!a.HasScopes(k.Scopes...) || k.Level > a.Level || a.elsewhere(k)) {
		return forbidden("The API key grants more than the caller holds.")
	}
	return nil
}

// mayGrant returns why the actor may not grant what k grants, or nil. old is the key before
// the change, or the one that k replaces, or nil. A plan that k has from old is not granted
// again.
func (a *authority) mayGrant(k, old *Key) error {
	switch {
	case a.system:
		return nil
	case k.Owner != a.Owner:
		return forbidden("A key must belong to the account of its creator.")
	case !a.HasScopes(k.Scopes...):
		return &usher.Error{
			Status:  http.StatusForbidden,
			Code:    usher.CodeInsufficientScope,
			Message: "A key cannot have a scope that its creator lacks.",
		}
	case k.Level > a.Level, a.elsewhere(k), !a.mayPlan(k, old):
		return forbidden("A key cannot grant more than its creator holds.")
	case !a.expires.IsZero() && (k.ExpiresAt.IsZero() || k.ExpiresAt.After(a.expires)):
		return forbidden("A key cannot outlive the key that it is made or changed with.")
	case !within(k.AllowedNetworks, a.networks):
		return forbidden("A key cannot be accepted from more networks than the key that it is made or changed with.")
	}
	return nil
}

// mayPlan reports whether the plans that k has and old does not are the actor's.
func (a *authority) mayPlan(k, old *Key) bool {
	if old == nil {
		return k.Plan == a.Plan && k.plan() == a.Plan
	}
	return (k.Plan == old.Plan || k.Plan == a.Plan || k.ID != old.ID && k.Plan == a.account) && (k.PlanOverride == old.PlanOverride || k.plan() == a.Plan)
}

// disable sets DisabledBy of k, or returns why the actor may not enable k. old is as in
// settle.
func (a *authority) disable(k, old *Key) (err error) {
	suspended := old != nil && old.DisabledBy == system
	switch {
	case k.DisabledAt.IsZero() && suspended && !a.system:
		return forbidden("The service has disabled the API key, and only the service can enable it.")
	case k.DisabledAt.IsZero():
		k.DisabledBy = ""
	case old == nil, !k.DisabledAt.Equal(old.DisabledAt) && (!suspended || a.system):
		k.DisabledBy, err = a.name()
	default:
		k.DisabledBy = old.DisabledBy
	}
	return err
}

// elsewhere reports whether k belongs to an environment other than the actor's.
func (a *authority) elsewhere(k *Key) bool {
	return a.Environment != "" && k.Environment != a.Environment
}

func forbidden(message string) error {
	return &usher.Error{Status: http.StatusForbidden, Code: usher.CodeInsufficientPermission, Message: message}
}

// narrower reports whether k grants nothing that old did not grant.
func narrower(k, old *Key) bool {
	for _, s := range k.Scopes {
		if !slices.Contains(old.Scopes, s) {
			return false
		}
	}
	sooner := k.ExpiresAt.Equal(old.ExpiresAt) || old.ExpiresAt.IsZero() ||
		!k.ExpiresAt.IsZero() && k.ExpiresAt.Before(old.ExpiresAt)
	enabled := k.DisabledAt.IsZero() && !old.DisabledAt.IsZero()
	return sooner && !enabled && k.Level <= old.Level && k.Plan == old.Plan && k.PlanOverride == old.PlanOverride &&
		within(k.AllowedNetworks, old.AllowedNetworks)
}

// within reports whether all addresses of list are also addresses of networks. No networks
// are all addresses.
func within(list, networks []netip.Prefix) bool {
	if len(list) == 0 || len(networks) == 0 {
		return len(networks) == 0
	}
	return !slices.ContainsFunc(list, func(n netip.Prefix) bool {
		return !slices.ContainsFunc(networks, func(w netip.Prefix) bool {
			return w.Bits() <= n.Bits() && w.Contains(n.Addr())
		})
	})
}
