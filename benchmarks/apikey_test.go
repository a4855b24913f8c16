package benchmarks_test

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/benchmarks/internal/byhand"
)

var keyFormat = apikey.Native{Prefix: "notes", Environments: []string{"live"}}

// keyText is a key of the native format; all contestants get the same.
var keyText = sync.OnceValue(func() string { return must(keyFormat.Generate(rand.Reader, "live")) })

// usherKeys returns an authenticator that accepts keyText.
func usherKeys(tb testing.TB) *apikey.Authenticator {
	// The cache asks a store that announces changes on every request until the store
	// has announced that it is ready.
	quiet := struct{ apikey.Store }{apikey.NewMemory()}
	cache := must(apikey.NewCache(apikey.CacheConfig{Store: quiet}))
	manager := must(apikey.NewManager(apikey.ManagerConfig{Store: cache, Format: keyFormat}))
	hash := must(manager.Hash(apikey.NewSecret(keyText())))
	must(manager.Import(tb.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "ada", Name: "k", Environment: "live"}, hash))
	auth := must(apikey.New(apikey.Config{Manager: manager, Environment: "live"}))
	tb.Cleanup(func() { _, _ = auth.Close(), cache.Close() })
	return auth
}

var caller string

var keyed = map[string]func(tb testing.TB) http.Handler{
	"bare":      func(testing.TB) http.Handler { return http.HandlerFunc(nothing) },
	"echo-bare": func(testing.TB) http.Handler { return echoWith() },
	"usher": func(tb testing.TB) http.Handler {
		auth := usherKeys(tb)
		return usher.Authenticate(auth).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			p, _ := usher.PrincipalFrom(r.Context())
			caller = p.Owner
		}))
	},
	"by-hand": func(testing.TB) http.Handler {
		return byhand.NewKeys(keyText(), "ada").Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			caller = byhand.Caller(r.Context())
		}))
	},
	"by-hand-tight": func(testing.TB) http.Handler {
		return byhand.NewTightKeys(keyText(), "ada").Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			caller = byhand.TightCaller(r.Context())
		}))
	},
	// KeyAuth leaves the lookup to its user. This one is that of by-hand-tight.
	"echo": func(testing.TB) http.Handler {
		id := "ada"
		ids := map[[sha256.Size]byte]*string{sha256.Sum256([]byte(keyText())): &id}
		var mu sync.RWMutex
		e := echo.New()
		e.GET("/", func(c *echo.Context) error {
			id, _ := c.Get("caller").(*string)
			caller = *id
			return nil
		}, middleware.KeyAuthWithConfig(middleware.KeyAuthConfig{
			KeyLookup: "header:X-API-Key",
			Validator: func(c *echo.Context, key string, _ middleware.ExtractorSource) (bool, error) {
				mu.RLock()
				id, ok := ids[sha256.Sum256([]byte(key))]
				mu.RUnlock()
				c.Set("caller", id)
				return ok, nil
			},
		}))
		return e
	},
}

// garbage has the length and the prefix of a key, but was never issued.
func garbage() string { return keyText()[:len(keyText())-1] + "!" }

func withKey(text string) *http.Request {
	r := get()
	r.Header.Set("X-API-Key", text)
	return r
}

func keyedAll(good bool) map[string]contestant {
	all := make(map[string]contestant)
	for name, make := range keyed {
		all[name] = func(tb testing.TB) subject {
			bare := name == "bare" || name == "echo-bare"
			c := call{handler: make(tb), request: withKey(keyText()), want: http.StatusOK}
			switch {
			case bare:
			case good:
				c.look = func(*httptest.ResponseRecorder) error {
					if caller != "ada" {
						return errors.New("the handler gets no caller")
					}
					caller = ""
					return refuses(c.handler, withKey(garbage()))
				}
			default:
				c.request, c.want = withKey(garbage()), http.StatusUnauthorized
				c.look = func(w *httptest.ResponseRecorder) error {
					if w.Body.Len() == 0 {
						return errors.New("no body")
					}
					return nil
				}
			}
			return c.subject()
		}
	}
	return all
}

var keyWorks = suite{
	"APIKey/good":    keyedAll(true),
	"APIKey/garbage": keyedAll(false),
	"APIKey/garbage-verdict": {"usher": func(tb testing.TB) subject {
		auth := usherKeys(tb)
		r := withKey(garbage())
		var p *usher.Principal
		var err error
		run := func() { p, err = auth.Authenticate(r) }
		refused := func() error {
			if p != nil || err == nil {
				return errors.New("garbage is accepted")
			}
			return nil
		}
		return subject{run: run, after: refused, check: func() error { run(); return refused() }}
	}},
}
