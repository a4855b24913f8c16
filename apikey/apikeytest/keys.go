package apikeytest

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/storetest"
)

func testRoundTrip(t *testing.T, s apikey.Store) {
	r := newRecord()
	_, err := s.Lookup(t.Context(), r.Hash)
	storetest.WantError(t, "Lookup before Insert", err, apikey.ErrNotFound)
	insert(t, s, r)
	want(t, s, r)
	peppered := newRecord()
	peppered.Hash[0] = 255
	insert(t, s, peppered)
	want(t, s, peppered)
	derived := derivedRecord()
	insert(t, s, derived)
	want(t, s, derived)
	for _, addr := range []string{"0.0.0.0", "192.0.2.1", "::", "::1", "2001:db8::1"} {
		used := newRecord()
		used.LastUsedAt, used.LastUsedFrom = now(), netip.MustParseAddr(addr)
		insert(t, s, used)
		want(t, s, used)
	}
}

func testRestore(t *testing.T, s apikey.Store) {
	want(t, s, insert(t, s, usedRecord()))
	next := usedRecord()
	_, old, _ := rotation(t, s)
	next.Owner = old.Owner
	old.ReplacedBy = next.ID
	if err := s.Rotate(t.Context(), old, next, apikey.Limits{}); err != nil {
		t.Fatal(err)
	}
	want(t, s, next)
}

func testLargest(t *testing.T, s apikey.Store) {
	r := largestRecord()
	insert(t, s, r)
	want(t, s, r)
	// The rest of the times at which formats of times end.
	for _, at := range []time.Time{
		time.Date(1969, 12, 31, 23, 59, 59, 999_999_000, time.UTC),
		time.Date(2106, 2, 7, 6, 28, 16, 0, time.UTC),
		time.Date(9999, 12, 29, 23, 59, 59, 999_999_000, time.UTC),
	} {
		r := usedRecord()
		r.CreatedAt, r.UpdatedAt, r.DisabledAt, r.RevokedAt, r.LastUsedAt, r.ExpiresAt = at, at, at, at, at, at
		insert(t, s, r)
		want(t, s, r)
	}
	small := insert(t, s, newRecord())
	whole := r
	whole.Owner, whole.ID, whole.Hash, whole.Revision = small.Owner, small.ID, small.Hash, small.Revision
	if err := s.Update(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	set(&small, r)
	want(t, s, small)
	if err := s.Touch(t.Context(), map[string]apikey.Use{small.ID: {At: r.ExpiresAt, From: r.LastUsedFrom}}); err != nil {
		t.Fatal(err)
	}
	small.LastUsedAt, small.LastUsedFrom = r.ExpiresAt, r.LastUsedFrom
	wantFound(t, s, small)
}

func testEmptyValues(t *testing.T, s apikey.Store) {
	r := newRecord()
	r.Name, r.Description, r.Prefix, r.LastFour, r.Plan, r.PlanOverride, r.Environment = "", "", "", "", "", "", ""
	r.Scopes, r.Metadata, r.AllowedNetworks, r.Level, r.ExpiresAt = nil, nil, nil, usher.LevelNone, time.Time{}
	r.CreatedBy, r.Parent, r.Line = "", "", ""
	insert(t, s, r)
	want(t, s, r)
	keys, _, err := s.List(t.Context(), r.Owner, 0, 10)
	if err != nil || len(keys) != 1 {
		t.Fatalf("List: %d keys, %v", len(keys), err)
	}
	k := keys[0]
	for name, at := range map[string]time.Time{"expires": k.ExpiresAt, "disabled": k.DisabledAt, "revoked": k.RevokedAt, "last used": k.LastUsedAt} {
		if !at.IsZero() {
			t.Errorf("%s at %v, want never", name, at)
		}
	}
	if k.LastUsedFrom.IsValid() {
		t.Errorf("used from %v", k.LastUsedFrom)
	}
}

func testIsolation(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r := newRecord()
	given := r
	given.Scopes, given.Metadata, given.AllowedNetworks = slices.Clone(r.Scopes), maps.Clone(r.Metadata), slices.Clone(r.AllowedNetworks)
	insert(t, s, given)
	spoil := func(k *apikey.Key) {
		k.Scopes[0], k.AllowedNetworks[0], k.Level = "admin", netip.MustParsePrefix("0.0.0.0/0"), usher.LevelFull
		k.Metadata["team"], k.Metadata["new"] = "spoiled", "spoiled"
	}
	spoil(&given.Key)
	want(t, s, r)

	found, err := s.Find(ctx, r.Owner, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	spoil(&found.Key)
	looked, err := s.Lookup(ctx, r.Hash)
	if err != nil {
		t.Fatal(err)
	}
	spoil(&looked.Key)
	keys, _, err := s.List(ctx, r.Owner, 0, 1)
	if err != nil || len(keys) != 1 {
		t.Fatalf("List: %d keys, %v", len(keys), err)
	}
	spoil(&keys[0])
	want(t, s, r)

	update := r
	update.Scopes, update.Metadata, update.AllowedNetworks = []string{"read:orders"}, map[string]string{"team": "b"}, networks("10.0.0.0/8")
	if err := s.Update(ctx, update); err != nil {
		t.Fatal(err)
	}
	spoil(&update.Key)
	r.Scopes, r.Metadata, r.AllowedNetworks, r.Revision = []string{"read:orders"}, map[string]string{"team": "b"}, networks("10.0.0.0/8"), 2
	want(t, s, r)
}

func testNotFound(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r := insert(t, s, newRecord())
	foreign, unknown := r, r
	foreign.Owner, unknown.ID = "owner_"+unique(), "key_"+unique()
	for name, r := range map[string]apikey.Record{"another owner's key": foreign, "an unknown ID": unknown} {
		wantNone(t, s, name, r)
	}
	_, err := s.Lookup(ctx, newHash())
	storetest.WantError(t, "Lookup", err, apikey.ErrNotFound)
	want(t, s, r)
}

// wantNone fails unless the owner of r has no key with the ID of r.
func wantNone(t *testing.T, s apikey.Store, name string, r apikey.Record) {
	t.Helper()
	ctx := t.Context()
	_, err := s.Find(ctx, r.Owner, r.ID)
	storetest.WantError(t, "Find of "+name, err, apikey.ErrNotFound)
	storetest.WantError(t, "Update of "+name, s.Update(ctx, r), apikey.ErrNotFound)
	storetest.WantError(t, "Rotate of "+name, s.Rotate(ctx, r, newRecord(), apikey.Limits{}), apikey.ErrNotFound)
	_, err = s.Revoke(ctx, r.Owner, r.ID, now())
	storetest.WantError(t, "Revoke of "+name, err, apikey.ErrNotFound)
	keys, total, err := s.List(ctx, r.Owner, 0, 10)
	if err != nil || total != len(keys) || slices.Contains(ids(keys), r.ID) {
		t.Errorf("List with %s: %v, %d, %v", name, ids(keys), total, err)
	}
}

func testUnique(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r := insert(t, s, newRecord())
	sameID, sameHash := newRecord(), newRecord()
	sameID.ID, sameHash.Hash = r.ID, r.Hash
	storetest.WantError(t, "Insert with a taken ID", s.Insert(ctx, sameID, apikey.Limits{}), apikey.ErrConflict)
	storetest.WantError(t, "Insert with a taken hash", s.Insert(ctx, sameHash, apikey.Limits{}), apikey.ErrConflict)
	if _, err := s.Revoke(ctx, r.Owner, r.ID, now()); err != nil {
		t.Fatal(err)
	}
	storetest.WantError(t, "Insert with the hash of a revoked key", s.Insert(ctx, sameHash, apikey.Limits{}), apikey.ErrConflict)
	for _, owner := range []string{sameID.Owner, sameHash.Owner} {
		if _, total, err := s.List(ctx, owner, 0, 10); err != nil || total != 0 {
			t.Errorf("after a conflict: %d keys, %v", total, err)
		}
	}
}

// testBytes catches stores that compare text by a collation, or cut or pad it.
func testBytes(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	for _, pair := range [][2]string{
		{"Ann", "ann"}, {"ann", "ann "}, {"ann", " ann"}, {"ann\t", "ann\n"}, {"caf\u00e9", "cafe\u0301"},
		{"stra\u00dfe", "strasse"}, {"a%", "ab"}, {"a_", "ac"}, {"x\\", "x"}, {"1", "01"}, {"\u0130", "i"},
	} {
		base := unique()
		for i, text := range pair {
			r := newRecord()
			r.Owner = base + text
			other := r
			other.Owner = base + pair[1-i]
			if i == 0 {
				wantNone(t, s, "the other owner's", other)
			}
			// Its limit is its own, too.
			if err := s.Insert(ctx, r, apikey.Limits{Active: 1}); err != nil {
				t.Errorf("owner %q beside %q: %v", text, pair[1-i], err)
				continue
			}
			want(t, s, r)
			wantNone(t, s, fmt.Sprintf("the key of %q by %q", text, pair[1-i]), other)
			if _, total, err := s.List(ctx, r.Owner, 0, 10); err != nil || total != 1 {
				t.Errorf("owner %q has %d keys, %v; want 1", text, total, err)
			}
		}
	}
	base := unique()
	owner := "owner_" + base
	for _, id := range []string{"Key", "key", "KEY", "key_", "key-", "_key", "-key"} {
		r := newRecord()
		r.Owner, r.ID = owner, base+id
		if err := s.Insert(ctx, r, apikey.Limits{}); err != nil {
			t.Errorf("ID %q: %v", id, err)
			continue
		}
		want(t, s, r)
	}
}

func testHashes(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r := insert(t, s, newRecord())
	for i := range r.Hash {
		other := newRecord()
		other.Hash = r.Hash
		other.Hash[i] ^= 0x20 // also the case of a letter
		_, err := s.Lookup(ctx, other.Hash)
		storetest.WantError(t, fmt.Sprintf("Lookup of a hash that differs in byte %d", i), err, apikey.ErrNotFound)
		if err := s.Insert(ctx, other, apikey.Limits{}); err != nil {
			t.Errorf("Insert of a hash that differs in byte %d: %v", i, err)
			continue
		}
		want(t, s, other)
	}
	for _, fill := range []byte{0, ' ', 0xff} { // stores pad and trim with these
		var h apikey.Hash
		for i := range h {
			h[i] = fill
		}
		random := newHash()
		for _, from := range []int{1, 17} {
			r := newRecord()
			r.Hash = h
			copy(r.Hash[from:], random[1:17])
			insert(t, s, r)
			want(t, s, r)
		}
	}
	want(t, s, r)
}

func testList(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	owner, start := "owner_"+unique(), now()
	var all []string
	var records []apikey.Record
	add := func(at time.Time, names ...string) {
		for _, name := range names {
			r := newRecord()
			r.Owner, r.ID, r.CreatedAt = owner, owner[6:]+name, at
			records = append(records, r)
			all = append([]string{r.ID}, all...)
		}
	}
	// Each age has some keys, so that the ID decides only between these, byte by byte.
	add(time.Time{}.Add(time.Microsecond), "Y")
	add(start, "-", "0", "9", "A", "Z", "_", "a", "z")
	add(start.Add(time.Microsecond), "10", "5")
	add(time.Date(9999, 12, 29, 0, 0, 0, 1000, time.UTC), "8")
	add(time.Date(9999, 12, 29, 0, 0, 0, 2000, time.UTC), "7")
	for i := range records {
		insert(t, s, records[(i*5+3)%len(records)]) // in another order
	}
	for _, i := range []int{3, 12} {
		if _, err := s.Revoke(ctx, owner, all[i], start); err != nil {
			t.Fatal(err)
		}
	}
	for _, page := range []struct{ offset, limit, from, to int }{
		{0, 13, 0, 13}, {0, 100, 0, 13}, {0, 3, 0, 3}, {3, 3, 3, 6}, {12, 3, 12, 13}, {13, 3, 13, 13}, {1000, 3, 13, 13}, {0, 0, 0, 0},
	} {
		keys, total, err := s.List(ctx, owner, page.offset, page.limit)
		if err != nil || total != 13 {
			t.Errorf("List(%d, %d): total %d, %v; want 13", page.offset, page.limit, total, err)
		}
		if got := ids(keys); !reflect.DeepEqual(got, all[page.from:page.to]) {
			t.Errorf("List(%d, %d):\n got %v\nwant %v", page.offset, page.limit, got, all[page.from:page.to])
		}
	}
}
