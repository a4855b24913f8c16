package apikeytest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
)

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

	// The same time again is not later.
	if err := s.Touch(ctx, map[string]apikey.Use{first.ID: {At: at, From: netip.MustParseAddr("192.0.2.1")}}); err != nil {
		t.Fatal(err)
	}
	wantFound(t, s, first)

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

func testTouchAddress(t *testing.T, s apikey.Store) {
	r := insert(t, s, newRecord())
	at := r.CreatedAt
	first, second, none := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.Addr{}
	for _, step := range []struct {
		use  apikey.Use
		from netip.Addr
		at   time.Time
	}{
		{apikey.Use{At: at, From: first}, first, at},
		{apikey.Use{At: at.Add(-time.Second), From: second}, first, at},
		{apikey.Use{At: at, From: second}, first, at},
		{apikey.Use{At: at.Add(1 * time.Second), From: second}, second, at.Add(time.Second)},
		{apikey.Use{At: at.Add(2 * time.Second)}, none, at.Add(2 * time.Second)},
		{apikey.Use{At: at.Add(3 * time.Second), From: first}, first, at.Add(3 * time.Second)},
	} {
		uses := map[string]apikey.Use{r.ID: step.use}
		if err := s.Touch(t.Context(), uses); err != nil {
			t.Fatal(err)
		}
		// The store keeps no argument.
		uses[r.ID] = apikey.Use{At: at.Add(time.Hour), From: netip.MustParseAddr("203.0.113.1")}
		r.LastUsedAt, r.LastUsedFrom = step.at, step.from
		wantFound(t, s, r)
	}
}
