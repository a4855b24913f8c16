package apikeytest

import (
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/storetest"
)

func testActive(t *testing.T, s apikey.Store) {
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
	return storetest.Each(n, f, apikey.ErrLimit, apikey.ErrFull, apikey.ErrConflict, apikey.ErrNotFound)
}

func testOwnersApart(t *testing.T, s apikey.Store) {
	one := apikey.Limits{Active: 1, Working: 1, Total: 1}
	counts := each(20, func(int) error { return s.Insert(t.Context(), newRecord(), one) })
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
