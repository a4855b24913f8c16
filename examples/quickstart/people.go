package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
)

// people is the web site's side: one account with a password, and the sessions of
// those who have logged in. A real server has its users in a database, and their
// passwords hashed.
type people struct {
	name, password string
	sessions       *jwtauth.SessionHandler
	verifier       *jwtauth.Verifier
}

func newPeople() (*people, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := jwtauth.NewKey(jwtauth.KeyConfig{ID: "first", Algorithm: jwtauth.EdDSA, Material: private})
	if err != nil {
		return nil, err
	}
	store, err := jwtauth.NewMemoryRefreshStore(0)
	if err != nil {
		return nil, err
	}

	// A login gives an access token for 15 minutes and a refresh token. After a
	// logout both are refused at once.
	ended := new(jwtauth.RevocationList)
	issuer, err := jwtauth.NewIssuer(jwtauth.IssuerConfig{
		Issuer:      "notes",
		Audiences:   []string{"notes"},
		Keys:        []jwtauth.SigningKey{{Key: key}},
		Store:       store,
		Revocations: ended,
	})
	if err != nil {
		return nil, err
	}
	sessions, err := jwtauth.NewSessionHandler(jwtauth.SessionHandlerConfig{Issuer: issuer})
	if err != nil {
		return nil, err
	}
	verifier, err := jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer:     "notes",
			Audiences:  []string{"notes"},
			Algorithms: []jwtauth.Algorithm{jwtauth.EdDSA},
			Keys:       issuer,
			Profile:    jwtauth.ProfileSession,
		}},
		Revocations: ended,
		Principal:   owner,
	})
	if err != nil {
		return nil, err
	}
	return &people{name: "demo", password: rand.Text(), sessions: sessions, verifier: verifier}, nil
}

// owner lets people do everything with what is theirs.
func owner(t *jwtauth.Token, p usher.Principal) usher.Principal {
	p.Owner, p.Level = t.Subject, usher.LevelFull
	return p
}

func (p *people) login(w http.ResponseWriter, r *http.Request) {
	var in struct{ User, Password string }
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&in)
	if err != nil || in.User != p.name || subtle.ConstantTimeCompare([]byte(in.Password), []byte(p.password)) == 0 {
		usher.Fail(w, r, &usher.Error{
			Status: http.StatusUnauthorized, Code: "wrong_password", Message: "The name or the password is wrong.", Cause: err,
		})
		return
	}
	p.sessions.Login(w, r, jwtauth.Session{Subject: p.name})
}
