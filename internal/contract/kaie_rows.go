package contract

import (
	"fmt"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// granted returns the header line that presents an access token of the
// authorization server, with some claims changed.
func granted(id, scope string, change map[string]any) string {
	now := time.Now().Unix()
	return bearer(token(`{"alg":"ES256","typ":"at+jwt"}`, claims(with(map[string]any{
		"iss": kaieAuthority, "aud": kaieAPI, "sub": "ada", "client_id": "app", "jti": id, "iat": now, "exp": now + 3600, "scope": scope,
	}, change)), es256(keys().authority)))
}

// A customerServer signs what it says about itself.
type customerServer struct {
	name, header string
	sign         signer
}

func customerServers() []customerServer {
	k := keys()
	return []customerServer{
		{"https://rsa.customer.example", `{"alg":"RS256","typ":"JWT"}`, rs256(k.rsa)},
		{"https://ec.customer.example", `{"alg":"ES256"}`, es256(k.ec)},
		{"https://ed.customer.example", `{"alg":"EdDSA","typ":"JWT"}`, edDSA(k.ed)},
	}
}

// says returns the header line that presents a token, with some claims changed.
func (s customerServer) says(change map[string]any) string {
	now := time.Now().Unix()
	return bearer(token(s.header, claims(with(map[string]any{
		"iss": s.name, "aud": kaieAPI, "sub": "billing", "iat": now, "exp": now + 3600,
	}, change)), s.sign))
}

// key issues a key with a level and returns the header line that presents it.
func (s *kaie) key(c *client, level usher.Level) (string, apikey.Key) {
	c.tb.Helper()
	k, secret, err := s.manager.Create(c.tb.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "ada", Name: "k", Level: level})
	if err != nil {
		c.tb.Fatal(err)
	}
	return "Authorization: Bearer " + secret.Reveal(), k
}

const (
	kaieInvalidKey = `{"error":{"code":"INVALID_API_KEY","message":"The API key is invalid or expired."}}`
	kaieBadToken   = `{"error":{"code":"INVALID_TOKEN","message":"The access token is invalid or expired."}}`
	kaieNoScope    = `{"error":{"code":"SCOPE_INSUFFICIENT","message":"The credential lacks a scope that is needed here."}}`
	kaieForbidden  = `{"error":{"code":"INSUFFICIENT_PERMISSIONS","message":"The credential does not permit this."}}`
)

var kaieRows = []row[*kaie]{
	{"KE-01 a list has data and pagination", false, func(c *client, s *kaie) {
		key, _ := s.key(c, usher.LevelReadWrite)
		c.get("/v1/workflows", key).is(200, `{"data":[],"pagination":{"page":1,"limit":20,"total":0,"pages":0}}`)
		c.post("/v1/workflows", `{"name":"a"}`, key).status(201)
		c.get("/v1/workflows", key).is(200,
			`{"data":[{"id":"w1","name":"a","created_at":"<time>"}],"pagination":{"page":1,"limit":20,"total":1,"pages":1}}`)
	}},
	{"KE-02 no Authorization is MISSING_AUTHENTICATION", false, func(c *client, _ *kaie) {
		c.get("/v1/workflows").is(401, `{"error":{"code":"MISSING_AUTHENTICATION","message":"The request carries no credential."}}`).
			has("WWW-Authenticate", "Bearer")
	}},
	{"KE-03 unknown, revoked, expired and malformed keys are the same INVALID_API_KEY", true, func(c *client, s *kaie) {
		revoked, k := s.key(c, usher.LevelFull)
		if _, err := s.manager.Revoke(c.tb.Context(), apikey.Actor{System: true}, k.Owner, k.ID); err != nil {
			c.tb.Fatal(err)
		}
		_, expired, err := s.manager.Create(c.tb.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "ada", Name: "k", ExpiresAt: time.Now().Add(time.Minute)})
		if err != nil {
			c.tb.Fatal(err)
		}
		time.Sleep(time.Minute)
		unknown, err := apikey.Native{Prefix: "kaie"}.Generate(strings.NewReader(strings.Repeat("x", 1000)), "")
		if err != nil {
			c.tb.Fatal(err)
		}
		first := c.get("/v1/workflows", "Authorization: Bearer "+unknown).is(401, kaieInvalidKey).
			has("WWW-Authenticate", `Bearer error="invalid_token"`)
		for _, bad := range []string{revoked, "Authorization: Bearer " + expired.Reveal(), "Authorization: Bearer kaie_x"} {
			c.get("/v1/workflows", bad).is(401, kaieInvalidKey).same(first)
		}
	}},
	{"KE-04 invalid and expired access tokens are the same INVALID_TOKEN (inferred: JWT)", false, func(c *client, _ *kaie) {
		c.get("/v1/workflows", granted("1", canRead, nil)).status(200)
		now := time.Now().Unix()
		first := c.get("/v1/workflows", granted("2", canRead, map[string]any{"iat": now - 7200, "exp": now - 3600})).is(401, kaieBadToken).
			has("WWW-Authenticate", `Bearer error="invalid_token"`)
		good := granted("3", canRead, nil)
		for _, bad := range []string{
			good[:len(good)-8] + "AAAAAAAA", good + ".", bearer("opaque"), bearer("a.b.c"),
			granted("4", canRead, map[string]any{"aud": "https://other.example"}),
			granted("5", canRead, map[string]any{"client_id": nil}),
		} {
			c.get("/v1/workflows", bad).is(401, kaieBadToken).same(first)
		}
	}},
	{"KE-05 each level permits what it is documented to", false, func(c *client, s *kaie) {
		none, _ := s.key(c, usher.LevelNone)
		read, _ := s.key(c, usher.LevelReadOnly)
		write, _ := s.key(c, usher.LevelReadWrite)
		full, _ := s.key(c, usher.LevelFull)
		c.get("/v1/workflows", none).is(403, kaieForbidden)
		c.get("/v1/workflows", read).status(200)
		c.post("/v1/workflows", `{"name":"a"}`, read).is(403, kaieForbidden)
		c.post("/v1/workflows", `{"name":"a"}`, write).status(201)
		c.delete("/v1/workflows/w1", write).is(403, kaieForbidden)
		c.delete("/v1/workflows/w1", full).is(200, `{"data":{"id":"w1"}}`)
	}},
	{"KE-05 a key that is reduced is reduced at the next request", false, func(c *client, s *kaie) {
		key, k := s.key(c, usher.LevelReadWrite)
		c.post("/v1/workflows", `{"name":"a"}`, key).status(201)
		if _, err := s.manager.Update(c.tb.Context(), apikey.Actor{System: true}, k.Owner, k.ID, func(k *apikey.Key) { k.Level = usher.LevelReadOnly }); err != nil {
			c.tb.Fatal(err)
		}
		c.post("/v1/workflows", `{"name":"b"}`, key).is(403, kaieForbidden)
	}},
	{"KE-06 an access token without the scope is SCOPE_INSUFFICIENT", false, func(c *client, _ *kaie) {
		read, write := granted("1", canRead, nil), granted("2", canRead+" "+canWrite, nil)
		c.get("/v1/workflows", read).status(200)
		c.post("/v1/workflows", `{"name":"a"}`, read).is(403, kaieNoScope).
			has("WWW-Authenticate", `Bearer error="insufficient_scope", scope="workflows:write"`)
		c.post("/v1/workflows", `{"name":"a"}`, write).status(201)
		c.get("/v1/workflows", granted("3", "", nil)).is(403, kaieNoScope)
		c.get("/v1/workflows", granted("4", "workflows:reader Workflows:read workflows", nil)).is(403, kaieNoScope)
	}},
	{"KE-07 an invalid body is INVALID_REQUEST with details", false, func(c *client, s *kaie) {
		key, _ := s.key(c, usher.LevelReadWrite)
		c.post("/v1/workflows", `{}`, key).is(400,
			`{"error":{"code":"INVALID_REQUEST","message":"The request is invalid.","details":"Workflow name is required"}}`)
		c.post("/v1/workflows", `{`, key).is(400,
			`{"error":{"code":"INVALID_REQUEST","message":"The request is not valid.","details":[{"field":"body","message":"The body must be a JSON object of the documented form."}]}}`)
	}},
	{"KE-08 page and limit have defaults, and a limit above 100 is taken for 100 (inferred)", false, func(c *client, s *kaie) {
		key, _ := s.key(c, usher.LevelReadOnly)
		for range 101 {
			s.workflows = append(s.workflows, workflow{ID: "w"})
		}
		if a := c.get("/v1/workflows?limit=101", key).status(200); a.member("pagination") != `{"page":1,"limit":100,"total":101,"pages":2}` {
			c.tb.Errorf("pagination is %s", a.member("pagination"))
		}
		if a := c.get("/v1/workflows", key).status(200); a.member("pagination") != `{"page":1,"limit":20,"total":101,"pages":6}` {
			c.tb.Errorf("pagination is %s", a.member("pagination"))
		}
		c.get("/v1/workflows?page=3&limit=50", key).is(200,
			`{"data":[{"id":"w","name":"","created_at":""}],"pagination":{"page":3,"limit":50,"total":101,"pages":3}}`)
	}},
	{"KE-09 what was created comes back as data", false, func(c *client, s *kaie) {
		key, _ := s.key(c, usher.LevelReadWrite)
		c.post("/v1/workflows", `{"name":"a"}`, key).is(201, `{"data":{"id":"w1","name":"a","created_at":"<time>"}}`).
			has("Location", "/v1/workflows/w1")
	}},
	{"KE-10 the 1001st request in an hour is 429 for this key alone (inferred: headers, place of retry_after)", true, func(c *client, s *kaie) {
		key, _ := s.key(c, usher.LevelReadOnly)
		other, _ := s.key(c, usher.LevelReadOnly)
		start := time.Now().Unix()
		c.get("/v1/workflows", key).status(200).has("X-RateLimit-Limit", "1000").has("X-RateLimit-Remaining", "999").
			has("X-RateLimit-Reset", fmt.Sprint(start+3600)).lacks("Retry-After")
		c.admitted(999, 200, "/v1/workflows", key)
		time.Sleep(10 * time.Minute)
		c.get("/v1/workflows", key).is(429,
			`{"error":{"code":"RATE_LIMIT_EXCEEDED","message":"Rate limit exceeded.","details":{"violated-policies":["hour"]},"retry_after":3000},"retry_after":3000}`).
			has("Retry-After", "3000").has("X-RateLimit-Remaining", "0").has("X-RateLimit-Reset", fmt.Sprint(start+3600))
		c.get("/v1/workflows", other).status(200).has("X-RateLimit-Remaining", "999")
		time.Sleep(50 * time.Minute)
		c.get("/v1/workflows", key).status(200)
	}},
	{"KE-10 each key, each access token and each server has a counter of its own (inferred: that of a server)", true, func(c *client, s *kaie) {
		key, _ := s.key(c, usher.LevelReadOnly)
		servers := customerServers()
		first, second := granted("1", canRead, nil), granted("2", canRead, nil)
		c.admitted(1000, 200, "/v1/workflows", first)
		c.get("/v1/workflows", first).status(429).has("Retry-After", "3600")
		for _, other := range []string{second, key, servers[0].says(nil), servers[1].says(nil)} {
			c.get("/v1/workflows", other).status(200).has("X-RateLimit-Remaining", "999")
		}
		// It makes no difference to a server how many tokens it signs.
		c.get("/v1/workflows", servers[0].says(map[string]any{"jti": "another"})).status(200).has("X-RateLimit-Remaining", "998")
	}},
	{"KE-15 a server signs for itself, with RS256, ES256 or EdDSA (inferred: claims)", false, func(c *client, _ *kaie) {
		servers := customerServers()
		for i, s := range servers {
			c.get("/v1/workflows", s.says(nil)).status(200)
			c.post("/v1/workflows", `{"name":"a"}`, s.says(nil)).status(201)
			// What it may do does not stand in what it signs.
			c.delete("/v1/workflows/w1", s.says(map[string]any{"scope": "admin", "level": "full"})).is(403, kaieForbidden)

			now := time.Now().Unix()
			first := c.get("/v1/workflows", s.says(map[string]any{"exp": now + 3601})).is(401, kaieBadToken)
			for _, change := range []map[string]any{
				{"iss": nil}, {"sub": nil}, {"aud": nil}, {"iat": nil}, {"exp": nil},
				{"aud": kaieAuthority}, {"iss": servers[(i+1)%3].name}, {"iss": kaieAuthority},
				{"iat": now - 7200, "exp": now - 3600}, {"nbf": now + 60},
			} {
				c.get("/v1/workflows", s.says(change)).is(401, kaieBadToken).same(first)
			}
			other := s
			other.header = strings.Replace(servers[(i+1)%3].header, "JWT", "at+jwt", 1)
			c.get("/v1/workflows", other.says(nil)).is(401, kaieBadToken).same(first)
		}
	}},
	{"404, 405, 413 and 500 have the shape of every error", false, func(c *client, s *kaie) {
		key, _ := s.key(c, usher.LevelFull)
		c.get("/v1/nowhere", key).is(404, `{"error":{"code":"NOT_FOUND","message":"Not Found"}}`)
		c.delete("/v1/workflows/w9", key).is(404, `{"error":{"code":"NOT_FOUND","message":"Workflow not found"}}`)
		c.do("PUT", "/v1/workflows", `{}`, key).is(405, `{"error":{"code":"METHOD_NOT_ALLOWED","message":"Method Not Allowed"}}`)
		c.post("/v1/workflows", `{"name":"`+strings.Repeat("a", 20<<10)+`"}`, key).
			is(413, `{"error":{"code":"PAYLOAD_TOO_LARGE","message":"The request body is too large."}}`)
		c.post("/v1/workflows", `{"name":"panic"}`, key).is(500, `{"error":{"code":"INTERNAL_ERROR","message":"Internal Server Error"}}`)
	}},
}
