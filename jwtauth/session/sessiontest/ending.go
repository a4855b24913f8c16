package sessiontest

import (
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/jwtauth/session"
)

func testRevoke(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	r = update(t, s, rotated(r))
	at := r.RefreshedAt.Add(time.Minute)
	for _, later := range []time.Duration{0, time.Hour, -time.Hour} {
		got := revoke(t, s, r, at.Add(later))
		r.RevokedAt = at
		wantSessions(t, "Revoke", []session.Session{got}, r)
		want(t, s, r)
	}
}

func testRevokeUnknown(t *testing.T, s session.Store) {
	r, other := insert(t, s, newRecord()), insert(t, s, newRecord())
	for what, of := range map[string]session.Session{
		"a session that does not exist": {Subject: r.Subject, ID: "session_" + unique()},
		"another subject's session":     {Subject: other.Subject, ID: r.ID},
		"a session of no subject":       {Subject: "", ID: r.ID},
		"a session without an ID":       {Subject: r.Subject, ID: ""},
		"an ID in another case":         {Subject: r.Subject, ID: strings.ToUpper(r.ID)},
	} {
		got, err := s.Revoke(t.Context(), of.Subject, of.ID, now())
		storetest.WantError(t, "Revoke of "+what, err, session.ErrNotFound)
		if got.ID != "" {
			t.Errorf("Revoke of %s: %+v", what, got)
		}
	}
	wantSessions(t, "RevokeSubject of an unknown subject", revokeSubject(t, s, unique(), now()))
	want(t, s, r)
	want(t, s, other)
}

func testRevokedUpdate(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	at := now()
	revoke(t, s, r, at)
	for _, revision := range []int64{1, 2} {
		u := rotated(r)
		u.Revision = revision
		storetest.WantError(t, "Update", s.Update(t.Context(), u), session.ErrConflict)
	}
	wantRevoked(t, s, r, at)
}

func testParallelRevocations(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	at := now()
	counts := each(20, func(i int) error {
		_, err := s.Revoke(t.Context(), r.Subject, r.ID, at.Add(time.Duration(i)*time.Second))
		return err
	})
	if counts[nil] != 20 {
		t.Fatalf("outcomes: %v, want 20 without error", counts)
	}
	found, err := s.Lookup(t.Context(), r.Handle)
	if err != nil || found.RevokedAt.Before(at) || found.RevokedAt.After(at.Add(19*time.Second)) {
		t.Errorf("Lookup: revoked at %v, %v", found.RevokedAt, err)
	}
	wantRevoked(t, s, r, found.RevokedAt)
}

func testRevokeWins(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	at := now()
	counts := each(20, func(i int) error {
		if i == 0 {
			_, err := s.Revoke(t.Context(), r.Subject, r.ID, at)
			return err
		}
		return s.Update(t.Context(), rotated(r))
	})
	if counts[nil] > 2 || counts[nil]+counts[session.ErrConflict] != 20 {
		t.Errorf("outcomes: %v, want at most one rotation and otherwise ErrConflict", counts)
	}
	found, err := s.Lookup(t.Context(), r.Handle)
	if err != nil || !found.RevokedAt.Equal(at) {
		t.Errorf("Lookup: revoked at %v, %v", found.RevokedAt, err)
	}
	storetest.WantError(t, "Update afterwards", s.Update(t.Context(), found), session.ErrConflict)
}

func testRevokeSubject(t *testing.T, s session.Store) {
	first, second, ended := newRecord(), newRecord(), newRecord()
	second.Subject, ended.Subject = first.Subject, first.Subject
	for _, r := range []session.Record{first, second, ended} {
		insert(t, s, r)
	}
	ended.RevokedAt = now().Add(-time.Minute)
	revoke(t, s, ended, ended.RevokedAt)
	at := now()
	first.RevokedAt, second.RevokedAt = at, at
	wantSessions(t, "RevokeSubject", revokeSubject(t, s, first.Subject, at), first, second)
	wantSessions(t, "RevokeSubject repeated", revokeSubject(t, s, first.Subject, at), first, second)
	wantSessions(t, "RevokeSubject later", revokeSubject(t, s, first.Subject, at.Add(time.Second)))
	for _, r := range []session.Record{first, second, ended} {
		want(t, s, r)
	}
	storetest.WantError(t, "Update", s.Update(t.Context(), rotated(second)), session.ErrConflict)
}

func testRevokeSubjectOthers(t *testing.T, s session.Store) {
	r, other := insert(t, s, newRecord()), newRecord()
	other.Subject = r.Subject + "x"
	insert(t, s, other)
	at := now()
	revokeSubject(t, s, r.Subject, at)
	later := newRecord()
	later.Subject = r.Subject
	insert(t, s, later)
	want(t, s, other)
	want(t, s, later)
	wantRevoked(t, s, r, at)
}

func testRevokeSubjectWins(t *testing.T, s session.Store) {
	first, second := newRecord(), newRecord()
	second.Subject = first.Subject
	insert(t, s, first)
	insert(t, s, second)
	counts := each(20, func(i int) error {
		switch {
		// Two at once: a store that locks row by row might deadlock.
		case i < 2:
			_, err := s.RevokeSubject(t.Context(), first.Subject, now())
			return err
		case i%2 == 0:
			return s.Update(t.Context(), rotated(first))
		default:
			return s.Update(t.Context(), rotated(second))
		}
	})
	if counts[nil] > 4 || counts[nil]+counts[session.ErrConflict] != 20 {
		t.Errorf("outcomes: %v, want at most one rotation of each and otherwise ErrConflict", counts)
	}
	for _, r := range []session.Record{first, second} {
		found, err := s.Lookup(t.Context(), r.Handle)
		if err != nil || found.RevokedAt.IsZero() {
			t.Errorf("Lookup: revoked at %v, %v", found.RevokedAt, err)
		}
	}
}
