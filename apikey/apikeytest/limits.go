package apikeytest

import (
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/storetest"
)

func testLimit(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	start := now()
	owner := "owner_" + unique()
	add := func(at, expires time.Time) (apikey.Record, error) {
		r := newRecord()
		r.Owner, r.CreatedAt, r.UpdatedAt, r.ExpiresAt = owner, at, at, expires
		return r, s.Insert(ctx, r, apikey.Limits{Active: 2})
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
	// A disabled key can be enabled again, so it counts.
	disabled := third
	disabled.DisabledAt = start
	if err := s.Update(ctx, disabled); err != nil {
		t.Fatal(err)
	}
	third.Revision++
	_, err = add(start.Add(time.Hour), time.Time{})
	storetest.WantError(t, "when one is disabled", err, apikey.ErrLimit)
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
	if err := s.Rotate(ctx, third, next, apikey.Limits{}); err != nil {
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
		return s.Insert(t.Context(), r, apikey.Limits{Active: 5})
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
	counts := each(20, func(int) error { return s.Insert(t.Context(), newRecord(), apikey.Limits{Active: 1}) })
	if counts[nil] != 20 {
		t.Errorf("outcomes: %v, want 20 without error", counts)
	}
}

// testRepeatedAtLimit repeats what may have taken effect already: that is no reason to take
// it for a change too many.
func testRepeatedAtLimit(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r := newRecord()
	if err := s.Insert(ctx, r, apikey.Limits{Active: 1}); err != nil {
		t.Fatal(err)
	}
	storetest.WantError(t, "Insert again", s.Insert(ctx, r, apikey.Limits{Active: 1}), apikey.ErrConflict)
	old, next := r, newRecord()
	next.Owner, next.CreatedAt, old.ReplacedBy = r.Owner, r.CreatedAt, next.ID
	if err := s.Rotate(ctx, old, next, apikey.Limits{Replaced: 1}); err != nil {
		t.Fatal(err)
	}
	storetest.WantError(t, "Rotate again", s.Rotate(ctx, old, next, apikey.Limits{Replaced: 1}), apikey.ErrConflict)
	old.Revision++
	storetest.WantError(t, "Rotate to the same key again", s.Rotate(ctx, old, next, apikey.Limits{Replaced: 1}), apikey.ErrConflict)
	unknown := newRecord()
	unknown.Owner = r.Owner
	storetest.WantError(t, "Rotate of an unknown key at the limit", s.Rotate(ctx, unknown, newRecord(), apikey.Limits{Replaced: 1}), apikey.ErrNotFound)
	want(t, s, old)
	want(t, s, next)
}

func testParallelRotationsAtALimit(t *testing.T, s apikey.Store) {
	const keys, limit = 40, 5
	owner, at := "owner_"+unique(), now()
	var old [keys]apikey.Record
	for i := range old {
		r := newRecord()
		r.Owner = owner
		old[i] = insert(t, s, r)
	}
	counts := each(keys, func(i int) error {
		r, next := old[i], newRecord()
		next.Owner, next.CreatedAt, r.ReplacedBy = owner, at, next.ID
		return s.Rotate(t.Context(), r, next, apikey.Limits{Replaced: limit})
	})
	if counts[nil] != limit || counts[apikey.ErrLimit] != keys-limit {
		t.Errorf("outcomes: %v, want %d without error and %d ErrLimit", counts, limit, keys-limit)
	}
	if _, total, err := s.List(t.Context(), owner, 0, 1); err != nil || total != keys+limit {
		t.Errorf("List: %d keys, %v; want %d", total, err, keys+limit)
	}
}
