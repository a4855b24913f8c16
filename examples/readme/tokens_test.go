package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// authenticateTokens has the lines that the README shows.
func authenticateTokens() (*jwk.Remote, usher.Middleware) {
	keys := usher.Must(jwk.NewRemote(jwk.RemoteConfig{Issuer: "https://login.example"}))
	tokens := usher.Must(jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
		Issuer: "https://login.example", Audiences: []string{"https://api.example"},
		Algorithms: []jwk.Algorithm{jwk.ES256}, Keys: keys,
	}}}))
	auth := usher.Authenticate(tokens)
	return keys, auth
}

func TestTheREADMEShowsHowTokensAreVerified(t *testing.T) {
	source, err := os.ReadFile("tokens_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(source), "usher.Middleware) {\n")
	body, _, _ = strings.Cut(body, "\treturn keys")
	want := strings.ReplaceAll("\n"+body, "\n\t", "\n")
	if got := "\nkeys := " + block(t, "```go\nkeys := "); got != want {
		t.Errorf("README.md shows%s\nthe test has%s", got, want)
	}
}

// An issuerTransport responds as https://login.example.
type issuerTransport struct{ keys []byte }

func (i issuerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	body := i.keys
	if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
		body = []byte(`{"issuer":"https://login.example","jwks_uri":"https://login.example/keys"}`)
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
}

func TestTheTokensOfTheREADMEAreVerified(t *testing.T) {
	private := usher.Must(jwk.Generate(jwk.ES256))
	public := usher.Must(json.Marshal(map[string]any{"keys": []*jwk.Key{private}}))
	transport := http.DefaultTransport
	http.DefaultTransport = issuerTransport{public}
	t.Cleanup(func() { http.DefaultTransport = transport })
	keys, auth := authenticateTokens()
	t.Cleanup(func() { _ = keys.Close() })
	h := auth.Wrap(http.FileServer(http.Dir(".")))
	encode := base64.RawURLEncoding.EncodeToString

	for issuer, want := range map[string]int{"https://login.example": 200, "https://login.example/": 401} {
		header := usher.Must(json.Marshal(map[string]any{"alg": private.Algorithm(), "kid": private.ID()}))
		claims := usher.Must(json.Marshal(map[string]any{
			"iss": issuer, "aud": "https://api.example", "sub": "ann", "exp": time.Now().Add(time.Minute).Unix(),
		}))
		text := encode(header) + "." + encode(claims)
		text += "." + encode(usher.Must(private.Sign(text)))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+text)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("a token of %s: %d, want %d", issuer, w.Code, want)
		}
	}
}
