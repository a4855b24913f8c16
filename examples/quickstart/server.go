package main

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/ratelimit"
)

// server is the notes API with usher around it. It keeps everything in memory: data that
// must survive a restart needs another Store.
type server struct {
	http.Handler
	keys           *apikey.Keys
	sessions       *session.Handler
	user, password string // of the only account; a real server hashes passwords
}

func newServer(user, password string) *server {
	// All responses have one shape, even those that the handlers write themselves.
	shape := usher.Must(envelope.New(envelope.Config{Wrap: true}))
	// Behind a proxy: clientip.Config{TrustedProxies: []string{"10.0.0.0/8"}}.
	client := usher.Must(clientip.New(clientip.Config{}))

	// Programs send an API key, notes_live_..., as X-API-Key or as Bearer.
	format := apikey.Native{Prefix: "notes", Environments: []string{"live"}}
	issue := apikey.ManagerConfig{Store: apikey.NewMemory(), Format: format, MaxActive: 5}
	accept := apikey.Config{Carriers: []apikey.Carrier{{Header: "X-API-Key"}, {Scheme: "Bearer"}}}
	keys := usher.Must(apikey.Open(issue, accept))

	// People log in for an access token and a refresh token. A logout ends both at once.
	manager := usher.Must(session.New(session.Config{Issuer: "notes", Audiences: []string{"notes"}}))
	sessions := usher.Must(session.NewHandler(session.HandlerConfig{Manager: manager}))
	issuers := []jwtauth.TrustedIssuer{manager.TrustedIssuer()}
	tokens := usher.Must(jwtauth.New(jwtauth.Config{Issuers: issuers, Principal: owner}))

	// In any minute an address may make 300 requests, 10 of them logins, and a caller 60,
	// 5 of them writes. A request is charged to all of its limits or to none.
	policies := []ratelimit.Policy{ratelimit.PerAddress(300, time.Minute)}
	address := usher.Must(ratelimit.New(ratelimit.Config{Policies: policies}))
	logins := usher.Must(address.With(perMinute("logins", ratelimit.ByAddress(), 10)))
	calls := usher.Must(address.With(ratelimit.PerPrincipal(60, time.Minute)))
	writes := usher.Must(calls.With(perMinute("writes", ratelimit.ByPrincipal(), 5)))

	// A write that is retried with the same Idempotency-Key runs once.
	once := usher.Must(idempotency.New(idempotency.Config{}))

	// Notes are for programs and people. Keys are for people: no key can make another.
	either, people := usher.Authenticate(keys.Authenticator, tokens), usher.Authenticate(tokens)
	read := usher.Chain(either, usher.Require(usher.Requirement{Level: usher.LevelReadOnly}), calls)
	write := usher.Chain(either, usher.Require(usher.Requirement{Level: usher.LevelReadWrite}), writes, once)
	readOnly := apikey.HandlerConfig{Manager: keys.Manager, DefaultLevel: usher.LevelReadOnly}
	manage := usher.Must(apikey.NewHandler(readOnly))
	managed := people.Wrap(http.StripPrefix("/api-keys", manage))

	s := &server{keys: keys, sessions: sessions, user: user, password: password}
	notes, mux := new(notes), http.NewServeMux()
	mux.Handle("GET /notes", read.Wrap(http.HandlerFunc(notes.all)))
	mux.Handle("POST /notes", write.Wrap(http.HandlerFunc(notes.create)))
	mux.Handle("DELETE /notes/{id}", write.Wrap(http.HandlerFunc(notes.remove)))
	mux.Handle("/api-keys", managed)
	mux.Handle("/api-keys/", managed)
	mux.Handle("POST /login", logins.Wrap(http.HandlerFunc(s.login)))
	mux.HandleFunc("POST /refresh", sessions.Refresh)
	mux.HandleFunc("POST /logout", sessions.Logout)
	s.Handler = usher.Chain(shape, client, address).Wrap(mux)
	return s
}

func perMinute(name string, key ratelimit.KeyFunc, quota int) ratelimit.Policy {
	return ratelimit.Policy{Name: name, Key: key, Limit: ratelimit.RollingWindow(quota, time.Minute)}
}

// owner gives people full permission on their own account.
func owner(t *jwtauth.Token, p usher.Principal) usher.Principal {
	p.Owner, p.Level = t.Subject, usher.LevelFull
	return p
}

func (s *server) login(w http.ResponseWriter, r *http.Request) {
	var in struct{ User, Password string }
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&in)
	if err != nil || in.User != s.user || subtle.ConstantTimeCompare([]byte(in.Password), []byte(s.password)) == 0 {
		usher.Fail(w, r, &usher.Error{
			Status: http.StatusUnauthorized, Code: "wrong_password",
			Message: "The name or the password is wrong.", Cause: err,
		})
		return
	}
	s.sessions.Login(w, r, session.Session{Subject: s.user})
}
