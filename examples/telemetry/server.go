package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/ratelimit"
)

// config has what a service brings along. Nil stores are those in memory, whose calls are
// not measured, as they wait for nothing.
type config struct {
	keys     apikey.Store
	counters ratelimit.Store
	records  idempotency.Store
	sessions session.Config
	issuer   *issuer // nil for none
	limit    int     // requests of a caller in a minute; zero means 60
	login    func(*http.Request) (subject string, ok bool)
}

// An issuer is an authorization server whose tokens are accepted besides API keys and
// sessions: JSON Web Tokens by its keys, any others by its introspection endpoint.
type issuer struct {
	name, introspection    string
	clientID, clientSecret string
	client                 *http.Client
}

// server is the orders API.
type server struct {
	http.Handler
	keys     *apikey.Keys
	sessions *session.Handler
	end      []func(context.Context) error // the last is called first

	mu   sync.Mutex
	last int
}

func newServer(c config) *server {
	s := new(server)
	callers := usher.Authenticate(s.authenticators(c)...)
	limits := usher.Must(ratelimit.New(ratelimit.Config{
		Store: c.counters,
		Policies: []ratelimit.Policy{
			ratelimit.PerPrincipal(cmp.Or(c.limit, 60), time.Minute),
			{Name: "in_flight", Key: ratelimit.ByPrincipal(), Limit: ratelimit.Concurrency(10)},
		},
	}))
	once := usher.Must(idempotency.New(idempotency.Config{Store: c.records}))
	s.end = append(s.end, limits.Shutdown, once.Shutdown)
	read := usher.Chain(callers, limits)
	write := usher.Chain(callers, limits, usher.Require(usher.Requirement{Level: usher.LevelReadWrite}), once)

	mux := http.NewServeMux()
	mux.Handle("GET /orders", read.Wrap(http.HandlerFunc(s.count)))
	mux.Handle("POST /orders", write.Wrap(http.HandlerFunc(s.place)))
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) { s.login(w, r, c.login) })
	mux.HandleFunc("POST /refresh", s.sessions.Refresh)

	// The span begins first, so that all else can note on it. Pattern gives it the name of
	// the route, which the mux sets too late.
	shape := usher.Must(envelope.New(envelope.Config{Wrap: true}))
	inner := usher.Chain(usher.Pattern(mux), usher.Adapt(accessLog), shape).Wrap(mux)
	s.Handler = otelhttp.NewHandler(inner, "orders")
	return s
}

// authenticators returns what verifies the credentials of callers.
func (s *server) authenticators(c config) []usher.Authenticator {
	store := c.keys
	if store == nil {
		store = apikey.NewMemory()
	}
	cache := usher.Must(apikey.NewCache(apikey.CacheConfig{Store: store}))
	s.keys = usher.Must(apikey.Open(
		apikey.ManagerConfig{Store: cache, Format: apikey.Native{Prefix: "orders", Environments: []string{"live"}}},
		apikey.Config{Carriers: []apikey.Carrier{{Header: "X-API-Key"}}}))
	s.end = append(s.end, closing(cache), closing(s.keys))

	c.sessions.Issuer, c.sessions.Audiences = "orders", []string{"orders"}
	manager := usher.Must(session.New(c.sessions))
	s.sessions = usher.Must(session.NewHandler(session.HandlerConfig{Manager: manager}))
	issuers := []jwtauth.TrustedIssuer{manager.TrustedIssuer()}
	var opaque []usher.Authenticator
	if i := c.issuer; i != nil {
		remote := usher.Must(jwk.NewRemote(jwk.RemoteConfig{Issuer: i.name, Client: i.client}))
		s.end = append(s.end, closing(remote))
		issuers = append(issuers, jwtauth.TrustedIssuer{
			Issuer: i.name, Audiences: []string{"orders"}, Algorithms: []jwk.Algorithm{jwk.ES256}, Keys: remote,
		})
		opaque = append(opaque, usher.Must(jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{
			Endpoint: i.introspection, ClientID: i.clientID, ClientSecret: i.clientSecret,
			Issuer: i.name, Audiences: []string{"orders"}, Client: i.client,
		})))
	}
	// Of two that find a token in one place, the first that recognizes it verifies it.
	tokens := usher.Must(jwtauth.New(jwtauth.Config{Issuers: issuers}))
	return append([]usher.Authenticator{s.keys.Authenticator, tokens}, opaque...)
}

// login logs in the subject that check recognizes.
func (s *server) login(w http.ResponseWriter, r *http.Request, check func(*http.Request) (string, bool)) {
	if check != nil {
		if subject, ok := check(r); ok {
			s.sessions.Login(w, r, session.Session{Subject: subject})
			return
		}
	}
	usher.Fail(w, r, &usher.Error{Status: http.StatusUnauthorized, Code: "wrong_password", Message: "The name or the password is wrong."})
}

func (s *server) count(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	usher.Respond(w, r, usher.Reply{Data: map[string]int{"orders": s.last}})
}

func (s *server) place(w http.ResponseWriter, r *http.Request) {
	var order struct {
		Item string `json:"item"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&order); err != nil || order.Item == "" {
		usher.Fail(w, r, &usher.Error{Status: http.StatusBadRequest, Code: usher.CodeValidationFailed, Message: "An order needs an item.", Cause: err})
		return
	}
	s.mu.Lock()
	s.last++
	number := s.last
	s.mu.Unlock()
	slog.InfoContext(r.Context(), "order placed", "number", number)
	usher.Respond(w, r, usher.Reply{Status: http.StatusCreated, Data: map[string]int{"number": number}})
}

// close ends what the middlewares do in the background, in the reverse order of its
// beginning.
func (s *server) close(ctx context.Context) (err error) {
	for _, end := range slices.Backward(s.end) {
		err = errors.Join(err, end(ctx))
	}
	return err
}

// closing returns what closes c.
func closing(c io.Closer) func(context.Context) error {
	return func(context.Context) error { return c.Close() }
}
