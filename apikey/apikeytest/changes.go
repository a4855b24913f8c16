package apikeytest

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/storetest"
)

// set does to r what an update to from does, except to Revision.
func set(r *apikey.Record, from apikey.Record) {
	r.Name, r.Description, r.Metadata = from.Name, from.Description, from.Metadata
	r.Scopes, r.Level, r.Plan, r.PlanOverride = from.Scopes, from.Level, from.Plan, from.PlanOverride
	r.AllowedNetworks, r.ExpiresAt = from.AllowedNetworks, from.ExpiresAt
	r.DisabledAt, r.DisabledBy = from.DisabledAt, from.DisabledBy
	r.UpdatedAt = from.UpdatedAt
	r.Revision++
}

func testUpdate(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r := insert(t, s, newRecord())
	want(t, s, r)
	used := apikey.Use{At: r.CreatedAt.Add(time.Second), From: netip.MustParseAddr("192.0.2.1")}
	if err := s.Touch(ctx, map[string]apikey.Use{r.ID: used}); err != nil {
		t.Fatal(err)
	}
	r.LastUsedAt, r.LastUsedFrom = used.At, used.From
	// Every field differs, and only the settings may be stored.
	update := usedRecord()
	update.Owner, update.ID, update.Hash, update.Revision, update.ReplacedBy = r.Owner, r.ID, r.Hash, r.Revision, "other"
	update.Name, update.Description, update.Metadata = "new", "new", map[string]string{"team": "c", "new": ""}
	update.Scopes, update.Level, update.Plan, update.PlanOverride = []string{"read:orders"}, usher.LevelFull, "free", "silver"
	update.AllowedNetworks = networks("10.0.0.0/8")
	update.Prefix, update.LastFour, update.Environment = "x", "y", "test"
	update.CreatedAt, update.UpdatedAt = r.CreatedAt.Add(time.Hour), r.CreatedAt.Add(time.Minute)
	update.ExpiresAt, update.RevokedAt, update.LastUsedAt = r.CreatedAt.Add(time.Second), r.CreatedAt, r.CreatedAt
	if err := s.Update(ctx, update); err != nil {
		t.Fatal(err)
	}
	set(&r, update)
	want(t, s, r)
}

func testUpdateToNothing(t *testing.T, s apikey.Store) {
	for _, r := range []apikey.Record{usedRecord(), newRecord()} {
		insert(t, s, r)
		want(t, s, r)
		none := apikey.Record{Key: apikey.Key{ID: r.ID, Owner: r.Owner, Revision: r.Revision, UpdatedAt: r.UpdatedAt}, Hash: r.Hash}
		if err := s.Update(t.Context(), none); err != nil {
			t.Fatal(err)
		}
		set(&r, none)
		want(t, s, r)
	}
}

// testStates tests keys that a store might treat as if they did not exist.
func testStates(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	for name, alter := range map[string]func(*apikey.Record){
		"expired":  func(r *apikey.Record) { r.ExpiresAt = r.CreatedAt.Add(-time.Hour) },
		"disabled": func(r *apikey.Record) { r.DisabledAt = r.CreatedAt },
		"replaced": func(r *apikey.Record) { r.ReplacedBy = "key_" + unique() },
		"derived":  derive,
		"expired, disabled and replaced": func(r *apikey.Record) {
			r.ExpiresAt, r.DisabledAt, r.ReplacedBy = r.CreatedAt, r.CreatedAt, "key_"+unique()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord()
			alter(&r)
			insert(t, s, r)
			want(t, s, r)
			use := apikey.Use{At: now().Add(time.Hour), From: netip.MustParseAddr("2001:db8::9")}
			if err := s.Touch(ctx, map[string]apikey.Use{r.ID: use}); err != nil {
				t.Fatal(err)
			}
			r.LastUsedAt, r.LastUsedFrom = use.At, use.From
			wantFound(t, s, r)
			update := r
			update.Name, update.Level, update.UpdatedAt = "new", usher.LevelNone, r.UpdatedAt.Add(time.Second)
			if err := s.Update(ctx, update); err != nil {
				t.Fatalf("Update: %v", err)
			}
			set(&r, update)
			want(t, s, r)
			if r.ReplacedBy == "" {
				next := newRecord()
				next.Owner = r.Owner
				r.ReplacedBy = next.ID
				if err := s.Rotate(ctx, r, next, apikey.Limits{}); err != nil {
					t.Fatalf("Rotate: %v", err)
				}
				r.Revision++
				want(t, s, r)
			}
			at := r.UpdatedAt.Add(time.Minute)
			got, err := s.Revoke(ctx, r.Owner, r.ID, at)
			r.RevokedAt, r.UpdatedAt, r.Revision = at, at, r.Revision+1
			same(t, "Revoke", got, r, err)
			want(t, s, r)
		})
	}
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
	next.Owner, next.CreatedAt, next.Parent = r.Owner, r.CreatedAt.Add(time.Minute), r.ID
	old = r
	old.ExpiresAt, old.UpdatedAt, old.ReplacedBy = next.CreatedAt.Add(time.Hour), next.CreatedAt, next.ID
	return r, old, next
}

func testRotate(t *testing.T, s apikey.Store) {
	ctx := t.Context()
	r, old, next := rotation(t, s)
	want(t, s, r)
	if err := s.Touch(ctx, map[string]apikey.Use{r.ID: {At: r.CreatedAt, From: netip.MustParseAddr("192.0.2.1")}}); err != nil {
		t.Fatal(err)
	}
	// Of the old key only what Update replaces is stored, and ReplacedBy.
	given := old
	given.Parent, given.Line, given.CreatedBy, given.Prefix = "other", "other", "other", "other"
	given.DerivedFrom, given.DerivedFromHash = "other", newHash()
	if err := s.Rotate(ctx, given, next, apikey.Limits{Replaced: 1}); err != nil {
		t.Fatal(err)
	}
	old.LastUsedAt, old.LastUsedFrom, old.Revision = r.CreatedAt, netip.MustParseAddr("192.0.2.1"), 2
	want(t, s, old)
	want(t, s, next)
	// A later change of the old key does not make it one that can be replaced again.
	old.Level, old.UpdatedAt = usher.LevelNone, old.UpdatedAt.Add(time.Second)
	cleared := old
	cleared.ReplacedBy, cleared.Parent, cleared.Line = "", "", ""
	if err := s.Update(ctx, cleared); err != nil {
		t.Fatal(err)
	}
	old.Revision++
	want(t, s, old)
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
	storetest.WantError(t, "Rotate of another revision", s.Rotate(ctx, stale, next, apikey.Limits{}), apikey.ErrConflict)
	unchanged("a conflict")

	taken := next
	taken.Hash = r.Hash
	storetest.WantError(t, "Rotate to a taken hash", s.Rotate(ctx, old, taken, apikey.Limits{}), apikey.ErrConflict)
	unchanged("a taken hash")
	taken = next
	taken.ID = r.ID
	storetest.WantError(t, "Rotate to a taken ID", s.Rotate(ctx, old, taken, apikey.Limits{}), apikey.ErrConflict)
	unchanged("a taken ID")

	// A second key of the owner, which is replaced and still valid, uses up the limit of 1.
	second := newRecord()
	second.Owner = r.Owner
	insert(t, s, second)
	replacement := newRecord()
	replacement.Owner, replacement.CreatedAt = r.Owner, r.CreatedAt
	second.ReplacedBy, second.ExpiresAt = replacement.ID, next.CreatedAt.Add(time.Hour)
	if err := s.Rotate(ctx, second, replacement, apikey.Limits{Replaced: 1}); err != nil {
		t.Fatal(err)
	}
	storetest.WantError(t, "Rotate over the limit", s.Rotate(ctx, old, next, apikey.Limits{Replaced: 1}), apikey.ErrLimit)
	unchanged("the limit")
	late := next
	late.CreatedAt = second.ExpiresAt
	if err := s.Rotate(ctx, old, late, apikey.Limits{Replaced: 1}); err != nil {
		t.Errorf("Rotate when the other replaced key has expired: %v", err)
	}
}

func testParallelRotations(t *testing.T, s apikey.Store) {
	r := insert(t, s, newRecord())
	counts := each(20, func(int) error {
		old, next := r, newRecord()
		next.Owner, old.ReplacedBy = r.Owner, next.ID
		return s.Rotate(t.Context(), old, next, apikey.Limits{})
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
