// Package sessiontest tests that a [session.Store] fulfils its contract.
//
//	func TestStore(t *testing.T) {
//		sessiontest.TestStore(t, func(t testing.TB) session.Store { return open(t) })
//	}
//
// [TestShared] is for a store on a server, in addition, and [TestRevocations] for a list of
// revocations that several processes share.
package sessiontest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/jwtauth/session"
)

// TestStore runs every test of the contract of [session.Store], each on a store that open
// returns. The stores may share a database: each test uses its own subjects and IDs. A
// store must have room for 100 sessions.
func TestStore(t *testing.T, open func(testing.TB) session.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, session.Store)
	}{
		{"a record is returned as it was stored", testRoundTrip},
		{"a record without optional values is returned as it was stored", testEmptyValues},
		{"a record with every field at its bound is returned as it was stored", testBounds},
		{"times keep their microseconds", testMicroseconds},
		{"arguments and results share nothing with the store", testIsolation},
		{"an unknown handle is not found", testNotFound},
		{"handles that differ in one byte are of two sessions", testHandles},
		{"IDs that differ only in case are of two sessions", testIDs},
		{"subjects that look alike are two subjects", testSubjects},
		{"an ID or a handle cannot be used twice", testUnique},
		{"one of several parallel inserts of a session succeeds", testParallelInserts},

		{"a list begins with the session that was refreshed last", testListOrder},
		{"a list has only live sessions", testListLive},
		{"a list has only the sessions of its subject", testListOthers},
		{"lists share nothing with the store", testListIsolation},

		{"an insert ends the sessions that were refreshed least recently", testCap},
		{"of sessions refreshed at the same time the one with the lesser ID is ended", testCapTie},
		{"an insert counts only live sessions of its subject", testCapCountsLive},
		{"an insert that fails ends nothing", testCapConflict},
		{"parallel inserts leave exactly as many live sessions as the limit", testParallelCap},
		{"a session that an insert has ended is not updated", testCapWins},

		{"an update replaces the rotation and nothing else", testUpdate},
		{"an update of another revision changes nothing", testUpdateConflict},
		{"a repeated update changes nothing", testUpdateRepeated},
		{"one of several parallel rotations of a revision succeeds", testParallelRotations},
		{"parallel rotations make one chain without gaps", testChain},
		{"the response of a rotation may be long or empty", testResponses},

		{"a delivery is set and nothing else", testDelivered},
		{"a delivery of another token or session changes nothing", testDeliveredOther},
		{"a delivery makes a concurrent rotation conflict", testDeliveredConflict},
		{"a revoked session is not delivered", testDeliveredRevoked},
		{"parallel deliveries and rotations lose nothing", testDeliveredParallel},

		{"a revocation returns the session as it then is", testRevoke},
		{"a session that does not exist or is of another subject is not revoked", testRevokeUnknown},
		{"a revoked session is not updated", testRevokedUpdate},
		{"parallel revocations agree", testParallelRevocations},
		{"a concurrent rotation and revocation leave a revoked session", testRevokeWins},
		{"a subject's sessions are revoked together", testRevokeSubject},
		{"a revocation of a subject returns those that were live", testRevokeSubjectLive},
		{"later sessions and those of other subjects are not revoked", testRevokeSubjectOthers},
		{"revoking a subject during its rotations leaves revoked sessions", testRevokeSubjectWins},

		{"a context that has ended ends the call", testContext},
		{"a closed store returns ErrClosed", testClose},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// now returns the time as stores receive it, in whole microseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func unique() string { return rand.Text() }

func newHash() (h [sha256.Size]byte) {
	// rand.Read never returns an error.
	_, _ = rand.Read(h[:])
	return h
}

// newRecord returns a record with every field set that a login sets, for a new subject.
func newRecord() session.Record {
	at := now()
	return session.Record{
		Session: session.Session{
			ID:          "session_" + unique(),
			Subject:     `A "name" with 日本語, ' and \ ` + unique(),
			Client:      `a "client" 日本 ` + unique(),
			Scopes:      []string{"read:orders", "write:orders"},
			Data:        map[string]string{"device": "日本", "": "empty", "empty": ""},
			CreatedAt:   at,
			RefreshedAt: at,
			ExpiresAt:   at.Add(7 * 24 * time.Hour),
			EndsAt:      at.Add(30 * 24 * time.Hour),
		},
		Handle:   newHash(),
		Current:  newHash(),
		TokenID:  unique(),
		Revision: 1,
	}
}

// rotated returns r as its next rotation leaves it, except that the Revision stays that of
// r.
func rotated(r session.Record) session.Record {
	r.Previous, r.Current = r.Current, newHash()
	r.RefreshedAt = r.RefreshedAt.Add(time.Minute)
	r.ExpiresAt = r.ExpiresAt.Add(time.Minute)
	r.TokenID, r.Delivered = unique(), false
	r.Response = []byte("sealed \x00\xff " + unique())
	return r
}

func insert(t *testing.T, s session.Store, r session.Record) session.Record {
	t.Helper()
	if ended, err := s.Insert(t.Context(), r, limit); err != nil || len(ended) > 0 {
		t.Fatalf("Insert: %v, and has ended %+v", err, ended)
	}
	return r
}

// limit is greater than the number of sessions in any test that is not about limits.
const limit = 100

// inserted returns the error of an insert.
func inserted(ctx context.Context, s session.Store, r session.Record) error {
	_, err := s.Insert(ctx, r, limit)
	return err
}

// revoke makes a revocation that must succeed, and returns the session that it returns.
func revoke(t *testing.T, s session.Store, r session.Record, at time.Time) session.Session {
	t.Helper()
	got, err := s.Revoke(t.Context(), r.Subject, r.ID, at)
	if err != nil {
		t.Fatalf("Revoke: %v", err)
	}
	return got
}

// revokeSubject makes a revocation of a subject that must succeed, and returns the
// sessions that it returns.
func revokeSubject(t *testing.T, s session.Store, subject string, at time.Time) []session.Session {
	t.Helper()
	ended, err := s.RevokeSubject(t.Context(), subject, at)
	if err != nil {
		t.Fatalf("RevokeSubject: %v", err)
	}
	return ended
}

// update makes an update that must succeed, and returns the record that the store then
// has.
func update(t *testing.T, s session.Store, r session.Record) session.Record {
	t.Helper()
	if err := s.Update(t.Context(), r); err != nil {
		t.Fatalf("Update: %v", err)
	}
	r.Revision++
	return r
}

// want fails unless the store has exactly r under its handle.
func want(t *testing.T, s session.Store, r session.Record) {
	t.Helper()
	got, err := s.Lookup(t.Context(), r.Handle)
	if err != nil {
		t.Errorf("Lookup: %v", err)
		return
	}
	got, r = canonical(got), canonical(r)
	if !reflect.DeepEqual(got, r) {
		t.Errorf("Lookup:\n got %+v\nwant %+v", got, r)
	}
}

// wantRevoked fails unless r is unchanged except that it was revoked at this time.
func wantRevoked(t *testing.T, s session.Store, r session.Record, at time.Time) {
	t.Helper()
	r.RevokedAt = at
	want(t, s, r)
}

// wantSessions fails unless got has exactly the sessions of these records, in any order.
func wantSessions(t *testing.T, what string, got []session.Session, records ...session.Record) {
	t.Helper()
	got = slices.Clone(got)
	slices.SortFunc(got, func(a, b session.Session) int { return strings.Compare(a.ID, b.ID) })
	records = slices.Clone(records)
	slices.SortFunc(records, func(a, b session.Record) int { return strings.Compare(a.ID, b.ID) })
	wantList(t, what, got, records...)
}

// wantList fails unless got has exactly the sessions of these records, in this order.
func wantList(t *testing.T, what string, got []session.Session, records ...session.Record) {
	t.Helper()
	if len(got) != len(records) {
		t.Errorf("%s: %d sessions, want %d: %+v", what, len(got), len(records), got)
		return
	}
	for n, r := range records {
		g, w := canonical(session.Record{Session: got[n]}).Session, canonical(r).Session
		if !reflect.DeepEqual(g, w) {
			t.Errorf("%s, session %d:\n got %+v\nwant %+v", what, n, g, w)
		}
	}
}

// canonical makes equivalent records equal: times have one location, and an empty slice
// or map has one form.
func canonical(r session.Record) session.Record {
	for _, at := range []*time.Time{&r.CreatedAt, &r.RefreshedAt, &r.ExpiresAt, &r.EndsAt, &r.RevokedAt} {
		*at = at.UTC()
	}
	if len(r.Scopes) == 0 {
		r.Scopes = nil
	}
	if len(r.Data) == 0 {
		r.Data = nil
	}
	if len(r.Response) == 0 {
		r.Response = nil
	}
	return r
}

// each calls f n times concurrently and counts the errors that f returned.
func each(n int, f func(i int) error) map[error]int {
	return storetest.Each(n, f, session.ErrConflict, session.ErrNotFound)
}

func testRoundTrip(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	want(t, s, r)
	r = update(t, s, rotated(r))
	want(t, s, r)
	r.Delivered = true
	r = update(t, s, r)
	want(t, s, r)
}

func testEmptyValues(t *testing.T, s session.Store) {
	r := newRecord()
	r.Client, r.Scopes, r.Data = "", nil, nil
	insert(t, s, r)
	want(t, s, r)
	found, err := s.Lookup(t.Context(), r.Handle)
	if err != nil || !found.RevokedAt.IsZero() || found.Previous != [sha256.Size]byte{} {
		t.Errorf("Lookup: %+v, %v", found, err)
	}
}

func testIsolation(t *testing.T, s session.Store) {
	r := newRecord()
	given := r
	given.Scopes = append([]string(nil), r.Scopes...)
	given.Data = map[string]string{"device": "日本", "": "empty", "empty": ""}
	insert(t, s, given)
	given.Scopes[0], given.Data["device"] = "admin", "other"
	want(t, s, r)

	next := rotated(r)
	response := string(next.Response)
	r = update(t, s, next)
	next.Response[0] = 'X'
	r.Response = []byte(response)
	want(t, s, r)

	found, err := s.Lookup(t.Context(), r.Handle)
	if err != nil {
		t.Fatal(err)
	}
	found.Scopes[0], found.Data["device"], found.Response[0] = "admin", "other", 'X'
	want(t, s, r)
}

func testNotFound(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	_, err := s.Lookup(t.Context(), newHash())
	storetest.WantError(t, "Lookup", err, session.ErrNotFound)
	_, err = s.Lookup(t.Context(), r.Current)
	storetest.WantError(t, "Lookup by the hash of a token", err, session.ErrNotFound)
	unknown := newRecord()
	storetest.WantError(t, "Update", s.Update(t.Context(), unknown), session.ErrConflict)
	_, err = s.Lookup(t.Context(), unknown.Handle)
	storetest.WantError(t, "Lookup after an update of an unknown session", err, session.ErrNotFound)
	want(t, s, r)
}

func testUnique(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	sameID, sameHandle := newRecord(), newRecord()
	sameID.ID, sameHandle.Handle = r.ID, r.Handle
	storetest.WantError(t, "Insert with a taken ID", inserted(t.Context(), s, sameID), session.ErrConflict)
	storetest.WantError(t, "Insert with a taken handle", inserted(t.Context(), s, sameHandle), session.ErrConflict)
	storetest.WantError(t, "Insert again", inserted(t.Context(), s, r), session.ErrConflict)
	want(t, s, r)
	_, err := s.Lookup(t.Context(), sameID.Handle)
	storetest.WantError(t, "Lookup of a session that was not inserted", err, session.ErrNotFound)
}

func testParallelInserts(t *testing.T, s session.Store) {
	r := newRecord()
	counts := each(20, func(int) error { return inserted(t.Context(), s, r) })
	if counts[nil] != 1 || counts[session.ErrConflict] != 19 {
		t.Errorf("outcomes: %v, want 1 without error and 19 ErrConflict", counts)
	}
	want(t, s, r)
}

// calls returns one call of each method, with the context that it is given.
func calls(s session.Store, r session.Record) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Insert":        func(ctx context.Context) error { return inserted(ctx, s, newRecord()) },
		"Lookup":        func(ctx context.Context) error { _, err := s.Lookup(ctx, r.Handle); return err },
		"List":          func(ctx context.Context) error { _, err := s.List(ctx, r.Subject, now()); return err },
		"Update":        func(ctx context.Context) error { return s.Update(ctx, rotated(r)) },
		"SetDelivered":  func(ctx context.Context) error { return s.SetDelivered(ctx, r.ID, r.TokenID) },
		"Revoke":        func(ctx context.Context) error { _, err := s.Revoke(ctx, r.Subject, r.ID, now()); return err },
		"RevokeSubject": func(ctx context.Context) error { _, err := s.RevokeSubject(ctx, r.Subject, now()); return err },
	}
}

// wantFailure fails unless err means that the store has failed.
func wantFailure(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
	}
	if errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrConflict) {
		t.Errorf("%s: %v, as if the store had responded", what, err)
	}
}

func testContext(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range calls(s, r) {
		wantFailure(t, name, call(ctx))
	}
	want(t, s, r)
}

func testClose(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for name, call := range calls(s, r) {
		storetest.WantError(t, name, call(t.Context()), usher.ErrClosed)
	}
}
