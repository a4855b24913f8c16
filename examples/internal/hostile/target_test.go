package hostile_test

import (
	"context"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/examples/internal/contract"
	"github.com/usher-go/usher/examples/internal/tokentest"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ushertest"
)

// TestHostile sends hostile input to a full stack on every router: envelope, limit
// per address, keys or tokens, limit per caller, levels, idempotency. Requests that
// no Go client sends go over TCP as bytes.
func TestHostile(t *testing.T) {
	for _, router := range contract.Routers() {
		t.Run(router.Name, func(t *testing.T) {
			for _, a := range attacks {
				over := a.over
				if over == nil {
					over = []contract.Transport{contract.HTTP1, contract.HTTP2}
				}
				t.Run(a.name, func(t *testing.T) {
					for _, over := range over {
						t.Run(string(over), func(t *testing.T) { a.run(t, router, over) })
					}
				})
			}
		})
	}
}

func (a *attack) run(t *testing.T, router contract.Router, over contract.Transport) {
	var c settings
	if a.with != nil {
		a.with(&c)
	}
	s := newTarget(t, c)
	s.router, s.handler = router, router.Mount(s.App())
	a.test(contract.Serve(t, s.handler, over), s)
}

var attacks = slices.Concat(credentials, tokens, lifecycle, addresses, repetitions, responses)

// bytesOnly are attacks that only bytes on a connection can make.
var bytesOnly = []contract.Transport{contract.HTTP1}

// An attack is one kind of hostile input and the required outcome.
type attack struct {
	name string
	over []contract.Transport // nil means over HTTP/1.1 and HTTP/2
	with func(*settings)
	test func(c *contract.Client, s *target)
}

// settings are what differs from one attack to another. The zero value is a
// service with every default.
type settings struct {
	keys         apikey.Config                         // Manager is filled in
	authenticate func(s *target) []usher.Authenticator // nil means keys alone
	proxies      []string
	perAddress   ratelimit.Limit
	perCaller    ratelimit.Limit
	limits       ratelimit.Config // Policies are filled in
	shape        envelope.Shape
	once         idempotency.Config
	routes       []web.Route // more of them, outside of authentication
	guarded      []web.Route // more of them, behind everything
}

// A target is a service that is attacked.
type target struct {
	settings
	router  contract.Router
	handler http.Handler // as it is mounted
	ips     *clientip.Resolver
	env     *envelope.Envelope
	auth    *apikey.Authenticator
	manager *apikey.Manager
	manage  http.Handler
	issuer  *session.Manager // of sessions
	tokens  *jwtauth.Verifier
	refresh http.HandlerFunc
	outer   *ushertest.Watched // the limiter per address, before authentication
	inner   *ushertest.Watched // the limiter per caller, after it
	store   *countingStore
	served  atomic.Int64 // requests that reached a handler
}

var targetFormat = apikey.Native{Prefix: "acme", Environments: []string{"live", "test"}}

func newTarget(tb testing.TB, c settings) *target {
	s := &target{settings: c, store: &countingStore{Memory: apikey.NewMemory()}}
	s.ips = usher.Must(clientip.New(clientip.Config{TrustedProxies: c.proxies}))
	if c.shape.Error == nil {
		c.shape = envelope.StandardConfig{ClientIP: true, OmitCode: true, OmitDetails: true, OmitRequestID: true}.Shape()
	}
	s.env = usher.Must(envelope.New(envelope.Config{
		Shape:   c.shape,
		Wrap:    true,
		OnError: func(context.Context, error) {},
		OnPanic: func(*http.Request, any, []byte) {},
	}))

	s.manager = usher.Must(apikey.NewManager(apikey.ManagerConfig{Store: s.store, Format: targetFormat, MaxActive: 5}))
	c.keys.Manager = s.manager
	s.auth = usher.Must(apikey.New(c.keys))
	tb.Cleanup(func() { _ = s.auth.Close() })
	s.manage = usher.Must(apikey.NewHandler(apikey.HandlerConfig{Manager: s.manager, IDIsOwner: []usher.Kind{usher.KindJWT}}))

	s.openSessions()

	limit := func(name string, key ratelimit.KeyFunc, l ratelimit.Limit) *ushertest.Watched {
		if l == (ratelimit.Limit{}) {
			l = ratelimit.TokenBucket(1000, time.Second, 1000)
		}
		c := c.limits
		c.Policies = []ratelimit.Policy{{Name: name, Key: key, Limit: l}}
		return ushertest.Watch(usher.Must(ratelimit.New(c)))
	}
	s.outer = limit("address", ratelimit.ByAddress(), c.perAddress)
	s.inner = limit("caller", ratelimit.ByPrincipal(), c.perCaller)
	return s
}

func (s *target) App() web.App {
	authenticators := []usher.Authenticator{s.auth}
	if s.authenticate != nil {
		authenticators = s.authenticate(s)
	}
	guard := []usher.Middleware{
		usher.Authenticate(authenticators...), s.inner,
		usher.Require(usher.Requirement{
			Level:        usher.LevelReadOnly,
			MethodLevels: map[string]usher.Level{http.MethodPost: usher.LevelReadWrite, http.MethodDelete: usher.LevelFull},
		}),
		usher.Must(idempotency.New(s.once)),
	}
	more := s.routes
	for _, r := range s.guarded {
		r.Middlewares, r.Handler = guard, s.counted(r.Handler)
		more = append(more, r)
	}
	login := []usher.Middleware{usher.Authenticate(web.People)}
	keys := http.StripPrefix("/api-keys", s.manage)
	return web.App{
		Middlewares: []usher.Middleware{s.env, s.ips, s.outer},
		Routes: append([]web.Route{
			web.Handle("GET", "/notes", guard, http.HandlerFunc(s.notes)),
			web.Handle("POST", "/notes", guard, http.HandlerFunc(s.notes)),
			web.Handle("DELETE", "/notes/{id}", guard, http.HandlerFunc(s.notes)),
			web.Handle("GET", "/api-keys", login, keys),
			web.Handle("POST", "/api-keys", login, keys),
			web.Handle("POST", "/refresh", nil, s.refresh),
		}, more...),
		NotFound:         http.HandlerFunc(s.env.NotFound),
		MethodNotAllowed: http.HandlerFunc(s.env.MethodNotAllowed),
	}
}

// counted counts the requests that reach h.
func (s *target) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.served.Add(1)
		h.ServeHTTP(w, r)
	})
}

// notes is an existing handler, which uses nothing of this module.
func (s *target) notes(w http.ResponseWriter, _ *http.Request) {
	s.served.Add(1)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`["a note"]`))
}

const (
	targetIssuer   = "https://issuer.example"
	targetAudience = "https://api.example"
	targetSessions = "https://sessions.example"
)

// openSessions accepts the tokens of a foreign issuer and of the target's own.
func (s *target) openSessions() {
	secret := usher.Must(jwk.New(jwk.KeyConfig{ID: "1", Algorithm: jwk.HS256, Secret: []byte("a secret of 32 bytes or of more.")}))
	s.issuer = usher.Must(session.New(session.Config{
		Issuer:    targetSessions,
		Audiences: []string{targetAudience},
		Keys:      []session.SigningKey{{Key: secret}},
		Store:     usher.Must(session.NewMemory(session.MemoryConfig{})),
	}))
	s.refresh = usher.Must(session.NewHandler(session.HandlerConfig{Manager: s.issuer})).Refresh
	s.tokens = usher.Must(jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{
			{
				Issuer:     targetIssuer,
				Audiences:  []string{targetAudience},
				Algorithms: []jwk.Algorithm{jwk.RS256, jwk.ES256},
				Keys:       append(tokentest.Trust(jwk.RS256, tokentest.Keys().RSA.Public()), tokentest.Trust(jwk.ES256, tokentest.Keys().EC.Public())...),
			},
			{
				Issuer:     targetSessions,
				Audiences:  []string{targetAudience},
				Algorithms: []jwk.Algorithm{jwk.HS256},
				Keys:       s.issuer.Keys(),
				Profile:    jwtauth.ProfileSession,
			},
		},
		Principal: func(_ *jwtauth.Token, usual usher.Principal) usher.Principal {
			usual.Level = usher.LevelFull
			return usual
		},
	}))
}

// login opens a session of ada.
func (s *target) login(c *contract.Client) session.Tokens {
	c.TB.Helper()
	t, err := s.issuer.Login(c.TB.Context(), session.Session{Subject: "ada"})
	if err != nil {
		c.TB.Fatal(err)
	}
	return t
}

// key issues a key and returns its text.
func (s *target) key(c *contract.Client, template apikey.Key) (string, apikey.Key) {
	c.TB.Helper()
	template.Name = "k"
	if template.Owner == "" {
		template.Owner = "ada"
	}
	k, secret, err := s.manager.Create(c.TB.Context(), apikey.Actor{System: true}, template)
	if err != nil {
		c.TB.Fatal(err)
	}
	return secret.Reveal(), k
}

// refused checks that a request was refused with 401, which no cache keeps, before
// the store was asked or a handler ran.
func (s *target) refused(a *contract.Response) {
	a.Client.TB.Helper()
	a.HasStatus(http.StatusUnauthorized).Has("Cache-Control", "no-store")
	if n := s.store.lookups.Swap(0); n != 0 {
		a.Client.TB.Errorf("%s: %d lookups in the store", a.Sent, n)
	}
	if n := s.served.Swap(0); n != 0 {
		a.Client.TB.Errorf("%s: the handler ran", a.Sent)
	}
}

// A countingStore counts lookups, and fails while failure is set.
type countingStore struct {
	*apikey.Memory
	lookups atomic.Int64
	failure atomic.Pointer[error]
}

func (s *countingStore) fail() error {
	if err := s.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *countingStore) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	s.lookups.Add(1)
	if err := s.fail(); err != nil {
		return apikey.Record{}, err
	}
	return s.Memory.Lookup(ctx, h)
}

func (s *countingStore) List(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error) {
	if err := s.fail(); err != nil {
		return nil, 0, err
	}
	return s.Memory.List(ctx, owner, offset, limit)
}

func (s *countingStore) Insert(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
	if err := s.fail(); err != nil {
		return err
	}
	return s.Memory.Insert(ctx, r, limits)
}
