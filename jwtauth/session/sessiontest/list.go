package sessiontest

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/usher-go/usher/jwtauth/session"
)

func list(t *testing.T, s session.Store, subject string, at time.Time) []session.Session {
	t.Helper()
	got, err := s.List(t.Context(), subject, at)
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return got
}

// newRecords returns n records of one subject. Each was refreshed a microsecond later than
// the one before it.
func newRecords(n int) []session.Record {
	records := make([]session.Record, n)
	for i := range records {
		records[i] = newRecord()
		records[i].Subject = records[0].Subject
		records[i].RefreshedAt = records[0].RefreshedAt.Add(time.Duration(i) * time.Microsecond)
	}
	return records
}

func testListOrder(t *testing.T, s session.Store) {
	r := newRecords(5)
	r[2].RefreshedAt = r[1].RefreshedAt // then the greater ID comes first
	r[1].ID, r[2].ID = "session_B"+unique(), "session_a"+unique()
	for _, i := range []int{3, 0, 2, 4, 1} {
		insert(t, s, r[i])
	}
	wantList(t, "List", list(t, s, r[0].Subject, now()), r[4], r[3], r[2], r[1], r[0])
	u := rotated(r[0])
	r[0] = update(t, s, u)
	wantList(t, "List after a rotation", list(t, s, r[0].Subject, now()), r[0], r[4], r[3], r[2], r[1])
}

func testListLive(t *testing.T, s session.Store) {
	r := newRecords(4)
	for i := range r {
		r[i].ExpiresAt = r[i].CreatedAt.Add(time.Duration(i+1) * time.Hour)
		insert(t, s, r[i])
	}
	at := now()
	revoke(t, s, r[2], at)
	for _, tt := range []struct {
		when string
		at   time.Time
		want []session.Record
	}{
		{"now", at, []session.Record{r[3], r[1], r[0]}},
		{"before the revocation", at.Add(-time.Microsecond), []session.Record{r[3], r[1], r[0]}},
		{"just before one expires", r[0].ExpiresAt.Add(-time.Microsecond), []session.Record{r[3], r[1], r[0]}},
		{"when one expires", r[0].ExpiresAt, []session.Record{r[3], r[1]}},
		{"when another one expires", r[1].ExpiresAt, []session.Record{r[3]}},
		{"when the last one expires", r[3].ExpiresAt, nil},
	} {
		wantList(t, "List "+tt.when, list(t, s, r[0].Subject, tt.at), tt.want...)
	}
	r[0] = update(t, s, rotated(r[0]))
	wantList(t, "List after a rotation", list(t, s, r[0].Subject, r[0].ExpiresAt.Add(-time.Microsecond)), r[0], r[3], r[1])
	revokeSubject(t, s, r[0].Subject, at)
	wantList(t, "List after the revocation of the subject", list(t, s, r[0].Subject, at))
}

func testListOthers(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	for _, subject := range []string{r.Subject + "x", r.Subject + " ", r.Subject[:len(r.Subject)-1], "x" + r.Subject} {
		wantList(t, "List of an unknown subject", list(t, s, subject, now()))
		other := newRecord()
		other.Subject = subject
		insert(t, s, other)
		wantList(t, "List of another subject", list(t, s, subject, now()), other)
	}
	wantList(t, "List", list(t, s, r.Subject, now()), r)
}

func testListIsolation(t *testing.T, s session.Store) {
	r := insert(t, s, newRecord())
	scopes, data := slices.Clone(r.Scopes), maps.Clone(r.Data)
	for _, got := range [][]session.Session{
		list(t, s, r.Subject, now()),
		{revoke(t, s, r, r.CreatedAt)},
		revokeSubject(t, s, r.Subject, r.CreatedAt),
	} {
		if len(got) != 1 || len(got[0].Scopes) != len(scopes) || got[0].Data == nil {
			t.Fatalf("got %+v, want the session", got)
		}
		got[0].Scopes[0], got[0].Data["device"] = "admin", "other"
		r.Scopes, r.Data, r.RevokedAt = scopes, data, r.CreatedAt
	}
	want(t, s, r)
}
