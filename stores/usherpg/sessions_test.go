package usherpg_test

import (
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
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

// A request with the second refresh token overtakes one with the first, at another node.
func TestRefreshesInAnotherOrderKeepTheSession(t *testing.T) {
	t.Parallel()
	s, pool := migrated(t)
	key := usher.Must(jwk.Generate(jwk.HS256))
	var nodes [2]*session.Manager
	for n := range nodes {
		if n > 0 {
			pool = connect(t, s.Addr)
		}
		p := open(t, pool)
		nodes[n] = usher.Must(session.New(session.Config{
			Issuer: "https://api.example", Audiences: []string{"https://api.example"}, Keys: []session.SigningKey{{Key: key}},
			Store: p.Sessions(), Revocations: p.Revocations(), Grace: 5 * time.Minute,
		}))
	}
	first, err := nodes[0].Login(t.Context(), session.Session{Subject: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := nodes[0].Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()})
	if err != nil {
		t.Fatal(err)
	}
	for n, sent := range []session.Tokens{second, first, second, first} {
		got, err := nodes[1-n/2].Refresh(t.Context(), session.RefreshRequest{Token: sent.RefreshToken()})
		if err != nil || got.RefreshToken() != second.RefreshToken() || !got.Session.ExpiresAt.Equal(second.Session.ExpiresAt) {
			t.Errorf("refresh %d: %+v, %v", n, got.Session, err)
		}
	}
}

// A program of an earlier version knows neither the tokens nor the clients of sessions.
func TestSessionsOfAProgramOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	_, pool := migrated(t)
	s := open(t, pool).Sessions()
	r := newSession()
	r.TokenID, r.Client = "before", "web"
	if _, err := s.Insert(t.Context(), r, 1000); err != nil {
		t.Fatal(err)
	}
	const row = "to_jsonb(s) - 'token_id' - 'client'"
	exec(t, pool, "SELECT usher.update_session_v1("+row+" || '{\"delivered\":false}') FROM usher.sessions s")
	// The token is not the one of the last rotation.
	if err := s.SetDelivered(t.Context(), r.ID, r.TokenID); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Lookup(t.Context(), r.Handle); err != nil || got.Delivered || got.TokenID != "" || got.Client != "web" || got.Revision != 2 {
		t.Errorf("after a rotation: %+v, %v", got, err)
	}
	other := newSession()
	exec(t, pool, "SELECT usher.insert_session_v1("+row+" || jsonb_build_object('id', $1::text, 'handle', $2::bytea), 1000) FROM usher.sessions s",
		other.ID, other.Handle[:])
	if got, err := s.Lookup(t.Context(), other.Handle); err != nil || got.TokenID != "" || got.Client != "" {
		t.Errorf("after a login: %+v, %v", got, err)
	}
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
