package ushertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// An Issuer signs tokens for tests by ES256, with a key of its own. A jwtauth.Verifier
// accepts them if it trusts the issuer:
//
//	issuer := ushertest.NewIssuer(t, "https://issuer.example")
//	key, err := jwk.New(jwk.KeyConfig{ID: "ushertest", Algorithm: jwk.ES256, Material: issuer.PublicKey()})
//	...
//	tokens, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
//		Issuer:     "https://issuer.example",
//		Audiences:  []string{"https://api.example"},
//		Algorithms: []jwk.Algorithm{jwk.ES256},
//		Keys:       jwk.Static{key},
//	}}})
//	...
//	token := issuer.Token(map[string]any{"sub": "ann", "aud": "https://api.example"})
//	r.Header.Set("Authorization", "Bearer "+token)
type Issuer struct {
	tb   testing.TB
	name string
	key  *ecdsa.PrivateKey
}

// keyID identifies the key in tokens and in the key set.
const keyID = "ushertest"

// NewIssuer returns an issuer whose tokens have name as their iss.
func NewIssuer(tb testing.TB, name string) *Issuer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("ushertest: generate a key: %v", err)
	}
	return &Issuer{tb, name, key}
}

// PublicKey returns the key that verifies the tokens. Its ID is "ushertest".
func (i *Issuer) PublicKey() *ecdsa.PublicKey { return &i.key.PublicKey }

// JWKS returns the key set of the issuer as JSON (RFC 7517).
func (i *Issuer) JWKS() []byte {
	i.tb.Helper()
	point, err := i.key.PublicKey.Bytes()
	if err != nil {
		i.tb.Fatalf("ushertest: encode the key: %v", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	// An uncompressed point is the byte 4 and two coordinates of equal length.
	x, y := encode(point[1:33]), encode(point[33:])
	return fmt.Appendf(nil,
		`{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":%q,"x":%q,"y":%q}]}`, keyID, x, y)
}

// Token returns a signed token with these claims. Missing claims are added: iss is the
// name of the issuer, iat is now, and exp is an hour from now. A claim that is nil is
// left out.
func (i *Issuer) Token(claims map[string]any) string {
	i.tb.Helper()
	now := time.Now()
	all := jwt.MapClaims{"iss": i.name, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	token := jwt.NewWithClaims(jwt.SigningMethodES256, all)
	token.Header["kid"] = keyID
	text, err := token.SignedString(i.key)
	if err != nil {
		i.tb.Fatalf("ushertest: sign a token: %v", err)
	}
	return text
}
