package apikeytest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
)

// admin returns s as an [apikey.Admin], or nil if it is none.
func admin(s apikey.Store) apikey.Admin {
	a, ok := s.(apikey.Admin)
	if !ok {
		return nil
	}
	q := apikey.Query{Filter: apikey.Filter{Owner: "owner_" + unique()}, Limit: 1}
	if _, _, err := a.Select(context.Background(), q); errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return a
}

func needAdmin(t testing.TB, s apikey.Store) apikey.Admin {
	t.Helper()
	a := admin(s)
	if a == nil {
		t.Skip("the store is not an Admin")
	}
	return a
}

// selected returns all keys that q selects. It fails unless every page but the last is full
// and followed by another.
func selected(t testing.TB, a apikey.Admin, q apikey.Query) (all []apikey.Key) {
	t.Helper()
	for range 1000 {
		keys, next, err := a.Select(t.Context(), q)
		if err != nil {
			t.Fatalf("Select: %v", err)
		}
		if len(keys) > q.Limit || len(keys) < q.Limit && !next.IsZero() || len(keys) == 0 && len(all) > 0 {
			t.Fatalf("Select: a page of %d keys, with the limit %d and the cursor %v", len(keys), q.Limit, next)
		}
		all = append(all, keys...)
		if next.IsZero() {
			return all
		}
		q.Cursor = next
	}
	t.Fatal("Select: there is always a next page")
	return nil
}

// someRecords returns records of one creator. Each differs from the first in one way.
func someRecords(creator string, at time.Time) []apikey.Record {
	owner, parent, line, source := "owner_"+unique(), "key_"+unique(), "key_"+unique(), "key_"+unique()
	var all []apikey.Record
	for _, alter := range []func(*apikey.Record){
		func(*apikey.Record) {},
		func(r *apikey.Record) { r.Owner = strings.ToUpper(owner) },
		func(r *apikey.Record) { r.Owner = owner + " " },
		func(r *apikey.Record) { r.CreatedBy = creator + "x" },
		func(r *apikey.Record) { r.CreatedBy = strings.ToLower(creator) },
		func(r *apikey.Record) { r.Parent = strings.ToLower(parent) },
		func(r *apikey.Record) { r.ID, r.Line = line, "" }, // the first of its line
		func(r *apikey.Record) { r.ID, r.Line = strings.ToLower(line), "" },
		func(r *apikey.Record) { r.Line = strings.ToUpper(line) },
		func(r *apikey.Record) { r.Line = "" },
		func(r *apikey.Record) { r.ID = source },
		func(r *apikey.Record) { r.ID, r.Line = source+"_line", source },
		func(r *apikey.Record) { r.DerivedFrom = "" },
		func(r *apikey.Record) { r.DerivedFrom = strings.ToLower(source) },
		func(r *apikey.Record) { r.DerivedFrom = line },
		func(r *apikey.Record) { r.Environment = "Live" },
		func(r *apikey.Record) { r.Plan = "pro" },
		func(r *apikey.Record) { r.PlanOverride = "gold" },
		func(r *apikey.Record) { r.Plan, r.PlanOverride = "gold", "free" },
		func(r *apikey.Record) { r.Prefix = "shopXlive_ab" },
		func(r *apikey.Record) { r.Prefix = "%_" },
		func(r *apikey.Record) { r.Prefix = "SHOP_live_ab" },
		func(r *apikey.Record) { r.Prefix = "shop_liv" },
		func(r *apikey.Record) { r.Metadata = map[string]string{"team": "a", "x": "'y\""} },
		func(r *apikey.Record) { r.Metadata = map[string]string{"team": "a,b"} },
		func(r *apikey.Record) { r.Metadata = map[string]string{"team": ""} },
		func(r *apikey.Record) { r.Metadata = map[string]string{"Team": "a"} },
		func(r *apikey.Record) { r.Metadata = map[string]string{"a": "team"} },
		func(r *apikey.Record) { r.Metadata = nil },
		func(r *apikey.Record) { r.DisabledAt = at },
		func(r *apikey.Record) { r.ExpiresAt = at },
		func(r *apikey.Record) { r.ExpiresAt = at.Add(time.Microsecond) },
		func(r *apikey.Record) { r.ExpiresAt, r.DisabledAt = at.Add(-time.Hour), at },
		func(r *apikey.Record) { r.ExpiresAt, r.RevokedAt = at.Add(-time.Hour), at },
		func(r *apikey.Record) { r.RevokedAt, r.DisabledAt = at.Add(time.Hour), at },
		func(r *apikey.Record) { r.ExpiresAt, r.ReplacedBy = at.Add(time.Hour), "key_"+unique() },
		func(r *apikey.Record) { r.LastUsedAt = at },
		func(r *apikey.Record) { r.LastUsedAt = at.Add(time.Microsecond) },
		func(r *apikey.Record) { r.CreatedAt, r.LastUsedAt = at.Add(-time.Hour), at.Add(time.Hour) },
		func(r *apikey.Record) { r.CreatedAt = at },
		func(r *apikey.Record) { r.CreatedAt = at.Add(-time.Microsecond) },
	} {
		r := newRecord()
		r.Owner, r.CreatedBy, r.Parent, r.Plan, r.PlanOverride = owner, creator, parent, "free", ""
		r.Line, r.DerivedFrom, r.DerivedFromHash = line, source, newHash()
		r.Prefix, r.Metadata, r.ExpiresAt, r.CreatedAt = "shop_live_ab", map[string]string{"team": "a"}, time.Time{}, at.Add(time.Minute)
		alter(&r)
		all = append(all, r)
	}
	return all
}

func testFilters(t *testing.T, s apikey.Store) {
	a, at, creator := needAdmin(t, s), now(), "test:"+unique()
	all := someRecords(creator, at)
	for _, r := range all {
		insert(t, s, r)
	}
	base := all[0]
	for name, f := range map[string]apikey.Filter{
		"creator":                {},
		"owner":                  {Owner: base.Owner},
		"owner in upper case":    {Owner: strings.ToUpper(base.Owner)},
		"no owner":               {Owner: "owner_" + unique()},
		"parent":                 {Parent: base.Parent},
		"line":                   {Line: base.Line},
		"line of one key":        {Line: base.ID},
		"line named by a member": {Line: base.DerivedFrom},
		"no line":                {Line: "key_" + unique()},
		"derived":                {DerivedFrom: base.DerivedFrom},
		"derived from another":   {DerivedFrom: base.Line},
		"derived from a derived": {DerivedFrom: base.ID},
		"environment":            {Environment: "live"},
		"plan":                   {Plan: "free"},
		"plan of a key":          {Plan: "gold"},
		"prefix":                 {Prefix: "shop_live_ab"},
		"shorter prefix":         {Prefix: "shop_"},
		"prefix in upper case":   {Prefix: "SHOP"},
		"prefix with a wildcard": {Prefix: "%"},
		"whole prefix":           {Prefix: "%_"},
		"active":                 {Status: apikey.StatusActive, Now: at},
		"disabled":               {Status: apikey.StatusDisabled, Now: at},
		"expired":                {Status: apikey.StatusExpired, Now: at},
		"expired later":          {Status: apikey.StatusExpired, Now: at.Add(time.Hour)},
		"revoked":                {Status: apikey.StatusRevoked, Now: at},
		"expires soon":           {ExpiresBefore: at.Add(time.Microsecond)},
		"expires later":          {ExpiresBefore: at.Add(2 * time.Hour)},
		"unused":                 {UnusedSince: at.Add(time.Microsecond)},
		"unused for longer":      {UnusedSince: at},
		"metadata":               {Metadata: map[string]string{"team": "a"}},
		"metadata with a quote":  {Metadata: map[string]string{"x": "'y\""}},
		"more metadata":          {Metadata: map[string]string{"team": "a", "x": "'y\""}},
		"metadata without value": {Metadata: map[string]string{"team": ""}},
		"metadata by case":       {Metadata: map[string]string{"Team": "a"}},
		"no metadata":            {Metadata: map[string]string{"none": ""}},
		"all at once": {
			Owner: base.Owner, Parent: base.Parent, Line: base.Line, DerivedFrom: base.DerivedFrom, Environment: "live", Plan: "free", Prefix: "shop", Status: apikey.StatusActive,
			Now: at, ExpiresBefore: at.Add(time.Hour), UnusedSince: at.Add(time.Hour), Metadata: base.Metadata,
		},
		"All is no condition": {Owner: base.Owner, All: true},
	} {
		f.CreatedBy = creator
		var wanted []string
		for _, r := range all {
			if f.Matches(&r.Key) {
				wanted = append(wanted, r.ID)
			}
		}
		got := selected(t, a, apikey.Query{Filter: f, Limit: 1000})
		for _, k := range got {
			if i := slices.IndexFunc(all, func(r apikey.Record) bool { return r.ID == k.ID }); i >= 0 {
				same(t, name, recordOf(k, all[i]), all[i], nil)
			}
		}
		found := ids(got)
		slices.Sort(found)
		slices.Sort(wanted)
		if !slices.Equal(found, wanted) {
			t.Errorf("%s: %d keys, want %d:\n got %v\nwant %v", name, len(found), len(wanted), found, wanted)
		}
	}
}

// order compares two keys as q orders them.
func order(q apikey.Query, x, y apikey.Key) int {
	at := func(k apikey.Key) time.Time {
		switch {
		case q.Sort == apikey.SortExpires && k.ExpiresAt.IsZero():
			return time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)
		case q.Sort == apikey.SortExpires:
			return k.ExpiresAt
		case q.Sort == apikey.SortLastUsed:
			return k.LastUsedAt
		}
		return k.CreatedAt
	}
	c := cmp.Or(at(x).Compare(at(y)), cmp.Compare(x.ID, y.ID))
	if q.Descending {
		return -c
	}
	return c
}

// queries calls f with a query for each order.
func queries(creator string, f func(name string, q apikey.Query)) {
	for _, order := range []apikey.Sort{apikey.SortCreated, apikey.SortExpires, apikey.SortLastUsed} {
		for _, descending := range []bool{false, true} {
			f(fmt.Sprintf("order %d, descending %v", order, descending),
				apikey.Query{Filter: apikey.Filter{CreatedBy: creator}, Sort: order, Descending: descending})
		}
	}
}

func testOrder(t *testing.T, s apikey.Store) {
	a, at, creator, base := needAdmin(t, s), now(), "test:"+unique(), unique()
	var all []apikey.Key
	n := 0
	for _, at := range []time.Time{
		{}, {}, time.Time{}.Add(time.Microsecond), time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC), at, at, at, at, at, at, at.Add(time.Microsecond),
		time.Date(9999, 12, 29, 0, 0, 0, 1000, time.UTC), time.Date(9999, 12, 29, 0, 0, 0, 2000, time.UTC),
	} {
		r := newRecord()
		// The order of the IDs is neither that of the times nor that of a language.
		r.ID, r.CreatedBy = base+string("zA-_a9Z0b8Bk1"[n]), creator
		r.ExpiresAt, r.LastUsedAt = at, at
		if !at.IsZero() {
			r.CreatedAt = at
		}
		n++
		all = append(all, insert(t, s, r).Key)
	}
	queries(creator, func(name string, q apikey.Query) {
		slices.SortFunc(all, func(x, y apikey.Key) int { return order(q, x, y) })
		for _, q.Limit = range []int{1, 2, 5, len(all) - 1, len(all), 1000} {
			if got := ids(selected(t, a, q)); !reflect.DeepEqual(got, ids(all)) {
				t.Errorf("%s, limit %d:\n got %v\nwant %v", name, q.Limit, got, ids(all))
			}
		}
	})
	if keys, next, err := a.Select(t.Context(), apikey.Query{Filter: apikey.Filter{CreatedBy: creator + "x"}, Limit: 10}); err != nil || len(keys) != 0 || !next.IsZero() {
		t.Errorf("Select of nothing: %v, %v, %v", ids(keys), next, err)
	}
}
