package contract

import (
	"fmt"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// key issues a key with a level and returns the header line that presents it.
func (s *kaie) key(c *client, level usher.Level) (string, apikey.Key) {
	c.tb.Helper()
	k, secret, err := s.manager.Create(c.tb.Context(), apikey.Actor{}, apikey.Key{Owner: "ada", Name: "k", Level: level})
	if err != nil {
		c.tb.Fatal(err)
	}
	return "Authorization: Bearer " + secret.Reveal(), k
}

const (
	kaieInvalidKey = `{"error":{"code":"INVALID_API_KEY","message":"The API key is invalid or expired."}}`
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
		if _, err := s.manager.Revoke(c.tb.Context(), apikey.Actor{}, k.Owner, k.ID); err != nil {
			c.tb.Fatal(err)
		}
		_, expired, err := s.manager.Create(c.tb.Context(), apikey.Actor{}, apikey.Key{Owner: "ada", Name: "k", ExpiresAt: time.Now().Add(time.Minute)})
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
		if _, err := s.manager.Update(c.tb.Context(), apikey.Actor{}, k.Owner, k.ID, func(k *apikey.Key) { k.Level = usher.LevelReadOnly }); err != nil {
			c.tb.Fatal(err)
		}
		c.post("/v1/workflows", `{"name":"b"}`, key).is(403, kaieForbidden)
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
