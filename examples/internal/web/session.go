package web

import (
	"net/http"
	"strings"

	"github.com/usher-go/usher"
)

// A session authenticates people by a bearer token, here one of a fixed set, which
// it maps to accounts.
type session map[string]string

func (s session) Authenticate(r *http.Request) (*usher.Principal, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, usher.ErrNoCredential
	}
	account, ok := s[token]
	if !ok {
		return nil, &usher.Error{Status: http.StatusUnauthorized, Code: "invalid_token", Message: "Invalid token"}
	}
	return &usher.Principal{ID: account, Kind: usher.KindJWT, Level: usher.LevelFull}, nil
}

func (s session) Detect(r *http.Request) (carrier string, certain bool) {
	if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		return "Authorization", false
	}
	return "", false
}

func (session) Challenge() string { return "Bearer" }

func (session) Carriers() []string { return []string{"Authorization"} }

// Header lines with the tokens of two people.
const (
	AsAda  = "Authorization: Bearer session-of-ada"
	AsBert = "Authorization: Bearer session-of-bert"
)

// People accepts the tokens of these two people.
var People usher.Authenticator = session{"session-of-ada": "ada", "session-of-bert": "bert"}
