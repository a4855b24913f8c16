package apikeytest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/storetest"
)

// lost makes a call whose reply is lost, and returns its error: nil if the store has
// repeated the call in a way that does no harm.
func (s Shared) lost(t *testing.T, what string, call func() error) error {
	t.Helper()
	s.Cut(t)
	err := try(t, what, call)
	if err != nil && !errors.Is(err, usher.ErrUnavailable) {
		t.Errorf("%s, whose reply is lost: error %v, want %v", what, err, usher.ErrUnavailable)
	}
	return err
}

func testCut(t *testing.T, s Shared) {
	if s.Cut == nil {
		t.Skip("without Cut")
	}
	c, ctx := s.open(t), t.Context()
	r := newRecord()
	_ = s.lost(t, "Insert", func() error { return c.Insert(ctx, r, apikey.Limits{Active: 1}) })
	want(t, c, r)
	storetest.WantError(t, "Insert again", c.Insert(ctx, r, apikey.Limits{}), apikey.ErrConflict)

	update := r
	update.Name, update.Level = "new", usher.LevelNone
	_ = s.lost(t, "Update", func() error { return c.Update(ctx, update) })
	set(&r, update)
	want(t, c, r)
	storetest.WantError(t, "Update again", c.Update(ctx, update), apikey.ErrConflict)
	want(t, c, r)

	next := newRecord()
	next.Owner, r.ReplacedBy = r.Owner, next.ID
	_ = s.lost(t, "Rotate", func() error { return c.Rotate(ctx, r, next, apikey.Limits{Replaced: 1}) })
	storetest.WantError(t, "Rotate again", c.Rotate(ctx, r, next, apikey.Limits{}), apikey.ErrConflict)
	r.Revision++
	want(t, c, r)
	want(t, c, next)

	used := apikey.Use{At: now().Add(time.Second)}
	touch := func() error { return c.Touch(ctx, map[string]apikey.Use{r.ID: used}) }
	_ = s.lost(t, "Touch", touch)
	if err := touch(); err != nil {
		t.Errorf("Touch again: %v", err)
	}
	r.LastUsedAt = used.At
	wantFound(t, c, r)

	at := now().Add(time.Minute)
	var got apikey.Record
	err := s.lost(t, "Revoke", func() (err error) { got, err = c.Revoke(ctx, r.Owner, r.ID, at); return err })
	r.RevokedAt, r.UpdatedAt, r.Revision = at, at, r.Revision+1
	if err == nil {
		same(t, "Revoke", got, r, nil)
	}
	got, err = c.Revoke(ctx, r.Owner, r.ID, at.Add(time.Hour))
	same(t, "Revoke again", got, r, err)
	want(t, c, r)

	if a := admin(c); a != nil {
		testCutAdmin(t, s, a, next)
	}
}

// testCutAdmin revokes and removes r, the only active key of its owner.
func testCutAdmin(t *testing.T, s Shared, a apikey.Admin, r apikey.Record) {
	t.Helper()
	ctx, at := t.Context(), now().Add(time.Minute)
	all := func(ctx context.Context) (revoked []apikey.Record, more bool, err error) {
		return a.RevokeAll(ctx, apikey.Filter{Owner: r.Owner}, at, 10)
	}
	var revoked []apikey.Record
	err := s.lost(t, "RevokeAll", func() (err error) { revoked, _, err = all(ctx); return err })
	if err == nil && len(revoked) != 1 {
		// A cache would keep the rest.
		t.Errorf("RevokeAll, whose reply is lost: %d keys and no error, want 1", len(revoked))
	}
	if again, more, err := all(ctx); err != nil || len(again) != 0 || more {
		t.Errorf("RevokeAll again: %d keys, more %v, %v", len(again), more, err)
	}
	r.RevokedAt, r.UpdatedAt, r.Revision = at, at, r.Revision+1
	want(t, a, r)

	gone := ancientRecord(t, a)
	_ = s.lost(t, "Purge", func() error { _, err := a.Purge(ctx, ancient, 10); return err })
	if n, err := a.Purge(ctx, ancient, 10); err != nil || n != 0 {
		t.Errorf("Purge again: %d, %v", n, err)
	}
	wantNone(t, a, "a key that was removed", gone)
}

func testPoison(t *testing.T, s Shared) {
	if s.Poison == nil {
		t.Skip("without Poison")
	}
	c := s.open(t)
	r := insert(t, c, newRecord())
	supported := admin(c) != nil
	s.Poison(t)
	for name, call := range calls(c, r) {
		err := try(t, name, func() error { return call(t.Context()) })
		switch name {
		case "Insert", "Touch", "Purge":
			// May not have to read anything of r.
			continue
		case "Select", "RevokeAll":
			if !supported {
				continue
			}
		}
		if !errors.Is(err, usher.ErrCorrupt) {
			t.Errorf("%s: error %v, want %v", name, err, usher.ErrCorrupt)
		}
	}
	for _, b := range bounds {
		other := newRecord()
		other.Owner = r.Owner
		if err := try(t, "Insert", func() error { return c.Insert(t.Context(), other, b.at(1)) }); err == nil {
			t.Errorf("an owner whose keys cannot be read may have more of them than the limit %s", b.name)
		}
	}
}
