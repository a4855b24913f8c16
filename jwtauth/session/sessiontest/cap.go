package sessiontest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/jwtauth/session"
)

// insertWithin inserts r with a limit, which must succeed, and returns the sessions that
// were ended.
func insertWithin(t *testing.T, s session.Store, r session.Record, limit int) []session.Session {
	t.Helper()
	ended, err := s.Insert(t.Context(), r, limit)
	if err != nil {
		t.Fatalf("Insert: %v", err)
	}
	return ended
}

func testCap(t *testing.T, s session.Store) {
	r := newRecords(5)
	for i := range 3 {
		wantSessions(t, "Insert below the limit", insertWithin(t, s, r[i], 3))
	}
	r[0] = update(t, s, rotated(r[0])) // so that r[1] was refreshed least recently
	r[3].CreatedAt = r[3].CreatedAt.Add(time.Second + time.Microsecond)
	ended := insertWithin(t, s, r[3], 3)
	r[1].RevokedAt = r[3].CreatedAt
	wantSessions(t, "Insert above the limit", ended, r[1])
	for _, r := range r[:4] {
		want(t, s, r)
	}
	storetest.WantError(t, "Update of an ended session", s.Update(t.Context(), rotated(r[1])), session.ErrConflict)
	// A lower limit ends as many as it takes, and never the new one, although its node's
	// clock is behind.
	r[4].CreatedAt = r[0].CreatedAt.Add(-time.Second)
	r[4].RefreshedAt = r[4].CreatedAt
	ended = insertWithin(t, s, r[4], 1)
	for _, i := range []int{0, 2, 3} {
		r[i].RevokedAt = r[4].CreatedAt
	}
	wantSessions(t, "Insert far above the limit", ended, r[0], r[2], r[3])
	wantList(t, "List", list(t, s, r[0].Subject, now()), r[4])
}

func testCapTie(t *testing.T, s session.Store) {
	r := newRecords(4)
	for i, id := range []string{"session_b", "session_B", "session_a", "session_c"} {
		r[i].ID, r[i].RefreshedAt = id+unique(), r[0].RefreshedAt
	}
	for _, r := range r[:3] {
		insert(t, s, r)
	}
	ended := insertWithin(t, s, r[3], 3)
	r[1].RevokedAt = r[3].CreatedAt
	wantSessions(t, "Insert", ended, r[1])
}

func testCapCountsLive(t *testing.T, s session.Store) {
	r := newRecords(6)
	revoked, expired, live, other := r[0], r[1], r[2], newRecord()
	expired.ExpiresAt = expired.CreatedAt.Add(time.Minute)
	for _, r := range []session.Record{revoked, expired, live, other} {
		insert(t, s, r)
	}
	revoke(t, s, revoked, revoked.CreatedAt)
	revoked.RevokedAt = revoked.CreatedAt
	r[3].CreatedAt = expired.ExpiresAt
	wantSessions(t, "Insert beside sessions that are not live", insertWithin(t, s, r[3], 2))
	r[4].CreatedAt = expired.ExpiresAt
	ended := insertWithin(t, s, r[4], 2)
	live.RevokedAt = r[4].CreatedAt
	wantSessions(t, "Insert beside two live sessions", ended, live)
	for _, r := range []session.Record{revoked, live, other, r[3], r[4]} {
		want(t, s, r)
	}
}

func testCapConflict(t *testing.T, s session.Store) {
	r := newRecords(3)
	insert(t, s, r[0])
	insert(t, s, r[1])
	for _, taken := range []session.Record{r[0], {Session: r[2].Session, Handle: r[1].Handle, Current: newHash(), Revision: 1}} {
		ended, err := s.Insert(t.Context(), taken, 1)
		storetest.WantError(t, "Insert of a taken one", err, session.ErrConflict)
		wantSessions(t, "Insert of a taken one", ended)
	}
	wantList(t, "List", list(t, s, r[0].Subject, now()), r[1], r[0])
}

// testParallelCap inserts many sessions of one subject concurrently. Each session must end
// up either live or in the result of one insert.
func testParallelCap(t *testing.T, s session.Store) { parallelCap(t, s, s) }

func parallelCap(t *testing.T, stores ...session.Store) {
	for round, limit := range []int{1, 5, 1, 3} {
		const inserts = 16
		r := newRecords(inserts)
		var (
			mu    sync.Mutex
			ended []string
		)
		counts := each(inserts, func(i int) error {
			out, err := stores[i%len(stores)].Insert(t.Context(), r[i], limit)
			mu.Lock()
			defer mu.Unlock()
			for _, e := range out {
				ended = append(ended, e.ID)
			}
			return err
		})
		if counts[nil] != inserts {
			t.Fatalf("round %d: outcomes: %v, want %d without error", round, counts, inserts)
		}
		live := list(t, stores[0], r[0].Subject, now())
		if len(live) != limit || len(ended) != inserts-limit {
			t.Errorf("round %d: %d sessions are live and %d were ended, want %d and %d", round, len(live), len(ended), limit, inserts-limit)
		}
		for _, l := range live {
			ended = append(ended, l.ID)
		}
		slices.Sort(ended)
		if n := len(slices.Compact(ended)); n != inserts {
			t.Errorf("round %d: %d sessions are live or were ended, want %d", round, n, inserts)
		}
	}
}

// testCapWins rotates a session while inserts of others end it.
func testCapWins(t *testing.T, s session.Store) {
	r := newRecords(9)
	insert(t, s, r[0])
	var (
		mu    sync.Mutex
		ended = map[string]bool{}
	)
	each(16, func(i int) error {
		if i%2 == 0 {
			u := rotated(r[0])
			u.RefreshedAt = r[0].RefreshedAt
			return s.Update(t.Context(), u)
		}
		out, err := s.Insert(t.Context(), r[i/2+1], 2)
		mu.Lock()
		defer mu.Unlock()
		for _, e := range out {
			ended[e.ID] = true
		}
		return err
	})
	found, err := s.Lookup(t.Context(), r[0].Handle)
	if err != nil || found.RevokedAt.IsZero() == ended[r[0].ID] {
		t.Errorf("Lookup: revoked at %v, %v; ended: %t", found.RevokedAt, err, ended[r[0].ID])
	}
	if live := list(t, s, r[0].Subject, now()); len(live) != 2 {
		t.Errorf("%d sessions are live, want 2", len(live))
	}
}

func testRevokeSubjectLive(t *testing.T, s session.Store) {
	r := newRecords(3)
	r[0].ExpiresAt = r[0].CreatedAt.Add(time.Hour)
	r[1].ExpiresAt = r[1].CreatedAt.Add(time.Hour + time.Microsecond)
	for i := range r {
		insert(t, s, r[i])
	}
	at := r[0].ExpiresAt
	ended := revokeSubject(t, s, r[0].Subject, at)
	for i := range r {
		r[i].RevokedAt = at // of the expired one too
		want(t, s, r[i])
	}
	wantSessions(t, "RevokeSubject when one expires", ended, r[1], r[2])
	wantList(t, "List", list(t, s, r[0].Subject, r[0].CreatedAt))
}
