package stacks

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher/apikey"
)

// A Credential is what callers identify themselves with.
type Credential string

// The credentials.
const (
	// Key is an API key in X-API-Key.
	Key Credential = "key"
	// JWT is an HS256 access token in Authorization.
	JWT Credential = "jwt"
)

// A Work is a request that is sent again and again.
type Work struct {
	// Name is for reports: get-key, get-jwt or post-key.
	Name string
	// Credential is the one that the request carries.
	Credential Credential
	// Method and Path are those of the request.
	Method, Path string
	// Body is sent with each request; nil means none.
	Body []byte
	// Status is that of the expected response.
	Status int
}

// Works returns the requests that are measured. Those with a body carry an
// idempotency key, a new one each time.
func Works() []Work {
	body := []byte(`{"title":"` + strings.Repeat("a", 88) + `"}`) // 100 bytes
	return []Work{
		{Name: "get-key", Credential: Key, Method: http.MethodGet, Path: "/notes", Status: http.StatusOK},
		{Name: "get-jwt", Credential: JWT, Method: http.MethodGet, Path: "/notes", Status: http.StatusOK},
		{Name: "post-key", Credential: Key, Method: http.MethodPost, Path: "/notes", Body: body, Status: http.StatusCreated},
	}
}

// Header returns the fields of a request but the idempotency key. Each call
// returns a new one.
func (k Work) Header() http.Header {
	h := make(http.Header, 3)
	switch k.Credential {
	case Key:
		h["X-Api-Key"] = []string{keyText()}
	case JWT:
		h["Authorization"] = []string{"Bearer " + tokenText()}
	}
	if k.Body != nil {
		h["Content-Type"] = []string{"application/json"}
	}
	return h
}

// IdempotencyKey returns the idempotency key of the nth request of a run, or ""
// if requests of this kind have none. Runs against one server must differ.
func (k Work) IdempotencyKey(run string, n int) string {
	if k.Body == nil {
		return ""
	}
	return run + "-" + strconv.Itoa(n)
}

// NewRequest returns the nth request of a run, ready to be served: it is the
// request of a server, with a RemoteAddr.
func (k Work) NewRequest(run string, n int) *http.Request {
	body := io.Reader(http.NoBody)
	if k.Body != nil {
		body = bytes.NewReader(k.Body)
	}
	// Method and path are constants, so there is nothing to fail.
	r, _ := http.NewRequest(k.Method, k.Path, body) //nolint:noctx // The request of a server, which a client would not send.
	r.Header = k.Header()
	if key := k.IdempotencyKey(run, n); key != "" {
		r.Header["Idempotency-Key"] = []string{key}
	}
	r.Host, r.RequestURI, r.RemoteAddr = "127.0.0.1", k.Path, "127.0.0.1:40000"
	return r
}

const (
	owner    = "ada"
	issuer   = "https://issuer.example"
	audience = "https://notes.example"
)

var (
	format = apikey.Native{Prefix: "notes", Environments: []string{"live"}}

	// keyText is the one API key: not random, so that server and client, which are
	// processes of their own, have the same.
	keyText = sync.OnceValue(func() string {
		return must(format.Generate(rand.NewChaCha8([32]byte{1}), "live"))
	})
	tokenSecret = []byte(strings.Repeat("secret of tests ", 2))
	tokenText   = sync.OnceValue(func() string {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"iss": issuer, "aud": audience, "sub": owner, "jti": "3f6c1a5e-8a54-4f0e-9c35-0d6b1f0c9a11", "scope": "notes:read notes:write",
			"iat": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Unix(),
			"exp": time.Date(2126, 1, 1, 0, 0, 0, 0, time.UTC).Unix(),
		})
		token.Header["kid"] = "1"
		return must(token.SignedString(tokenSecret))
	})
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // A constant that cannot be used is a fault of this file.
	}
	return v
}
