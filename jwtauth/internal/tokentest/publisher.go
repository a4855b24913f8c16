package tokentest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// A Signer is a key pair of an issuer that signs with EdDSA. Without an ID, neither its
// tokens nor its public key have a kid.
type Signer struct {
	ID      string
	Private ed25519.PrivateKey
}

// NewSigner returns a new key pair with this ID.
func NewSigner(id string) Signer {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	return Signer{id, Must(k, err)}
}

// Token returns a token that s has signed.
func (s Signer) Token() string {
	return Sealed(`{"alg":"EdDSA"`+s.kid()+`}`, string(Must(json.Marshal(Claims(nil)))), jwt.SigningMethodEdDSA, s.Private)
}

// JWK returns the public key of s.
func (s Signer) JWK() string {
	return `{"kty":"OKP","crv":"Ed25519"` + s.kid() + `,"x":"` + B64(s.Private.Public().(ed25519.PublicKey)) + `"}`
}

// kid returns the member kid, with a comma before it.
func (s Signer) kid() string {
	if s.ID == "" {
		return ""
	}
	return `,"kid":"` + s.ID + `"`
}

// KeySetOf returns a key set of these JWKs.
func KeySetOf(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

// Publish returns the key set of these signers.
func Publish(signers ...Signer) string {
	keys := make([]string, len(signers))
	for i, s := range signers {
		keys[i] = s.JWK()
	}
	return KeySetOf(keys...)
}

// A Publisher is a server of a key set whose responses change.
type Publisher struct {
	mu      sync.Mutex
	respond func(w http.ResponseWriter, r *http.Request)
	Fetches atomic.Int64
}

// ServeHTTP responds as Serve or Say last set.
func (p *Publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.Fetches.Add(1)
	p.mu.Lock()
	respond := p.respond
	p.mu.Unlock()
	respond(w, r)
}

// Serve sets how p responds from now on.
func (p *Publisher) Serve(respond func(w http.ResponseWriter, r *http.Request)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.respond = respond
}

// Say sets the body of the responses from now on.
func (p *Publisher) Say(body string) {
	p.Serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
}

// RoundTrip lets a Publisher respond without a network, for tests in simulated time.
func (p *Publisher) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() { defer close(done); p.ServeHTTP(w, r) }()
	select {
	case <-done:
		return w.Result(), nil
	case <-r.Context().Done():
		<-done
		return nil, r.Context().Err()
	}
}

// Trusting returns a verifier that trusts tokens signed with keys.
func Trusting(tb testing.TB, keys jwk.Set) *jwtauth.Verifier {
	tb.Helper()
	i := HS256(tb)
	i.Algorithms, i.Keys = []jwk.Algorithm{jwk.EdDSA, jwk.RS256}, keys
	return MustVerifier(tb, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
}

// MustRemote returns a Remote that is closed after the test.
func MustRemote(tb testing.TB, c jwk.RemoteConfig) *jwk.Remote {
	tb.Helper()
	j, err := jwk.NewRemote(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = j.Close() })
	return j
}

// Simulated returns a Remote without a network, for use under synctest.
func Simulated(tb testing.TB, p *Publisher, change func(*jwk.RemoteConfig)) *jwk.Remote {
	tb.Helper()
	c := jwk.RemoteConfig{URL: "https://issuer.example/jwks", Client: &http.Client{Transport: p}}
	if change != nil {
		change(&c)
	}
	return MustRemote(tb, c)
}

// OverTLS returns a Remote of a real server on loopback.
func OverTLS(tb testing.TB, p *Publisher, change func(*jwk.RemoteConfig)) *jwk.Remote {
	tb.Helper()
	server := httptest.NewTLSServer(p)
	tb.Cleanup(server.Close)
	c := jwk.RemoteConfig{URL: server.URL, Client: server.Client(), CoolDown: 20 * time.Millisecond, RefreshEvery: time.Hour}
	if change != nil {
		change(&c)
	}
	return MustRemote(tb, c)
}
