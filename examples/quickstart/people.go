package main

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
)

// people is the web site's side: one account with a password, and the sessions of
// those who have logged in. A real server has its users in a database, and their
// passwords hashed.
type people struct {
	name, password string
	sessions       *session.Handler
	verifier       *jwtauth.Verifier
}

func newPeople() (*people, error) {
	// A login gives an access token for 15 minutes and a refresh token. After a
	// logout both are refused at once. All of it is in memory here; give a server that
	// is to be restarted a Store and Keys.
	manager, err := session.New(session.Config{Issuer: "notes", Audiences: []string{"notes"}})
	if err != nil {
		return nil, err
	}
	sessions, err := session.NewHandler(session.HandlerConfig{Manager: manager})
	if err != nil {
		return nil, err
	}
	verifier, err := jwtauth.New(jwtauth.Config{
		Issuers:   []jwtauth.TrustedIssuer{manager.TrustedIssuer()},
		Principal: owner,
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
	p.sessions.Login(w, r, session.Session{Subject: p.name})
}
