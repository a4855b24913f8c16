package session_test

import (
	"strings"
	"testing"

	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

// newManager returns a Manager with a store of its own, changed by change.
func newManager(tb testing.TB, change func(*session.Config)) *session.Manager {
	tb.Helper()
	key, err := jwk.New(jwk.KeyConfig{ID: "k1", Algorithm: jwk.HS256, Secret: []byte(strings.Repeat("s", 32))})
	if err != nil {
		tb.Fatal(err)
	}
	store, err := session.NewMemory(session.MemoryConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	c := session.Config{
		Issuer:    "https://issuer.example",
		Audiences: []string{"https://api.example"},
		Keys:      []session.SigningKey{{Key: key}},
		Store:     store,
	}
	change(&c)
	i, err := session.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

func login(tb testing.TB, i *session.Manager) session.Tokens {
	tb.Helper()
	t, err := i.Login(tb.Context(), session.Session{Subject: "ann"})
	if err != nil {
		tb.Fatalf("Login: %v", err)
	}
	return t
}
