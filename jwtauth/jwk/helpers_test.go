package jwk_test

import "github.com/usher-go/usher/jwtauth/internal/tokentest"

const (
	issuer   = tokentest.Issuer
	audience = tokentest.Audience
)

var (
	mustKey        = tokentest.MustKey
	mustVerifier   = tokentest.MustVerifier
	b64            = tokentest.B64
	request        = tokentest.Request
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
	keySetOf       = tokentest.KeySetOf
	publish        = tokentest.Publish
	trusting       = tokentest.Trusting
	mustJWKS       = tokentest.MustRemote
	simulated      = tokentest.Simulated
	overTLS        = tokentest.OverTLS
)

type (
	signer    = tokentest.Signer
	publisher = tokentest.Publisher
)

func must[T any](v T, err error) T { return tokentest.Must(v, err) }
