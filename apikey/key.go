package apikey

import (
	"slices"
	"time"

	"github.com/usher-go/usher"
)

// A Key is what is known about an API key. It holds no key material and no
// hash, so it may be printed, logged and sent.
//
// A zero time means never. Times are in UTC and whole microseconds.
type Key struct {
	// ID names the key and is no secret.
	ID string `json:"id"`
	// Owner is the account that the key belongs to.
	Owner string `json:"owner"`
	// Name is what its owner calls the key.
	Name string `json:"name"`
	// Prefix and LastFour are what may be shown of the text of the key, so that
	// people can tell keys apart.
	Prefix   string `json:"prefix"`
	LastFour string `json:"last_four"`
	// Scopes are granted; none means that nothing is.
	Scopes []string `json:"scopes"`
	// Level is the granted permission level.
	Level usher.Level `json:"level"`
	// Plan is what the owner had subscribed to when the key was made.
	Plan string `json:"plan"`
	// Environment is where the key is valid, for instance "live".
	Environment string `json:"environment"`

	CreatedAt time.Time `json:"created_at,omitzero"`
	// UpdatedAt is when a person last changed the key; it is CreatedAt at first.
	UpdatedAt time.Time `json:"updated_at,omitzero"`
	// ExpiresAt is the first moment at which the key is refused.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	// LastUsedAt is about when the key was last used with success: it is written
	// now and then and not at each use.
	LastUsedAt time.Time `json:"last_used_at,omitzero"`
	// ReplacedBy is the ID of the key that [Manager.Rotate] made in place of this
	// one, which lives until ExpiresAt.
	ReplacedBy string `json:"replaced_by,omitempty"`
	// Revision is 1 at first and grows with each change but use.
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
