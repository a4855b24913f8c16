package apikeytest

import (
	"fmt"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
)

func testRevokeAll(t *testing.T, s apikey.Store) {
	at := now().Add(time.Hour)
	testRevokeEach(t, s, at, []apikey.Filter{{Metadata: map[string]string{"team": ""}}, {Prefix: "%"}, {All: true}})
	testRevokeEach(t, s, at, []apikey.Filter{
		{Status: apikey.StatusDisabled, Now: at}, {Status: apikey.StatusExpired, Now: at.Add(-time.Minute)}, {Plan: "free"},
	})
}

// testRevokeEach revokes what each filter matches, one after the other.
func testRevokeEach(t *testing.T, s apikey.Store, at time.Time, filters []apikey.Filter) {
	t.Helper()
	a, ctx := needAdmin(t, s), t.Context()
	creator := "test:" + unique()
	all := map[string]apikey.Record{}
	for _, r := range someRecords(creator, now()) {
		all[r.ID] = insert(t, s, r)
		want(t, s, r)
	}
	for _, f := range filters {
		name := fmt.Sprintf("%+v", f)
		f.CreatedBy = creator
		matching := 0
		for _, r := range all {
			if r.RevokedAt.IsZero() && f.Matches(&r.Key) {
				matching++
			}
		}
		if matching == 0 {
			t.Fatalf("%s: nothing is left to revoke", name)
		}
		for more := true; more; {
			limit := max(1, min(3, matching)) // at last exactly as many as match
			var (
				revoked []apikey.Record
				err     error
			)
			revoked, more, err = a.RevokeAll(ctx, f, at, limit)
			if err != nil || len(revoked) != limit || more != (matching > limit) {
				t.Fatalf("%s: %d keys of %d with the limit %d, more %v, %v", name, len(revoked), matching, limit, more, err)
			}
			matching -= limit
			for _, got := range revoked {
				r, ok := all[got.ID]
				if !ok || !r.RevokedAt.IsZero() || !f.Matches(&r.Key) {
					t.Fatalf("%s: %+v does not match", name, got)
				}
				r.RevokedAt, r.UpdatedAt, r.Revision = at, at, r.Revision+1
				same(t, name, got, r, nil)
				all[r.ID] = r
			}
		}
		for _, r := range all {
			want(t, s, r)
		}
		if revoked, more, err := a.RevokeAll(ctx, f, at.Add(time.Hour), 3); err != nil || len(revoked) != 0 || more {
			t.Errorf("%s: again: %d keys, more %v, %v", name, len(revoked), more, err)
		}
	}
}

func testRevokeNothing(t *testing.T, s apikey.Store) {
	a := needAdmin(t, s)
	r := insert(t, s, newRecord())
	for _, f := range []apikey.Filter{{}, {Now: now()}, {Metadata: map[string]string{}}} {
		if revoked, _, err := a.RevokeAll(t.Context(), f, now(), 1000); err == nil || len(revoked) != 0 {
			t.Errorf("without a condition: %d keys, %v; want an error", len(revoked), err)
		}
	}
	want(t, s, r)
}

func testParallelRevokeAlls(t *testing.T, s apikey.Store) {
	const keys = 50
	a, owner := needAdmin(t, s), "owner_"+unique()
	for range keys {
		r := newRecord()
		r.Owner = owner
		insert(t, s, r)
	}
	results := make([][]apikey.Record, 10)
	counts := each(len(results), func(i int) (err error) {
		results[i], _, err = a.RevokeAll(t.Context(), apikey.Filter{Owner: owner}, now(), 20)
		return err
	})
	if counts[nil] != len(results) {
		t.Fatalf("outcomes: %v, want %d without error", counts, len(results))
	}
	revoked := map[string]int{}
	for _, list := range results {
		for _, r := range list {
			revoked[r.ID]++
			if r.Revision != 2 {
				t.Errorf("%s has revision %d, want 2", r.ID, r.Revision)
			}
		}
	}
	if len(revoked) != keys {
		t.Errorf("%d keys are reported as revoked, want %d", len(revoked), keys)
	}
	for id, n := range revoked {
		if n != 1 {
			t.Errorf("%s is revoked %d times", id, n)
		}
	}
}
