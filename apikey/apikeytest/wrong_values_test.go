package apikeytest_test

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// kept returns the fault of a store that changes what Insert and Rotate store.
func kept(row string, f func(*apikey.Record)) fault {
	return fault{row, func(s *store) { s.kept = f }}
}

func listed(f func(*apikey.Key)) fault {
	return fault{"a record is returned as it was stored", func(s *store) { s.listed = f }}
}

const (
	roundTrip = "a record is returned as it was stored"
	restore   = "a record with every field is restored from a backup"
	largest   = "a record with every value at its bound is returned as it was stored"
	isolation = "arguments and results share nothing with the store"
)

func cut(s string, n int) string { return s[:min(len(s), n)] }

// everyTime applies f to the times of r.
func everyTime(r *apikey.Record, f func(time.Time) time.Time) {
	for _, t := range []*time.Time{&r.CreatedAt, &r.UpdatedAt, &r.ExpiresAt, &r.DisabledAt, &r.RevokedAt, &r.LastUsedAt} {
		if !t.IsZero() {
			*t = f(*t)
		}
	}
}

// valueFaults has stores that do not return a value as it was stored.
var valueFaults = map[string]fault{
	"joins scopes by commas": kept(roundTrip, func(r *apikey.Record) {
		if len(r.Scopes) > 0 {
			r.Scopes = strings.Split(strings.Join(r.Scopes, ","), ",")
		}
	}),
	"sorts scopes":             kept(roundTrip, func(r *apikey.Record) { r.Scopes = slices.Sorted(slices.Values(r.Scopes)) }),
	"cuts scopes to 64":        kept(largest, func(r *apikey.Record) { r.Scopes = []string{cut(r.Scopes[0], 64)} }),
	"keeps 64 scopes":          kept(largest, func(r *apikey.Record) { r.Scopes = r.Scopes[:min(len(r.Scopes), 64)] }),
	"cuts the prefix to 32":    kept(largest, func(r *apikey.Record) { r.Prefix = cut(r.Prefix, 32) }),
	"cuts names to 255 bytes":  kept(largest, func(r *apikey.Record) { r.Name = cut(r.Name, 255) }),
	"trims names":              kept(largest, func(r *apikey.Record) { r.Name = strings.TrimSpace(r.Name) }),
	"trims the last four":      kept(largest, func(r *apikey.Record) { r.LastFour = strings.TrimSpace(r.LastFour) }),
	"cuts descriptions":        kept(largest, func(r *apikey.Record) { r.Description = cut(r.Description, 3900) }),
	"changes ends of lines":    kept(largest, func(r *apikey.Record) { r.Description = strings.ReplaceAll(r.Description, "\r\n", "\n") }),
	"cuts plans to 64":         kept(largest, func(r *apikey.Record) { r.Plan = cut(r.Plan, 64) }),
	"cuts environments to 32":  kept(largest, func(r *apikey.Record) { r.Environment = cut(r.Environment, 32) }),
	"cuts who created a key":   kept(largest, func(r *apikey.Record) { r.CreatedBy = cut(r.CreatedBy, 255) }),
	"cuts who disabled a key":  kept(largest, func(r *apikey.Record) { r.DisabledBy = cut(r.DisabledBy, 255) }),
	"cuts what it derives":     kept(largest, func(r *apikey.Record) { r.DerivedFrom = cut(r.DerivedFrom, 36) }),
	"cuts the line":            kept(largest, func(r *apikey.Record) { r.Line = cut(r.Line, 36) }),
	"cuts the parent":          kept(largest, func(r *apikey.Record) { r.Parent = cut(r.Parent, 36) }),
	"has revisions of 32 bits": kept(largest, func(r *apikey.Record) { r.Revision = int64(int32(r.Revision)) }), //nolint:gosec // the fault
	"lower case in metadata":   kept(roundTrip, func(r *apikey.Record) { r.Metadata = renamed(r.Metadata, strings.ToLower) }),
	"trims names of metadata":  kept(roundTrip, func(r *apikey.Record) { r.Metadata = renamed(r.Metadata, strings.TrimSpace) }),
	"drops empty metadata":     kept(roundTrip, func(r *apikey.Record) { r.Metadata = without(r.Metadata, "") }),
	"cuts values of metadata":  kept(largest, func(r *apikey.Record) { r.Metadata = cutValues(r.Metadata) }),
	"sorts networks":           kept(roundTrip, func(r *apikey.Record) { r.AllowedNetworks = sorted(r.AllowedNetworks) }),
	"drops networks beyond 32": kept(largest, func(r *apikey.Record) { r.AllowedNetworks = r.AllowedNetworks[:min(len(r.AllowedNetworks), 32)] }),
	"stores addresses as IPv6": kept(roundTrip, func(r *apikey.Record) { r.LastUsedFrom = mapped(r.LastUsedFrom) }),
	"takes 0.0.0.0 for none":   kept(roundTrip, func(r *apikey.Record) { r.LastUsedFrom = specified(r.LastUsedFrom) }),
	"has times of 32 bits":     kept(largest, func(r *apikey.Record) { everyTime(r, seconds32) }),
	"has times in nanoseconds": kept(largest, func(r *apikey.Record) {
		everyTime(r, func(t time.Time) time.Time { return time.Unix(0, t.UnixNano()).UTC() })
	}),
	"has times in milliseconds": kept(roundTrip, func(r *apikey.Record) {
		everyTime(r, func(t time.Time) time.Time { return t.Truncate(time.Millisecond) })
	}),
	"has times as numbers":     kept(largest, func(r *apikey.Record) { everyTime(r, float) }),
	"has no times before 1970": kept(largest, func(r *apikey.Record) { everyTime(r, since1970) }),
	"drops RevokedAt":          kept(restore, func(r *apikey.Record) { r.RevokedAt = time.Time{} }),
	"drops DisabledAt":         kept(restore, func(r *apikey.Record) { r.DisabledAt = time.Time{} }),
	"drops DisabledBy":         kept(restore, func(r *apikey.Record) { r.DisabledBy = "" }),
	"drops DerivedFrom":        kept(roundTrip, func(r *apikey.Record) { r.DerivedFrom = "" }),
	"drops DerivedFromHash":    kept(roundTrip, func(r *apikey.Record) { r.DerivedFromHash = apikey.Hash{} }),
	"cuts DerivedFromHash":     kept(roundTrip, func(r *apikey.Record) { clear(r.DerivedFromHash[17:]) }),
	"drops LastUsedAt":         kept(restore, func(r *apikey.Record) { r.LastUsedAt = time.Time{} }),
	"drops LastUsedFrom":       kept(restore, func(r *apikey.Record) { r.LastUsedFrom = netip.Addr{} }),
	"drops ReplacedBy":         kept(restore, func(r *apikey.Record) { r.ReplacedBy = "" }),
	"drops Line":               kept(restore, func(r *apikey.Record) { r.Line = "" }),
	"drops Parent":             kept(restore, func(r *apikey.Record) { r.Parent = "" }),
	"drops CreatedBy":          kept(restore, func(r *apikey.Record) { r.CreatedBy = "" }),
	"starts with revision 1":   kept(restore, func(r *apikey.Record) { r.Revision = 1 }),
	"sets UpdatedAt itself":    kept(restore, func(r *apikey.Record) { r.UpdatedAt = r.CreatedAt }),
	"lists no RevokedAt":       {"revoking a revoked key changes nothing", func(s *store) { s.listed = func(k *apikey.Key) { k.RevokedAt = time.Time{} } }},
	"lists no LastUsedAt":      {"the last use never moves back", func(s *store) { s.listed = func(k *apikey.Key) { k.LastUsedAt = time.Time{} } }},
	"lists no LastUsedFrom":    listed(func(k *apikey.Key) { k.LastUsedFrom = netip.Addr{} }),
	"lists no ReplacedBy":      {"a rotation updates one key and adds another", func(s *store) { s.listed = func(k *apikey.Key) { k.ReplacedBy = "" } }},
	"lists no DerivedFrom":     listed(func(k *apikey.Key) { k.DerivedFrom = "" }),
	"lists no DisabledBy":      {restore, func(s *store) { s.listed = func(k *apikey.Key) { k.DisabledBy = "" } }},
	"looks up no DerivedFromHash": {roundTrip, func(s *store) {
		s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
			r, err := s.Memory.Lookup(ctx, h)
			r.DerivedFromHash = apikey.Hash{}
			return r, err
		}
	}},
	"lists no Revision":    listed(func(k *apikey.Key) { k.Revision = 0 }),
	"lists no Metadata":    listed(func(k *apikey.Key) { k.Metadata = nil }),
	"lists no CreatedBy":   listed(func(k *apikey.Key) { k.CreatedBy = "" }),
	"takes never for 1970": {"a record without optional values is returned as it was stored", func(s *store) { s.shown = epoch }},
	"has no level below read_only": {"a record without optional values is returned as it was stored", func(s *store) {
		s.shown = func(r *apikey.Record) { r.Level = max(r.Level, usher.LevelReadOnly) }
	}},
	"shares metadata": {isolation, func(s *store) { s.kept, s.shown = sharing(s) }},
	"keeps metadata it was given": {isolation, func(s *store) {
		var mu sync.Mutex
		given := map[string]map[string]string{}
		s.kept = func(r *apikey.Record) { mu.Lock(); given[r.ID] = r.Metadata; mu.Unlock() }
		s.shown = func(r *apikey.Record) {
			mu.Lock()
			if m, ok := given[r.ID]; ok && r.Revision == 1 {
				r.Metadata = maps.Clone(m)
			}
			mu.Unlock()
		}
	}},
	"keeps the scopes of an update": {isolation, func(s *store) {
		var mu sync.Mutex
		given := map[string][]string{}
		s.update = func(ctx context.Context, r apikey.Record) error {
			mu.Lock()
			given[r.ID] = r.Scopes
			mu.Unlock()
			return s.Memory.Update(ctx, r)
		}
		s.shown = func(r *apikey.Record) {
			mu.Lock()
			if list, ok := given[r.ID]; ok {
				r.Scopes = slices.Clone(list)
			}
			mu.Unlock()
		}
	}},
}

// sharing returns the same map with each result.
func sharing(s *store) (kept, shown func(*apikey.Record)) {
	var mu sync.Mutex
	shared := map[string]map[string]string{}
	return s.kept, func(r *apikey.Record) {
		mu.Lock()
		defer mu.Unlock()
		if m, ok := shared[r.ID]; ok && r.Revision == 1 {
			r.Metadata = m
		}
		shared[r.ID] = r.Metadata
	}
}

func renamed(m map[string]string, f func(string) string) map[string]string {
	all := map[string]string{}
	for name, value := range m {
		all[f(name)] = value
	}
	return all
}

func without(m map[string]string, value string) map[string]string {
	m = maps.Clone(m)
	maps.DeleteFunc(m, func(_, v string) bool { return v == value })
	return m
}

func cutValues(m map[string]string) map[string]string {
	all := map[string]string{}
	for name, value := range m {
		all[name] = cut(value, 255)
	}
	return all
}

func sorted(list []netip.Prefix) []netip.Prefix {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return list
}

func mapped(a netip.Addr) netip.Addr {
	if !a.Is4() {
		return a
	}
	return netip.AddrFrom16(a.As16())
}

func specified(a netip.Addr) netip.Addr {
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

func seconds32(t time.Time) time.Time {
	if limit := time.Unix(1<<31-1, 0).UTC(); t.After(limit) {
		return limit
	}
	return t
}

func float(t time.Time) time.Time { return time.UnixMicro(int64(float64(t.UnixMicro()))).UTC() }

func since1970(t time.Time) time.Time {
	if t.Before(time.Unix(0, 0)) {
		return time.Unix(0, 0).UTC()
	}
	return t
}

// epoch shows a time that is not set as 1970.
func epoch(r *apikey.Record) {
	if r.ExpiresAt.IsZero() {
		r.ExpiresAt = time.Unix(0, 0).UTC()
	}
}
