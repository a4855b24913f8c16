package jwtauth_test

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/jwtauth"
)

// However many revocations expire together, a call that revokes removes two of them, and
// any other call removes none. So no request waits while many are removed.
func TestOneCallRemovesAtMostTwoOfAMillionRevocations(t *testing.T) {
	n := 1_000_000
	if race.Enabled || testing.Short() {
		n = 10_000
	}
	synctest.Test(t, func(t *testing.T) {
		list := new(jwtauth.RevocationList)
		until := time.Now().Add(time.Hour)
		expireTogether(t, list, n, until)
		if list.Len() != n {
			t.Fatalf("%d revocations, want %d", list.Len(), n)
		}
		time.Sleep(time.Hour + 1)
		calls := []struct {
			name  string
			grows int
			call  func(context.Context) error
		}{
			{"a look-up", 0, func(ctx context.Context) error {
				_, err := list.Revoked(ctx, &jwtauth.Token{Issuer: issuer, ID: "0", Subject: "ann"})
				return err
			}},
			{"a new token", 1 - 2, func(ctx context.Context) error {
				return list.RevokeToken(ctx, issuer, "new", until.Add(time.Hour))
			}},
			{"a known token", -2, func(ctx context.Context) error {
				return list.RevokeToken(ctx, issuer, "new", until.Add(time.Hour))
			}},
			{"a session", 1 - 2, func(ctx context.Context) error {
				return list.RevokeSession(ctx, issuer, "new", until.Add(time.Hour))
			}},
			{"a subject", 1 - 2, func(ctx context.Context) error {
				return list.RevokeSubject(ctx, issuer, "new", until, until.Add(time.Hour))
			}},
			{"nothing", 0, func(ctx context.Context) error {
				_ = list.RevokeToken(ctx, issuer, "", until)
				return nil
			}},
			{"a follower", 0, func(ctx context.Context) error {
				ctx, cancel := context.WithCancel(ctx)
				return list.Follow(ctx, "", cancel, func(jwtauth.Revocation) {})
			}},
		}
		for _, c := range calls {
			before := list.Len()
			if err := c.call(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := list.Len() - before; got != c.grows {
				t.Errorf("%s: the list grows by %d, want %d", c.name, got, c.grows)
			}
		}
	})
}

// The mirror is no exception: each message of its source removes at most two.
func TestAMirrorRemovesAtMostTwoRevocationsForEachMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		source := new(jwtauth.RevocationList)
		until := time.Now().Add(time.Hour)
		expireTogether(t, source, n, until)
		m := newMirror(t, source, nil)
		synctest.Wait()
		mirrored := jwtauth.ListOf(m)
		if mirrored.Len() != n {
			t.Fatalf("%d revocations, want %d", mirrored.Len(), n)
		}
		time.Sleep(time.Hour + 1)
		for i := range 3 {
			before := mirrored.Len()
			if err := source.RevokeToken(t.Context(), issuer, "by another process "+strconv.Itoa(i), until.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := mirrored.Len() - before; got != 1-2 {
				t.Errorf("a message: the list grows by %d, want -1", got)
			}
			if _, err := m.Revoked(t.Context(), &jwtauth.Token{Issuer: issuer, ID: "0"}); err != nil {
				t.Error(err)
			}
			before = mirrored.Len()
			if err := m.RevokeToken(t.Context(), issuer, "by this process "+strconv.Itoa(i), until.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			// This process adds the revocation, and then the message of the source arrives.
			if got := mirrored.Len() - before; got != 1-2-2 {
				t.Errorf("a call and its message: the list grows by %d, want -3", got)
			}
		}
	})
}

// expireTogether revokes n tokens until the same time.
func expireTogether(t *testing.T, list *jwtauth.RevocationList, n int, until time.Time) {
	t.Helper()
	for i := range n {
		if err := list.RevokeToken(t.Context(), issuer, strconv.Itoa(i), until); err != nil {
			t.Fatal(err)
		}
	}
}
