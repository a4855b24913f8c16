package apikey

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/scope"
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
	check("description", old == nil || k.Description != old.Description, checkDescription)
	check("metadata", old == nil || !maps.Equal(k.Metadata, old.Metadata), checkMetadata)
	check("scopes", old == nil || !slices.Equal(k.Scopes, old.Scopes), checkScopes)
	check("level", old == nil || k.Level != old.Level, m.checkLevel)
	check("plan", old == nil || k.Plan != old.Plan, func(k *Key) string { return checkText("plan", k.Plan, MaxPlan) })
	check("plan_override", old == nil || k.PlanOverride != old.PlanOverride, func(k *Key) string {
		return checkText("plan_override", k.PlanOverride, MaxPlan)
	})
	check("allowed_networks", old == nil || !slices.Equal(k.AllowedNetworks, old.AllowedNetworks), checkNetworks)
	check("disabled_at", old == nil || !k.DisabledAt.Equal(old.DisabledAt), checkDisabled)
	check("expires_at", old == nil || !k.ExpiresAt.Equal(old.ExpiresAt), m.checkExpiry)
	if old == nil {
		check("owner", true, func(k *Key) string { return checkText("owner", k.Owner, MaxOwner) })
		check("environment", true, func(k *Key) string { return checkText("environment", k.Environment, MaxEnvironment) })
	}
	if len(faults) > 0 {
		return usher.Invalid(faults...)
	}
	return nil
}

func checkMetadata(k *Key) string {
	if len(k.Metadata) > MaxMetadata {
		return "There must be no more than " + strconv.Itoa(MaxMetadata) + " entries of metadata."
	}
	for name, value := range k.Metadata {
		if name == "" || !isText(name, MaxMetadataName) || !isText(value, MaxMetadataValue) {
			return "A name in 'metadata' must be 1 to " + strconv.Itoa(MaxMetadataName) + " bytes of text, and a value at most " +
				strconv.Itoa(MaxMetadataValue) + "."
		}
	}
	return ""
}

func checkScopes(k *Key) string {
	if len(k.Scopes) > MaxScopes {
		return "There must be no more than " + strconv.Itoa(MaxScopes) + " scopes."
	}
	if slices.ContainsFunc(k.Scopes, func(s string) bool { return !isScope(s) }) {
		return "A scope must be 1 to " + strconv.Itoa(MaxScope) + " visible characters other than quote and backslash."
	}
	return ""
}

func checkNetworks(k *Key) string {
	if len(k.AllowedNetworks) > MaxNetworks {
		return "There must be no more than " + strconv.Itoa(MaxNetworks) + " allowed networks."
	}
	if slices.ContainsFunc(k.AllowedNetworks, func(n netip.Prefix) bool { return !n.IsValid() }) {
		return "An allowed network must be an address and the number of its bits that count, such as 192.0.2.0/24."
	}
	return ""
}

// checkShown returns what is wrong with the characters of the key that are stored with it.
func checkShown(k *Key) error {
	if !isText(k.Prefix, MaxPrefix) || !isText(k.LastFour, 4) {
		return fmt.Errorf("apikey: a key may have %d bytes of text as its Prefix, and four as LastFour", MaxPrefix)
	}
	return nil
}

// checkText returns what is wrong with the value of a field that is text of at most limit
// bytes.
func checkText(name, value string, limit int) string {
	if !isText(value, limit) {
		return "'" + name + "' must be at most " + strconv.Itoa(limit) + " bytes of text."
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
	bound, endless := m.maxExpiry(k.CreatedAt), m.maxLifetime == 0
	if k.DerivedFrom != "" {
		endless = false
		if end := k.CreatedAt.Add(m.maxDerived); end.Before(bound) {
			bound = end
		}
	}
	switch {
	case k.ExpiresAt.IsZero() && endless:
		return ""
	case k.ExpiresAt.IsZero() || k.ExpiresAt.After(bound):
		return "'expires_at' must be no later than " + bound.Format(time.RFC3339) + "."
	case k.expired(k.UpdatedAt):
		return "'expires_at' must be in the future."
	}
	return ""
}

// checkDisabled returns what is wrong with DisabledAt, which must not be rounded yet:
// the first microsecond of the year 1 would become never, and enable the key.
func checkDisabled(k *Key) string {
	if !k.DisabledAt.IsZero() && (canonical(k.DisabledAt).IsZero() || k.DisabledAt.Before(time.Time{})) {
		return "'disabled_at' must be in the year 1 or later."
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
	return id != "" && len(id) <= MaxID && madeOf(id, isBase64url)
}

// isOwner reports whether keys may belong to owner. Any other owner has no keys, and its
// name must not reach the store.
func isOwner(owner string) bool { return owner != "" && isText(owner, MaxOwner) }

// isText reports whether a store can keep s in a field of at most limit bytes.
func isText(s string, limit int) bool {
	return len(s) <= limit && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// isScope reports whether a key may have the scope s.
func isScope(s string) bool { return len(s) <= MaxScope && scope.Valid(s) }

// distinct returns a copy of list without duplicates. It stops once the copy is longer
// than a key's list may be.
func distinct[T comparable](list []T, most int) []T {
	var all []T
	for _, v := range list {
		if !slices.Contains(all, v) && len(all) <= most {
			all = append(all, v)
		}
	}
	return all
}

// canonicalNetworks returns a copy of list in which equal networks look equal: masked, and
// IPv4 networks in the form of clientip.Of.
func canonicalNetworks(list []netip.Prefix) []netip.Prefix {
	all := make([]netip.Prefix, 0, min(len(list), MaxNetworks+1))
	for _, n := range list[:min(len(list), cap(all))] {
		if a := n.Addr(); a.Is4In6() && n.Bits() >= 96 {
			n = netip.PrefixFrom(a.Unmap(), n.Bits()-96)
		}
		all = append(all, n.Masked())
	}
	return distinct(all, MaxNetworks)
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

// round brings the settings of k to the form in which stores keep them, after check has
// accepted them. A key cannot be disabled in advance, so a later time means now.
func (k *Key) round(now time.Time) {
	k.ExpiresAt = canonical(k.ExpiresAt)
	if k.DisabledAt.After(now) {
		k.DisabledAt = now
	}
	k.DisabledAt = canonical(k.DisabledAt)
}
