// Package tokentest has the helpers that the tests of jwtauth and the packages below it
// share: keys, tokens, verifiers and servers of key sets.
package tokentest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// The issuer and the audience of the tokens.
const (
	Issuer   = "https://issuer.example"
	Audience = "https://api.example"
)

var (
	// Secret is the key of the tokens that are signed with HS256.
	Secret = []byte(strings.Repeat("0123456789abcdef", 4))

	// RSAKey returns a private key.
	RSAKey = sync.OnceValue(func() *rsa.PrivateKey { return Must(rsa.GenerateKey(rand.Reader, 2048)) })
	// ECKey returns a private key.
	ECKey = sync.OnceValue(func() *ecdsa.PrivateKey { return Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	// Ed25519Key returns a private key.
	Ed25519Key = sync.OnceValue(func() ed25519.PrivateKey {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		return Must(k, err)
	})
)

// Must returns v, or panics with err.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// MustKey returns the key that c describes.
func MustKey(tb testing.TB, c jwk.KeyConfig) *jwk.Key {
	tb.Helper()
	k, err := jwk.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// MustVerifier returns a verifier with this Config.
func MustVerifier(tb testing.TB, c jwtauth.Config) *jwtauth.Verifier {
	tb.Helper()
	v, err := jwtauth.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// HS256 returns a trusted issuer that signs with Secret.
func HS256(tb testing.TB) jwtauth.TrustedIssuer {
	tb.Helper()
	return jwtauth.TrustedIssuer{
		Issuer:     Issuer,
		Audiences:  []string{Audience},
		Algorithms: []jwk.Algorithm{jwk.HS256},
		Keys:       jwk.Static{MustKey(tb, jwk.KeyConfig{Algorithm: jwk.HS256, Secret: Secret})},
	}
}

// Verifier returns a verifier that trusts HS256, changed by change if that is not nil.
func Verifier(tb testing.TB, change func(*jwtauth.Config)) *jwtauth.Verifier {
	tb.Helper()
	c := jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{HS256(tb)}}
	if change != nil {
		change(&c)
	}
	return MustVerifier(tb, c)
}

// Claims returns the claims of a good token, changed by some; nil removes a claim.
func Claims(some map[string]any) map[string]any {
	now := time.Now().Unix()
	all := map[string]any{"iss": Issuer, "aud": Audience, "sub": "ann", "iat": now, "exp": now + 600}
	maps.Copy(all, some)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

// B64 encodes data as base64url.
func B64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// Sealed returns a token of exactly this header and payload, signed with a key
// of golang-jwt.
func Sealed(header, payload string, method jwt.SigningMethod, key any) string {
	text := B64([]byte(header)) + "." + B64([]byte(payload))
	return text + "." + B64(Must(method.Sign(text, key)))
}

// Plain is Sealed with HS256 and Secret.
func Plain(header, payload string) string {
	return Sealed(header, payload, jwt.SigningMethodHS256, Secret)
}

// JWTHeader is the header of Token.
const JWTHeader = `{"alg":"HS256","typ":"JWT"}`

// Token returns a token with these claims, signed with HS256 and Secret.
func Token(c map[string]any) string { return Plain(JWTHeader, string(Must(json.Marshal(c)))) }

// Good returns a token that Verifier accepts.
func Good() string { return Token(Claims(nil)) }

// Payload returns the payload of a good token with this member added.
func Payload(member string) string {
	text := string(Must(json.Marshal(Claims(nil))))
	return text[:len(text)-1] + "," + member + "}"
}

// Request returns a request with this bearer token, or without one if it is empty.
func Request(tb testing.TB, token string) *http.Request {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, "/", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// Verdict returns an authenticator's verdict on a token.
func Verdict(tb testing.TB, a usher.Authenticator, token string) jwtauth.Verdict {
	tb.Helper()
	p, err := a.Authenticate(Request(tb, token))
	return VerdictOf(tb, p, err)
}

// VerdictOf returns the verdict in the results of an authenticator.
func VerdictOf(tb testing.TB, p *usher.Principal, err error) jwtauth.Verdict {
	tb.Helper()
	switch v, ok := errors.AsType[jwtauth.Verdict](err); {
	case (p == nil) == (err == nil):
		tb.Fatalf("principal %v and error %v", p, err)
	case err == nil:
		return jwtauth.Accepted
	case errors.Is(err, usher.ErrNoCredential):
		return jwtauth.Missing
	case !ok:
		tb.Fatalf("an error without a verdict: %v", err)
	default:
		return v
	}
	panic("unreachable")
}

// Want compares the verdict on a token with the wanted one.
func Want(tb testing.TB, a usher.Authenticator, token string, want jwtauth.Verdict) {
	tb.Helper()
	if got := Verdict(tb, a, token); got != want {
		tb.Errorf("%v, want %v", got, want)
	}
}

// Respond returns the response to r of a handler inside a.
func Respond(tb testing.TB, a usher.Authenticator, r *http.Request) *httptest.ResponseRecorder {
	tb.Helper()
	w := httptest.NewRecorder()
	usher.Authenticate(a).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
	return w
}

// EveryAlgorithm has all algorithms.
var EveryAlgorithm = []jwk.Algorithm{
	jwk.HS256, jwk.HS384, jwk.HS512, jwk.RS256, jwk.RS384, jwk.RS512,
	jwk.PS256, jwk.PS384, jwk.PS512, jwk.ES256, jwk.ES384, jwk.ES512,
	jwk.EdDSA, jwk.Ed25519,
}

// WantFaults compares the fields that a constructor complains about.
func WantFaults(t *testing.T, err error, fields ...string) {
	t.Helper()
	for _, field := range fields {
		found := false
		var list interface{ Unwrap() []error }
		if errors.As(err, &list) {
			for _, e := range list.Unwrap() {
				var c *usher.ConfigError
				if errors.As(e, &c) && c.Field == field {
					found = true
				}
			}
		}
		if !found {
			t.Errorf("no fault of %s in: %v", field, err)
		}
	}
}

// Served returns a server with a route that requires a and these scopes.
func Served(tb testing.TB, a usher.Authenticator, scopes ...string) *httptest.Server {
	tb.Helper()
	route := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") })
	require := usher.Require(usher.Requirement{Scopes: scopes})
	s := httptest.NewServer(usher.Chain(usher.Authenticate(a), require).Wrap(route))
	tb.Cleanup(s.Close)
	return s
}

// Status returns the status of the response to a GET with a bearer token.
func Status(tb testing.TB, c *http.Client, url, token string) int {
	tb.Helper()
	r := Must(http.NewRequestWithContext(tb.Context(), http.MethodGet, url, nil))
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(r)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body := Must(io.ReadAll(resp.Body))
	if (resp.StatusCode == http.StatusOK) != (string(body) == "secret") {
		tb.Errorf("%d with %s", resp.StatusCode, body)
	}
	return resp.StatusCode
}

// Eventually waits for something that another goroutine does soon.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never: %s", what)
		}
	}
}

// Quiet returns a server that does not print the panics of its handlers.
func Quiet(tb testing.TB, h http.Handler) *httptest.Server {
	tb.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	tb.Cleanup(s.Close)
	return s
}
