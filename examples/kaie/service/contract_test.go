package service

import (
	"crypto"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/examples/internal/contract"
	"github.com/usher-go/usher/examples/internal/tokentest"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// granted returns the header line that carries an access token of the
// authorization server, with some claims changed.
func granted(id, scope string, change map[string]any) string {
	now := time.Now().Unix()
	return contract.Bearer(tokentest.Sign(`{"alg":"ES256","typ":"at+jwt"}`, tokentest.Claims(tokentest.With(map[string]any{
		"iss": kaieAuthority, "aud": kaieAPI, "sub": "ada", "client_id": "app", "jti": id, "iat": now, "exp": now + 3600, "scope": scope,
	}, change)), tokentest.ES256(tokentest.Keys().Authority)))
}

// A customerServer signs its own tokens.
type customerServer struct {
	name, header string
	sign         tokentest.Signer
}

func customerServers() []customerServer {
	k := tokentest.Keys()
	return []customerServer{
		{"https://rsa.customer.example", `{"alg":"RS256","typ":"JWT"}`, tokentest.RS256(k.RSA)},
		{"https://ec.customer.example", `{"alg":"ES256"}`, tokentest.ES256(k.EC)},
		{"https://ed.customer.example", `{"alg":"EdDSA","typ":"JWT"}`, tokentest.EdDSA(k.Ed)},
	}
}

// token returns the header line of a token with some claims changed.
func (s customerServer) token(change map[string]any) string {
	now := time.Now().Unix()
	return contract.Bearer(tokentest.Sign(s.header, tokentest.Claims(tokentest.With(map[string]any{
		"iss": s.name, "aud": kaieAPI, "sub": "billing", "iat": now, "exp": now + 3600,
	}, change)), s.sign))
}

// key issues a key with a level and returns the header line that carries it.
func (s *Service) key(c *contract.Client, level usher.Level) (string, apikey.Key) {
	c.TB.Helper()
	k, secret, err := s.manager.Create(c.TB.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "ada", Name: "k", Level: level})
	if err != nil {
		c.TB.Fatal(err)
	}
	return "Authorization: Bearer " + secret.Reveal(), k
}

const (
	kaieInvalidKey = `{"error":{"code":"INVALID_API_KEY","message":"The API key is invalid or expired."}}`
	kaieBadToken   = `{"error":{"code":"INVALID_TOKEN","message":"The access token is invalid or expired."}}`
	kaieNoScope    = `{"error":{"code":"SCOPE_INSUFFICIENT","message":"The credential lacks a scope that is needed here."}}`
	kaieForbidden  = `{"error":{"code":"INSUFFICIENT_PERMISSIONS","message":"The credential does not permit this."}}`
)

func TestContract(t *testing.T) { contract.Run(t, start, rows) }

// start returns a service that accepts the tokens of three customers.
func start() *Service {
	k := tokentest.Keys()
	customer := func(issuer string, a jwk.Algorithm, public crypto.PublicKey) Customer {
		return Customer{issuer, a, tokentest.Trust(a, public)}
	}
	return New(Keys{
		Authority: tokentest.Trust(jwk.ES256, k.Authority.Public()),
		Customers: []Customer{
			customer("https://rsa.customer.example", jwk.RS256, k.RSA.Public()),
			customer("https://ec.customer.example", jwk.ES256, k.EC.Public()),
			customer("https://ed.customer.example", jwk.EdDSA, k.Ed.Public()),
		},
	})
}

var rows = []contract.Row[*Service]{
	{Name: "KE-01 a list has data and pagination", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, usher.LevelReadWrite)
		c.Get("/v1/workflows", key).Is(200, `{"data":[],"pagination":{"page":1,"limit":20,"total":0,"pages":0}}`)
		c.Post("/v1/workflows", `{"name":"a"}`, key).HasStatus(201)
		c.Get("/v1/workflows", key).Is(200,
			`{"data":[{"id":"w1","name":"a","created_at":"<time>"}],"pagination":{"page":1,"limit":20,"total":1,"pages":1}}`)
	}},
	{Name: "KE-02 no Authorization is MISSING_AUTHENTICATION", Test: func(c *contract.Client, _ *Service) {
		c.Get("/v1/workflows").Is(401, `{"error":{"code":"MISSING_AUTHENTICATION","message":"The request carries no credential."}}`).
			Has("WWW-Authenticate", "Bearer")
	}},
	{Name: "KE-03 unknown, revoked, expired and malformed keys are the same INVALID_API_KEY", Timed: true, Test: func(c *contract.Client, s *Service) {
		revoked, k := s.key(c, usher.LevelFull)
		if _, err := s.manager.Revoke(c.TB.Context(), apikey.Actor{System: true}, k.Owner, k.ID); err != nil {
			c.TB.Fatal(err)
		}
		_, expired, err := s.manager.Create(c.TB.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "ada", Name: "k", ExpiresAt: time.Now().Add(time.Minute)})
		if err != nil {
			c.TB.Fatal(err)
		}
		time.Sleep(time.Minute)
		unknown, err := apikey.Native{Prefix: "kaie"}.Generate(strings.NewReader(strings.Repeat("x", 1000)), "")
		if err != nil {
			c.TB.Fatal(err)
		}
		first := c.Get("/v1/workflows", "Authorization: Bearer "+unknown).Is(401, kaieInvalidKey).
			Has("WWW-Authenticate", `Bearer error="invalid_token"`)
		for _, bad := range []string{revoked, "Authorization: Bearer " + expired.Reveal(), "Authorization: Bearer kaie_x"} {
			c.Get("/v1/workflows", bad).Is(401, kaieInvalidKey).Same(first)
		}
	}},
	{Name: "KE-04 invalid and expired access tokens are the same INVALID_TOKEN (inferred: JWT)", Test: func(c *contract.Client, _ *Service) {
		c.Get("/v1/workflows", granted("1", canRead, nil)).HasStatus(200)
		now := time.Now().Unix()
		first := c.Get("/v1/workflows", granted("2", canRead, map[string]any{"iat": now - 7200, "exp": now - 3600})).Is(401, kaieBadToken).
			Has("WWW-Authenticate", `Bearer error="invalid_token"`)
		good := granted("3", canRead, nil)
		for _, bad := range []string{
			good[:len(good)-8] + "AAAAAAAA", good + ".", contract.Bearer("opaque"), contract.Bearer("a.b.c"),
			granted("4", canRead, map[string]any{"aud": "https://other.example"}),
			granted("5", canRead, map[string]any{"client_id": nil}),
		} {
			c.Get("/v1/workflows", bad).Is(401, kaieBadToken).Same(first)
		}
	}},
	{Name: "KE-05 each level permits what it is documented to", Test: func(c *contract.Client, s *Service) {
		none, _ := s.key(c, usher.LevelNone)
		read, _ := s.key(c, usher.LevelReadOnly)
		write, _ := s.key(c, usher.LevelReadWrite)
		full, _ := s.key(c, usher.LevelFull)
		c.Get("/v1/workflows", none).Is(403, kaieForbidden)
		c.Get("/v1/workflows", read).HasStatus(200)
		c.Post("/v1/workflows", `{"name":"a"}`, read).Is(403, kaieForbidden)
		c.Post("/v1/workflows", `{"name":"a"}`, write).HasStatus(201)
		c.Delete("/v1/workflows/w1", write).Is(403, kaieForbidden)
		c.Delete("/v1/workflows/w1", full).Is(200, `{"data":{"id":"w1"}}`)
	}},
	{Name: "KE-05 a key that is reduced is reduced at the next request", Test: func(c *contract.Client, s *Service) {
		key, k := s.key(c, usher.LevelReadWrite)
		c.Post("/v1/workflows", `{"name":"a"}`, key).HasStatus(201)
		if _, err := s.manager.Update(c.TB.Context(), apikey.Actor{System: true}, k.Owner, k.ID, func(k *apikey.Key) { k.Level = usher.LevelReadOnly }); err != nil {
			c.TB.Fatal(err)
		}
		c.Post("/v1/workflows", `{"name":"b"}`, key).Is(403, kaieForbidden)
	}},
	{Name: "KE-06 an access token without the scope is SCOPE_INSUFFICIENT", Test: func(c *contract.Client, _ *Service) {
		read, write := granted("1", canRead, nil), granted("2", canRead+" "+canWrite, nil)
		c.Get("/v1/workflows", read).HasStatus(200)
		c.Post("/v1/workflows", `{"name":"a"}`, read).Is(403, kaieNoScope).
			Has("WWW-Authenticate", `Bearer error="insufficient_scope", scope="workflows:write"`)
		c.Post("/v1/workflows", `{"name":"a"}`, write).HasStatus(201)
		c.Get("/v1/workflows", granted("3", "", nil)).Is(403, kaieNoScope)
		c.Get("/v1/workflows", granted("4", "workflows:reader Workflows:read workflows", nil)).Is(403, kaieNoScope)
	}},
	{Name: "KE-07 an invalid body is INVALID_REQUEST with details", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, usher.LevelReadWrite)
		c.Post("/v1/workflows", `{}`, key).Is(400,
			`{"error":{"code":"INVALID_REQUEST","message":"The request is invalid.","details":"Workflow name is required"}}`)
		c.Post("/v1/workflows", `{`, key).Is(400,
			`{"error":{"code":"INVALID_REQUEST","message":"The request is not valid.","details":[{"field":"body","message":"The body must be a JSON object of the documented form."}]}}`)
	}},
	{Name: "KE-08 page and limit have defaults, and a limit above 100 means 100 (inferred)", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, usher.LevelReadOnly)
		for range 101 {
			s.workflows = append(s.workflows, workflow{ID: "w"})
		}
		if a := c.Get("/v1/workflows?limit=101", key).HasStatus(200); a.Member("pagination") != `{"page":1,"limit":100,"total":101,"pages":2}` {
			c.TB.Errorf("pagination is %s", a.Member("pagination"))
		}
		if a := c.Get("/v1/workflows", key).HasStatus(200); a.Member("pagination") != `{"page":1,"limit":20,"total":101,"pages":6}` {
			c.TB.Errorf("pagination is %s", a.Member("pagination"))
		}
		c.Get("/v1/workflows?page=3&limit=50", key).Is(200,
			`{"data":[{"id":"w","name":"","created_at":""}],"pagination":{"page":3,"limit":50,"total":101,"pages":3}}`)
	}},
	{Name: "KE-09 what was created comes back as data", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, usher.LevelReadWrite)
		c.Post("/v1/workflows", `{"name":"a"}`, key).Is(201, `{"data":{"id":"w1","name":"a","created_at":"<time>"}}`).
			Has("Location", "/v1/workflows/w1")
	}},
	{Name: "KE-10 the 1001st request in an hour is 429 for this key alone (inferred: headers, place of retry_after)", Timed: true, Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, usher.LevelReadOnly)
		other, _ := s.key(c, usher.LevelReadOnly)
		start := time.Now().Unix()
		c.Get("/v1/workflows", key).HasStatus(200).Has("X-RateLimit-Limit", "1000").Has("X-RateLimit-Remaining", "999").
			Has("X-RateLimit-Reset", fmt.Sprint(start+3600)).Lacks("Retry-After")
		c.Admitted(999, 200, "/v1/workflows", key)
		time.Sleep(10 * time.Minute)
		c.Get("/v1/workflows", key).Is(429,
			`{"error":{"code":"RATE_LIMIT_EXCEEDED","message":"Rate limit exceeded.","details":{"violated-policies":["hour"]},"retry_after":3000},"retry_after":3000}`).
			Has("Retry-After", "3000").Has("X-RateLimit-Remaining", "0").Has("X-RateLimit-Reset", fmt.Sprint(start+3600))
		c.Get("/v1/workflows", other).HasStatus(200).Has("X-RateLimit-Remaining", "999")
		time.Sleep(50 * time.Minute)
		c.Get("/v1/workflows", key).HasStatus(200)
	}},
	{Name: "KE-10 each key, each access token and each server has a counter of its own (inferred: that of a server)", Timed: true, Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, usher.LevelReadOnly)
		servers := customerServers()
		first, second := granted("1", canRead, nil), granted("2", canRead, nil)
		c.Admitted(1000, 200, "/v1/workflows", first)
		c.Get("/v1/workflows", first).HasStatus(429).Has("Retry-After", "3600")
		for _, other := range []string{second, key, servers[0].token(nil), servers[1].token(nil)} {
			c.Get("/v1/workflows", other).HasStatus(200).Has("X-RateLimit-Remaining", "999")
		}
		// It makes no difference to a server how many tokens it signs.
		c.Get("/v1/workflows", servers[0].token(map[string]any{"jti": "another"})).HasStatus(200).Has("X-RateLimit-Remaining", "998")
	}},
	{Name: "KE-15 a server signs for itself, with RS256, ES256 or EdDSA (inferred: claims)", Test: func(c *contract.Client, _ *Service) {
		servers := customerServers()
		for i, s := range servers {
			c.Get("/v1/workflows", s.token(nil)).HasStatus(200)
			c.Post("/v1/workflows", `{"name":"a"}`, s.token(nil)).HasStatus(201)
			// What it may do does not stand in what it signs.
			c.Delete("/v1/workflows/w1", s.token(map[string]any{"scope": "admin", "level": "full"})).Is(403, kaieForbidden)

			now := time.Now().Unix()
			first := c.Get("/v1/workflows", s.token(map[string]any{"exp": now + 3601})).Is(401, kaieBadToken)
			for _, change := range []map[string]any{
				{"iss": nil}, {"sub": nil}, {"aud": nil}, {"iat": nil}, {"exp": nil},
				{"aud": kaieAuthority}, {"iss": servers[(i+1)%3].name}, {"iss": kaieAuthority},
				{"iat": now - 7200, "exp": now - 3600}, {"nbf": now + 60},
			} {
				c.Get("/v1/workflows", s.token(change)).Is(401, kaieBadToken).Same(first)
			}
			other := s
			other.header = strings.Replace(servers[(i+1)%3].header, "JWT", "at+jwt", 1)
			c.Get("/v1/workflows", other.token(nil)).Is(401, kaieBadToken).Same(first)
		}
	}},
	{Name: "404, 405, 413 and 500 have the shape of every error", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, usher.LevelFull)
		c.Get("/v1/nowhere", key).Is(404, `{"error":{"code":"NOT_FOUND","message":"Not Found"}}`)
		c.Delete("/v1/workflows/w9", key).Is(404, `{"error":{"code":"NOT_FOUND","message":"Workflow not found"}}`)
		c.Do("PUT", "/v1/workflows", `{}`, key).Is(405, `{"error":{"code":"METHOD_NOT_ALLOWED","message":"Method Not Allowed"}}`)
		c.Post("/v1/workflows", `{"name":"`+strings.Repeat("a", 20<<10)+`"}`, key).
			Is(413, `{"error":{"code":"PAYLOAD_TOO_LARGE","message":"The request body is too large."}}`)
		c.Post("/v1/workflows", `{"name":"panic"}`, key).Is(500, `{"error":{"code":"INTERNAL_ERROR","message":"Internal Server Error"}}`)
	}},
}
