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
	// A key that it creates, or whose plan it changes, must have the principal's plan. If
	// its credential is an API key, a key that it creates or extends must neither outlive
	// that API key nor be accepted from a network from which that API key is not. If its
	// Details are a [Key] that has changed since, the result is ErrConflict: the caller may
	// have lost what it would grant.
	Principal *usher.Principal
	// System marks a call by the server itself, which may do anything. Principal is then
	// only recorded in the audit.
	System bool
	// Address is the client's address, for the audit.
	Address netip.Addr
}

// An Event is one entry for an audit log. It never holds key material.
type Event struct {
	// Time is when the event happened.
	Time time.Time
	// Action is authenticate, create, import, update, rotate, revoke, revoke_all or purge.
	Action string
	// Verdict is the outcome of authenticate, and [Accepted] or [Denied] for the
	// other actions.
	Verdict Verdict
	// KeyID and Owner identify the key. They are empty if no key was found, because the
	// caller's own claims cannot be trusted without a valid key, and for a purge.
	KeyID, Owner string
	// Actor is the caller. For authenticate, its Principal is the key's, if the key was
	// accepted.
	Actor Actor
	// Err is why the action failed. It is for operators.
	Err error
}

// An authority describes what an actor may do at this moment.
type authority struct {
	system bool
	usher.Principal
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
	a := authority{Principal: *by.Principal}
	if a.Kind != usher.KindAPIKey {
		return a, nil
	}
	// The principal does not carry the expiry of its key, and a cache may not have seen
	// yet that the key was revoked or narrowed.
	own, err := m.find(ctx, a.Owner, a.ID)
	switch {
	case errors.Is(err, ErrNotFound), err == nil && !own.Active(storedNow()):
		return authority{}, forbidden("The caller's API key cannot manage others.")
	case err != nil:
		return authority{}, err
	}
	if seen, ok := a.Details.(*Key); ok && seen.Revision != own.Revision {
		return authority{}, ErrConflict
	}
	a.expires, a.networks = own.ExpiresAt, own.AllowedNetworks
	return a, nil
}

// name returns the actor in the form of [Key.CreatedBy].
func (a *authority) name() (string, error) {
	if a.system {
		return "system", nil
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
	return (k.Plan == old.Plan || k.Plan == a.Plan) && (k.PlanOverride == old.PlanOverride || k.plan() == a.Plan)
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
