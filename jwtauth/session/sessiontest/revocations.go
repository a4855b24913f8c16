package sessiontest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/jwtauth"
)

// Revocations has what [TestRevocations] does to a list that several processes share. The
// tests of a nil function are skipped, except that Open is required.
type Revocations struct {
	// Open returns another client of the list, for the time of the test that it is given.
	Open func(testing.TB) jwtauth.RevocationSource
	// Block makes the server silent for all clients, as in [Shared].
	Block func(testing.TB) (unblock func())
	// Poison makes everything unreadable that the server keeps for the list.
	Poison func(testing.TB)
}

// TestRevocations runs every test of the contract of [jwtauth.RevocationSource]. All may
// be run on one list: each test uses its own issuers. A list must have room for 2,000
// revocations.
func TestRevocations(t *testing.T, r Revocations) {
	for _, test := range []struct {
		name string
		has  bool
		run  func(*testing.T, Revocations)
	}{
		{"what was revoked is revoked at once, and nothing else", true, testRevoked},
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
		{"what cannot be read is corrupt", r.Poison != nil, testPoisonedList},
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

func testWholeList(t *testing.T, r Revocations) {
	a, b := r.Open(t), r.Open(t)
	issuer, at := unique(), now()
	var want []jwtauth.Revocation
	for i := range 300 {
		w := jwtauth.Revocation{Kind: jwtauth.RevocationKind(i % 3), Issuer: issuer, Value: fmt.Sprint("v", i), Until: at.Add(time.Hour + time.Duration(i)*time.Microsecond)}
		var err error
		switch w.Kind {
		case jwtauth.RevokedToken:
			err = a.RevokeToken(t.Context(), issuer, w.Value, w.Until)
		case jwtauth.RevokedSession:
			err = b.RevokeSession(t.Context(), issuer, w.Value, w.Until)
		case jwtauth.RevokedSubject:
			w.IssuedBefore = at.Add(time.Duration(i+1) * time.Microsecond)
			err = a.RevokeSubject(t.Context(), issuer, w.Value, w.IssuedBefore, w.Until)
		}
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, w)
	}
	for _, s := range []jwtauth.RevocationSource{a, b} {
		f := follow(t, s, "", issuer)
		f.waitReady()
		atReady := f.atReady
		f.stop()
		if atReady != len(want) {
			t.Errorf("%d revocations were passed on before ready, want %d", atReady, len(want))
		}
		f.want(want)
	}
}

func testAdded(t *testing.T, r Revocations) {
	stores := []jwtauth.RevocationSource{r.Open(t), r.Open(t)}
	issuer := unique()
	f := follow(t, r.Open(t), "", issuer)
	f.waitReady()
	var want []jwtauth.Revocation
	for i := range 50 {
		w := jwtauth.Revocation{Issuer: issuer, Value: strconv.Itoa(i), Until: now().Add(time.Hour)}
		if err := stores[i%2].RevokeToken(t.Context(), issuer, w.Value, w.Until); err != nil {
			t.Fatal(err)
		}
		want = append(want, w)
	}
	f.waitFor(len(want))
	f.stop()
	f.want(want)
}

func testContinue(t *testing.T, r Revocations) {
	a, b := r.Open(t), r.Open(t)
	issuer := unique()
	revoked := 0
	add := func(n int) {
		for range n {
			revokeToken(t, a, issuer, strconv.Itoa(revoked))
			revoked++
		}
	}
	add(20)
	// The first follower leaves in the middle of the list, and the others while nothing
	// happens; in between others are added.
	var got []jwtauth.Revocation
	first := follow(t, a, "", issuer, 7)
	first.waitFor(7)
	first.stop()
	got = append(got, first.revocations()...)
	for range 3 {
		add(5)
		next := follow(t, b, got[len(got)-1].Position, issuer)
		next.waitReady()
		if n := len(got) + next.atReady; n != revoked {
			t.Errorf("%d revocations were passed on before ready, want %d", n, revoked)
		}
		add(3)
		next.waitFor(revoked - len(got))
		next.stop()
		got = append(got, next.revocations()...)
		// Nothing was added since.
		last := follow(t, a, got[len(got)-1].Position, issuer)
		last.waitReady()
		last.stop()
		if n := len(last.revocations()); n != 0 {
			t.Errorf("%d revocations were passed on that are not after the position", n)
		}
	}
	positions := map[string]bool{}
	for i, r := range got {
		if r.Value != strconv.Itoa(i) {
			t.Fatalf("revocation %d is %q: all those passed on are not what was revoked", i, r.Value)
		}
		positions[r.Position] = true
	}
	if len(got) != revoked || len(positions) != revoked || positions[""] {
		t.Errorf("%d revocations and %d positions, want %d", len(got), len(positions), revoked)
	}
}

func testOneOrder(t *testing.T, r Revocations) {
	stores := []jwtauth.RevocationSource{r.Open(t), r.Open(t)}
	issuer := unique()
	followers := []*follower{follow(t, stores[0], "", issuer), follow(t, stores[1], "", issuer)}
	const n = 100
	// One more follower comes and goes.
	var (
		coming sync.WaitGroup
		parts  []jwtauth.Revocation
	)
	defer coming.Wait()
	coming.Go(func() {
		after := ""
		for end := time.Now().Add(patience); len(parts) < n && time.Now().Before(end); {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			_ = stores[0].Follow(ctx, after, func() {}, func(r jwtauth.Revocation) {
				if ctx.Err() != nil {
					return
				}
				if after = r.Position; r.Issuer == issuer {
					parts = append(parts, r)
					cancel()
				}
			})
			cancel()
		}
	})
	each(8, func(i int) error {
		for j := i; j < n; j += 8 {
			if err := stores[j%2].RevokeSession(t.Context(), issuer, strconv.Itoa(j), now().Add(time.Hour)); err != nil {
				t.Errorf("RevokeSession: %v", err)
			}
		}
		return nil
	})
	for _, f := range followers {
		f.waitFor(n)
		f.stop()
	}
	again := follow(t, stores[0], "", issuer)
	again.waitReady()
	again.stop()
	coming.Wait()
	again.want(parts)
	for _, f := range append(followers, again) {
		f.want(followers[0].revocations())
		values := map[string]bool{}
		for _, r := range f.revocations() {
			values[r.Value] = true
		}
		if len(values) != n {
			t.Errorf("%d revocations, want %d", len(values), n)
		}
	}
}

func testExtended(t *testing.T, r Revocations) {
	s := r.Open(t)
	issuer, at := unique(), now()
	f := follow(t, r.Open(t), "", issuer)
	f.waitReady()
	// Each call extends the revocation in one way.
	for i, times := range [][2]time.Duration{{0, 0}, {time.Second, 0}, {time.Second, time.Minute}} {
		if err := s.RevokeSubject(t.Context(), issuer, "x", at.Add(times[0]), at.Add(time.Hour+times[1])); err != nil {
			t.Fatal(err)
		}
		f.waitFor(i + 1)
	}
	f.stop()
	got := f.revocations()
	for i, r := range got {
		if i > 0 && r.Position == got[i-1].Position {
			t.Error("the revocation was extended, and kept its position")
		}
	}
	if last := got[len(got)-1]; !last.IssuedBefore.Equal(at.Add(time.Second)) || !last.Until.Equal(at.Add(time.Hour+time.Minute)) {
		t.Errorf("%+v", last)
	}
	next := follow(t, s, got[0].Position, issuer)
	next.waitReady()
	next.stop()
	if n := len(next.revocations()); n == 0 {
		t.Error("a revocation that was extended after the position is not passed on")
	}
}

func testPosition(t *testing.T, r Revocations) {
	s := r.Open(t)
	revokeToken(t, s, unique(), "x")
	for _, position := range []string{"no position", "-1", strings.Repeat("9", 60), "0-0-0"} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := s.Follow(ctx, position, func() { t.Errorf("%q: ready", position) }, func(r jwtauth.Revocation) { t.Errorf("%q: %+v", position, r) })
		cancel()
		storetest.WantError(t, fmt.Sprintf("Follow from %q", position), err, jwtauth.ErrPosition)
	}
}

func testRevocationsContext(t *testing.T, r Revocations) {
	s := r.Open(t)
	issuer := unique()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() { done <- s.Follow(ended, "", func() {}, func(jwtauth.Revocation) {}) }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Follow: %v", err)
		}
	case <-time.After(patience):
		t.Error("Follow has not ended")
	}
	// A follower that waits, and one that is passed something on.
	for range 2 {
		f := follow(t, s, "", issuer)
		f.waitReady()
		f.stop()
		revokeToken(t, s, issuer, unique())
		time.Sleep(soon / 2) // nothing more may be passed on
	}
}

func testSilence(t *testing.T, r Revocations) {
	a, b := r.Open(t), r.Open(t)
	issuer := unique()
	revokeToken(t, a, issuer, "0")
	f := follow(t, b, "", issuer)
	f.waitReady()
	unblock := sync.OnceFunc(r.Block(t))
	defer unblock()
	var running sync.WaitGroup
	for what, call := range map[string]func(context.Context) error{
		"Revoked": func(ctx context.Context) error {
			_, err := a.Revoked(ctx, &jwtauth.Token{Issuer: issuer, ID: "0"})
			return err
		},
		"RevokeToken":   func(ctx context.Context) error { return a.RevokeToken(ctx, issuer, "1", now().Add(time.Hour)) },
		"RevokeSession": func(ctx context.Context) error { return a.RevokeSession(ctx, issuer, "1", now().Add(time.Hour)) },
		"RevokeSubject": func(ctx context.Context) error { return a.RevokeSubject(ctx, issuer, "1", now(), now().Add(time.Hour)) },
	} {
		running.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			if call(ctx) == nil {
				t.Errorf("%s: no error", what)
			}
		})
	}
	late := time.AfterFunc(patience, unblock)
	defer late.Stop()
	running.Wait()
	select {
	case err := <-f.done:
		if err == nil || errors.Is(err, jwtauth.ErrPosition) {
			t.Errorf("Follow: %v, want that the server is silent", err)
		}
	case <-time.After(patience):
		t.Errorf("Follow has not ended after %v of silence", patience)
		unblock()
		f.stop()
	}
	unblock()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := a.RevokeToken(t.Context(), issuer, "2", now().Add(time.Hour))
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("RevokeToken once the server responds again: %v", err)
		}
	}
	next := follow(t, b, f.revocations()[0].Position, issuer)
	next.waitReady()
	next.stop()
	got := map[string]bool{}
	for _, r := range next.revocations() {
		got[r.Value] = true
	}
	if !got["2"] || got["0"] {
		t.Errorf("the follower that continued got %v", got)
	}
}

func testPoisonedList(t *testing.T, r Revocations) {
	s := r.Open(t)
	issuer := unique()
	revokeToken(t, s, issuer, "x")
	r.Poison(t)
	_, err := s.Revoked(t.Context(), &jwtauth.Token{Issuer: issuer, ID: "x"})
	storetest.WantError(t, "Revoked", err, usher.ErrCorrupt)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = s.Follow(ctx, "", func() { t.Error("ready, although the list cannot be read") }, func(jwtauth.Revocation) {})
	storetest.WantError(t, "Follow", err, usher.ErrCorrupt)
}
