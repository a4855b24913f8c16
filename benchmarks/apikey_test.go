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

// manyTexts are 10,000 keys, of which keyText is the first, in no order.
var manyTexts = sync.OnceValue(func() []string {
	texts := []string{keyText()}
	for len(texts) < 10_000 {
		texts = append(texts, must(keyFormat.Generate(rand.Reader, "live")))
	}
	return texts
})

// usherKeys returns an authenticator that accepts these keys.
func usherKeys(tb testing.TB, texts []string) *apikey.Authenticator {
	// The cache asks a store that announces changes on every request until the store
	// has announced that it is ready.
	quiet := struct{ apikey.Store }{apikey.NewMemory()}
	cache := must(apikey.NewCache(apikey.CacheConfig{Store: quiet}))
	manager := must(apikey.NewManager(apikey.ManagerConfig{Store: cache, Format: keyFormat, MaxActive: len(texts)}))
	for _, text := range texts {
		hash := must(manager.Hash(apikey.NewSecret(text)))
		must(manager.Import(tb.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "ada", Name: "k", Environment: "live"}, hash))
	}
	auth := must(apikey.New(apikey.Config{Manager: manager, Environment: "live"}))
	tb.Cleanup(func() { _, _ = auth.Close(), cache.Close() })
	return auth
}

var caller string

// keyed make handlers that accept these keys, the first of which is keyText.
var keyed = map[string]func(tb testing.TB, texts []string) http.Handler{
	"bare":      func(testing.TB, []string) http.Handler { return http.HandlerFunc(nothing) },
	"echo-bare": func(testing.TB, []string) http.Handler { return echoWith() },
	"usher": func(tb testing.TB, texts []string) http.Handler {
		auth := usherKeys(tb, texts)
		return usher.Authenticate(auth).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			p, _ := usher.PrincipalFrom(r.Context())
			caller = p.Owner
		}))
	},
	"by-hand": func(_ testing.TB, texts []string) http.Handler {
		keys := byhand.NewKeys(texts[0], "ada")
		for _, text := range texts {
			keys.Add(text, "ada")
		}
		return keys.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			caller = byhand.Caller(r.Context())
		}))
	},
	"by-hand-tight": func(_ testing.TB, texts []string) http.Handler {
		keys := byhand.NewTightKeys(texts[0], "ada")
		for _, text := range texts {
			keys.Add(text, "ada")
		}
		return keys.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			caller = byhand.TightCaller(r.Context())
		}))
	},
	// KeyAuth leaves the lookup to its user. This one is that of by-hand-tight.
	"echo": func(_ testing.TB, texts []string) http.Handler {
		ids := make(map[[sha256.Size]byte]*string)
		for _, text := range texts {
			id := "ada"
			ids[sha256.Sum256([]byte(text))] = &id
		}
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

// unknown has the form of a key, but was never issued.
var unknown = sync.OnceValue(func() string { return must(keyFormat.Generate(rand.Reader, "live")) })

// garbage has the length and the prefix of a key, but was never issued.
func garbage() string { return keyText()[:len(keyText())-1] + "!" }

func withKey(text string) *http.Request {
	r := get()
	r.Header.Set("X-API-Key", text)
	return r
}

// admitted are the contestants that get one of these keys with each request.
func admitted(texts func() []string) map[string]contestant {
	all := make(map[string]contestant)
	for name, make := range keyed {
		all[name] = func(tb testing.TB) subject {
			texts := texts()
			c := call{handler: make(tb, texts), request: withKey(texts[0]), want: http.StatusOK}
			if field := c.request.Header["X-Api-Key"]; len(texts) > 1 {
				next := uint64(1)
				c.prepare = func() {
					next = next*6364136223846793005 + 1442695040888963407
					field[0] = texts[next>>33%uint64(len(texts))]
				}
				// Each key has been used before.
				for _, text := range texts {
					c.handler.ServeHTTP(httptest.NewRecorder(), withKey(text))
				}
			}
			if name != "bare" && name != "echo-bare" {
				c.look = func(*httptest.ResponseRecorder) error {
					if caller != "ada" {
						return errors.New("the handler gets no caller")
					}
					caller = ""
					return refuses(c.handler, withKey(garbage()))
				}
			}
			return c.subject()
		}
	}
	return all
}

// turnedAway are the contestants that refuse this text.
func turnedAway(text func() string) map[string]contestant {
	all := make(map[string]contestant)
	for name, make := range keyed {
		all[name] = func(tb testing.TB) subject {
			c := call{handler: make(tb, []string{keyText()}), request: withKey(text()), want: http.StatusUnauthorized}
			if name == "bare" || name == "echo-bare" {
				c.want = http.StatusOK
				return c.subject()
			}
			c.look = func(w *httptest.ResponseRecorder) error {
				if w.Body.Len() == 0 {
					return errors.New("no body")
				}
				return nil
			}
			return c.subject()
		}
	}
	return all
}

var keyWorks = suite{
	"APIKey/good":       admitted(func() []string { return []string{keyText()} }),
	"APIKey/good-10000": admitted(manyTexts),
	"APIKey/unknown":    turnedAway(unknown),
	"APIKey/garbage":    turnedAway(garbage),
	"APIKey/garbage-verdict": {"usher": func(tb testing.TB) subject {
		auth := usherKeys(tb, []string{keyText()})
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
