package usherpg_test

import (
	"testing"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/jwtauth/session/sessiontest"
)

func TestSessions(t *testing.T) {
	t.Parallel()
	s, _ := migrated(t)
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			p := open(t, connect(t, s.Addr, inMode(mode)))
			sessiontest.TestStore(t, func(testing.TB) session.Store { return p.Sessions() })
		})
	}
}

func TestSharedSessions(t *testing.T) {
	c := newCluster(t)
	sessiontest.TestShared(t, sessiontest.Shared{
		Open:  func(t testing.TB) session.Store { return c.open(t).Sessions() },
		Block: c.block, Cut: c.cut,
		Poison: func(t testing.TB) { exec(t, c.admin, "UPDATE usher.sessions SET data = '7', current = ''") },
	})
}

func TestRevocations(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	sessiontest.TestRevocations(t, sessiontest.Revocations{
		Open:  func(t testing.TB) jwtauth.RevocationSource { return c.open(t).Revocations() },
		Block: c.block,
		Poison: func(t testing.TB) {
			exec(t, c.admin, "UPDATE usher.revocations SET issued_before = CASE kind WHEN 2 THEN NULL ELSE 1 END")
		},
	})
}
