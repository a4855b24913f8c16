package peers_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/klauspost/compress/gzhttp"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// cached are directives for nginx with the cache that its manuals show.
const cached = `location / {
	proxy_pass http://BACKEND;
	proxy_cache cache;
	proxy_cache_valid 200 404 1m;
}`

// sharedCaches start a shared cache before a backend.
var sharedCaches = map[string]func(t *testing.T, backend string) string{
	"varnish": varnish,
	"nginx":   func(t *testing.T, backend string) string { return nginx(t, backend, cached) },
}

// A carrier is a way in which callers send their credentials.
type carrier struct {
	authenticator usher.Authenticator
	// credentials of alice and bob, each the name and the value of a header field.
	credentials map[string][2]string
}

// everything are directives for an nginx that keeps every response for which nothing else
// is said.
const everything = `location / {
	proxy_pass http://BACKEND;
	proxy_cache cache;
	proxy_cache_methods GET HEAD;
	proxy_cache_valid any 1m;
	proxy_cache_valid 1m;
}`

var callers = []string{"alice", "bob"}

// keys returns a carrier of API keys. The prefix is that of the field's value.
func keys(t *testing.T, c apikey.Config, field, prefix string) carrier {
	t.Helper()
	format := apikey.Native{Prefix: "shop", Environments: []string{"live"}}
	manager, err := apikey.NewManager(apikey.ManagerConfig{Store: apikey.NewMemory(), Format: format})
	if err != nil {
		t.Fatal(err)
	}
	credentials := make(map[string][2]string)
	for _, owner := range callers {
		by := apikey.Actor{Principal: &usher.Principal{ID: owner, Owner: owner, Level: usher.LevelFull}}
		_, secret, err := manager.Create(t.Context(), by, apikey.Key{Owner: owner, Name: owner})
		if err != nil {
			t.Fatal(err)
		}
		credentials[owner] = [2]string{field, prefix + secret.Reveal()}
	}
	c.Manager = manager
	auth, err := apikey.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = auth.Close() })
	return carrier{auth, credentials}
}

// tokens returns a carrier of JSON Web Tokens.
func tokens(t *testing.T, c jwtauth.Config, field, prefix string) carrier {
	t.Helper()
	secret := []byte("0123456789abcdef0123456789abcdef")
	key, err := jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	const issuer, audience = "https://login.example", "https://api.example"
	c.Issuers = []jwtauth.TrustedIssuer{{
		Issuer: issuer, Audiences: []string{audience},
		Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: jwk.Static{key},
	}}
	c.Principal = func(t *jwtauth.Token, usual usher.Principal) usher.Principal {
		usual.Owner = t.Subject
		return usual
	}
	auth, err := jwtauth.New(c)
	if err != nil {
		t.Fatal(err)
	}
	credentials := make(map[string][2]string)
	for _, owner := range callers {
		signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"iss": issuer, "aud": audience, "sub": owner, "exp": time.Now().Add(time.Hour).Unix(),
		}).SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		credentials[owner] = [2]string{field, prefix + signed}
	}
	return carrier{auth, credentials}
}

// carriers returns each carrier with a name.
func carriers(t *testing.T) map[string]carrier {
	return map[string]carrier{
		"key":           keys(t, apikey.Config{}, "X-API-Key", ""),
		"key as bearer": keys(t, apikey.Config{Carriers: []apikey.Carrier{{Scheme: "Bearer"}}}, "Authorization", "Bearer "),
		"token":         tokens(t, jwtauth.Config{}, "Authorization", "Bearer "),
		"cookie":        tokens(t, jwtauth.Config{Cookie: "session"}, "Cookie", "session="),
	}
}

// whose responds with the owner of the credential. The query says how.
func whose(calls *atomic.Int32) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		owner := "nobody"
		if p, ok := usher.PrincipalFrom(r.Context()); ok {
			owner = p.Owner
		}
		q, h := r.URL.Query(), w.Header()
		h.Set("Content-Type", "text/plain")
		h.Set("X-Owner", owner)
		if q.Has("cache-control") {
			h.Set("Cache-Control", q.Get("cache-control"))
		}
		if q.Has("vary") {
			h.Set("Vary", q.Get("vary"))
		}
		if q.Has("missing") {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, owner)
	}
}

// fetch sends a request of owner, or without a credential for "nobody", and returns
// the owner that the response was made for.
func fetch(t *testing.T, c carrier, method, url, owner string) (of string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if field, ok := c.credentials[owner]; ok {
		r.Header.Set(field[0], field[1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	of = resp.Header.Get("X-Owner")
	if method != http.MethodHead && string(body) != of {
		t.Errorf("the header field is %q, the body is %q", of, body)
	}
	return of
}

// A shared cache never gives the response of one caller to another.
func TestASharedCacheKeepsCallersApart(t *testing.T) {
	kinds := map[string]string{
		"200":                     "",
		"404":                     "missing",
		"with a Vary":             "vary=Accept-Language",
		"public":                  "cache-control=public,max-age=60",
		"public 404":              "missing&cache-control=public,max-age=60",
		"for a minute":            "cache-control=max-age=60",
		"for a minute and a Vary": "cache-control=max-age=60&vary=Accept-Encoding",
		"a Vary of anything":      "cache-control=max-age=60&vary=Accept,*",
	}
	orders := [][]string{{"alice", "bob", "nobody"}, {"nobody", "bob", "alice"}}
	for cache, start := range sharedCaches {
		for name, c := range carriers(t) {
			t.Run(cache+"/"+name, func(t *testing.T) {
				var calls atomic.Int32
				address := start(t, serve(t, usher.Authenticate(usher.Optional(c.authenticator)).Wrap(whose(&calls))))
				for kind, query := range kinds {
					for n, order := range orders {
						for _, first := range []string{http.MethodGet, http.MethodHead} {
							method, url := first, fmt.Sprintf("http://%s/%d%s?%s", address, n, first, query)
							for _, owner := range order {
								if of := fetch(t, c, method, url, owner); of != owner {
									t.Errorf("%s, %s %s: %s got the response of %s", kind, method, url, owner, of)
								}
								method = http.MethodGet
							}
						}
					}
				}
			})
		}
	}
}

// The caches of these tests keep what they may: responses to anonymous callers, and
// those that a handler declares public, for the caller that they were made for.
func TestASharedCacheKeepsWhatItMay(t *testing.T) {
	for cache, start := range sharedCaches {
		for name, c := range carriers(t) {
			t.Run(cache+"/"+name, func(t *testing.T) {
				var calls atomic.Int32
				address := start(t, serve(t, usher.Authenticate(usher.Optional(c.authenticator)).Wrap(whose(&calls))))
				tests := map[string]struct {
					owner, query string
					kept         bool
				}{
					"anonymous": {"nobody", "", true},
					// Varnish passes requests with these fields whatever the response says.
					"public":  {"alice", "cache-control=public,max-age=60", cache == "nginx" || name == "key"},
					"private": {"alice", "", false},
				}
				for kind, tt := range tests {
					calls.Store(0)
					const times = 4
					for range times {
						fetch(t, c, http.MethodGet, "http://"+address+"/"+kind+"?"+tt.query, tt.owner)
					}
					if kept := calls.Load() < times; kept != tt.kept {
						t.Errorf("%s: %d of %d requests reached the backend", kind, calls.Load(), times)
					}
				}
			})
		}
	}
}

// No cache keeps a refusal, whatever Cache-Control had been set before.
func TestASharedCacheKeepsNoRefusal(t *testing.T) {
	for cache, start := range sharedCaches {
		t.Run(cache, func(t *testing.T) {
			c := keys(t, apikey.Config{}, "X-API-Key", "")
			var calls atomic.Int32
			refuse := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				p, _ := usher.PrincipalFrom(r.Context())
				calls.Add(1)
				w.Header().Set("Cache-Control", "public, max-age=60")
				w.Header().Set("X-Owner", p.Owner)
				usher.Fail(w, r, &usher.Error{Status: http.StatusNotFound, Code: "no_such_order"})
			})
			address := start(t, serve(t, usher.Authenticate(c.authenticator).Wrap(refuse)))
			for n := range int32(3) {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				field := c.credentials["alice"]
				r.Header.Set(field[0], field[1])
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusNotFound || calls.Load() != n+1 {
					t.Errorf("status %d, %d requests reached the backend after %d", resp.StatusCode, calls.Load(), n+1)
				}
			}
		})
	}
}

// No cache keeps an error that passes through a whole stack, however the handler makes it,
// even if the handler has first said how long its success may be kept.
func TestASharedCacheKeepsNoErrorOfAWholeStack(t *testing.T) {
	by := map[string]func(w http.ResponseWriter, r *http.Request, status int){
		"Fail": func(w http.ResponseWriter, r *http.Request, status int) {
			usher.Fail(w, r, &usher.Error{Status: status})
		},
		"http.Error": func(w http.ResponseWriter, _ *http.Request, status int) { http.Error(w, "no", status) },
		"JSON": func(w http.ResponseWriter, _ *http.Request, status int) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"error":"no"}`)
		},
		"a status": func(w http.ResponseWriter, _ *http.Request, status int) { w.WriteHeader(status) },
		"a panic":  func(http.ResponseWriter, *http.Request, int) { panic("no") },
	}
	statuses := []int{400, 402, 403, 404, 405, 409, 410, 413, 414, 418, 422, 429, 451, 500, 501, 502, 503, 504}
	caches := map[string]func(t *testing.T, backend string) string{
		"varnish": varnish,
		"nginx":   func(t *testing.T, backend string) string { return nginx(t, backend, everything) },
	}
	for cache, start := range caches {
		t.Run(cache, func(t *testing.T) {
			c := keys(t, apikey.Config{}, "X-API-Key", "")
			var calls atomic.Int32
			fails := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				h := w.Header()
				h.Set("Cache-Control", "public, max-age=3600")
				h.Set("Expires", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
				h.Set("Last-Modified", time.Now().Add(-240*time.Hour).UTC().Format(http.TimeFormat))
				h.Set("ETag", `"v1"`)
				status, _ := strconv.Atoi(r.PathValue("status"))
				by[r.PathValue("by")](w, r, status)
			})
			mux := http.NewServeMux()
			mux.Handle("/{by}/{status}", fails)
			stack := append(middlewares(t, enveloped), usher.Authenticate(usher.Optional(c.authenticator)), limited(t), once(t))
			address := start(t, startServer(t, gzhttp.GzipHandler(usher.Chain(stack...).Wrap(mux))).Listener.Addr().String())
			for name := range by {
				for _, status := range statuses {
					for _, caller := range []string{"nobody", "alice"} {
						var header []string
						if field, ok := c.credentials[caller]; ok {
							header = field[:]
						}
						calls.Store(0)
						url := fmt.Sprintf("http://%s/%s/%d?%s", address, url.PathEscape(name), status, caller)
						for n, method := range []string{http.MethodGet, http.MethodHead, http.MethodGet} {
							got, _ := request(t, http.DefaultClient, method, url, "gzip", header...)
							if got.status != status && name != "a panic" || calls.Load() != int32(n)+1 {
								t.Errorf("%s, %d for %s: %d of %d requests reached the backend: %s", name, status, caller, calls.Load(), n+1, got.show())
								break
							}
						}
					}
				}
			}
		})
	}
}

// A cache keeps a public response of a whole stack once for each encoding, and every client
// can decode what it gets.
func TestASharedCacheKeepsWhatAWholeStackDeclaresPublic(t *testing.T) {
	for cache, start := range sharedCaches {
		t.Run(cache, func(t *testing.T) {
			var calls atomic.Int32
			handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				w.Header().Set("Cache-Control", "public, max-age=3600")
				w.Header().Set("Content-Type", "application/json")
				_, _ = fmt.Fprintf(w, `["%s"]`, strings.Repeat("a long text ", 500))
			})
			stack := append(middlewares(t, enveloped), usher.Authenticate(usher.Optional(keys(t, apikey.Config{}, "X-API-Key", "").authenticator)), limited(t), once(t))
			address := start(t, serve(t, gzhttp.GzipHandler(usher.Chain(stack...).Wrap(handler))))
			var want decoded
			for n := range 6 {
				got, encoding := request(t, http.DefaultClient, http.MethodGet, "http://"+address+"/", []string{"identity", "gzip"}[n%2])
				if n == 0 {
					want = got
				}
				if got != want || got.err != "" || (encoding == "gzip") != (n%2 == 1) {
					t.Errorf("%d: %s, %q", n, got.show(), encoding)
				}
			}
			if n := calls.Load(); n > 2 {
				t.Errorf("%d requests reached the backend", n)
			}
		})
	}
}
