package hostile_test

import (
	"bytes"
	"compress/flate"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/examples/internal/contract"
	"github.com/usher-go/usher/examples/internal/tokentest"
	"github.com/usher-go/usher/internal/race"
)

func withTokens(c *settings) {
	c.authenticate = func(s *target) []usher.Authenticator { return []usher.Authenticator{s.tokens, s.auth} }
}

// issuedClaims are the claims of a good token, with some changed.
func issuedClaims(change map[string]any) string {
	now := time.Now().Unix()
	return tokentest.Claims(tokentest.With(map[string]any{"iss": targetIssuer, "aud": targetAudience, "sub": "ada", "iat": now, "exp": now + 3600}, change))
}

// headed returns the header line of a token that is valid except for its header.
func headed(header string) string {
	return contract.Bearer(tokentest.Sign(header, issuedClaims(nil), tokentest.RS256(tokentest.Keys().RSA)))
}

// issued returns the header line of a token that is valid except for these claims.
func issued(change map[string]any) string {
	return contract.Bearer(tokentest.Sign(`{"alg":"RS256"}`, issuedClaims(change), tokentest.RS256(tokentest.Keys().RSA)))
}

// refresh returns the body that carries a refresh token.
func refresh(text string) string { return `{"refresh_token":"` + text + `"}` }

// alike checks that each of these lines is refused with the response to a malformed
// token.
func (s *target) alike(c *contract.Client, lines ...string) {
	c.TB.Helper()
	first := c.Get("/notes", "Authorization: Bearer bad")
	s.refused(first)
	for _, line := range lines {
		a := c.Get("/notes", line)
		s.refused(a)
		a.Same(first)
	}
	// A valid token shows that nothing else was at fault.
	c.Get("/notes", issued(nil)).HasStatus(200)
	s.served.Store(0)
}

var tokens = []attack{
	{"J01 a token without an algorithm, or with another than its issuer's, is 401", nil, withTokens, func(c *contract.Client, s *target) {
		unsigned := func([]byte) []byte { return nil }
		for _, alg := range []string{
			`"alg":"none"`, `"alg":"None"`, `"alg":"nOnE"`, `"alg":""`, `"alg":7`, `"alg":["RS256"]`, `"alg":null`, `"typ":"JWT"`,
			`"alg":"HS256"`, `"alg":"RS512"`, `"alg":"rs256"`, `"alg":"RS256 "`, `"alg":"none","alg":"RS256"`, `"ALG":"RS256"`,
		} {
			header := "{" + alg + "}"
			s.alike(c, headed(header), contract.Bearer(tokentest.Sign(header, issuedClaims(nil), unsigned)))
		}
	}},
	{"J02 a public key is no secret", nil, withTokens, func(c *contract.Client, s *target) {
		k := tokentest.Keys()
		ec := usher.Must(x509.MarshalPKIXPublicKey(k.EC.Public()))
		pkix := usher.Must(x509.MarshalPKIXPublicKey(k.RSA.Public()))
		pkcs1 := x509.MarshalPKCS1PublicKey(&k.RSA.PublicKey)
		for _, secret := range [][]byte{
			ec, pkix, pkcs1, k.RSA.N.Bytes(),
			pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: ec}),
			pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix}),
			pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}),
		} {
			s.alike(c,
				contract.Bearer(tokentest.Sign(`{"alg":"HS256"}`, issuedClaims(nil), tokentest.HS256(secret))),
				contract.Bearer(tokentest.Sign(`{"alg":"RS256"}`, issuedClaims(nil), tokentest.HS256(secret))),
				contract.Bearer(tokentest.Sign(`{"alg":"HS256","kid":"1","typ":"session+jwt"}`, issuedClaims(map[string]any{
					"iss": targetSessions, "jti": "1", "sid": "1",
				}), tokentest.HS256(secret))))
		}
	}},
	{"J03 misshapen tokens of 900 KB are 401, and cost what short ones cost", nil, withTokens, func(c *contract.Client, s *target) {
		long := strings.Repeat("A", 900_000)
		good := strings.TrimPrefix(issued(nil), "Authorization: Bearer ")
		misshapen := []string{strings.Repeat(".", 900_000), long, long + ".A.A", "A." + long + ".A", good[:strings.LastIndexByte(good, '.')+1] + long}
		for _, text := range append(misshapen, good+".A", good+".A.A", good[:strings.LastIndexByte(good, '.')], "..", ".", good+"."+good) {
			s.alike(c, contract.Bearer(text))
		}
		if race.Enabled {
			return
		}
		costs := func(text string) float64 {
			r := httptest.NewRequestWithContext(c.TB.Context(), http.MethodGet, "/notes", nil)
			r.Header["Authorization"] = []string{"Bearer " + text}
			return testing.AllocsPerRun(20, func() { s.handler.ServeHTTP(httptest.NewRecorder(), r) })
		}
		short := costs("A.A.A")
		for _, text := range misshapen {
			if n := costs(text); n > short+1 {
				c.TB.Errorf("%s costs %v allocations, a short one %v", contract.Cut(text), n, short)
			}
		}
	}},
	{"J04 encryption, compression, extensions and other serialisations are 401", nil, withTokens, func(c *contract.Client, s *target) {
		good := strings.TrimPrefix(issued(nil), "Authorization: Bearer ")
		part := strings.Split(good, ".")
		var deflated bytes.Buffer
		w := usher.Must(flate.NewWriter(&deflated, 9))
		_, err := w.Write([]byte(issuedClaims(nil)))
		usher.Must(w, err)
		_ = w.Close()
		s.alike(c,
			contract.Bearer(tokentest.Sign(`{"alg":"RS256","zip":"DEF"}`, deflated.String(), tokentest.RS256(tokentest.Keys().RSA))),
			headed(`{"alg":"RS256","zip":"DEF"}`),
			headed(`{"alg":"RS256","enc":"A128GCM"}`),
			headed(`{"alg":"RS256","b64":false}`), headed(`{"alg":"RS256","b64":false,"crit":["b64"]}`),
			headed(`{"alg":"RS256","crit":["exp"],"exp":1}`), headed(`{"alg":"RS256","crit":[]}`), headed(`{"alg":"RS256","crit":"x"}`),
			contract.Bearer(part[0]+".."+part[2]),
			contract.Bearer("eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkExMjhHQ00ifQ."+part[1]+".AAAA."+part[1]+".AAAA"),
			contract.Bearer(fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, part[0], part[1], part[2])),
			contract.Bearer(fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, part[1], part[0], part[2])),
			contract.Bearer(part[0]+"="+"."+part[1]+"."+part[2]),
			contract.Bearer(part[0]+"."+part[1]+"."+base64.StdEncoding.EncodeToString(usher.Must(base64.RawURLEncoding.DecodeString(part[2])))),
		)
	}},
	{"J05 a lifetime that is over, has not begun, never ends or is not a time is 401", nil, withTokens, func(c *contract.Client, s *target) {
		now := time.Now().Unix()
		for _, change := range []map[string]any{
			{"exp": nil}, {"exp": now - 60}, {"exp": 0}, {"exp": -1}, {"exp": fmt.Sprint(now + 60)}, {"exp": true}, {"exp": []int64{now + 60}},
			{"exp": 1e300}, {"nbf": now + 60}, {"nbf": "soon"}, {"iat": now + 60}, {"iat": map[string]any{}},
		} {
			s.alike(c, issued(change))
		}
	}},
	{"J07 an audience that is not exactly ours is 401", nil, withTokens, func(c *contract.Client, s *target) {
		for _, aud := range []any{
			nil, "", []string{}, []string{""}, []any{[]string{targetAudience}}, 7, map[string]any{"0": targetAudience},
			targetAudience + "/", "https://api", "https://API.example", " " + targetAudience, []string{"https://other.example"}, targetIssuer,
		} {
			s.alike(c, issued(map[string]any{"aud": aud}))
		}
		c.Get("/notes", issued(map[string]any{"aud": []string{"https://other.example", targetAudience}})).HasStatus(200)
	}},
	{"J14 tokens of another kind, audience or issuer are 401, and so is each in the place of the other", nil, withTokens, func(c *contract.Client, s *target) {
		t := s.login(c)
		s.alike(c,
			contract.Bearer(t.RefreshToken()),
			headed(`{"alg":"RS256","typ":"at+jwt"}`), headed(`{"alg":"RS256","typ":"session+jwt"}`), headed(`{"alg":"RS256","typ":"secevent+jwt"}`),
			issued(map[string]any{"iss": targetSessions}), issued(map[string]any{"iss": nil}), issued(map[string]any{"iss": targetIssuer + "/"}),
			issued(map[string]any{"iss": []string{targetIssuer}}))
		for _, text := range []string{t.AccessToken(), strings.TrimPrefix(issued(nil), "Authorization: Bearer ")} {
			c.Post("/refresh", refresh(text)).Enveloped(401, "The refresh token is not valid.", "")
		}
		c.Get("/notes", contract.Bearer(t.AccessToken())).HasStatus(200)
		c.Post("/refresh", refresh(t.RefreshToken())).HasStatus(200)
	}},
}
