// Package apikeytest tests that an [apikey.Store] fulfils its contract.
//
//	func TestStore(t *testing.T) {
//		apikeytest.TestStore(t, func(t testing.TB) apikey.Store { return open(t) })
//	}
package apikeytest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/storetest"
)

// TestStore runs every test of the contract of [apikey.Store], each on a store that
// open returns. The stores may share a database: each test uses its own owners and IDs.
// If a store is an [apikey.Notifier], its notices are tested as well.
func TestStore(t *testing.T, open func(testing.TB) apikey.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, apikey.Store)
	}{
		{"a record is returned as it was stored", testRoundTrip},
		{"a record without optional values is returned as it was stored", testEmptyValues},
		{"arguments and results share nothing with the store", testIsolation},
		{"unknown keys and keys of other owners look the same", testNotFound},
		{"an ID or a hash cannot be used twice", testUnique},
		{"the limit counts active keys that are not replaced", testLimit},
		{"100 parallel inserts at a limit of 5 leave exactly 5", testParallelInserts},
		{"each owner has its own limit", testOwnersApart},
		{"a list is paged, with the newest key first", testList},
		{"an update replaces the settings and nothing else", testUpdate},
		{"an update of an old revision changes nothing", testUpdateConflict},
		{"one of several parallel updates of a revision succeeds", testParallelUpdates},
		{"a rotation updates one key and adds another", testRotate},
		{"a rotation that fails changes nothing", testRotateAtomic},
		{"one of several parallel rotations succeeds", testParallelRotations},
		{"revoking a revoked key changes nothing", testRevoke},
		{"parallel revocations agree", testParallelRevocations},
		{"the last use never moves back", testTouch},
		{"a use never changes a revoked key", testTouchRevoked},
		{"the latest of parallel uses is kept", testParallelTouches},
		{"a context that has ended ends the call", testContext},
		{"watchers are notified of changes", testWatch},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// now returns the time as stores receive it, in whole microseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func unique() string { return rand.Text() }

// newRecord returns a record with every field set, for a new owner.
func newRecord() apikey.Record {
	at := now()
	r := apikey.Record{Key: apikey.Key{
		ID:          "key_" + unique(),
		Owner:       "owner_" + unique(),
		Name:        `A "name" with 日本語, ' and \`,
		Prefix:      "shop_live_a1B2",
		LastFour:    "wxyz",
		Scopes:      []string{"read:orders", "write:orders"},
		Level:       usher.LevelReadWrite,
		Plan:        "pro",
		Environment: "live",
		CreatedAt:   at,
		UpdatedAt:   at,
		ExpiresAt:   at.Add(24 * time.Hour),
		Revision:    1,
	}}
	r.Hash = newHash()
	return r
}

func newHash() (h apikey.Hash) {
	// rand.Read never returns an error.
	_, _ = rand.Read(h[1:])
	return h
}

// use returns a use from an unknown address.
func use(at time.Time) apikey.Use { return apikey.Use{At: at} }

func insert(t *testing.T, s apikey.Store, r apikey.Record) apikey.Record {
	t.Helper()
	if err := s.Insert(t.Context(), r, 0); err != nil {
		t.Fatalf("Insert: %v", err)
	}
	return r
}

// want fails unless the store has exactly r under its hash and its ID.
func want(t *testing.T, s apikey.Store, r apikey.Record) {
	t.Helper()
	found, err := s.Find(t.Context(), r.Owner, r.ID)
	same(t, "Find", found, r, err)
	found, err = s.Lookup(t.Context(), r.Hash)
	same(t, "Lookup", found, r, err)
}

// wantFound fails unless the store has exactly r under its ID. It does not look r up by
// its hash, because an [apikey.Cache] does not see uses.
func wantFound(t *testing.T, s apikey.Store, r apikey.Record) {
	t.Helper()
	found, err := s.Find(t.Context(), r.Owner, r.ID)
	same(t, "Find", found, r, err)
}

func same(t *testing.T, what string, got, want apikey.Record, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	got, want = canonical(got), canonical(want)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// canonical makes equivalent records equal: times have one location, and an empty list
// of scopes is nil.
func canonical(r apikey.Record) apikey.Record {
	for _, at := range []*time.Time{&r.CreatedAt, &r.UpdatedAt, &r.ExpiresAt, &r.RevokedAt, &r.LastUsedAt} {
		*at = at.UTC()
	}
	if len(r.Scopes) == 0 {
		r.Scopes = nil
	}
	return r
}

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
	lasting := newRecord()
	lasting.ExpiresAt = time.Date(9999, 12, 30, 0, 0, 0, 0, time.UTC)
	insert(t, s, lasting)
	want(t, s, lasting)
	other := peppered.Hash
	other[0] = 254
	_, err = s.Lookup(t.Context(), other)
	storetest.WantError(t, "Lookup with another version", err, apikey.ErrNotFound)
}

func testEmptyValues(t *testing.T, s apikey.Store) {
	r := newRecord()
	r.Name, r.Prefix, r.LastFour, r.Plan, r.Environment = "", "", "", "", ""
	r.Scopes, r.Level, r.ExpiresAt = nil, usher.LevelNone, time.Time{}
	insert(t, s, r)
	want(t, s, r)
	keys, _, err := s.List(t.Context(), r.Owner, 0, 10)
	if err != nil || len(keys) != 1 || !keys[0].ExpiresAt.IsZero() || !keys[0].RevokedAt.IsZero() || !keys[0].LastUsedAt.IsZero() {
		t.Errorf("List: %+v, %v", keys, err)
	}
}

func testIsolation(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r := newRecord()
	given := r
	given.Scopes = append([]string(nil), r.Scopes...)
	insert(t, s, given)
	given.Scopes[0] = "admin"
	want(t, s, r)

	found, err := s.Find(ctx, r.Owner, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	found.Scopes[0], found.Level = "admin", usher.LevelFull
	looked, err := s.Lookup(ctx, r.Hash)
	if err != nil {
		t.Fatal(err)
	}
	looked.Scopes[0] = "admin"
	keys, _, err := s.List(ctx, r.Owner, 0, 1)
	if err != nil || len(keys) != 1 {
		t.Fatalf("List: %d keys, %v", len(keys), err)
	}
	keys[0].Scopes[0] = "admin"
	want(t, s, r)

	update := r
	update.Scopes = []string{"read:orders"}
	if err := s.Update(ctx, update); err != nil {
		t.Fatal(err)
	}
	update.Scopes[0] = "admin"
	r.Scopes, r.Revision = []string{"read:orders"}, 2
	want(t, s, r)
}

func testNotFound(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r := insert(t, s, newRecord())
	foreign, unknown := r, r
	foreign.Owner, unknown.ID = "owner_"+unique(), "key_"+unique()
	for name, r := range map[string]apikey.Record{"another owner's key": foreign, "an unknown ID": unknown} {
		_, err := s.Find(ctx, r.Owner, r.ID)
		storetest.WantError(t, "Find of "+name, err, apikey.ErrNotFound)
		storetest.WantError(t, "Update of "+name, s.Update(ctx, r), apikey.ErrNotFound)
		storetest.WantError(t, "Rotate of "+name, s.Rotate(ctx, r, newRecord(), 0), apikey.ErrNotFound)
		_, err = s.Revoke(ctx, r.Owner, r.ID, now())
		storetest.WantError(t, "Revoke of "+name, err, apikey.ErrNotFound)
	}
	_, err := s.Lookup(ctx, newHash())
	storetest.WantError(t, "Lookup", err, apikey.ErrNotFound)
	if keys, total, err := s.List(ctx, foreign.Owner, 0, 10); err != nil || len(keys) != 0 || total != 0 {
		t.Errorf("List of an owner without keys: %v, %d, %v", keys, total, err)
	}
	want(t, s, r)
}

func testUnique(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r := insert(t, s, newRecord())
	sameID, sameHash := newRecord(), newRecord()
	sameID.ID, sameHash.Hash = r.ID, r.Hash
	storetest.WantError(t, "Insert with a taken ID", s.Insert(ctx, sameID, 0), apikey.ErrConflict)
	storetest.WantError(t, "Insert with a taken hash", s.Insert(ctx, sameHash, 0), apikey.ErrConflict)
	if _, err := s.Revoke(ctx, r.Owner, r.ID, now()); err != nil {
		t.Fatal(err)
	}
	storetest.WantError(t, "Insert with the hash of a revoked key", s.Insert(ctx, sameHash, 0), apikey.ErrConflict)
	for _, owner := range []string{sameID.Owner, sameHash.Owner} {
		if _, total, err := s.List(ctx, owner, 0, 10); err != nil || total != 0 {
			t.Errorf("after a conflict: %d keys, %v", total, err)
		}
	}
}

func testLimit(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	start := now()
	owner := "owner_" + unique()
	add := func(at, expires time.Time) (apikey.Record, error) {
		r := newRecord()
		r.Owner, r.CreatedAt, r.UpdatedAt, r.ExpiresAt = owner, at, at, expires
		return r, s.Insert(ctx, r, 2)
	}
	first, err := add(start, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := add(start, start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	_, err = add(start, time.Time{})
	storetest.WantError(t, "third", err, apikey.ErrLimit)
	_, err = add(start.Add(time.Hour-time.Microsecond), time.Time{})
	storetest.WantError(t, "just before one expires", err, apikey.ErrLimit)
	third, err := add(start.Add(time.Hour), time.Time{})
	if err != nil {
		t.Errorf("when one has expired: %v", err)
	}
	if _, err := s.Revoke(ctx, owner, first.ID, start); err != nil {
		t.Fatal(err)
	}
	if _, err := add(start.Add(time.Hour), time.Time{}); err != nil {
		t.Errorf("when one is revoked: %v", err)
	}
	next := newRecord()
	next.Owner, next.CreatedAt = owner, start.Add(time.Hour)
	third.ReplacedBy = next.ID
	third.ExpiresAt = start.Add(24 * time.Hour)
	if err := s.Rotate(ctx, third, next, 0); err != nil {
		t.Fatal(err)
	}
	_, err = add(start.Add(2*time.Hour), time.Time{})
	storetest.WantError(t, "after a rotation, which leaves the count the same", err, apikey.ErrLimit)
	if _, err := s.Revoke(ctx, owner, next.ID, start); err != nil {
		t.Fatal(err)
	}
	if _, err := add(start.Add(2*time.Hour), time.Time{}); err != nil {
		t.Errorf("with one active and one replaced: %v", err)
	}
}

// each calls f n times concurrently and counts the errors that f returned.
func each(n int, f func(i int) error) map[error]int {
	return storetest.Each(n, f, apikey.ErrLimit, apikey.ErrConflict, apikey.ErrNotFound)
}

func testParallelInserts(t *testing.T, s apikey.Store) {
	owner, at := "owner_"+unique(), now()
	counts := each(100, func(int) error {
		r := newRecord()
		r.Owner, r.CreatedAt = owner, at
		return s.Insert(t.Context(), r, 5)
	})
	if counts[nil] != 5 || counts[apikey.ErrLimit] != 95 {
		t.Errorf("outcomes: %v, want 5 without error and 95 ErrLimit", counts)
	}
	keys, total, err := s.List(t.Context(), owner, 0, 100)
	if err != nil || len(keys) != 5 || total != 5 {
		t.Errorf("List: %d of %d keys, %v; want 5", len(keys), total, err)
	}
}

func testOwnersApart(t *testing.T, s apikey.Store) {
	counts := each(20, func(int) error { return s.Insert(t.Context(), newRecord(), 1) })
	if counts[nil] != 20 {
		t.Errorf("outcomes: %v, want 20 without error", counts)
	}
}

func testList(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	owner, start := "owner_"+unique(), now()
	var ids []string
	for i := range 7 {
		r := newRecord()
		// Two keys of each age, so that the ID decides only between these two.
		r.ID = fmt.Sprintf("key_%s_%d%d", owner, 9-i/2, i%2)
		r.Owner, r.CreatedAt = owner, start.Add(time.Duration(i/2)*time.Microsecond)
		insert(t, s, r)
		ids = append([]string{r.ID}, ids...)
	}
	if _, err := s.Revoke(ctx, owner, ids[3], start); err != nil {
		t.Fatal(err)
	}
	for _, page := range []struct{ offset, limit, from, to int }{
		{0, 7, 0, 7}, {0, 100, 0, 7}, {0, 3, 0, 3}, {3, 3, 3, 6}, {6, 3, 6, 7}, {7, 3, 7, 7}, {1000, 3, 7, 7}, {0, 0, 0, 0},
	} {
		keys, total, err := s.List(ctx, owner, page.offset, page.limit)
		if err != nil || total != 7 {
			t.Errorf("List(%d, %d): total %d, %v; want 7", page.offset, page.limit, total, err)
		}
		got := []string{}
		for _, k := range keys {
			got = append(got, k.ID)
		}
		if !reflect.DeepEqual(got, ids[page.from:page.to]) {
			t.Errorf("List(%d, %d):\n got %v\nwant %v", page.offset, page.limit, got, ids[page.from:page.to])
		}
	}
}

func testUpdate(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r := insert(t, s, newRecord())
	want(t, s, r)
	used := r.CreatedAt.Add(time.Second)
	if err := s.Touch(ctx, map[string]apikey.Use{r.ID: use(used)}); err != nil {
		t.Fatal(err)
	}
	// Every field differs, and only the settings may be stored.
	update := newRecord()
	update.Owner, update.ID, update.Hash, update.Revision, update.ReplacedBy = r.Owner, r.ID, r.Hash, r.Revision, "other"
	update.Name, update.Scopes, update.Level, update.Plan = "new", []string{"read:orders"}, usher.LevelFull, "free"
	update.Prefix, update.LastFour, update.Environment = "x", "y", "test"
	update.CreatedAt, update.UpdatedAt = r.CreatedAt.Add(time.Hour), r.CreatedAt.Add(time.Minute)
	update.ExpiresAt, update.RevokedAt, update.LastUsedAt = time.Time{}, r.CreatedAt, r.CreatedAt
	if err := s.Update(ctx, update); err != nil {
		t.Fatal(err)
	}
	r.Name, r.Scopes, r.Level, r.Plan = "new", []string{"read:orders"}, usher.LevelFull, "free"
	r.ExpiresAt, r.UpdatedAt, r.LastUsedAt, r.Revision = time.Time{}, update.UpdatedAt, used, 2
	want(t, s, r)
}

func testUpdateConflict(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r := insert(t, s, newRecord())
	stale := r
	stale.Name, stale.Revision = "stale", 7
	storetest.WantError(t, "Update of a later revision", s.Update(ctx, stale), apikey.ErrConflict)
	revoked, err := s.Revoke(ctx, r.Owner, r.ID, r.CreatedAt.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	stale.Revision = 1
	storetest.WantError(t, "Update of the revision before the revocation", s.Update(ctx, stale), apikey.ErrConflict)
	want(t, s, revoked)
}

func testParallelUpdates(t *testing.T, s apikey.Store) {
	r := insert(t, s, newRecord())
	counts := each(20, func(i int) error {
		update := r
		update.Name = strconv.Itoa(i)
		return s.Update(t.Context(), update)
	})
	if counts[nil] != 1 || counts[apikey.ErrConflict] != 19 {
		t.Errorf("outcomes: %v, want 1 without error and 19 ErrConflict", counts)
	}
}

// rotation returns a key in the store, the record that a rotation makes of it, and its
// successor.
func rotation(t *testing.T, s apikey.Store) (r, old, next apikey.Record) {
	t.Helper()
	r = insert(t, s, newRecord())
	next = newRecord()
	next.Owner, next.CreatedAt = r.Owner, r.CreatedAt.Add(time.Minute)
	old = r
	old.ExpiresAt, old.UpdatedAt, old.ReplacedBy = next.CreatedAt.Add(time.Hour), next.CreatedAt, next.ID
	return r, old, next
}

func testRotate(t *testing.T, s apikey.Store) {
	r, old, next := rotation(t, s)
	want(t, s, r)
	if err := s.Rotate(t.Context(), old, next, 1); err != nil {
		t.Fatal(err)
	}
	old.Revision = 2
	want(t, s, old)
	want(t, s, next)
}

func testRotateAtomic(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r, old, next := rotation(t, s)
	unchanged := func(what string) {
		t.Helper()
		want(t, s, r)
		_, err := s.Lookup(ctx, next.Hash)
		storetest.WantError(t, "successor after "+what, err, apikey.ErrNotFound)
	}
	stale := old
	stale.Revision = 3
	storetest.WantError(t, "Rotate of another revision", s.Rotate(ctx, stale, next, 0), apikey.ErrConflict)
	unchanged("a conflict")

	taken := next
	taken.Hash = r.Hash
	storetest.WantError(t, "Rotate to a taken hash", s.Rotate(ctx, old, taken, 0), apikey.ErrConflict)
	unchanged("a taken hash")
	taken = next
	taken.ID = r.ID
	storetest.WantError(t, "Rotate to a taken ID", s.Rotate(ctx, old, taken, 0), apikey.ErrConflict)
	unchanged("a taken ID")

	// A second key of the owner, which is replaced and still valid, uses up the limit of 1.
	second := newRecord()
	second.Owner = r.Owner
	insert(t, s, second)
	replacement := newRecord()
	replacement.Owner, replacement.CreatedAt = r.Owner, r.CreatedAt
	second.ReplacedBy, second.ExpiresAt = replacement.ID, next.CreatedAt.Add(time.Hour)
	if err := s.Rotate(ctx, second, replacement, 1); err != nil {
		t.Fatal(err)
	}
	storetest.WantError(t, "Rotate over the limit", s.Rotate(ctx, old, next, 1), apikey.ErrLimit)
	unchanged("the limit")
	late := next
	late.CreatedAt = second.ExpiresAt
	if err := s.Rotate(ctx, old, late, 1); err != nil {
		t.Errorf("Rotate when the other replaced key has expired: %v", err)
	}
}

func testParallelRotations(t *testing.T, s apikey.Store) {
	r := insert(t, s, newRecord())
	counts := each(20, func(int) error {
		old, next := r, newRecord()
		next.Owner, old.ReplacedBy = r.Owner, next.ID
		return s.Rotate(t.Context(), old, next, 0)
	})
	if counts[nil] != 1 || counts[apikey.ErrConflict] != 19 {
		t.Errorf("outcomes: %v, want 1 without error and 19 ErrConflict", counts)
	}
	if _, total, err := s.List(t.Context(), r.Owner, 0, 100); err != nil || total != 2 {
		t.Errorf("List: %d keys, %v; want 2", total, err)
	}
}

func testRevoke(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r := insert(t, s, newRecord())
	want(t, s, r)
	at := r.CreatedAt.Add(time.Minute)
	got, err := s.Revoke(ctx, r.Owner, r.ID, at)
	r.RevokedAt, r.UpdatedAt, r.Revision = at, at, 2
	same(t, "Revoke", got, r, err)
	want(t, s, r)
	got, err = s.Revoke(ctx, r.Owner, r.ID, at.Add(time.Hour))
	same(t, "Revoke again", got, r, err)
	want(t, s, r)
}

func testParallelRevocations(t *testing.T, s apikey.Store) {
	r := insert(t, s, newRecord())
	times := make([]time.Time, 20)
	counts := each(20, func(i int) error {
		got, err := s.Revoke(t.Context(), r.Owner, r.ID, r.CreatedAt.Add(time.Duration(i+1)*time.Second))
		times[i] = got.RevokedAt
		return err
	})
	if counts[nil] != 20 {
		t.Fatalf("outcomes: %v, want 20 without error", counts)
	}
	for _, at := range times {
		if !at.Equal(times[0]) || at.IsZero() {
			t.Errorf("revoked at %v and at %v", times[0], at)
		}
	}
}

func testTouch(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	first, second := insert(t, s, newRecord()), insert(t, s, newRecord())
	at := first.CreatedAt.Add(time.Minute)
	touch := func(uses map[string]apikey.Use) {
		t.Helper()
		if err := s.Touch(ctx, uses); err != nil {
			t.Fatalf("Touch: %v", err)
		}
	}
	touch(nil)
	touch(map[string]apikey.Use{first.ID: use(at), second.ID: use(at.Add(time.Second)), "key_" + unique(): use(at)})
	first.LastUsedAt, second.LastUsedAt = at, at.Add(time.Second)
	wantFound(t, s, first)
	wantFound(t, s, second)
	touch(map[string]apikey.Use{first.ID: use(at.Add(-time.Second)), second.ID: use(at.Add(time.Minute))})
	second.LastUsedAt = at.Add(time.Minute)
	wantFound(t, s, first)
	wantFound(t, s, second)

	many := map[string]apikey.Use{first.ID: use(at.Add(time.Hour))}
	for range 999 {
		many["key_"+unique()] = use(at)
	}
	touch(many)
	first.LastUsedAt = at.Add(time.Hour)
	wantFound(t, s, first)
}

func testTouchRevoked(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r := insert(t, s, newRecord())
	used := r.CreatedAt.Add(time.Second)
	if err := s.Touch(ctx, map[string]apikey.Use{r.ID: use(used)}); err != nil {
		t.Fatal(err)
	}
	revoked, err := s.Revoke(ctx, r.Owner, r.ID, used.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{used.Add(time.Second), used.Add(time.Hour)} {
		if err := s.Touch(ctx, map[string]apikey.Use{r.ID: use(at)}); err != nil {
			t.Fatal(err)
		}
	}
	want(t, s, revoked)
	if !revoked.LastUsedAt.Equal(used) {
		t.Errorf("last used at %v, want %v", revoked.LastUsedAt, used)
	}
}

func testParallelTouches(t *testing.T, s apikey.Store) {
	first, second := insert(t, s, newRecord()), insert(t, s, newRecord())
	counts := each(20, func(i int) error {
		at := first.CreatedAt.Add(time.Duration(i) * time.Second)
		// Both keys at once: a store that locks row by row might deadlock.
		return s.Touch(t.Context(), map[string]apikey.Use{first.ID: use(at), second.ID: use(at)})
	})
	if counts[nil] != 20 {
		t.Fatalf("outcomes: %v, want 20 without error", counts)
	}
	first.LastUsedAt = first.CreatedAt.Add(19 * time.Second)
	wantFound(t, s, first)
}

func testContext(t *testing.T, s apikey.Store) {
	r := insert(t, s, newRecord())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Insert": func() error { return s.Insert(ctx, newRecord(), 0) },
		"Lookup": func() error { _, err := s.Lookup(ctx, r.Hash); return err },
		"Find":   func() error { _, err := s.Find(ctx, r.Owner, r.ID); return err },
		"List":   func() error { _, _, err := s.List(ctx, r.Owner, 0, 1); return err },
		"Update": func() error { return s.Update(ctx, r) },
		"Rotate": func() error { return s.Rotate(ctx, r, newRecord(), 0) },
		"Revoke": func() error { _, err := s.Revoke(ctx, r.Owner, r.ID, now()); return err },
		"Touch":  func() error { return s.Touch(ctx, map[string]apikey.Use{r.ID: use(now())}) },
	} {
		err := call()
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if errors.Is(err, apikey.ErrNotFound) || errors.Is(err, apikey.ErrLimit) || errors.Is(err, apikey.ErrConflict) {
			t.Errorf("%s: %v, as if the store had responded", name, err)
		}
	}
	want(t, s, r)
}

func testWatch(t *testing.T, s apikey.Store) {
	n, ok := s.(apikey.Notifier)
	if !ok {
		t.Skip("the store is not a Notifier")
	}
	const patience = 10 * time.Second
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready, ended := make(chan struct{}), make(chan error, 1)
	changes := make(chan apikey.Hash, 100)
	go func() {
		ended <- n.Watch(ctx, sync.OnceFunc(func() { close(ready) }), func(h apikey.Hash) { changes <- h })
	}()
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatal("Watch is not ready")
	}
	await := func(what string, hashes ...apikey.Hash) {
		t.Helper()
		missing := map[apikey.Hash]bool{}
		for _, h := range hashes {
			missing[h] = true
		}
		for len(missing) > 0 {
			select {
			case h := <-changes: // may come from another test
				delete(missing, h)
			case <-time.After(patience):
				t.Fatalf("there was no notice of %s", what)
			}
		}
	}
	r, old, next := rotation(t, s)
	await("Insert", r.Hash)
	r.Name = "new"
	if err := s.Update(ctx, r); err != nil {
		t.Fatal(err)
	}
	await("Update", r.Hash)
	old.Revision = 2
	if err := s.Rotate(ctx, old, next, 0); err != nil {
		t.Fatal(err)
	}
	await("Rotate", old.Hash, next.Hash)
	if _, err := s.Revoke(ctx, next.Owner, next.ID, now()); err != nil {
		t.Fatal(err)
	}
	await("Revoke", next.Hash)
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("Watch returned without an error")
		}
	case <-time.After(patience):
		t.Error("Watch does not end with its context")
	}
}
