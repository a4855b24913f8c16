package apikeytest

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/storetest"
)

func testCursor(t *testing.T, s apikey.Store) {
	a := needAdmin(t, s)
	queries("", func(name string, q apikey.Query) {
		clearAncient(t, a)
		creator, start := "test:"+unique(), now()
		q.CreatedBy, q.Limit = creator, 4
		add := func(i int, revoked time.Time) apikey.Key {
			r := newRecord()
			at := start.Add(time.Duration(i) * time.Microsecond)
			r.CreatedBy, r.CreatedAt, r.ExpiresAt, r.LastUsedAt, r.RevokedAt = creator, at, at.Add(time.Hour), at, revoked
			return insert(t, s, r).Key
		}
		var kept []apikey.Key
		for i := range 12 {
			// 0 and 3 are on the first page, and 8 and 11 in the other order; 5 is on the second.
			if i == 0 || i == 3 || i == 5 || i == 8 || i == 11 {
				add(2*i, ancient.Add(-time.Hour))
			} else {
				kept = append(kept, add(2*i, time.Time{}))
			}
		}
		first, next, err := a.Select(t.Context(), q)
		if err != nil || len(first) != 4 || next.IsZero() {
			t.Fatalf("%s: %d keys, %v, %v", name, len(first), next, err)
		}
		last := first[3]
		if n, err := a.Purge(t.Context(), ancient, 100); err != nil || n != 5 {
			t.Fatalf("Purge: %d, %v", n, err)
		}
		for i := range 12 {
			kept = append(kept, add(2*i+1, time.Time{}))
		}
		kept = slices.DeleteFunc(kept, func(k apikey.Key) bool { return order(q, k, last) <= 0 })
		slices.SortFunc(kept, func(x, y apikey.Key) int { return order(q, x, y) })
		q.Cursor = next
		if got := ids(selected(t, a, q)); !reflect.DeepEqual(got, ids(kept)) {
			t.Errorf("%s, behind the first page:\n got %v\nwant %v", name, got, ids(kept))
		}
	})
}

// before the time ancient only keys of these tests have ended.
var ancient = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)

// clearAncient removes what earlier tests have left.
func clearAncient(t testing.TB, a apikey.Admin) {
	t.Helper()
	for range 1000 {
		n, err := a.Purge(t.Context(), ancient, 1000)
		if err != nil {
			t.Fatalf("Purge: %v", err)
		}
		if n == 0 {
			return
		}
	}
	t.Fatal("Purge never comes to an end")
}

// ancientRecord inserts a key that ended before ancient, the only one.
func ancientRecord(t testing.TB, a apikey.Admin) apikey.Record {
	t.Helper()
	clearAncient(t, a)
	r := newRecord()
	r.ExpiresAt = ancient.Add(-time.Hour)
	return insert(t, a, r)
}

func testPurge(t *testing.T, s apikey.Store) {
	a, ctx := needAdmin(t, s), t.Context()
	clearAncient(t, a)
	owner := "owner_" + unique()
	var gone, kept []apikey.Record
	for _, c := range []struct {
		expires, revoked, disabled time.Time
		replaced, gone             bool
	}{
		{},
		{disabled: ancient.Add(-time.Hour)},
		{expires: ancient},
		{revoked: ancient},
		{expires: now().Add(time.Hour)},
		{expires: now(), replaced: true},
		{expires: ancient.Add(-time.Microsecond), gone: true},
		{revoked: ancient.Add(-time.Microsecond), gone: true},
		{expires: ancient.Add(-time.Hour), replaced: true, gone: true},
		{expires: ancient.Add(-time.Hour), revoked: now(), gone: true},
		{expires: now().Add(time.Hour), revoked: ancient.Add(-time.Hour), disabled: now(), gone: true},
	} {
		r := newRecord()
		r.Owner, r.ExpiresAt, r.RevokedAt, r.DisabledAt = owner, c.expires, c.revoked, c.disabled
		if c.replaced {
			r.ReplacedBy = "key_" + unique()
		}
		insert(t, s, r)
		want(t, s, r)
		if c.gone {
			gone = append(gone, r)
		} else {
			kept = append(kept, r)
		}
	}
	for _, expected := range []int{2, 2, 1, 0} {
		if n, err := a.Purge(ctx, ancient, 2); err != nil || n != expected {
			t.Fatalf("Purge: %d, %v; want %d", n, err, expected)
		}
	}
	for _, r := range kept {
		want(t, s, r)
	}
	if _, total, err := s.List(ctx, owner, 0, 100); err != nil || total != len(kept) {
		t.Errorf("List: %d keys, %v; want %d", total, err, len(kept))
	}
	if got := selected(t, a, apikey.Query{Filter: apikey.Filter{Owner: owner}, Limit: 100}); len(got) != len(kept) {
		t.Errorf("Select: %d keys, want %d", len(got), len(kept))
	}
	for _, r := range gone {
		_, err := s.Lookup(ctx, r.Hash)
		storetest.WantError(t, "Lookup of a key that was removed", err, apikey.ErrNotFound)
		wantNone(t, s, "a key that was removed", r)
		// Its ID and its hash are free.
		insert(t, s, r)
		want(t, s, r)
	}
	clearAncient(t, a)
}
