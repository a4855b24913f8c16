package jwtauth_test

import "github.com/usher-go/usher/jwtauth/internal/tokentest"

const (
	issuer    = tokentest.Issuer
	audience  = tokentest.Audience
	jwtHeader = tokentest.JWTHeader
)

var (
	mustKey        = tokentest.MustKey
	mustVerifier   = tokentest.MustVerifier
	hs256          = tokentest.HS256
	verifier       = tokentest.Verifier
	claims         = tokentest.Claims
	b64            = tokentest.B64
	sealed         = tokentest.Sealed
	plain          = tokentest.Plain
	token          = tokentest.Token
	good           = tokentest.Good
	payload        = tokentest.Payload
	request        = tokentest.Request
	verdict        = tokentest.Verdict
	verdictOf      = tokentest.VerdictOf
	want           = tokentest.Want
	respond        = tokentest.Respond
	secret         = tokentest.Secret
	rsaKey         = tokentest.RSAKey
	ecKey          = tokentest.ECKey
	ed25519Key     = tokentest.Ed25519Key
	everyAlgorithm = tokentest.EveryAlgorithm
	wantFaults     = tokentest.WantFaults
	served         = tokentest.Served
	status         = tokentest.Status
	eventually     = tokentest.Eventually
	newSigner      = tokentest.NewSigner
	publish        = tokentest.Publish
	trusting       = tokentest.Trusting
	overTLS        = tokentest.OverTLS
	quiet          = tokentest.Quiet
	errDown        = tokentest.ErrDown
)

type (
	publisher = tokentest.Publisher
)

func must[T any](v T, err error) T { return tokentest.Must(v, err) }
