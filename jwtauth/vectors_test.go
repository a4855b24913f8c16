package jwtauth_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// A vector is a token that another implementation has made; see the generators
// in testdata.
type vector struct {
	Algorithm jwk.Algorithm `json:"alg"`
	Key       string        `json:"key"`
	Token     string        `json:"token"`
}

func (v vector) key(tb testing.TB) *jwk.Key {
	tb.Helper()
	switch {
	case strings.HasPrefix(v.Key, "{"):
		return mustKey(tb, jwk.KeyConfig{JWK: []byte(v.Key)})
	case strings.HasPrefix(v.Key, "-----"):
		return mustKey(tb, jwk.KeyConfig{Algorithm: v.Algorithm, PEM: []byte(v.Key)})
	default:
		return mustKey(tb, jwk.KeyConfig{Algorithm: v.Algorithm, Secret: must(base64.RawURLEncoding.DecodeString(v.Key))})
	}
}

func (v vector) verifier(tb testing.TB, key *jwk.Key) *jwtauth.Verifier {
	tb.Helper()
	return mustVerifier(tb, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
		Issuer:     issuer,
		Audiences:  []string{audience},
		Algorithms: []jwk.Algorithm{v.Algorithm},
		Keys:       jwk.Static{key},
	}}})
}

func vectors(tb testing.TB, file string) (list []vector) {
	tb.Helper()
	if err := json.Unmarshal(must(os.ReadFile("testdata/"+file)), &list); err != nil {
		tb.Fatal(err)
	}
	return list
}

func TestTokensOfOtherImplementationsVerify(t *testing.T) {
	for _, file := range []string{"node.json", "python.json"} {
		list := vectors(t, file)
		if len(list) != len(everyAlgorithm) {
			t.Fatalf("%s has %d vectors", file, len(list))
		}
		for i, v := range list {
			t.Run(file+"/"+string(v.Algorithm), func(t *testing.T) {
				if !slices.Contains(everyAlgorithm, v.Algorithm) {
					t.Fatal("the name occurs twice, or is unknown")
				}
				p, err := v.verifier(t, v.key(t)).Authenticate(request(t, v.Token))
				if err != nil {
					t.Fatal(err)
				}
				if p.ID != issuer+"|ann" || !p.HasScopes("read", "write") {
					t.Errorf("%+v", p)
				}
				end := len(v.Token) - 10
				changed := v.Token[:end] + string(flip(v.Token[end])) + v.Token[end+1:]
				want(t, v.verifier(t, v.key(t)), changed, jwtauth.BadSignature)

				// The same token, verified with another key of the same kind.
				other := vectors(t, map[string]string{"node.json": "python.json", "python.json": "node.json"}[file])[i]
				want(t, v.verifier(t, other.key(t)), v.Token, jwtauth.BadSignature)
			})
		}
	}
}

// flip returns another character of base64url.
func flip(c byte) byte {
	if c == 'A' {
		return 'B'
	}
	return 'A'
}

// The examples of the standards. Their payloads are not claims that this package accepts,
// so only the signatures are verified.
func TestExamplesOfTheStandardsVerify(t *testing.T) {
	const joe = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	for name, v := range map[string]vector{
		"RFC 7515, A.1": {
			jwk.HS256,
			`{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}`,
			"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + joe + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
		},
		"RFC 7515, A.2": {
			jwk.RS256,
			`{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`,
			"eyJhbGciOiJSUzI1NiJ9." + joe + ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
		},
		"RFC 7515, A.3": {
			jwk.ES256,
			`{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`,
			"eyJhbGciOiJFUzI1NiJ9." + joe + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
		},
		"RFC 8037, A.4": {
			jwk.EdDSA,
			`{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
			"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := mustKey(t, jwk.KeyConfig{Algorithm: v.Algorithm, JWK: []byte(v.Key)})
			last := strings.LastIndexByte(v.Token, '.')
			signature := must(base64.RawURLEncoding.DecodeString(v.Token[last+1:]))
			if err := k.Verify(v.Token[:last], signature); err != nil {
				t.Error(err)
			}
			if err := k.Verify(v.Token[:last]+"x", signature); err == nil {
				t.Error("another text has the same signature")
			}
		})
	}
}
