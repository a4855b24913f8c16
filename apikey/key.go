package apikey

import (
	"slices"
	"time"

	"github.com/usher-go/usher"
)

// A Key describes an API key. It holds no key material and no hash, so it may be
// printed, logged and sent.
//
// A zero time means never. Times are in UTC and whole microseconds.
type Key struct {
	// ID identifies the key and is not secret.
	ID string `json:"id"`
	// Owner is the account that the key belongs to.
	Owner string `json:"owner"`
	// Name is the owner's name for the key.
	Name string `json:"name"`
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
	// Environment is where the key is valid, for instance "live".
	Environment string `json:"environment"`

	CreatedAt time.Time `json:"created_at,omitzero"`
	// UpdatedAt is when a person last changed the key; it is CreatedAt at first.
	UpdatedAt time.Time `json:"updated_at,omitzero"`
	// ExpiresAt is the first moment at which the key is refused.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	// LastUsedAt is approximately when the key was last used successfully. It is written
	// periodically, not at each use.
	LastUsedAt time.Time `json:"last_used_at,omitzero"`
	// ReplacedBy is the ID of the key that [Manager.Rotate] issued in place of this one,
	// which remains valid until ExpiresAt.
	ReplacedBy string `json:"replaced_by,omitempty"`
	// Revision is 1 at first and grows with each change; a use is not a change.
	Revision int64 `json:"revision"`
}

// Active reports whether the key is neither revoked nor expired at now.
func (k *Key) Active(now time.Time) bool { return k.RevokedAt.IsZero() && !k.expired(now) }

func (k *Key) expired(now time.Time) bool { return !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt) }

// clone returns a copy that shares nothing with k.
func (k Key) clone() Key {
	k.Scopes = slices.Clone(k.Scopes)
	return k
}

// A Record is what a [Store] keeps of a key.
type Record struct {
	Key
	Hash Hash
}

func (r Record) clone() Record {
	r.Key = r.Key.clone()
	return r
}
