package apikeytest_test

import (
	"context"
	"strings"
	"time"

	"github.com/usher-go/usher/apikey"
)

const filtered = "a filter selects exactly what matches"

// selecting returns the fault of a store that selects the keys for which match returns
// true, in place of those that match.
func selecting(match func(f apikey.Filter, k *apikey.Key) bool) fault {
	return fault{filtered, func(s *store) {
		s.sel = func(ctx context.Context, q apikey.Query) ([]apikey.Key, apikey.Cursor, error) {
			var keys []apikey.Key
			for _, k := range everyKey(ctx, s) {
				if match(q.Filter, &k) {
					keys = append(keys, k)
				}
			}
			return keys, apikey.Cursor{}, ctx.Err()
		}
	}}
}

// edited returns the fault of a store that selects with another filter.
func edited(edit func(*apikey.Filter)) fault {
	return selecting(func(f apikey.Filter, k *apikey.Key) bool { edit(&f); return f.Matches(k) })
}

func fold(f apikey.Filter, k apikey.Key, lower func(*apikey.Filter, *apikey.Key)) bool {
	lower(&f, &k)
	return f.Matches(&k)
}

var filterFaults = map[string]fault{
	"selects any creator":                    edited(func(f *apikey.Filter) { f.CreatedBy = "" }),
	"selects any owner":                      edited(func(f *apikey.Filter) { f.Owner = "" }),
	"selects any parent":                     edited(func(f *apikey.Filter) { f.Parent = "" }),
	"selects any line":                       edited(func(f *apikey.Filter) { f.Line = "" }),
	"selects what was derived from anything": edited(func(f *apikey.Filter) { f.DerivedFrom = "" }),
	"selects any environment":                edited(func(f *apikey.Filter) { f.Environment = "" }),
	"selects any plan":                       edited(func(f *apikey.Filter) { f.Plan = "" }),
	"selects any prefix":                     edited(func(f *apikey.Filter) { f.Prefix = "" }),
	"selects any status":                     edited(func(f *apikey.Filter) { f.Status = apikey.AnyStatus }),
	"selects any expiry":                     edited(func(f *apikey.Filter) { f.ExpiresBefore = time.Time{} }),
	"selects any use":                        edited(func(f *apikey.Filter) { f.UnusedSince = time.Time{} }),
	"selects any metadata":                   edited(func(f *apikey.Filter) { f.Metadata = nil }),
	"selects by its own clock":               edited(func(f *apikey.Filter) { f.Now = time.Now() }),
	"takes All for everything": edited(func(f *apikey.Filter) {
		if f.All {
			*f = apikey.Filter{CreatedBy: f.CreatedBy}
		}
	}),
	"selects owners by a collation": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(f *apikey.Filter, k *apikey.Key) {
			f.Owner, k.Owner = strings.ToLower(f.Owner), strings.ToLower(k.Owner)
		})
	}),
	"selects creators by a collation": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(f *apikey.Filter, k *apikey.Key) {
			f.CreatedBy, k.CreatedBy = strings.ToLower(f.CreatedBy), strings.ToLower(k.CreatedBy)
		})
	}),
	"selects parents by a collation": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(f *apikey.Filter, k *apikey.Key) {
			f.Parent, k.Parent = strings.ToLower(f.Parent), strings.ToLower(k.Parent)
		})
	}),
	"selects a line without its first key": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return f.Matches(k) && (f.Line == "" || k.Line == f.Line)
	}),
	"selects a key of another line by its ID": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(f *apikey.Filter, k *apikey.Key) {
			if k.ID == f.Line {
				f.Line = ""
			}
		})
	}),
	"selects keys without a line in any": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(f *apikey.Filter, k *apikey.Key) {
			if k.Line == "" {
				f.Line = ""
			}
		})
	}),
	"selects lines by a collation": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(f *apikey.Filter, k *apikey.Key) {
			f.Line, k.Line, k.ID = strings.ToLower(f.Line), strings.ToLower(k.Line), strings.ToLower(k.ID)
		})
	}),
	"selects sources by a collation": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(f *apikey.Filter, k *apikey.Key) {
			f.DerivedFrom, k.DerivedFrom = strings.ToLower(f.DerivedFrom), strings.ToLower(k.DerivedFrom)
		})
	}),
	"selects what a key is derived from": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(f *apikey.Filter, k *apikey.Key) {
			if k.ID == f.DerivedFrom {
				f.DerivedFrom = ""
			}
		})
	}),
	"selects environments by a collation": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(_ *apikey.Filter, k *apikey.Key) { k.Environment = strings.ToLower(k.Environment) })
	}),
	"selects prefixes by a collation": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(f *apikey.Filter, k *apikey.Key) {
			f.Prefix, k.Prefix = strings.ToLower(f.Prefix), strings.ToLower(k.Prefix)
		})
	}),
	"selects blanks behind owners": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(_ *apikey.Filter, k *apikey.Key) { k.Owner = strings.TrimRight(k.Owner, " ") })
	}),
	"selects prefixes by a pattern": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		pattern := f.Prefix
		f.Prefix = ""
		return f.Matches(k) && like(k.Prefix, pattern+"%")
	}),
	"selects whole prefixes": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return f.Matches(k) && (f.Prefix == "" || f.Prefix == k.Prefix)
	}),
	"selects by the plan of the owner": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(_ *apikey.Filter, k *apikey.Key) { k.PlanOverride = "" })
	}),
	"selects by either plan": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		plan := f.Plan
		f.Plan = ""
		return f.Matches(k) && (plan == "" || plan == k.Plan || plan == k.PlanOverride)
	}),
	"selects what expires at that time": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		if !f.ExpiresBefore.IsZero() {
			f.ExpiresBefore = f.ExpiresBefore.Add(time.Microsecond)
		}
		return f.Matches(k)
	}),
	"selects what never expires as expiring": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		if k.ExpiresAt.IsZero() {
			f.ExpiresBefore = time.Time{}
		}
		return f.Matches(k)
	}),
	"selects what was used at that time": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		if !f.UnusedSince.IsZero() {
			f.UnusedSince = f.UnusedSince.Add(time.Microsecond)
		}
		return f.Matches(k)
	}),
	"selects no key that was never used": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return f.Matches(k) && (f.UnusedSince.IsZero() || !k.LastUsedAt.IsZero())
	}),
	"selects new keys as unused": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		if k.LastUsedAt.IsZero() {
			f.UnusedSince = time.Time{}
		}
		return f.Matches(k)
	}),
	"selects any of the metadata": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		wanted := f.Metadata
		f.Metadata = nil
		if !f.Matches(k) {
			return false
		}
		for name, value := range wanted {
			if v, ok := k.Metadata[name]; ok && v == value {
				return true
			}
		}
		return len(wanted) == 0
	}),
	"takes missing metadata for empty": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		wanted := f.Metadata
		f.Metadata = nil
		for name, value := range wanted {
			if k.Metadata[name] != value {
				return false
			}
		}
		return f.Matches(k)
	}),
	"takes a disabled key for active": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(_ *apikey.Filter, k *apikey.Key) { k.DisabledAt = time.Time{} })
	}),
	"takes an expired key for disabled": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(_ *apikey.Filter, k *apikey.Key) {
			if !k.DisabledAt.IsZero() {
				k.ExpiresAt = time.Time{}
			}
		})
	}),
	"takes a revoked key for expired": selecting(func(f apikey.Filter, k *apikey.Key) bool {
		return fold(f, *k, func(f *apikey.Filter, k *apikey.Key) {
			if !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(f.Now) {
				k.RevokedAt = time.Time{}
			}
		})
	}),
}

// like is the LIKE of SQL.
func like(text, pattern string) bool {
	switch {
	case pattern == "":
		return text == ""
	case pattern[0] == '%':
		return like(text, pattern[1:]) || text != "" && like(text[1:], pattern)
	case text == "":
		return false
	}
	return (pattern[0] == '_' || pattern[0] == text[0]) && like(text[1:], pattern[1:])
}
