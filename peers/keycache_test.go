package peers_test

import (
	"encoding/json"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// keyCaches start a shared cache before a backend, which passes requests with no-cache on.
var keyCaches = map[string]func(t *testing.T, backend string) string{
	"haproxy": func(t *testing.T, backend string) string {
		address := freeAddress(t)
		start(t, address, program(t, "haproxy"), "-db", "-f", configure(t, `
defaults
	mode http
	timeout connect 5s
	timeout client 30s
	timeout server 30s
cache keys
	total-max-size 4
	max-age 300
listen proxy
	bind ADDRESS
	http-request cache-use keys
	http-response cache-store keys
	server backend BACKEND
`, "ADDRESS", address, "BACKEND", backend))
		return address
	},
	"nginx": func(t *testing.T, backend string) string {
		return nginx(t, backend, `set $past 0;
if ($http_cache_control = "no-cache") {
	set $past 1;
}
location / {
	proxy_pass http://BACKEND;
	proxy_cache cache;
	proxy_cache_bypass $past;
}`)
	},
}

// A cache still has the previous key set when a token of a new key comes. The fetch that
// the token causes asks past the cache.
func TestATokenOfANewKeyIsAcceptedBehindACache(t *testing.T) {
	for cache, start := range keyCaches {
		t.Run(cache, func(t *testing.T) {
			var current atomic.Pointer[jwk.Key]
			current.Store(newKey(t, jwk.ES256))
			url := "http://" + start(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Cache-Control", "public, max-age=300")
				w.Header().Set("Content-Type", "application/json")
				body, err := json.Marshal(object{"keys": []*jwk.Key{current.Load()}})
				if err != nil {
					t.Error(err)
				}
				_, _ = w.Write(body)
			}))) + "/keys"
			cached := func() (id string) {
				t.Helper()
				resp, err := http.Get(url) //nolint:noctx // It is a test on the loopback.
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = resp.Body.Close() }()
				var set struct {
					Keys []struct {
						ID string `json:"kid"`
					}
				}
				if err := json.NewDecoder(resp.Body).Decode(&set); err != nil || len(set.Keys) != 1 {
					t.Fatal(set, err)
				}
				return set.Keys[0].ID
			}
			api := serveAPI(t, verifier(t, jwtauth.TrustedIssuer{
				Issuer: joseIssuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.ES256},
				Keys: remote(t, jwk.RemoteConfig{URL: url}),
			}))
			for range 5 {
				if status, _ := get(t, api, signed(t, current.Load())); status != http.StatusOK {
					t.Fatal(status)
				}
				old := cached()
				current.Store(newKey(t, jwk.ES256))
				if cached() != old {
					t.Fatal("the cache has not kept the key set")
				}
			}
		})
	}
}

// signed returns a token of joseIssuer that golang-jwt has made.
func signed(t *testing.T, key *jwk.Key) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims(claims()))
	token.Header["kid"] = key.ID()
	text, err := token.SigningString()
	if err != nil {
		t.Fatal(err)
	}
	signature, err := key.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + token.EncodeSegment(signature)
}
