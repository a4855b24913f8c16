package sessiontest

import (
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/jwtauth"
)

// Revocations has the functions with which [TestRevocations] opens and disturbs a list that
// several processes share. Open is required; the tests that need another function are
// skipped if it is nil.
type Revocations struct {
	// Open returns another client of the list. The client must work until the given test
	// ends.
	Open func(testing.TB) jwtauth.RevocationSource
	// Block makes the server silent for all clients, as in [Shared].
	Block func(testing.TB) (unblock func())
	// Poison makes every revocation on the server unreadable.
	Poison func(testing.TB)
}

// TestRevocations runs every test of the contract of [jwtauth.RevocationSource]. All tests
// may run on one list, since each uses its own issuers. The list must have room for 2,000
// revocations.
func TestRevocations(t *testing.T, r Revocations) {
	for _, test := range []struct {
		name string
		has  bool
		run  func(*testing.T, Revocations)
	}{
		{"a revocation takes effect at once, and on nothing else", true, testRevoked},
		{"issuers and IDs that look alike are different", true, testAlike},
		{"an invalid issuer or ID is an error", true, testInvalid},
		{"a revocation only grows", true, testGrows},
		{"a follower gets the whole list and then ready", true, testWholeList},
		{"a follower gets what is added, in order", true, testAdded},
		{"a follower that continues from a position has no gap", true, testContinue},
		{"followers get one order", true, testOneOrder},
		{"an extended revocation is passed on again", true, testExtended},
		{"an unknown position is refused", true, testPosition},
		{"a context that has ended ends the call", true, testRevocationsContext},
		{"following a silent server ends within a second", r.Block != nil, testSilence},
		{"unreadable data is ErrCorrupt", r.Poison != nil, testPoisonedList},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !test.has {
				t.Skip("the list has no function for this")
			}
			test.run(t, r)
		})
	}
}

// revokeToken revokes the token of an issuer with this ID for an hour.
func revokeToken(t *testing.T, s jwtauth.RevocationSource, issuer, id string) {
	t.Helper()
	if err := s.RevokeToken(t.Context(), issuer, id, now().Add(time.Hour)); err != nil {
		t.Fatalf("RevokeToken: %v", err)
	}
}

// wantRevokedTokens fails unless s reports which of these tokens are revoked.
func wantRevokedTokens(t *testing.T, s jwtauth.RevocationSource, revoked bool, tokens ...jwtauth.Token) {
	t.Helper()
	for _, token := range tokens {
		if got, err := s.Revoked(t.Context(), &token); err != nil || got != revoked {
			t.Errorf("Revoked of %.60q %.60q %.60q %.60q %v: %t, %v; want %t", token.Issuer, token.ID, token.SessionID, token.Subject, token.IssuedAt, got, err, revoked)
		}
	}
}

func testRevoked(t *testing.T, r Revocations) {
	a, b := r.Open(t), r.Open(t)
	issuer, at := unique(), now()
	for what, err := range map[string]error{
		"RevokeToken":            a.RevokeToken(t.Context(), issuer, "token", at.Add(time.Hour)),
		"RevokeToken repeated":   a.RevokeToken(t.Context(), issuer, "token", at.Add(time.Hour)),
		"RevokeSession":          a.RevokeSession(t.Context(), issuer, "session", at.Add(time.Hour)),
		"RevokeSession repeated": b.RevokeSession(t.Context(), issuer, "session", at.Add(time.Hour)),
		"RevokeSubject":          a.RevokeSubject(t.Context(), issuer, "subject", at, at.Add(time.Hour)),
		"RevokeSubject repeated": b.RevokeSubject(t.Context(), issuer, "subject", at, at.Add(time.Hour)),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	us := time.Microsecond
	for _, s := range []jwtauth.RevocationSource{a, b} {
		wantRevokedTokens(t, s, true,
			jwtauth.Token{Issuer: issuer, ID: "token"},
			jwtauth.Token{Issuer: issuer, ID: "token", SessionID: "other", Subject: "other", IssuedAt: at.Add(time.Hour)},
			jwtauth.Token{Issuer: issuer, ID: "other", SessionID: "session", Subject: "other", IssuedAt: at.Add(time.Hour)},
			jwtauth.Token{Issuer: issuer, ID: "other", SessionID: "other", Subject: "subject", IssuedAt: at.Add(-us)},
			jwtauth.Token{Issuer: issuer, Subject: "subject"},
			jwtauth.Token{Issuer: issuer, Subject: "subject", IssuedAt: at.AddDate(-1, 0, 0)},
		)
		wantRevokedTokens(t, s, false,
			jwtauth.Token{Issuer: issuer, Subject: "subject", IssuedAt: at},
			jwtauth.Token{Issuer: issuer, Subject: "subject", IssuedAt: at.Add(us)},
			jwtauth.Token{Issuer: issuer, ID: "session", SessionID: "token", Subject: "token"},
			jwtauth.Token{Issuer: issuer, ID: "subject", SessionID: "subject", Subject: "session"},
			jwtauth.Token{Issuer: unique(), ID: "token", SessionID: "session", Subject: "subject"},
			jwtauth.Token{Issuer: issuer, ID: "other", SessionID: "other", Subject: "other"},
			jwtauth.Token{Issuer: issuer},
			jwtauth.Token{},
		)
	}
}

func testAlike(t *testing.T, r Revocations) {
	s := r.Open(t)
	u := unique()
	names := []string{
		"a", "A", " a", "a\u200d", "é", "e\u0301", "1", "01", "1.0", "%", "_", "*", `\`, `\\`, "'", "''", "|", ":", "/", "a|a", "a:a", "a/a", "{a}",
		text(1024-len(u), "1"), text(1024-len(u), "2"),
	}
	for n, name := range names {
		for _, of := range [][2]string{{u + name, u}, {name + u, u}, {u, u + name}, {u, name + u}} {
			issuer, id := of[0], of[1]
			tokens := []jwtauth.Token{{Issuer: issuer, ID: id}, {Issuer: issuer, SessionID: id}, {Issuer: issuer, Subject: id}}
			wantRevokedTokens(t, s, false, tokens...)
			var err error
			switch n % 3 {
			case 0:
				err = s.RevokeToken(t.Context(), issuer, id, now().Add(time.Hour))
			case 1:
				err = s.RevokeSession(t.Context(), issuer, id, now().Add(time.Hour))
			case 2:
				err = s.RevokeSubject(t.Context(), issuer, id, now(), now().Add(time.Hour))
			}
			if err != nil {
				t.Fatal(err)
			}
			wantRevokedTokens(t, s, true, tokens[n%3])
		}
	}
	// Where an issuer ends and an ID begins is not lost.
	for _, between := range []string{"|", ":", "/", ".", " ", "\n", "\x1f", ""} {
		revokeToken(t, s, u+between+"b", "c")
		wantRevokedTokens(t, s, false, jwtauth.Token{Issuer: u, ID: "b" + between + "c"}, jwtauth.Token{Issuer: u + between, ID: "bc"})
	}
}

func testInvalid(t *testing.T, r Revocations) {
	s := r.Open(t)
	u := unique()
	until := now().Add(time.Hour)
	for _, bad := range []string{"", "\x00" + u, u + "\xff", strings.Repeat("x", 1025-len(u)) + u} {
		for _, of := range [][2]string{{bad, u}, {u, bad}} {
			for what, err := range map[string]error{
				"RevokeToken":   s.RevokeToken(t.Context(), of[0], of[1], until),
				"RevokeSession": s.RevokeSession(t.Context(), of[0], of[1], until),
				"RevokeSubject": s.RevokeSubject(t.Context(), of[0], of[1], until, until),
			} {
				if err == nil {
					t.Errorf("%s of %.20q and %.20q: no error", what, of[0], of[1])
				}
			}
		}
	}
	wantRevokedTokens(t, s, false, jwtauth.Token{Issuer: u}, jwtauth.Token{Issuer: u, ID: u[1:]})
	// A token may nevertheless have such text. Its other claims still count.
	revokeToken(t, s, u, "revoked")
	for _, bad := range []string{"\x00", "x\x00" + u, u + "\xff", strings.Repeat("x", 1025), strings.Repeat("x", 100_000)} {
		wantRevokedTokens(t, s, false,
			jwtauth.Token{Issuer: u, ID: bad, SessionID: bad, Subject: bad},
			jwtauth.Token{Issuer: bad, ID: "revoked", SessionID: "x", Subject: "x"},
		)
		wantRevokedTokens(t, s, true, jwtauth.Token{Issuer: u, ID: "revoked", SessionID: bad, Subject: bad})
	}
}

func testGrows(t *testing.T, r Revocations) {
	a, b := r.Open(t), r.Open(t)
	issuer, at := unique(), now()
	for i, d := range []time.Duration{10, -20, 5, 20, 0} {
		s := []jwtauth.RevocationSource{a, b}[i%2]
		before, until := at.Add(d*time.Second), at.Add(time.Hour+d*time.Minute)
		for what, err := range map[string]error{
			"RevokeToken":   s.RevokeToken(t.Context(), issuer, "x", until),
			"RevokeSession": s.RevokeSession(t.Context(), issuer, "x", until),
			"RevokeSubject": s.RevokeSubject(t.Context(), issuer, "x", before, until),
		} {
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	f := follow(t, a, "", issuer)
	f.waitReady()
	f.stop()
	last := map[jwtauth.RevocationKind]jwtauth.Revocation{}
	for _, r := range f.revocations() {
		last[r.Kind] = r
	}
	for _, kind := range []jwtauth.RevocationKind{jwtauth.RevokedToken, jwtauth.RevokedSession, jwtauth.RevokedSubject} {
		if got, want := last[kind].Until, at.Add(time.Hour+20*time.Minute); !got.Equal(want) {
			t.Errorf("kind %d: until %v, want %v", kind, got, want)
		}
	}
	if got, want := last[jwtauth.RevokedSubject].IssuedBefore, at.Add(20*time.Second); !got.Equal(want) {
		t.Errorf("issued before %v, want %v", got, want)
	}
	wantRevokedTokens(t, b, true, jwtauth.Token{Issuer: issuer, Subject: "x", IssuedAt: at.Add(19 * time.Second)})
	wantRevokedTokens(t, b, false, jwtauth.Token{Issuer: issuer, Subject: "x", IssuedAt: at.Add(20 * time.Second)})
}
