package apikey

import (
	"time"

	"github.com/usher-go/usher"
)

// keyView is a key as [NewHandler] shows it by default.
type keyView struct {
	ID          string      `json:"id"`
	Name        string      `json:"name"`
	Prefix      string      `json:"prefix"`
	LastFour    string      `json:"last_four"`
	Scopes      []string    `json:"scopes"`
	Level       usher.Level `json:"level"`
	Environment *string     `json:"environment"`
	CreatedAt   time.Time   `json:"created_at"`
	UpdatedAt   time.Time   `json:"updated_at"`
	ExpiresAt   *time.Time  `json:"expires_at"`
	RevokedAt   *time.Time  `json:"revoked_at"`
	LastUsedAt  *time.Time  `json:"last_used_at"`
	ReplacedBy  *string     `json:"replaced_by"`
}

type issuedView struct {
	APIKey string `json:"api_key"`
	Key    any    `json:"key"`
}

// showable returns k with times that every encoder accepts: a store may hold a key
// of a time of other rules, which must not make the whole list unreadable.
func showable(k Key) Key {
	for _, t := range []*time.Time{&k.CreatedAt, &k.UpdatedAt, &k.ExpiresAt, &k.RevokedAt, &k.LastUsedAt} {
		switch {
		case t.After(latest):
			*t = latest
		case t.Year() < 1:
			*t = time.Time{}
		}
	}
	return k
}

func viewKey(k Key) any {
	scopes := k.Scopes
	if scopes == nil {
		scopes = []string{}
	}
	return keyView{
		ID:          k.ID,
		Name:        k.Name,
		Prefix:      k.Prefix,
		LastFour:    k.LastFour,
		Scopes:      scopes,
		Level:       k.Level,
		Environment: nullable(k.Environment),
		CreatedAt:   k.CreatedAt,
		UpdatedAt:   k.UpdatedAt,
		ExpiresAt:   nullable(k.ExpiresAt),
		RevokedAt:   nullable(k.RevokedAt),
		LastUsedAt:  nullable(k.LastUsedAt),
		ReplacedBy:  nullable(k.ReplacedBy),
	}
}

func viewList(keys []Key) any {
	list := make([]any, 0, len(keys))
	for _, k := range keys {
		list = append(list, viewKey(k))
	}
	return list
}

// nullable returns nil for a zero value, which JSON writes as null.
func nullable[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
