package stack_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/ratelimit"
)

const self = "https://acme.example"

// bareHandler is a handler without middlewares.
func bareHandler(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header()["Content-Type"] = []string{"application/json"}
	_, _ = io.WriteString(w, `{"id":1,"text":"a note"}`)
}

// A credential is a valid credential, its header field, and what verifies it.
type credential struct {
	usher.Authenticator
	field, value string
}

// apiKey is a key from a cache.
func apiKey(tb testing.TB) credential {
	format := apikey.Native{Prefix: "acme", Environments: []string{"live"}}
	// A store that announces changes would be read each time until the cache listens.
	cache := usher.Must(apikey.NewCache(apikey.CacheConfig{Store: struct{ apikey.Store }{apikey.NewMemory()}}))
	tb.Cleanup(func() { _ = cache.Close() })
	manager := usher.Must(apikey.NewManager(apikey.ManagerConfig{Store: cache, Format: format}))
	auth := usher.Must(apikey.New(apikey.Config{Manager: manager, Environment: "live"}))
	tb.Cleanup(func() { _ = auth.Close() })
	_, secret, err := manager.Create(tb.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "ada", Name: "k", Level: usher.LevelReadOnly})
	if err != nil {
		tb.Fatal(err)
	}
	return credential{auth, "X-Api-Key", secret.Reveal()}
}

// accessToken is a JSON Web Token that a verifier has cached.
func accessToken(tb testing.TB) credential {
	key := usher.Must(jwk.New(jwk.KeyConfig{ID: "1", Algorithm: jwk.HS256, Secret: []byte(strings.Repeat("s", 32))}))
	issuer := usher.Must(session.New(session.Config{
		Issuer: self, Audiences: []string{self}, Keys: []session.SigningKey{{Key: key}}, Store: usher.Must(session.NewMemory(session.MemoryConfig{})),
	}))
	tokens, err := issuer.Login(tb.Context(), session.Session{Subject: "ada"})
	if err != nil {
		tb.Fatal(err)
	}
	return credential{usher.Must(jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer: self, Audiences: []string{self}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: issuer.Keys(), Profile: jwtauth.ProfileSession,
		}},
		Principal: func(_ *jwtauth.Token, usual usher.Principal) usher.Principal {
			usual.Level = usher.LevelReadOnly
			return usual
		},
	})), "Authorization", "Bearer " + tokens.AccessToken()}
}

// stack is a whole one around bareHandler: the envelope, authentication, a limit
// for everybody and a further one of the route, a level, and idempotency. With
// nested, the first limit stands around the second, which then counts only what
// the first does not; else the second stands in its place.
func stack(c credential, nested bool) http.Handler {
	ips := usher.Must(clientip.New(clientip.Config{}))
	plenty := ratelimit.TokenBucket(1_000_000_000, time.Second, 1_000_000_000)
	policy := func(name string) ratelimit.Policy {
		return ratelimit.Policy{Name: name, Key: ratelimit.ByPrincipal(), Limit: plenty}
	}
	global := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{policy("global")}}))
	notes := usher.Must(global.With(policy("notes")))
	env := usher.Must(envelope.New(envelope.Config{Wrap: true}))
	limits := []usher.Middleware{notes}
	if nested {
		limits = []usher.Middleware{global, notes}
	}
	guard := []usher.Middleware{
		usher.Authenticate(c), usher.Chain(limits...), usher.Require(usher.Requirement{Level: usher.LevelReadOnly}),
		usher.Must(idempotency.New(idempotency.Config{})),
	}
	return web.ServeMux(web.App{
		Middlewares: []usher.Middleware{env, ips},
		Routes: []web.Route{
			{Method: "GET", Pattern: "/notes", Middlewares: guard, Handler: http.HandlerFunc(bareHandler)},
			{Method: "POST", Pattern: "/notes", Middlewares: guard, Handler: http.HandlerFunc(bareHandler)},
		},
		NotFound: http.HandlerFunc(env.NotFound),
	})
}

func bare() http.Handler {
	return web.ServeMux(web.App{Routes: []web.Route{
		{Method: "GET", Pattern: "/notes", Handler: http.HandlerFunc(bareHandler)},
		{Method: "POST", Pattern: "/notes", Handler: http.HandlerFunc(bareHandler)},
	}})
}

// A sink is a writer that keeps nothing but its header, which it empties as a
// server has a new one for each request.
type sink struct {
	h      http.Header
	status int
}

func (s *sink) Header() http.Header                { return s.h }
func (s *sink) WriteHeader(status int)             { s.status = status }
func (*sink) Write(p []byte) (int, error)          { return len(p), nil }
func (*sink) WriteString(text string) (int, error) { return len(text), nil }

// getting returns what sends a GET request to h again and again.
func getting(tb testing.TB, h http.Handler, c credential) func() {
	r := httptest.NewRequest(http.MethodGet, "/notes", nil)
	r.Header[c.field] = []string{c.value}
	return serving(tb, h, r, func() {})
}

// posting returns what sends a POST request of 100 bytes with an idempotency key
// to h again and again: always the same key, or a new one each time.
func posting(tb testing.TB, h http.Handler, c credential, fresh bool) func() {
	content := strings.Repeat("a", 100)
	body := strings.NewReader(content)
	r := httptest.NewRequest(http.MethodPost, "/notes", body)
	r.Header[c.field] = []string{c.value}
	rest := struct {
		io.Reader
		io.Closer
	}{body, io.NopCloser(nil)}
	key, n := []string{"again"}, 0
	return serving(tb, h, r, func() {
		body.Reset(content)
		r.Body = &rest
		if fresh {
			n++
			key = []string{strconv.Itoa(n)}
		}
		r.Header["Idempotency-Key"] = key
	})
}

// serving returns what prepares r and sends it to h.
func serving(tb testing.TB, h http.Handler, r *http.Request, prepare func()) func() {
	w := &sink{h: make(http.Header)}
	serve := func() {
		clear(w.h)
		w.status = http.StatusOK
		prepare()
		h.ServeHTTP(w, r)
		if w.status != http.StatusOK {
			tb.Fatalf("status %d", w.status)
		}
	}
	serve()
	return serve
}

// TestStackAllocs counts what a whole stack allocates beyond the handler: the
// transaction of the envelope, the copy of the request, its ID, and the text and
// the values of the fields about limits. A limit within a limit holds its decision
// and adds to the fields of the first. A first request with an idempotency key
// leaves a record with its response behind; a repetition gets the fields of that.
func TestStackAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	key, token := apiKey(t), accessToken(t)
	get := func(h http.Handler, c credential) func() { return getting(t, h, c) }
	first := func(h http.Handler, c credential) func() { return posting(t, h, c, true) }
	again := func(h http.Handler, c credential) func() { return posting(t, h, c, false) }
	for _, tt := range []struct {
		name   string
		with   credential
		nested bool
		send   func(h http.Handler, c credential) func()
		most   float64
	}{
		{"a key, the limit of the route in place of the general one", key, false, get, 5},
		{"a key, the limit of the route within the general one", key, true, get, 10},
		{"a remembered token", token, false, get, 5},
		{"a first request with an idempotency key", key, false, first, 8},
		{"a repetition of it", key, false, again, 6},
		{"a first request with a token and an idempotency key", token, false, first, 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			without := testing.AllocsPerRun(1000, tt.send(bare(), tt.with))
			with := testing.AllocsPerRun(1000, tt.send(stack(tt.with, tt.nested), tt.with))
			added := with - without
			t.Logf("%v allocations added to %v", added, without)
			if added > tt.most {
				t.Errorf("%v allocations added to %v, want at most %v", added, without, tt.most)
			}
		})
	}
}

func BenchmarkStack(b *testing.B) {
	key, token := apiKey(b), accessToken(b)
	for _, bb := range []struct {
		name string
		h    http.Handler
		with credential
	}{
		{"bare", bare(), key}, {"usher", stack(key, false), key}, {"usher nested", stack(key, true), key},
		{"bare, token", bare(), token}, {"usher, token", stack(token, false), token},
	} {
		b.Run(bb.name, func(b *testing.B) {
			serve := getting(b, bb.h, bb.with)
			b.ReportAllocs()
			for b.Loop() {
				serve()
			}
		})
	}
}

// BenchmarkStackPost measures requests of 100 bytes with an idempotency key.
func BenchmarkStackPost(b *testing.B) {
	key := apiKey(b)
	for name, h := range map[string]func() http.Handler{
		"bare": func() http.Handler { return bare() }, "usher": func() http.Handler { return stack(key, false) },
	} {
		b.Run(name+" first", func(b *testing.B) {
			serve := posting(b, h(), key, true)
			b.ReportAllocs()
			for n := 1; b.Loop(); n++ {
				// Keeping every response would measure the garbage collector.
				if n%10_000 == 0 {
					b.StopTimer()
					serve = posting(b, h(), key, true)
					b.StartTimer()
				}
				serve()
			}
		})
		b.Run(name+" again", func(b *testing.B) {
			serve := posting(b, h(), key, false)
			b.ReportAllocs()
			for b.Loop() {
				serve()
			}
		})
	}
}
