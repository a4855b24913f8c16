package main

import (
	"context"
	"net/http"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// credentials are what the program prints for trying it out.
type credentials struct {
	APIKey   string `json:"api_key"`   // reads and writes notes
	ReadOnly string `json:"read_only"` // only reads
	User     string `json:"user"`      // logs in, and then manages API keys
	Password string `json:"password"`
}

// server is the notes API with usher around it.
type server struct {
	http.Handler
	auth *apikey.Authenticator
	credentials
}

func (s *server) close() error { return s.auth.Close() }

func newServer(ctx context.Context) (*server, error) {
	// Every answer has one shape, also those that the handlers write themselves.
	shape, err := envelope.New(envelope.Config{Wrap: true})
	if err != nil {
		return nil, err
	}

	// API keys look like notes_live_..., and come as X-API-Key or as Bearer.
	format := apikey.Native{Prefix: "notes", Environments: []string{"live"}}
	store := apikey.NewMemory()
	keys, err := apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format, MaxActive: 5})
	if err != nil {
		return nil, err
	}
	auth, err := apikey.New(apikey.Config{
		Manager: keys,
		Header:  "X-API-Key",
		Bearer:  true,
	})
	if err != nil {
		return nil, err
	}

	people, err := newPeople()
	if err != nil {
		return nil, err
	}

	// Each address may knock 300 times a minute, and try 10 passwords. Each caller
	// may call 60 times in any minute, of which at most 5 may write: one decision,
	// all or nothing.
	door, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "address", Key: ratelimit.ByAddress(), Limit: ratelimit.TokenBucket(300, time.Minute, 60),
	}}})
	if err != nil {
		return nil, err
	}
	logins, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "logins", Key: ratelimit.ByAddress(), Limit: ratelimit.RollingWindow(10, time.Minute),
	}}})
	if err != nil {
		return nil, err
	}
	calls, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "calls", Key: ratelimit.ByPrincipal(), Limit: ratelimit.RollingWindow(60, time.Minute),
	}}})
	if err != nil {
		return nil, err
	}
	writes, err := calls.With(ratelimit.Policy{
		Name: "writes", Key: ratelimit.ByPrincipal(), Limit: ratelimit.RollingWindow(5, time.Minute),
	})
	if err != nil {
		return nil, err
	}

	// A write that is retried with the same Idempotency-Key runs once.
	once, err := idempotency.New(idempotency.Config{})
	if err != nil {
		return nil, err
	}

	// Notes are for programs with a key and for people who have logged in.
	either := usher.Authenticate(auth, people.verifier)
	read := usher.Chain(either, usher.Require(usher.Requirement{Level: usher.LevelReadOnly}), calls)
	write := usher.Chain(either, usher.Require(usher.Requirement{Level: usher.LevelReadWrite}), writes, once)

	// Owners manage their keys in a session. A key is no session: it cannot make
	// another key.
	manage, err := apikey.NewHandler(apikey.HandlerConfig{Manager: keys, DefaultLevel: usher.LevelReadOnly})
	if err != nil {
		return nil, err
	}

	api := new(notes)
	mux := http.NewServeMux()
	mux.Handle("GET /notes", read.Wrap(http.HandlerFunc(api.all)))
	mux.Handle("POST /notes", write.Wrap(http.HandlerFunc(api.create)))
	mux.Handle("DELETE /notes/{id}", write.Wrap(http.HandlerFunc(api.remove)))
	managed := usher.Authenticate(people.verifier).Wrap(http.StripPrefix("/api-keys", manage))
	mux.Handle("/api-keys", managed)
	mux.Handle("/api-keys/", managed)
	mux.Handle("POST /login", logins.Wrap(http.HandlerFunc(people.login)))
	mux.HandleFunc("POST /refresh", people.sessions.Refresh)
	mux.HandleFunc("POST /logout", people.sessions.Logout)

	s := &server{Handler: usher.Chain(shape, door).Wrap(mux), auth: auth}
	s.User, s.Password = people.name, people.password
	for level, text := range map[usher.Level]*string{
		usher.LevelReadWrite: &s.APIKey,
		usher.LevelReadOnly:  &s.ReadOnly,
	} {
		_, secret, err := keys.Create(ctx, apikey.Actor{System: true}, apikey.Key{Owner: people.name, Name: "demo", Level: level})
		if err != nil {
			return nil, err
		}
		*text = secret.Reveal()
	}
	return s, nil
}
