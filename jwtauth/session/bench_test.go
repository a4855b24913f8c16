package session_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

var benchedAlgorithms = []jwk.Algorithm{jwk.HS256, jwk.RS256, jwk.ES256, jwk.EdDSA}

func BenchmarkLogin(b *testing.B) {
	for _, a := range benchedAlgorithms {
		b.Run(string(a), func(b *testing.B) {
			m := newManager(b, func(c *session.Config) { c.Keys[0].Key = signing(b, "k1", a) })
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if _, err := m.Login(b.Context(), session.Session{Subject: fmt.Sprint(n % 1000)}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRefresh(b *testing.B) {
	for _, a := range benchedAlgorithms {
		b.Run(string(a), func(b *testing.B) {
			m := newManager(b, func(c *session.Config) { c.Keys[0].Key, c.Grace = signing(b, "k1", a), -1 })
			tokens := login(b, m)
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if tokens, err = m.Refresh(b.Context(), session.RefreshRequest{Token: tokens.RefreshToken()}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRefreshReplay(b *testing.B) {
	m := newManager(b, func(c *session.Config) { c.Grace = 5 * time.Minute })
	first := login(b, m)
	mustRefresh(b, m, first.RefreshToken())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Refresh(b.Context(), session.RefreshRequest{Token: first.RefreshToken()}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRefreshRefused(b *testing.B) {
	m := newManager(b, nil)
	for name, token := range map[string]string{"malformed": "x", "unknown": b64(make([]byte, 64))} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Refresh(b.Context(), session.RefreshRequest{Token: token}); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}
