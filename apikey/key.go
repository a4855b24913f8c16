package apikey

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-go/usher"
)

// The bounds on a [Key]. A [Manager] enforces them, and a [Store] can rely on them. Text is
// UTF-8 without a zero byte, and may be empty unless stated otherwise.
const (
	// MaxID is the length of the longest ID. An ID has 1 to MaxID ASCII letters, digits,
	// "-" and "_", and IDs that differ only by case differ.
	MaxID = 64
	// MaxOwner bounds Owner in bytes. An Owner has at least 1.
	MaxOwner = 255
	// MaxName bounds Name in characters of at most four bytes. It neither begins nor ends
	// with a blank, and has no control characters and no invisible ones, such as those that
	// change the direction of text; emojis and all scripts can be written. [ManagerConfig]
	// may set narrower bounds.
	MaxName = 255
	// MaxDescription bounds Description in characters, which are those of a Name, tabs and
	// ends of lines. It does not consist of blanks alone.
	MaxDescription = 1000
	// MaxMetadata bounds the number of entries of Metadata. The name of an entry has 1 to
	// MaxMetadataName bytes, and its value at most MaxMetadataValue.
	MaxMetadata      = 32
	MaxMetadataName  = 64
	MaxMetadataValue = 256
	// MaxScopes bounds the number of Scopes. Each scope is listed once, and has 1 to MaxScope
	// visible ASCII characters other than quote and backslash.
	MaxScopes = 100
	MaxScope  = 128
	// MaxNetworks bounds the number of AllowedNetworks. Each is valid and masked, is listed
	// once, and is not an IPv4-mapped IPv6 network.
	MaxNetworks = 50
	// MaxPlan bounds Plan and PlanOverride, and MaxEnvironment bounds Environment, in
	// bytes.
	MaxPlan        = 128
	MaxEnvironment = 128
	// MaxPrefix bounds Prefix in bytes. LastFour has at most four bytes.
	MaxPrefix = 128
	// MaxCreatedBy bounds CreatedBy and DisabledBy in bytes.
	MaxCreatedBy = 320
)

// A Key describes an API key. It holds no key material and no hash, so it may be
// printed, logged and sent.
//
// A zero time means never; CreatedAt and UpdatedAt are always set. Times are in UTC and
// whole microseconds, from the year 1 to 9999-12-30T00:00:00Z. [MaxID] and the constants
// after it bound the other fields.
type Key struct {
	// ID identifies the key and is not secret.
	ID string `json:"id"`
	// Owner is the account that the key belongs to.
	Owner string `json:"owner"`
	// Name is the owner's name for the key, and Description is what the key is for.
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// Metadata has what the service or the owner has stored about the key. It grants
	// nothing.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Prefix and LastFour are the first and last characters of the key, which may be
	// displayed so that people can distinguish keys.
	Prefix   string `json:"prefix"`
	LastFour string `json:"last_four"`
	// Scopes are the granted scopes. An empty list grants nothing.
	Scopes []string `json:"scopes"`
	// Level is the granted permission level.
	Level usher.Level `json:"level"`
	// Plan is the plan that the owner had subscribed to when the key was created.
	Plan string `json:"plan"`
	// PlanOverride, if not empty, is the plan of this key alone. The principal of the key
	// has it in place of Plan.
	PlanOverride string `json:"plan_override,omitempty"`
	// Environment is where the key is valid, for instance "live".
	Environment string `json:"environment"`
	// AllowedNetworks are the networks from which the key is accepted; empty means any.
	// The address of a client is the one that clientip.Of returns. A client whose address
	// is unknown is in no network.
	AllowedNetworks []netip.Prefix `json:"allowed_networks,omitempty"`

	CreatedAt time.Time `json:"created_at,omitzero"`
	// CreatedBy is the kind and the ID of the principal that created the key, such as
	// "api_key:4nR", or "system" for the server itself.
	CreatedBy string `json:"created_by,omitempty"`
	// UpdatedAt is when a person last changed the key; it is CreatedAt at first.
	UpdatedAt time.Time `json:"updated_at,omitzero"`
	// ExpiresAt is the first moment at which the key is refused.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// DisabledAt, if not zero, is when the key was disabled. A disabled key is refused
	// until it is enabled again.
	DisabledAt time.Time `json:"disabled_at,omitzero"`
	// DisabledBy is who has disabled the key, in the form of CreatedBy; empty unless it is
	// disabled. A key that "system" has disabled is enabled only by the server itself.
	DisabledBy string    `json:"disabled_by,omitempty"`
	RevokedAt  time.Time `json:"revoked_at,omitzero"`
	// LastUsedAt is approximately when the key was last used with success, as
	// Config.IsSuccess decides by the status of the response. It is written
	// periodically, not at each use. LastUsedFrom is the address of the client of that
	// use, which has no zone and is not an IPv4-mapped one; the zero Addr if it is unknown.
	LastUsedAt   time.Time  `json:"last_used_at,omitzero"`
	LastUsedFrom netip.Addr `json:"last_used_from,omitzero"`
	// Parent is the ID of the key in place of which [Manager.Rotate] issued this one.
	Parent string `json:"parent,omitempty"`
	// Line is the ID of the first key of the rotations that led to this one, even if that
	// key is no longer stored; empty for a key that has no Parent. It is the
	// [usher.Principal.Line] of the key.
	Line string `json:"line,omitempty"`
	// ReplacedBy is the ID of the key that [Manager.Rotate] issued in place of this one,
	// which remains valid until ExpiresAt.
	ReplacedBy string `json:"replaced_by,omitempty"`
	// DerivedFrom is the ID of the key from which [Manager.Derive] has issued this one; it
	// is empty for other keys. A derived key grants at no time more than that key, and ends
	// with it.
	DerivedFrom string `json:"derived_from,omitempty"`
	// Revision is 1 at first and grows with each change; a use is not a change. It is
	// below 2^53.
	Revision int64 `json:"revision"`
}

// Active reports whether the key is neither disabled nor ended at now.
func (k *Key) Active(now time.Time) bool { return k.DisabledAt.IsZero() && !k.Ended(now) }

// Ended reports whether the key is revoked or has expired at now. A key that has ended
// stays so.
func (k *Key) Ended(now time.Time) bool { return !k.RevokedAt.IsZero() || k.expired(now) }

func (k *Key) expired(now time.Time) bool { return !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt) }

// plan returns the plan in effect.
func (k *Key) plan() string { return cmp.Or(k.PlanOverride, k.Plan) }

// allows reports whether the key is accepted from this address, which may be unknown.
func (k *Key) allows(from netip.Addr) bool {
	return len(k.AllowedNetworks) == 0 ||
		slices.ContainsFunc(k.AllowedNetworks, func(n netip.Prefix) bool { return n.Contains(from) })
}

// clone returns a copy that shares nothing with k.
func (k Key) clone() Key {
	k.Scopes = slices.Clone(k.Scopes)
	k.Metadata = maps.Clone(k.Metadata)
	k.AllowedNetworks = slices.Clone(k.AllowedNetworks)
	return k
}

// A Record is what a [Store] keeps of a key.
type Record struct {
	Key
	Hash Hash
	// DerivedFromHash is the Hash of the key with the ID DerivedFrom, or zero.
	DerivedFromHash Hash
}

func (r Record) clone() Record {
	r.Key = r.Key.clone()
	return r
}
