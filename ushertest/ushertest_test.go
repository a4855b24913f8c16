package ushertest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ushertest"
)

func newLimiter(tb testing.TB) *ratelimit.Limiter {
	tb.Helper()
	l, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{ratelimit.PerPrincipal(1, time.Hour)}})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func get(path string) *http.Request { return httptest.NewRequest(http.MethodGet, path, nil) }

func TestReached(t *testing.T) {
	limiter := ushertest.Watch(newLimiter(t))
	unreachable := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") })
	accept := usher.Authenticate(ushertest.Authenticator(usher.Principal{ID: "alice"}))
	refuse := usher.Authenticate()
	mux := http.NewServeMux()
	mux.Handle("/notes", limiter.Wrap(unreachable))
	serveNext := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { limiter.ServeNext(w, r, unreachable) })
	for name, c := range map[string]struct {
		h      http.Handler
		status string // in the error
		caller string
	}{
		"a middleware that wraps the handler":     {h: limiter.Wrap(unreachable)},
		"a middleware that an adapter calls":      {h: serveNext},
		"a middleware on the route":               {h: mux},
		"a middleware inside authentication":      {h: usher.Chain(accept, limiter).Wrap(unreachable), caller: "alice"},
		"a middleware outside authentication":     {h: usher.Chain(limiter, accept).Wrap(unreachable)},
		"a middleware that was forgotten":         {h: http.NotFoundHandler(), status: "404"},
		"a middleware that stands behind another": {h: usher.Chain(refuse, limiter).Wrap(unreachable), status: "401"},
		"another middleware of the same kind":     {h: ushertest.Watch(newLimiter(t)).Wrap(http.NotFoundHandler()), status: "404"},
	} {
		t.Run(name, func(t *testing.T) {
			arrived, err := limiter.Reached(c.h, get("/notes"))
			if c.status != "" {
				if !errors.Is(err, ushertest.ErrNotReached) || !strings.Contains(err.Error(), "/notes is "+c.status) {
					t.Errorf("got %v, want ErrNotReached and the status %s", err, c.status)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p, _ := usher.PrincipalFrom(arrived.Context()); p.ID != c.caller {
				t.Errorf("arrived with the principal %q, want %q", p.ID, c.caller)
			}
		})
	}
}

func TestAWatchedMiddlewareWorksAndIsNotCharged(t *testing.T) {
	limiter := ushertest.Watch(newLimiter(t))
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	h := limiter.Wrap(handler)
	for range 3 {
		if _, err := limiter.Reached(h, get("/")); err != nil {
			t.Fatal(err)
		}
	}
	var got []int
	for _, serve := range []func(http.ResponseWriter, *http.Request){
		h.ServeHTTP,
		h.ServeHTTP,
		func(w http.ResponseWriter, r *http.Request) { limiter.ServeNext(w, r, handler) },
	} {
		w := httptest.NewRecorder()
		serve(w, get("/"))
		got = append(got, w.Code)
	}
	if got[0] != 200 || got[1] != 429 || got[2] != 429 {
		t.Errorf("statuses %v, want 200, 429, 429", got)
	}
}

func TestTokensOfAnIssuer(t *testing.T) {
	issuer := ushertest.NewIssuer(t, "https://login.example")
	key, err := jwk.New(jwk.KeyConfig{ID: "ushertest", Algorithm: jwk.ES256, Material: issuer.PublicKey()})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
		Issuer: "https://login.example", Audiences: []string{"notes"},
		Algorithms: []jwk.Algorithm{jwk.ES256}, Keys: jwk.Static{key},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	var caller usher.Principal
	h := usher.Authenticate(verifier).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		caller, _ = usher.PrincipalFrom(r.Context())
	}))
	for name, c := range map[string]struct {
		claims map[string]any
		status int
	}{
		"a good token":           {map[string]any{"sub": "alice", "aud": "notes", "scope": "read"}, 200},
		"a token of yesterday":   {map[string]any{"sub": "alice", "aud": "notes", "exp": time.Now().Add(-24 * time.Hour).Unix()}, 401},
		"a token without an exp": {map[string]any{"sub": "alice", "aud": "notes", "exp": nil}, 401},
		"a token for another":    {map[string]any{"sub": "alice", "aud": "mail"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			r := get("/")
			r.Header.Set("Authorization", "Bearer "+issuer.Token(c.claims))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status {
				t.Errorf("status %d %s, want %d", w.Code, w.Body, c.status)
			}
			if c.status == 200 && (!strings.HasSuffix(caller.ID, "|alice") || !caller.HasScopes("read")) {
				t.Errorf("the caller is %+v", caller)
			}
		})
	}
}

func TestTheKeySetOfAnIssuerVerifiesItsTokens(t *testing.T) {
	issuer := ushertest.NewIssuer(t, "https://login.example")
	var set struct {
		Keys []struct{ Kty, Crv, Alg, Kid, X, Y string }
	}
	if err := json.Unmarshal(issuer.JWKS(), &set); err != nil || len(set.Keys) != 1 {
		t.Fatalf("%d keys, %v", len(set.Keys), err)
	}
	_, err := jwt.Parse(issuer.Token(nil), func(token *jwt.Token) (any, error) {
		k := set.Keys[0]
		if token.Header["kid"] != k.Kid || k.Alg != "ES256" || k.Kty != "EC" || k.Crv != "P-256" {
			return nil, fmt.Errorf("the key set has %+v", k)
		}
		point := []byte{4}
		for _, coordinate := range []string{k.X, k.Y} {
			b, err := base64.RawURLEncoding.DecodeString(coordinate)
			if err != nil {
				return nil, err
			}
			point = append(point, b...)
		}
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	})
	if err != nil {
		t.Error(err)
	}
}

// Example checks that a limiter of callers is inside authentication, where callers are
// known.
func Example() {
	limits, _ := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{ratelimit.PerPrincipal(100, time.Minute)}})
	limiter := ushertest.Watch(limits)
	auth := usher.Authenticate(ushertest.Authenticator(usher.Principal{ID: "alice", Kind: usher.KindAPIKey}))
	notes := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

	h := usher.Chain(auth, limiter).Wrap(notes)
	arrived, err := limiter.Reached(h, httptest.NewRequest(http.MethodGet, "/notes", nil))
	if err != nil {
		fmt.Println(err)
		return
	}
	caller, _ := usher.PrincipalFrom(arrived.Context())
	fmt.Printf("the limiter counts %q\n", caller.ID)
	// Output:
	// the limiter counts "alice"
}

func TestAuthenticatorNamesItsCarrierToCaches(t *testing.T) {
	auth := usher.Authenticate(ushertest.Authenticator(usher.Principal{ID: "ann"}))
	w := httptest.NewRecorder()
	auth.Wrap(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if got := w.Header().Get("Vary"); got != "Authorization" {
		t.Errorf("Vary is %q, want that of a server with tokens", got)
	}
}
