package peers_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

// object is a JSON object.
type object = map[string]any

// keyPair is both halves of a JSON Web Key that a script has generated.
type keyPair struct{ Public, Private object }

// joseIssuer is the issuer of tokens that jose signs.
const joseIssuer = "https://login.example"

// claims returns those of a token for the API that is valid for an hour.
func claims() object {
	now := time.Now().Unix()
	return object{"iss": joseIssuer, "aud": audience, "sub": "alice", "iat": now, "exp": now + 3600, "scope": "orders:read"}
}

// publish serves a key set and returns its URL.
func publish(t *testing.T, keys ...object) string {
	t.Helper()
	return "http://" + serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(object{"keys": keys})
	}))
}

// with returns a copy of an object with these members as well.
func with(o, members object) object {
	o = maps.Clone(o)
	maps.Copy(o, members)
	return o
}

// Every algorithm, with and without kid and alg in the key set.
func TestTokensOfJoseAreAccepted(t *testing.T) {
	jose := runScript(t, "jose.js")
	for _, a := range asymmetric {
		var pair keyPair
		jose.call(t, "generate", object{"alg": a}, &pair)
		sign := func(header object) (token string) {
			jose.call(t, "sign", object{"key": pair.Private, "header": header, "claims": claims()}, &token)
			return token
		}
		shapes := map[string]struct{ key, header object }{
			"kid and alg": {object{"kid": "1", "alg": a, "use": "sig"}, object{"alg": a, "kid": "1"}},
			"no alg":      {object{"kid": "1"}, object{"alg": a, "kid": "1"}},
			"no kid":      {object{"alg": a}, object{"alg": a, "typ": "JWT"}},
			"neither":     {nil, object{"alg": a}},
			"key_ops":     {object{"key_ops": []string{"verify"}}, object{"alg": a}},
		}
		for name, shape := range shapes {
			t.Run(string(a)+"/"+name, func(t *testing.T) {
				trusted := jwtauth.TrustedIssuer{
					Issuer: joseIssuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{a},
					Keys: remote(t, jwk.RemoteConfig{URL: publish(t, with(pair.Public, shape.key))}),
				}
				api := serveAPI(t, verifier(t, trusted))
				status, c := get(t, api, sign(shape.header))
				if status != http.StatusOK || c.ID != joseIssuer+"|alice" || len(c.Scopes) != 1 || c.Scopes[0] != "orders:read" {
					t.Errorf("%d %+v", status, c)
				}
				if b := other(a); b != "" {
					if status, _ := get(t, api, sign(with(shape.header, object{"alg": b}))); status != http.StatusUnauthorized {
						t.Errorf("%s with a key for %s: %d", b, a, status)
					}
				}
			})
		}
	}
}

// A key without alg is for the first algorithm of the issuer that suits it, and for no
// other one.
func TestAKeyOfJoseWithoutAlgIsForOneAlgorithm(t *testing.T) {
	jose := runScript(t, "jose.js")
	var pair keyPair
	jose.call(t, "generate", object{"alg": jwk.RS256}, &pair)
	url := publish(t, pair.Public)
	for _, tt := range []struct{ algorithms, accepted []jwk.Algorithm }{
		{[]jwk.Algorithm{jwk.PS384, jwk.RS256}, []jwk.Algorithm{jwk.PS384}},
		{[]jwk.Algorithm{jwk.ES256, jwk.RS512, jwk.RS256}, []jwk.Algorithm{jwk.RS512}},
	} {
		api := serveAPI(t, verifier(t, jwtauth.TrustedIssuer{
			Issuer: joseIssuer, Audiences: []string{audience}, Algorithms: tt.algorithms, Keys: remote(t, jwk.RemoteConfig{URL: url}),
		}))
		for _, a := range asymmetric[:6] {
			var token string
			jose.call(t, "sign", object{"key": pair.Private, "header": object{"alg": a}, "claims": claims()}, &token)
			want := http.StatusUnauthorized
			if a == tt.accepted[0] {
				want = http.StatusOK
			}
			if status, _ := get(t, api, token); status != want {
				t.Errorf("%v: a token signed with %s: %d, want %d", tt.algorithms, a, status, want)
			}
		}
	}
}

// jose has one name for Ed25519 in the key and another one in the token.
func TestTheNamesOfEd25519AreOne(t *testing.T) {
	names := []jwk.Algorithm{jwk.EdDSA, jwk.Ed25519}
	jose := runScript(t, "jose.js")
	var pair keyPair
	jose.call(t, "generate", object{"alg": jwk.Ed25519}, &pair)
	for _, inKey := range names {
		keys := remote(t, jwk.RemoteConfig{URL: publish(t, with(pair.Public, object{"alg": inKey}))})
		for _, listed := range names {
			api := serveAPI(t, verifier(t, jwtauth.TrustedIssuer{
				Issuer: joseIssuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{listed}, Keys: keys,
			}))
			for _, inToken := range names {
				key := with(pair.Private, object{"alg": inToken})
				var token string
				jose.call(t, "sign", object{"key": key, "header": object{"alg": inToken}, "claims": claims()}, &token)
				if status, _ := get(t, api, token); status != http.StatusOK {
					t.Errorf("%s in the key, %s in the list, %s in the token: %d", inKey, listed, inToken, status)
				}
			}
		}
	}
}

func TestSecretsOfJoseAreRead(t *testing.T) {
	jose := runScript(t, "jose.js")
	for _, a := range []jwk.Algorithm{jwk.HS256, jwk.HS384, jwk.HS512} {
		var secret object
		jose.call(t, "generateSecret", object{"alg": a}, &secret)
		text, err := json.Marshal(secret)
		if err != nil {
			t.Fatal(err)
		}
		key, err := jwk.New(jwk.KeyConfig{JWK: text, Algorithm: a})
		if err != nil {
			t.Fatal(err)
		}
		api := serveAPI(t, verifier(t, jwtauth.TrustedIssuer{
			Issuer: joseIssuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{a}, Keys: jwk.Static{key},
		}))
		var token string
		jose.call(t, "sign", object{"key": secret, "header": object{"alg": a}, "claims": claims()}, &token)
		if status, _ := get(t, api, token); status != http.StatusOK {
			t.Errorf("%s: %d", a, status)
		}
		text, err = json.Marshal(with(secret, object{"kid": "1"}))
		if err != nil {
			t.Fatal(err)
		}
		if key, err = jwk.New(jwk.KeyConfig{JWK: text, Algorithm: a}); err != nil {
			t.Fatal(err)
		}
		manager := sessions(t, session.Config{Keys: []session.SigningKey{{Key: key}}})
		verify := object{"token": login(t, manager).AccessToken(), "key": secret, "options": sessionOptions(a)}
		jose.call(t, "verify", verify, nil)
	}
}

// Keys as PEM, in both directions of each half.
func TestKeysOfJoseInPEMAreRead(t *testing.T) {
	jose := runScript(t, "jose.js")
	for _, a := range asymmetric {
		var pem struct{ Public, Private string }
		jose.call(t, "generatePEM", object{"alg": a}, &pem)
		private, err := jwk.New(jwk.KeyConfig{PEM: []byte(pem.Private), Algorithm: a})
		if err != nil {
			t.Errorf("%s: %v", a, err)
			continue
		}
		public, err := jwk.New(jwk.KeyConfig{PEM: []byte(pem.Public), Algorithm: a})
		if err != nil {
			t.Errorf("%s: %v", a, err)
			continue
		}
		signature, err := private.Sign("text")
		if err != nil {
			t.Fatal(err)
		}
		if err := public.Verify("text", signature); err != nil || public.CanSign() || !private.CanSign() {
			t.Errorf("%s: %v, %t %t", a, err, public.CanSign(), private.CanSign())
		}
	}
}

// sessionOptions are what jose verifies about an access token of a session.
func sessionOptions(a jwk.Algorithm) object {
	return object{
		"algorithms": []jwk.Algorithm{a}, "issuer": sessionIssuer, "audience": audience, "typ": "session+jwt",
		"requiredClaims": []string{"sub", "iat", "exp", "jti", "sid"},
	}
}

// Of each Manager jose reads the key set and the tokens, and of each key the JSON.
func TestJoseAcceptsTokensOfSessions(t *testing.T) {
	jose := runScript(t, "jose.js")
	for _, a := range asymmetric {
		key := newKey(t, a)
		manager := sessions(t, session.Config{Keys: []session.SigningKey{
			{Key: key}, {Key: newKey(t, jwk.ES256), From: time.Now().Add(time.Hour)},
		}})
		token := login(t, manager).AccessToken()
		url := "http://" + serve(t, http.HandlerFunc(manager.ServeJWKS))
		for from, verify := range map[string]object{
			"key set":         {"token": token, "url": url, "options": sessionOptions(a)},
			"JSON of the key": {"token": token, "key": key, "options": sessionOptions(a)},
		} {
			var verified struct{ Claims, Header object }
			jose.call(t, "verify", verify, &verified)
			if verified.Claims["sub"] != "alice" || verified.Claims["scope"] != "orders:read" || verified.Header["kid"] != key.ID() {
				t.Errorf("%s, %s: %v", a, from, verified)
			}
			wrong := with(verify, object{"options": with(sessionOptions(a), object{"audience": "https://other.example"})})
			var thrown *scriptError
			if err := jose.try(t, "verify", wrong, nil); !errors.As(err, &thrown) || thrown.Code != "ERR_JWT_CLAIM_VALIDATION_FAILED" {
				t.Errorf("%s, %s: another audience: %v", a, from, err)
			}
			wrong = with(verify, object{"token": login(t, sessions(t, session.Config{Keys: []session.SigningKey{{Key: newKey(t, jwk.ES384)}}})).AccessToken()})
			if err := jose.try(t, "verify", wrong, nil); !errors.As(err, &thrown) {
				t.Errorf("%s, %s: a token of another Manager: %v", a, from, err)
			}
		}
	}
}
