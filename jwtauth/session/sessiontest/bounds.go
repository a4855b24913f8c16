package sessiontest

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/jwtauth/session"
)

// text returns text of exactly n bytes that ends with end. Its characters have one to
// four bytes.
func text(n int, end string) string {
	s := strings.Repeat("a日é\U0001F511", n/10+1)[:n-len(end)]
	return strings.ToValidUTF8(s, "") + strings.Repeat("x", len(s)-len(strings.ToValidUTF8(s, ""))) + end
}

func testBounds(t *testing.T, s session.Store) {
	r := newRecord()
	r.ID = "-_09azAZ" + strings.Repeat("i", 30) + unique()
	r.Subject, r.Client = text(255, unique()), text(255, unique())
	r.Scopes, r.Data = nil, map[string]string{}
	for n := range 100 {
		// In no order that sorting would keep, and each twice.
		r.Scopes = append(r.Scopes, strings.Repeat("!~", 126)+fmt.Sprintf("%03d", (n*37)%50))
	}
	for n := range 32 {
		r.Data[text(64, fmt.Sprintf(" %02d", n))] = text(1024, fmt.Sprintf("\t%02d", n))
	}
	r.EndsAt = r.CreatedAt.AddDate(290, 0, 0)
	for i := range r.Handle {
		r.Current[i] = 0xff // Handle stays random
	}
	if len(r.ID) != 64 || len(r.Subject) != 255 || len(r.Scopes[0]) != 255 {
		t.Fatalf("%d bytes of ID, %d of subject, %d of scope", len(r.ID), len(r.Subject), len(r.Scopes[0]))
	}
	insert(t, s, r)
	want(t, s, r)
	u := rotated(r)
	u.Previous, u.Current = [sha256.Size]byte{}, [sha256.Size]byte{31: 1}
	u.ExpiresAt, u.TokenID, u.Delivered = r.EndsAt, "-_09azAZ"+strings.Repeat("t", 30)+unique(), true
	u.Response = make([]byte, 32<<10)
	for i := range u.Response {
		u.Response[i] = byte(i)
	}
	r = update(t, s, u)
	want(t, s, r)
	wantList(t, "List", list(t, s, r.Subject, now()), r)
	r.RevokedAt = now()
	wantSessions(t, "Revoke", []session.Session{revoke(t, s, r, r.RevokedAt)}, r)

	short := newRecord()
	short.Scopes = []string{"x"}
	short.Data = map[string]string{"a": "1", "A": "2", " a": "3", "a ": "4", "é": "5", "e\u0301": "6", "": ""}
	insert(t, s, short)
	want(t, s, short)
	wantList(t, "List", list(t, s, short.Subject, now()), short)
}

func testMicroseconds(t *testing.T, s session.Store) {
	second := time.Now().UTC().Truncate(time.Second)
	for _, us := range []time.Duration{1, 999_999, 123_456, 500_000} {
		r := newRecord()
		at := second.Add(us * time.Microsecond)
		r.CreatedAt, r.RefreshedAt = at, at
		r.ExpiresAt, r.EndsAt = at.Add(time.Hour), at.Add(2*time.Hour)
		insert(t, s, r)
		want(t, s, r)
		r = update(t, s, rotated(r))
		want(t, s, r)
		r.RevokedAt = at
		wantSessions(t, "Revoke", []session.Session{revoke(t, s, r, at)}, r)
		want(t, s, r)
	}
}

func testHandles(t *testing.T, s session.Store) {
	base := newHash()
	var records []session.Record
	for i := range len(base) + 1 {
		r := newRecord()
		r.Handle = base
		if i < len(base) {
			r.Handle[i] ^= 0x20 // the case of a letter
		}
		records = append(records, insert(t, s, r))
	}
	for _, r := range records {
		want(t, s, r)
	}
	for i := range base {
		unknown := base
		unknown[i] ^= 0x80
		_, err := s.Lookup(t.Context(), unknown)
		storetest.WantError(t, fmt.Sprintf("Lookup of a handle that differs in byte %d", i), err, session.ErrNotFound)
	}
	for _, h := range [][sha256.Size]byte{{}, {31: 1}} {
		_, err := s.Lookup(t.Context(), h)
		storetest.WantError(t, "Lookup of a handle of zeros", err, session.ErrNotFound)
	}
}

func testIDs(t *testing.T, s session.Store) {
	lower, upper := newRecord(), newRecord()
	upper.Subject = lower.Subject
	lower.ID = strings.ToLower(lower.ID)
	upper.ID = strings.ToUpper(lower.ID)
	insert(t, s, lower)
	insert(t, s, upper)
	want(t, s, lower)
	want(t, s, upper)
	lower.RevokedAt = now()
	wantSessions(t, "Revoke", []session.Session{revoke(t, s, lower, lower.RevokedAt)}, lower)
	want(t, s, lower)
	want(t, s, upper)
}

func testSubjects(t *testing.T, s session.Store) {
	u := unique()
	var records []session.Record
	for _, like := range []string{
		"straße", "STRASSE", "Straße", "strasse", "straße ", " straße", "straße\t", "stra\u00adße", "straße\u200d",
		"é", "e\u0301", "i", "ı", "I", "İ", "Å", "\u212b", "ﬁ", "fi", "10", "10.0", "010", "1e1", "null", "%", "_", "*", "?",
		`\`, `\\`, "'", "''", `"`, "|", "||", ":", "/", "{x}", "x}", "\n", "\r\n", "\U0001F511", "\U0001F510",
	} {
		r := newRecord()
		r.Subject = like + u
		if strings.TrimRight(like, " \t\r\n\u200d") != like {
			r.Subject = u + like // where blanks are trimmed
		}
		records = append(records, insert(t, s, r))
	}
	at := now()
	for _, r := range records {
		wantList(t, fmt.Sprintf("List of %q", r.Subject), list(t, s, r.Subject, at), r)
	}
	for i := range records {
		r := &records[i]
		r.RevokedAt = at
		wantSessions(t, fmt.Sprintf("RevokeSubject of %q", r.Subject), revokeSubject(t, s, r.Subject, at), *r)
		for _, other := range records[i+1:] {
			if i%8 == 0 {
				want(t, s, other)
			}
		}
	}
	for _, r := range records {
		want(t, s, r)
	}
}
