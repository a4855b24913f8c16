// Package sessiontest tests that a [session.Store] fulfils its contract.
//
//	func TestStore(t *testing.T) {
//		sessiontest.TestStore(t, func(t testing.TB) session.Store { return open(t) })
//	}
package sessiontest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
		{"arguments and results share nothing with the store", testIsolation},
		{"an unknown handle is not found", testNotFound},
		{"an ID or a handle cannot be used twice", testUnique},
		{"one of several parallel inserts of a session succeeds", testParallelInserts},
		{"an update replaces the rotation and nothing else", testUpdate},
		{"an update of another revision changes nothing", testUpdateConflict},
		{"a repeated update changes nothing", testUpdateRepeated},
		{"one of several parallel rotations of a revision succeeds", testParallelRotations},
		{"parallel rotations make one chain without gaps", testChain},
		{"the response of a rotation may be long or empty", testResponses},
		{"revoking a revoked session changes nothing", testRevoke},
		{"a session that does not exist or is of another subject is not revoked", testRevokeUnknown},
		{"a revoked session is not updated", testRevokedUpdate},
		{"parallel revocations agree", testParallelRevocations},
		{"a concurrent rotation and revocation leave a revoked session", testRevokeWins},
		{"a subject's sessions are revoked together", testRevokeSubject},
		{"later sessions and those of other subjects are not revoked", testRevokeSubjectOthers},
		{"revoking a subject during its rotations leaves revoked sessions", testRevokeSubjectWins},
		{"a context that has ended ends the call", testContext},
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
			Scopes:      []string{"read:orders", "write:orders"},
			Data:        map[string]string{"device": "日本", "": "empty", "empty": ""},
			CreatedAt:   at,
			RefreshedAt: at,
			ExpiresAt:   at.Add(7 * 24 * time.Hour),
			EndsAt:      at.Add(30 * 24 * time.Hour),
		},
		Handle:   newHash(),
		Current:  newHash(),
		Revision: 1,
	}
}

// rotated returns r as its next rotation leaves it, except that the Revision is still
// that of r.
func rotated(r session.Record) session.Record {
	r.Previous, r.Current = r.Current, newHash()
	r.RefreshedAt = r.RefreshedAt.Add(time.Minute)
	r.ExpiresAt = r.ExpiresAt.Add(time.Minute)
	r.Delivered = false
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

// limit is more than any test needs that is not about it.
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
	r.Subject, r.Scopes, r.Data = "", nil, nil
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

func testUpdate(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	// Every field differs, and only those of the rotation may be stored.
	u := rotated(newRecord())
	u.ID, u.Revision, u.Delivered = r.ID, r.Revision, true
	u.CreatedAt, u.EndsAt, u.RevokedAt = now().Add(time.Hour), now().Add(time.Hour), now()
	u.Scopes, u.Data = []string{"admin"}, map[string]string{"a": "b"}
	if err := s.Update(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	r.RefreshedAt, r.ExpiresAt = u.RefreshedAt, u.ExpiresAt
	r.Current, r.Previous, r.Delivered, r.Response = u.Current, u.Previous, true, u.Response
	r.Revision = 2
	want(t, s, r)
	_, err := s.Lookup(t.Context(), u.Handle)
	storetest.WantError(t, "Lookup of another handle in the update", err, session.ErrNotFound)
}

func testUpdateConflict(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	for _, revision := range []int64{0, 2, 7, -1} {
		u := rotated(r)
		u.Revision = revision
		storetest.WantError(t, "Update of another revision", s.Update(t.Context(), u), session.ErrConflict)
	}
	want(t, s, r)
}

func testUpdateRepeated(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	u := rotated(r)
	after := update(t, s, u)
	storetest.WantError(t, "the same again", s.Update(t.Context(), u), session.ErrConflict)
	want(t, s, after)
}

func testParallelRotations(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	rotations := make([]session.Record, 20)
	won := make([]bool, len(rotations))
	for i := range rotations {
		rotations[i] = rotated(r)
	}
	counts := each(len(rotations), func(i int) error {
		err := s.Update(t.Context(), rotations[i])
		won[i] = err == nil
		return err
	})
	if counts[nil] != 1 || counts[session.ErrConflict] != 19 {
		t.Fatalf("outcomes: %v, want 1 without error and 19 ErrConflict", counts)
	}
	for i, won := range won {
		if won {
			rotations[i].Revision++
			want(t, s, rotations[i])
		}
	}
}

// testChain rotates one session from many goroutines, each of which reads the session and
// then rotates what it has read. Each rotation must follow from the one before it.
func testChain(t *testing.T, s session.Store) {
	const sides, rotations = 8, 10
	r := insert(t, s, newRecord())
	var (
		mu     sync.Mutex
		before = map[[sha256.Size]byte][sha256.Size]byte{} // by Current
	)
	counts := each(sides, func(int) error {
		for done := 0; done < rotations; {
			found, err := s.Lookup(t.Context(), r.Handle)
			if err != nil {
				return err
			}
			next := rotated(found)
			switch err := s.Update(t.Context(), next); {
			case err == nil:
				mu.Lock()
				before[next.Current] = next.Previous
				mu.Unlock()
				done++
			case !errors.Is(err, session.ErrConflict):
				return err
			}
		}
		return nil
	})
	if counts[nil] != sides {
		t.Fatalf("outcomes: %v, want %d without error", counts, sides)
	}
	found, err := s.Lookup(t.Context(), r.Handle)
	if err != nil {
		t.Fatal(err)
	}
	if found.Revision != 1+sides*rotations {
		t.Errorf("revision %d after %d rotations of revision 1", found.Revision, sides*rotations)
	}
	length := 0
	for at := found.Current; at != r.Current; at = before[at] {
		if length++; length > sides*rotations {
			break
		}
	}
	if length != sides*rotations {
		t.Errorf("the chain back to the first token has %d links, want %d", length, sides*rotations)
	}
}

func testResponses(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	for _, size := range []int{16 << 10, 0, 1} {
		r = rotated(r)
		r.Response = make([]byte, size)
		_, _ = rand.Read(r.Response)
		r = update(t, s, r)
		want(t, s, r)
	}
}

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

func testContext(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Insert":        func() error { return inserted(ctx, s, newRecord()) },
		"Lookup":        func() error { _, err := s.Lookup(ctx, r.Handle); return err },
		"Update":        func() error { return s.Update(ctx, rotated(r)) },
		"List":          func() error { _, err := s.List(ctx, r.Subject, now()); return err },
		"Revoke":        func() error { _, err := s.Revoke(ctx, r.Subject, r.ID, now()); return err },
		"RevokeSubject": func() error { _, err := s.RevokeSubject(ctx, r.Subject, now()); return err },
	} {
		err := call()
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrConflict) {
			t.Errorf("%s: %v, as if the store had responded", name, err)
		}
	}
	want(t, s, r)
}
