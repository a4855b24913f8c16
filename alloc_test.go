package usher_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/race"
)

// constant is an authenticator that costs nothing itself.
type constant struct{ p *usher.Principal }

func (c constant) Authenticate(*http.Request) (*usher.Principal, error) { return c.p, nil }

func (constant) Detect(*http.Request) (string, bool) { return "X-Api-Key", true }

func (constant) Challenge() string { return "" }

func (constant) Carriers() []string { return []string{"X-Api-Key"} }

type absent struct{}

func (absent) Authenticate(*http.Request) (*usher.Principal, error) {
	return nil, usher.ErrNoCredential
}

func (absent) Detect(*http.Request) (string, bool) { return "", false }

func (absent) Challenge() string { return "" }

func (absent) Carriers() []string { return []string{"Authorization"} }

var caller = &usher.Principal{ID: "caller", Owner: "account", Level: usher.LevelFull, Scopes: []string{"a", "b"}}

func TestAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations cannot be counted under the race detector")
	}
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	reads := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { usher.PrincipalFrom(r.Context()) })
	auth := usher.Authenticate(constant{caller})
	require := usher.Require(usher.Requirement{Level: usher.LevelFull, Scopes: []string{"a"}})
	five := []usher.Middleware{auth, require, require, require, require}
	bare, tracked := get(), usher.Track(get())
	function := usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) })
	always := func(*http.Request) bool { return true }
	alternatives := usher.Require(usher.AnyOf(
		usher.Requirement{Kinds: []usher.Kind{usher.KindWebhook}},
		usher.Requirement{Scopes: []string{"b"}, Owner: func(*http.Request) string { return "account" }},
	))
	paths := []http.Handler{usher.Chain(require, alternatives).Wrap(nothing), usher.Chain(usher.Require(usher.Requirement{Scopes: []string{"b"}}), alternatives).Wrap(nothing)}
	inTurn := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, h := range paths {
			h.ServeHTTP(w, r)
		}
	})
	tests := map[string]struct {
		h    http.Handler
		r    *http.Request
		want float64
	}{
		"authenticated: the holder with the copy of the request": {auth.Wrap(nothing), bare, 1},
		"authenticated, holder present":                          {auth.Wrap(nothing), tracked, 0},
		"authenticated by one of two, holder present":            {usher.Authenticate(absent{}, constant{caller}).Wrap(nothing), tracked, 0},
		"authenticated by precedence, holder present":            {usher.Authenticate(usher.Precedence(absent{}, constant{caller})).Wrap(nothing), tracked, 0},
		"anonymous":                    {usher.Authenticate(usher.Optional(absent{})).Wrap(nothing), bare, 1},
		"five of them":                 {usher.Chain(five...).Wrap(nothing), bare, 1},
		"five of them, holder present": {usher.Chain(five...).Wrap(nothing), tracked, 0},
		"one inside another":           {usher.Chain(auth, auth).Wrap(nothing), tracked, 1},
		"five of them by ServeNext":    {ways["ServeNext"](usher.Chain(five...), nothing), tracked, 1},
		"a chain of one by ServeNext":  {ways["ServeNext"](usher.Chain(auth), nothing), tracked, 0},
		"a function":                   {function.Wrap(nothing), bare, 0},
		"a function by ServeNext":      {ways["ServeNext"](function, nothing), bare, 0},
		"When and Unless":              {usher.When(always, usher.Unless(always, usher.Chain(function, function))).Wrap(nothing), bare, 0},
		"to read the principal":        {reads, usher.WithPrincipal(get(), caller), 0},
		"a requirement that is met":    {require.Wrap(nothing), usher.WithPrincipal(get(), caller), 0},
		"requirements one in another":  {usher.Chain(require, alternatives, require).Wrap(nothing), usher.WithPrincipal(get(), caller), 0},
		"a requirement in two others":  {inTurn, usher.WithPrincipal(get(), caller), 0},
		"a requirement of a method":    {usher.Require(usher.Requirement{MethodLevels: map[string]usher.Level{"GET": usher.LevelFull}}).Wrap(nothing), usher.WithPrincipal(get(), caller), 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			if got := testing.AllocsPerRun(100, func() { tt.h.ServeHTTP(w, tt.r) }); got != tt.want {
				t.Errorf("%v allocations, want %v", got, tt.want)
			}
		})
	}
}

// discard is a writer that costs nothing itself.
type discard struct{ h http.Header }

func (d discard) Header() http.Header       { return d.h }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

func BenchmarkAuthenticate(b *testing.B) {
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	auth := usher.Authenticate(constant{caller})
	require := usher.Require(usher.Requirement{Level: usher.LevelFull})
	benchmarks := map[string]struct {
		h http.Handler
		r *http.Request
	}{
		"pass":                       {auth.Wrap(nothing), get()},
		"pass, holder present":       {auth.Wrap(nothing), usher.Track(get())},
		"five":                       {usher.Chain(auth, require, require, require, require).Wrap(nothing), get()},
		"five, holder present":       {usher.Chain(auth, require, require, require, require).Wrap(nothing), usher.Track(get())},
		"one of two":                 {usher.Authenticate(absent{}, constant{caller}).Wrap(nothing), get()},
		"one of two, holder present": {usher.Authenticate(absent{}, constant{caller}).Wrap(nothing), usher.Track(get())},
		"refused":                    {usher.Authenticate(absent{}).Wrap(nothing), get()},
	}
	for name, bb := range benchmarks {
		b.Run(name, func(b *testing.B) {
			w := discard{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				bb.h.ServeHTTP(w, bb.r)
			}
		})
	}
}
