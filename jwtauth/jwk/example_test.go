package jwk_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/usher-go/usher/jwtauth/jwk"
)

// The public key of an issuer, as it publishes it.
func Example() {
	key, err := jwk.New(jwk.KeyConfig{JWK: []byte(`{
		"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "2026",
		"x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	}`)})
	if err != nil {
		panic(err)
	}
	keys := jwk.Static{key}
	fmt.Println(keys[0], keys[0].CanSign())
	// Output: key "2026" (EdDSA) false
}

// A key pair whose public half is published.
func ExampleGenerate() {
	key, err := jwk.Generate(jwk.ES256)
	if err != nil {
		panic(err)
	}
	public, err := json.Marshal(key)
	if err != nil {
		panic(err)
	}
	published, err := jwk.New(jwk.KeyConfig{JWK: public})
	if err != nil {
		panic(err)
	}
	fmt.Println(key.CanSign(), published.CanSign(), published.ID() == key.ID())
	// Output: true false true
}

// A password is not a secret for HMAC, and the public key of RS256 is not one either:
// anybody who knows it could sign. Both are refused.
func ExampleNew_incorrect() {
	_, err := jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: []byte("correct horse")})
	fmt.Println(err)
	_, err = jwk.New(jwk.KeyConfig{Algorithm: jwk.HS256, Secret: []byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----")})
	fmt.Println(err)
	// Output:
	// jwk.KeyConfig.Secret: a secret must have at least 32 bytes for this algorithm
	// jwk.KeyConfig.Secret: is PEM and not a secret
}

// serveIssuer serves the metadata and the keys of issuers, one for each path.
func serveIssuer(key *jwk.Key) *httptest.Server {
	var server *httptest.Server
	server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, ok := strings.CutSuffix(r.URL.Path, "/.well-known/openid-configuration"); ok {
			name = server.URL + name
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": name, "jwks_uri": name + "/keys"})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []*jwk.Key{key}})
	}))
	return server
}

// The keys are found by the name of the issuer, which is the iss of its tokens.
func ExampleRemote() {
	key := must(jwk.Generate(jwk.ES256))
	server := serveIssuer(key)
	defer server.Close()

	keys, err := jwk.NewRemote(jwk.RemoteConfig{Issuer: server.URL, Client: server.Client()})
	if err != nil {
		panic(err)
	}
	defer func() { _ = keys.Close() }()
	found, _, err := keys.Find(context.Background(), key.ID(), jwk.ES256) // jwtauth.Config.Keys, in a real service
	fmt.Println(len(found), err)
	// Output: 1 <nil>
}

// The mistake is a slash at the end of the name of the issuer. Metadata is trusted only if
// it names exactly the issuer that was asked for. The keys are then unavailable, and the
// error has both names.
func ExampleRemote_incorrect() {
	server := serveIssuer(must(jwk.Generate(jwk.ES256)))
	defer server.Close()

	keys, err := jwk.NewRemote(jwk.RemoteConfig{
		Issuer:  server.URL + "/", // want no slash at the end
		Client:  server.Client(),
		OnError: func(context.Context, error) {}, // to a log, in a real service
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = keys.Close() }()
	_, _, err = keys.Find(context.Background(), "any", jwk.ES256)
	fmt.Println(strings.ReplaceAll(err.Error(), server.URL, "https://issuer.example"))
	// Output: jwk: fetching keys: the metadata is that of the issuer "https://issuer.example" and not of "https://issuer.example/"
}

// Each tenant is an issuer that publishes keys of its own. The ResolveIssuer of a
// jwtauth.Config returns them for the issuers of customers. Making a set costs nothing, and
// nothing is fetched before a token needs it.
func ExamplePool() {
	key := must(jwk.Generate(jwk.ES256))
	server := serveIssuer(key)
	defer server.Close()

	pool, err := jwk.NewPool(jwk.PoolConfig{Remote: jwk.RemoteConfig{Client: server.Client()}})
	if err != nil {
		panic(err)
	}
	defer func() { _ = pool.Close() }()
	for _, tenant := range []string{"/acme", "/globex"} {
		keys := pool.Issuer(server.URL + tenant) // from a list, and never the iss of a token
		found, _, err := keys.Find(context.Background(), key.ID(), jwk.ES256)
		fmt.Println(tenant, len(found), err)
	}
	// Output:
	// /acme 1 <nil>
	// /globex 1 <nil>
}
