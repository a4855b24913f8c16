package contract

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
	"github.com/usher-go/usher/internal/race"
)

func withTokens(c *settings) {
	c.authenticate = func(s *target) []usher.Authenticator { return []usher.Authenticator{s.tokens, s.auth} }
}

// issuedClaims are the claims of a good token, with some changed.
func issuedClaims(change map[string]any) string {
	now := time.Now().Unix()
	return claims(with(map[string]any{"iss": targetIssuer, "aud": targetAudience, "sub": "ada", "iat": now, "exp": now + 3600}, change))
}

// headed returns the header line that presents a token which is good but for its
// header.
func headed(header string) string { return bearer(token(header, issuedClaims(nil), rs256(keys().rsa))) }

// issued returns the header line that presents a token which is good but for
// these claims.
func issued(change map[string]any) string {
	return bearer(token(`{"alg":"RS256"}`, issuedClaims(change), rs256(keys().rsa)))
}

// alike checks that each of these lines is refused with the answer to a token
// that is none.
func (s *target) alike(c *client, lines ...string) {
	c.tb.Helper()
	first := c.get("/notes", "Authorization: Bearer bad")
	s.refused(first)
	for _, line := range lines {
		a := c.get("/notes", line)
		s.refused(a)
		a.same(first)
	}
	// Else nothing would have been shown.
	c.get("/notes", issued(nil)).status(200)
	s.served.Store(0)
}

var tokens = []attack{
	{"J01 a token without an algorithm, or with another than its issuer's, is 401", nil, withTokens, func(c *client, s *target) {
		unsigned := func([]byte) []byte { return nil }
		for _, alg := range []string{
			`"alg":"none"`, `"alg":"None"`, `"alg":"nOnE"`, `"alg":""`, `"alg":7`, `"alg":["RS256"]`, `"alg":null`, `"typ":"JWT"`,
			`"alg":"HS256"`, `"alg":"RS512"`, `"alg":"rs256"`, `"alg":"RS256 "`, `"alg":"none","alg":"RS256"`, `"ALG":"RS256"`,
		} {
			header := "{" + alg + "}"
			s.alike(c, headed(header), bearer(token(header, issuedClaims(nil), unsigned)))
		}
	}},
	{"J02 a public key is no secret", nil, withTokens, func(c *client, s *target) {
		k := keys()
		ec := must(x509.MarshalPKIXPublicKey(k.ec.Public()))
		pkix := must(x509.MarshalPKIXPublicKey(k.rsa.Public()))
		pkcs1 := x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey)
		for _, secret := range [][]byte{
			ec, pkix, pkcs1, k.rsa.N.Bytes(),
			pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: ec}),
			pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix}),
			pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}),
		} {
			s.alike(c,
				bearer(token(`{"alg":"HS256"}`, issuedClaims(nil), hs256(secret))),
				bearer(token(`{"alg":"RS256"}`, issuedClaims(nil), hs256(secret))),
				bearer(token(`{"alg":"HS256","kid":"1","typ":"session+jwt"}`, issuedClaims(map[string]any{
					"iss": targetSessions, "jti": "1", "sid": "1",
				}), hs256(secret))))
		}
	}},
	{"J03 misshapen tokens of 900 KB are 401, and cost what short ones cost", nil, withTokens, func(c *client, s *target) {
		long := strings.Repeat("A", 900_000)
		good := strings.TrimPrefix(issued(nil), "Authorization: Bearer ")
		misshapen := []string{strings.Repeat(".", 900_000), long, long + ".A.A", "A." + long + ".A", good[:strings.LastIndexByte(good, '.')+1] + long}
		for _, text := range append(misshapen, good+".A", good+".A.A", good[:strings.LastIndexByte(good, '.')], "..", ".", good+"."+good) {
			s.alike(c, bearer(text))
		}
		if race.Enabled {
			return
		}
		costs := func(text string) float64 {
			r := httptest.NewRequestWithContext(c.tb.Context(), http.MethodGet, "/notes", nil)
			r.Header["Authorization"] = []string{"Bearer " + text}
			return testing.AllocsPerRun(20, func() { s.handler.ServeHTTP(httptest.NewRecorder(), r) })
		}
		short := costs("A.A.A")
		for _, text := range misshapen {
			if n := costs(text); n > short+1 {
				c.tb.Errorf("%s costs %v allocations, a short one %v", cut(text), n, short)
			}
		}
	}},
	{"J04 encryption, compression, extensions and other serialisations are 401", nil, withTokens, func(c *client, s *target) {
		good := strings.TrimPrefix(issued(nil), "Authorization: Bearer ")
		part := strings.Split(good, ".")
		var deflated bytes.Buffer
		w := must(flate.NewWriter(&deflated, 9))
		_, err := w.Write([]byte(issuedClaims(nil)))
		must(w, err)
		_ = w.Close()
		s.alike(c,
			bearer(token(`{"alg":"RS256","zip":"DEF"}`, deflated.String(), rs256(keys().rsa))),
			headed(`{"alg":"RS256","zip":"DEF"}`),
			headed(`{"alg":"RS256","enc":"A128GCM"}`),
			headed(`{"alg":"RS256","b64":false}`), headed(`{"alg":"RS256","b64":false,"crit":["b64"]}`),
			headed(`{"alg":"RS256","crit":["exp"],"exp":1}`), headed(`{"alg":"RS256","crit":[]}`), headed(`{"alg":"RS256","crit":"x"}`),
			bearer(part[0]+".."+part[2]),
			bearer("eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkExMjhHQ00ifQ."+part[1]+".AAAA."+part[1]+".AAAA"),
			bearer(fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, part[0], part[1], part[2])),
			bearer(fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, part[1], part[0], part[2])),
			bearer(part[0]+"="+"."+part[1]+"."+part[2]),
			bearer(part[0]+"."+part[1]+"."+base64.StdEncoding.EncodeToString(must(base64.RawURLEncoding.DecodeString(part[2])))),
		)
	}},
	{"J05 a life that is over, has not begun, never ends or is no time is 401", nil, withTokens, func(c *client, s *target) {
		now := time.Now().Unix()
		for _, change := range []map[string]any{
			{"exp": nil}, {"exp": now - 60}, {"exp": 0}, {"exp": -1}, {"exp": fmt.Sprint(now + 60)}, {"exp": true}, {"exp": []int64{now + 60}},
			{"exp": 1e300}, {"nbf": now + 60}, {"nbf": "soon"}, {"iat": now + 60}, {"iat": map[string]any{}},
		} {
			s.alike(c, issued(change))
		}
	}},
	{"J07 an audience that is not ours to the letter is 401", nil, withTokens, func(c *client, s *target) {
		for _, aud := range []any{
			nil, "", []string{}, []string{""}, []any{[]string{targetAudience}}, 7, map[string]any{"0": targetAudience},
			targetAudience + "/", "https://api", "https://API.example", " " + targetAudience, []string{"https://other.example"}, targetIssuer,
		} {
			s.alike(c, issued(map[string]any{"aud": aud}))
		}
		c.get("/notes", issued(map[string]any{"aud": []string{"https://other.example", targetAudience}})).status(200)
	}},
	{"J14 tokens of another kind, audience or issuer are 401, and so is each in the place of the other", nil, withTokens, func(c *client, s *target) {
		t := s.login(c)
		s.alike(c,
			bearer(t.RefreshToken()),
			headed(`{"alg":"RS256","typ":"at+jwt"}`), headed(`{"alg":"RS256","typ":"session+jwt"}`), headed(`{"alg":"RS256","typ":"secevent+jwt"}`),
			issued(map[string]any{"iss": targetSessions}), issued(map[string]any{"iss": nil}), issued(map[string]any{"iss": targetIssuer + "/"}),
			issued(map[string]any{"iss": []string{targetIssuer}}))
		for _, text := range []string{t.AccessToken(), strings.TrimPrefix(issued(nil), "Authorization: Bearer ")} {
			c.post("/refresh", refresh(text)).env(401, "The refresh token is not valid.", "")
		}
		c.get("/notes", bearer(t.AccessToken())).status(200)
		c.post("/refresh", refresh(t.RefreshToken())).status(200)
	}},
}
