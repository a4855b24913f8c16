package benchmarks_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	ginjwt "github.com/appleboy/gin-jwt/v3"
	auth0v2 "github.com/auth0/go-jwt-middleware/v2"
	validatorv2 "github.com/auth0/go-jwt-middleware/v2/validator"
	auth0v3 "github.com/auth0/go-jwt-middleware/v3"
	validatorv3 "github.com/auth0/go-jwt-middleware/v3/validator"
	"github.com/gin-gonic/gin"
	chijwt "github.com/go-chi/jwtauth/v5"
	"github.com/golang-jwt/jwt/v5"
	echojwt "github.com/labstack/echo-jwt/v5"
	jwxjwt "github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

const (
	issuer   = "https://issuer.example/"
	audience = "https://notes.example"
)

// A token is a good one with the keys that belong to it.
type token struct {
	method jwt.SigningMethod
	text   string
	// sign and verify are both the secret of an HMAC.
	sign, verify any
}

func sign(method jwt.SigningMethod, private, public any) token {
	t := jwt.NewWithClaims(method, jwt.MapClaims{
		"iss": issuer, "aud": audience, "sub": "ada", "jti": "3f6c1a5e-8a54-4f0e-9c35-0d6b1f0c9a11", "scope": "notes:read notes:write",
		"iat": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), "exp": time.Date(2126, 1, 1, 0, 0, 0, 0, time.UTC).Unix(),
	})
	t.Header["kid"] = "1"
	return token{method: method, text: must(t.SignedString(private)), sign: private, verify: public}
}

// signedTokens makes its keys once for all.
var signedTokens = map[string]func() token{
	"HS256": sync.OnceValue(func() token {
		secret := []byte(strings.Repeat("secret of tests ", 2))
		return sign(jwt.SigningMethodHS256, secret, secret)
	}),
	"RS256": sync.OnceValue(func() token { return pair(jwt.SigningMethodRS256, must(rsa.GenerateKey(rand.Reader, 2048))) }),
	"ES256": sync.OnceValue(func() token {
		return pair(jwt.SigningMethodES256, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))
	}),
	"EdDSA": sync.OnceValue(func() token {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return pair(jwt.SigningMethodEdDSA, must(private, err))
	}),
}

func pair(method jwt.SigningMethod, private crypto.Signer) token {
	return sign(method, private, private.Public())
}

// verified are handlers that let only bearers of t pass.
var verified = map[string]func(t token) http.Handler{
	"bare":           func(token) http.Handler { return http.HandlerFunc(nothing) },
	"echo-bare":      func(token) http.Handler { return echoWith() },
	"gin-bare":       func(token) http.Handler { return ginWith() },
	"usher":          func(t token) http.Handler { return usherVerified(t, 0) },
	"usher-uncached": func(t token) http.Handler { return usherVerified(t, -1) },
	"echo-jwt": func(t token) http.Handler {
		return echoWith(echojwt.WithConfig(echojwt.Config{SigningKey: t.verify, SigningMethod: t.method.Alg()}))
	},
	"gin-jwt": func(t token) http.Handler {
		m := must(ginjwt.New(&ginjwt.GinJWTMiddleware{
			Realm: "notes", SigningAlgorithm: t.method.Alg(), IdentityKey: "sub",
			KeyFunc: func(got *jwt.Token) (any, error) {
				if got.Method != t.method {
					return nil, ginjwt.ErrInvalidSigningAlgorithm
				}
				return t.verify, nil
			},
		}))
		return ginWith(m.MiddlewareFunc())
	},
	"auth0-v2": func(t token) http.Handler {
		v := must(validatorv2.New(func(context.Context) (any, error) { return t.verify, nil },
			validatorv2.SignatureAlgorithm(t.method.Alg()), issuer, []string{audience}))
		return auth0v2.New(v.ValidateToken).CheckJWT(http.HandlerFunc(nothing))
	},
	"auth0-v3": func(t token) http.Handler {
		v := must(validatorv3.New(
			validatorv3.WithKeyFunc(func(context.Context) (any, error) { return t.verify, nil }),
			validatorv3.WithAlgorithm(validatorv3.SignatureAlgorithm(t.method.Alg())),
			validatorv3.WithIssuer(issuer), validatorv3.WithAudience(audience),
		))
		return must(auth0v3.New(auth0v3.WithValidator(v))).CheckJWT(http.HandlerFunc(nothing))
	},
	"chi-jwtauth": func(t token) http.Handler {
		tokens := chijwt.New(t.method.Alg(), t.sign, t.verify, jwxjwt.WithIssuer(issuer), jwxjwt.WithAudience(audience))
		return chijwt.Verifier(tokens)(chijwt.Authenticator(tokens)(http.HandlerFunc(nothing)))
	},
}

func usherVerified(t token, capacity int) http.Handler {
	c := jwk.KeyConfig{ID: "1", Algorithm: jwk.Algorithm(t.method.Alg())}
	if secret, ok := t.verify.([]byte); ok {
		c.Secret = secret
	} else {
		c.Material = t.verify
	}
	return usher.Authenticate(must(jwtauth.New(jwtauth.Config{
		CacheCapacity: capacity,
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer: issuer, Audiences: []string{audience},
			Algorithms: []jwk.Algorithm{c.Algorithm}, Keys: jwk.Static{must(jwk.New(c))},
		}},
	}))).Wrap(http.HandlerFunc(nothing))
}

func ginWith(m ...gin.HandlerFunc) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.GET("/", append(m, func(*gin.Context) {})...)
	return e
}

func verifiedAll(algorithm string) map[string]contestant {
	all := map[string]contestant{"raw": func(testing.TB) subject { return raw(signedTokens[algorithm]()) }}
	for name, make := range verified {
		all[name] = func(testing.TB) subject {
			t := signedTokens[algorithm]()
			c := call{handler: make(t), request: bearing(t.text), want: http.StatusOK}
			if !strings.HasSuffix(name, "bare") {
				c.look = func(*httptest.ResponseRecorder) error { return refuses(c.handler, bearing(forged(t.text))) }
			}
			return c.subject()
		}
	}
	return all
}

func bearing(text string) *http.Request {
	r := get()
	r.Header.Set("Authorization", "Bearer "+text)
	return r
}

// forged is the token with another signature.
func forged(text string) string {
	signature := text[strings.LastIndexByte(text, '.')+1:]
	first := "A"
	if signature[0] == 'A' {
		first = "B"
	}
	return strings.TrimSuffix(text, signature) + first + signature[1:]
}

// raw is the check of the signature alone.
func raw(t token) subject {
	i := strings.LastIndexByte(t.text, '.')
	text, signature := t.text[:i], must(base64.RawURLEncoding.DecodeString(t.text[i+1:]))
	var err error
	return subject{
		run: func() { err = t.method.Verify(text, signature, t.verify) },
		check: func() error {
			if t.method.Verify(text+"x", signature, t.verify) == nil {
				return errors.New("another text is verified")
			}
			return t.method.Verify(text, signature, t.verify)
		},
		after: func() error { return err },
	}
}

var tokenWorks = suite{
	"JWT/HS256": verifiedAll("HS256"),
	"JWT/RS256": verifiedAll("RS256"),
	"JWT/ES256": verifiedAll("ES256"),
	"JWT/EdDSA": verifiedAll("EdDSA"),
}
