package jwtauth_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
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
)

const (
	issuer   = "https://issuer.example"
	audience = "https://api.example"
)

var (
	secret = []byte(strings.Repeat("0123456789abcdef", 4))

	rsaKey     = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey      = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	ed25519Key = sync.OnceValue(func() ed25519.PrivateKey {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		return must(k, err)
	})
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func mustKey(tb testing.TB, c jwtauth.KeyConfig) *jwtauth.Key {
	tb.Helper()
	k, err := jwtauth.NewKey(c)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func mustVerifier(tb testing.TB, c jwtauth.Config) *jwtauth.Verifier {
	tb.Helper()
	v, err := jwtauth.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// hs256 is a trusted issuer that signs with secret.
func hs256(tb testing.TB) jwtauth.TrustedIssuer {
	tb.Helper()
	return jwtauth.TrustedIssuer{
		Issuer:     issuer,
		Audiences:  []string{audience},
		Algorithms: []jwtauth.Algorithm{jwtauth.HS256},
		Keys:       jwtauth.StaticKeys{mustKey(tb, jwtauth.KeyConfig{Algorithm: jwtauth.HS256, Secret: secret})},
	}
}

// verifier is one that trusts hs256, changed by change if that is not nil.
func verifier(tb testing.TB, change func(*jwtauth.Config)) *jwtauth.Verifier {
	tb.Helper()
	c := jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{hs256(tb)}}
	if change != nil {
		change(&c)
	}
	return mustVerifier(tb, c)
}

// claims are those of a good token, changed by some; nil removes a claim.
func claims(some map[string]any) map[string]any {
	now := time.Now().Unix()
	all := map[string]any{"iss": issuer, "aud": audience, "sub": "ann", "iat": now, "exp": now + 600}
	maps.Copy(all, some)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// sealed returns a token of exactly this header and payload, signed with a key
// of golang-jwt.
func sealed(header, payload string, method jwt.SigningMethod, key any) string {
	text := b64([]byte(header)) + "." + b64([]byte(payload))
	return text + "." + b64(must(method.Sign(text, key)))
}

// plain is sealed with HS256 and secret.
func plain(header, payload string) string {
	return sealed(header, payload, jwt.SigningMethodHS256, secret)
}

const jwtHeader = `{"alg":"HS256","typ":"JWT"}`

// token is a token of these claims, signed with HS256 and secret.
func token(c map[string]any) string { return plain(jwtHeader, string(must(json.Marshal(c)))) }

// good is a token that verifier accepts.
func good() string { return token(claims(nil)) }

// payload is the payload of a good token with this member added.
func payload(member string) string {
	text := string(must(json.Marshal(claims(nil))))
	return text[:len(text)-1] + "," + member + "}"
}

func request(tb testing.TB, token string) *http.Request {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, "/", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// verdict returns what an authenticator finds about a token.
func verdict(tb testing.TB, a usher.Authenticator, token string) jwtauth.Verdict {
	tb.Helper()
	p, err := a.Authenticate(request(tb, token))
	return verdictOf(tb, p, err)
}

func verdictOf(tb testing.TB, p *usher.Principal, err error) jwtauth.Verdict {
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

func want(tb testing.TB, a usher.Authenticator, token string, want jwtauth.Verdict) {
	tb.Helper()
	if got := verdict(tb, a, token); got != want {
		tb.Errorf("%v, want %v", got, want)
	}
}

// answer returns what a client gets that presents a token.
func answer(tb testing.TB, a usher.Authenticator, r *http.Request) *httptest.ResponseRecorder {
	tb.Helper()
	w := httptest.NewRecorder()
	usher.Authenticate(a).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
	return w
}
