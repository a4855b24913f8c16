package session_test

import "github.com/usher-go/usher/jwtauth/internal/tokentest"

const (
	issuer   = tokentest.Issuer
	audience = tokentest.Audience
)

var (
	mustKey      = tokentest.MustKey
	mustVerifier = tokentest.MustVerifier
	verifier     = tokentest.Verifier
	claims       = tokentest.Claims
	b64          = tokentest.B64
	sealed       = tokentest.Sealed
	token        = tokentest.Token
	request      = tokentest.Request
	verdictOf    = tokentest.VerdictOf
	want         = tokentest.Want
	secret       = tokentest.Secret
	rsaKey       = tokentest.RSAKey
	ecKey        = tokentest.ECKey
	ed25519Key   = tokentest.Ed25519Key
	status       = tokentest.Status
	quiet        = tokentest.Quiet
	errDown      = tokentest.ErrDown
	wantFaults   = tokentest.WantFaults
)

func must[T any](v T, err error) T { return tokentest.Must(v, err) }
