package apikey

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/scope"
)

// The bounds on a key's settings, far above any use.
const (
	maxScopes = 100
	maxScope  = 128
)

// check returns what is wrong with the settings of k, as one *usher.Error. old is the key
// before the change, or nil for a new one: a setting that does not change may stem from
// other rules.
func (m *Manager) check(k, old *Key) error {
	var faults []usher.Field
	check := func(name string, changed bool, wrong func(*Key) string) {
		if !changed {
			return
		}
		if message := wrong(k); message != "" {
			faults = append(faults, usher.Field{Name: name, Message: message})
		}
	}
	check("name", old == nil || k.Name != old.Name, m.checkName)
	check("scopes", old == nil || !slices.Equal(k.Scopes, old.Scopes), checkScopes)
	check("level", old == nil || k.Level != old.Level, m.checkLevel)
	check("expires_at", old == nil || !k.ExpiresAt.Equal(old.ExpiresAt), m.checkExpiry)
	if len(faults) > 0 {
		return usher.Invalid(faults...)
	}
	return nil
}

func (m *Manager) checkName(k *Key) string {
	switch n := utf8.RuneCountInString(k.Name); {
	case n < m.minName:
		return "'name' must have a minimum length of " + strconv.Itoa(m.minName) + ". Current length is " + strconv.Itoa(n) + "."
	case n > m.maxName:
		return "'name' must have a maximum length of " + strconv.Itoa(m.maxName) + ". Current length is " + strconv.Itoa(n) + "."
	case !utf8.ValidString(k.Name) || slices.ContainsFunc([]rune(k.Name), unicode.IsControl):
		return "'name' must not contain control characters."
	}
	return ""
}

func checkScopes(k *Key) string {
	if len(k.Scopes) > maxScopes {
		return "There must be no more than " + strconv.Itoa(maxScopes) + " scopes."
	}
	if slices.ContainsFunc(k.Scopes, func(s string) bool { return !isScope(s) }) {
		return "A scope must be 1 to " + strconv.Itoa(maxScope) + " visible characters other than quote and backslash."
	}
	return ""
}

func (m *Manager) checkLevel(k *Key) string {
	switch {
	case k.Level > usher.LevelFull:
		return "There is no such level."
	case k.Level > m.maxLevel:
		return "'level' must be at most " + m.maxLevel.String() + "."
	}
	return ""
}

// checkExpiry returns what is wrong with the expiry of k, which must not be rounded
// yet: the first microsecond of the year 1 would become never.
func (m *Manager) checkExpiry(k *Key) string {
	switch bound := m.maxExpiry(k.CreatedAt); {
	case k.ExpiresAt.IsZero() && m.maxLifetime == 0:
		return ""
	case k.ExpiresAt.IsZero() || k.ExpiresAt.After(bound):
		return "'expires_at' must be no later than " + bound.Format(time.RFC3339) + "."
	case k.expired(k.UpdatedAt):
		return "'expires_at' must be in the future."
	}
	return ""
}

// maxExpiry returns the latest expiry of a key that is created at this time.
func (m *Manager) maxExpiry(created time.Time) time.Time {
	bound := created.Add(m.maxLifetime)
	if m.maxLifetime == 0 || bound.After(latest) {
		return latest
	}
	return bound
}

func (m *Manager) checkGrace(grace time.Duration) error {
	if grace < 0 || grace > m.maxGrace {
		return usher.Invalid(usher.Field{
			Name:    "grace_seconds",
			Message: "'grace_seconds' must be from 0 to " + strconv.FormatInt(int64(m.maxGrace/time.Second), 10) + ".",
		})
	}
	return nil
}

// isID reports whether a key may have the ID id. Other text was invented by a client and
// must not reach the store: a store that cannot take it would count as down. PostgreSQL,
// for instance, refuses a zero byte.
func isID(id string) bool {
	const longest = 255
	return id != "" && len(id) <= longest && utf8.ValidString(id) && !strings.ContainsFunc(id, unicode.IsControl)
}

// isScope reports whether a key may have the scope s.
func isScope(s string) bool { return len(s) <= maxScope && scope.Valid(s) }

// distinct returns a copy of list without duplicates. It stops once the copy is longer
// than a key's list may be.
func distinct(list []string) []string {
	var all []string
	for _, s := range list {
		if !slices.Contains(all, s) && len(all) <= maxScopes {
			all = append(all, s)
		}
	}
	return all
}

// storedNow returns the present time as stores keep it, so that a key that a Manager
// returns equals the one that a store returns later.
func storedNow() time.Time { return canonical(time.Now()) }

// latest is the latest expiry that is accepted. Its year has four digits in every
// time zone, as RFC 3339 and encoding/json require.
var latest = time.Date(9999, 12, 30, 0, 0, 0, 0, time.UTC)

func canonical(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}
