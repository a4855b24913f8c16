package web

import (
	"net/http"
	"strings"

	"github.com/usher-go/usher"
)

// A webSession is how people log in: by a bearer token, which here is one of a fixed
// set, mapped to the account it belongs to.
type webSession map[string]string

func (s webSession) Authenticate(r *http.Request) (*usher.Principal, error) {
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

func (s webSession) Detect(r *http.Request) (carrier string, certain bool) {
	if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		return "Authorization", false
	}
	return "", false
}

func (webSession) Challenge() string { return "Bearer" }

func (webSession) Carriers() []string { return []string{"Authorization"} }

// The tokens of two people, as they come in a request.
const (
	AsAda  = "Authorization: Bearer session-of-ada"
	AsBert = "Authorization: Bearer session-of-bert"
)

// People authenticates two people.
var People usher.Authenticator = webSession{"session-of-ada": "ada", "session-of-bert": "bert"}
