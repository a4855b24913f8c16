package jwtauth_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
)

func revoked(tb testing.TB, r jwtauth.Revocations, t *jwtauth.Token) bool {
	tb.Helper()
	is, err := r.Revoked(tb.Context(), t)
	if err != nil {
		tb.Fatal(err)
	}
	return is
}

func TestRevocationIsForOneIssuer(t *testing.T) {
	var list jwtauth.RevocationList
	until := time.Now().Add(time.Hour)
	for _, err := range []error{
		list.RevokeToken(t.Context(), issuer, "x", until),
		list.RevokeSession(t.Context(), issuer, "y", until),
		list.RevokeSubject(t.Context(), issuer, "z", time.Now(), until),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		token jwtauth.Token
		want  bool
	}{
		"the token":                          {jwtauth.Token{Issuer: issuer, ID: "x"}, true},
		"the session":                        {jwtauth.Token{Issuer: issuer, SessionID: "y"}, true},
		"the subject":                        {jwtauth.Token{Issuer: issuer, Subject: "z", IssuedAt: time.Now().Add(-time.Minute)}, true},
		"the subject, issued at a time":      {jwtauth.Token{Issuer: issuer, Subject: "z"}, true},
		"the subject, issued later":          {jwtauth.Token{Issuer: issuer, Subject: "z", IssuedAt: time.Now().Add(time.Minute)}, false},
		"another issuer's token":             {jwtauth.Token{Issuer: "o", ID: "x", SessionID: "y", Subject: "z"}, false},
		"a session with the name of a token": {jwtauth.Token{Issuer: issuer, SessionID: "x"}, false},
		"a token with the name of a subject": {jwtauth.Token{Issuer: issuer, ID: "z"}, false},
		"a subject with the name of a token": {jwtauth.Token{Issuer: issuer, Subject: "x"}, false},
		"a token that names nothing":         {jwtauth.Token{Issuer: issuer}, false},
		"another token of the subject":       {jwtauth.Token{Issuer: issuer, ID: "q", SessionID: "r", Subject: "s"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := revoked(t, &list, &tt.token); got != tt.want {
				t.Error(got)
			}
		})
	}
}

func TestRevocationListForgetsNothingThatMatters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := jwtauth.RevocationList{Capacity: 3}
		revoke := func(id string, d time.Duration) error {
			return list.RevokeToken(t.Context(), issuer, id, time.Now().Add(d))
		}
		is := func(id string) bool { return revoked(t, &list, &jwtauth.Token{Issuer: issuer, ID: id}) }
		for i, d := range []time.Duration{time.Hour, time.Minute, time.Second} {
			if err := revoke(strconv.Itoa(i), d); err != nil {
				t.Fatal(err)
			}
		}
		if err := revoke("3", time.Hour); !errors.Is(err, usher.ErrFull) {
			t.Fatalf("a full list returned %v", err)
		}
		if !is("0") || !is("1") || !is("2") || is("3") {
			t.Error("the list has changed although it was full")
		}
		// Repeating a revocation needs no room, and never shortens it.
		if err := revoke("0", time.Second); err != nil {
			t.Fatal(err)
		}
		if err := revoke("2", time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if err := revoke("3", time.Hour); err == nil {
			t.Error("a revocation was shortened or pushed out")
		}
		time.Sleep(time.Minute)
		if err := revoke("3", time.Hour); err != nil {
			t.Fatal(err)
		}
		if !is("0") || is("1") || is("2") || !is("3") || list.Len() != 2 {
			t.Errorf("%d revocations are left", list.Len())
		}
	})
}

func TestRevocationOfASubjectOnlyGrows(t *testing.T) {
	var list jwtauth.RevocationList
	now := time.Now().Truncate(time.Second)
	for _, before := range []time.Time{now, now.Add(-time.Hour)} {
		if err := list.RevokeSubject(t.Context(), issuer, "ann", before, now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if !revoked(t, &list, &jwtauth.Token{Issuer: issuer, Subject: "ann", IssuedAt: now.Add(-time.Second)}) {
		t.Error("an older revocation has replaced a newer one")
	}
	if revoked(t, &list, &jwtauth.Token{Issuer: issuer, Subject: "ann", IssuedAt: now}) {
		t.Error("a token that was issued at the time is revoked")
	}
}

// Requests need the lock under which a revocation is added, so adding one removes at most
// two that have ended, however many there are.
func TestRevocationsThatExpireTogetherStopNoRequest(t *testing.T) {
	const n = 2000
	list := jwtauth.RevocationList{Capacity: n}
	api := served(t, verifier(t, func(c *jwtauth.Config) { c.Revocations = &list }))
	until := time.Now().Add(time.Second)
	for i := range n {
		if err := list.RevokeToken(t.Context(), issuer, strconv.Itoa(i), until); err != nil {
			t.Fatal(err)
		}
	}
	if list.Len() != n {
		t.Fatal("some revocations have already ended")
	}
	time.Sleep(time.Until(until) + time.Millisecond)
	for i := range 3 {
		if err := list.RevokeToken(t.Context(), issuer, "late"+strconv.Itoa(i), until.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if want := n - 1 - i; list.Len() != want {
			t.Fatalf("%d revocations, want %d: one call has removed more than two", list.Len(), want)
		}
		if got := status(t, api.Client(), api.URL, token(claims(map[string]any{"jti": "late" + strconv.Itoa(i)}))); got != 401 {
			t.Errorf("%d for a revoked token", got)
		}
		if got := status(t, api.Client(), api.URL, good()); got != 200 {
			t.Errorf("%d", got)
		}
	}
}

// Revocations that have ended, of whatever kind, are removed before others need their
// place.
func TestEndedRevocationsNeedNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := jwtauth.RevocationList{Capacity: 100}
		until := time.Now().Add(time.Minute)
		for i := range 100 {
			id := strconv.Itoa(i)
			revoke := []func() error{
				func() error { return list.RevokeToken(t.Context(), issuer, id, until) },
				func() error { return list.RevokeSession(t.Context(), issuer, id, until) },
				func() error { return list.RevokeSubject(t.Context(), issuer, id, until, until) },
			}
			if err := revoke[i%3](); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute + 1)
		for i := range 100 {
			if err := list.RevokeToken(t.Context(), issuer, "new"+strconv.Itoa(i), until.Add(time.Hour)); err != nil {
				t.Fatal(i, err)
			}
		}
		if list.Len() != 100 {
			t.Errorf("%d revocations, want 100", list.Len())
		}
		if err := list.RevokeToken(t.Context(), issuer, "one more", until.Add(time.Hour)); !errors.Is(err, usher.ErrFull) {
			t.Errorf("a full list: %v", err)
		}
	})
}

// broken fails to report what is revoked.
type broken struct{}

func (broken) Revoked(context.Context, *jwtauth.Token) (bool, error) {
	return false, errors.New("the store is down")
}

func TestRevocationsThatFailAreUnavailable(t *testing.T) {
	v := verifier(t, func(c *jwtauth.Config) { c.Revocations = broken{} })
	want(t, v, good(), jwtauth.Unavailable)
	if w := respond(t, v, request(t, good())); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}
