package contract

import (
	"fmt"
	"strings"
	"time"

	"github.com/usher-go/usher/apikey"
)

// key imports a key of an account with a plan, as they were once issued, and
// returns the header line that presents it.
func (s *kynetra) key(c *client, owner, plan string) string {
	c.tb.Helper()
	text := "sk_prod_" + fmt.Sprintf("%016.16s", owner+plan)
	h, err := s.manager.Hash(apikey.NewSecret(text))
	if err != nil {
		c.tb.Fatal(err)
	}
	if _, err := s.manager.Import(c.tb.Context(), apikey.Actor{System: true}, apikey.Key{
		Owner: owner, Name: "imported", Plan: plan, Environment: "prod",
	}, h); err != nil {
		c.tb.Fatal(err)
	}
	return "Authorization: Bearer " + text
}

const signUp = `{"email":"a@example.com","password":"12345678","name":"A","metadata":{"from":"test"}}`

// signsUp sends n requests that must all succeed.
func (c *client) signsUp(n int, key string) {
	c.tb.Helper()
	for i := range n {
		if a := c.post("/v1/auth/sign-up", signUp, key); a.StatusCode != 201 {
			c.tb.Fatalf("request %d of %d: status %d: %s", i+1, n, a.StatusCode, a.body)
		}
	}
}

// limited sends a request that must be refused by these policies.
func (c *client) limited(key, policies string) *answer {
	c.tb.Helper()
	return c.post("/v1/auth/sign-up", signUp, key).is(429,
		`{"code":"rate_limited","message":"Rate limit exceeded.","details":{"violated-policies":[`+policies+`]}}`)
}

var kynetraRows = []row[*kynetra]{
	{"KY-01 a sign-up is bare (inferred: 201)", false, func(c *client, s *kynetra) {
		c.post("/v1/auth/sign-up", signUp, s.key(c, "ada", "free")).
			is(201, `{"userId":"u1","email":"a@example.com","createdAt":"<time>","verificationRequired":true}`)
	}},
	{"KY-02 a short password, no e-mail and metadata that is no object are 400 (inferred)", false, func(c *client, s *kynetra) {
		key := s.key(c, "ada", "free")
		for body, fault := range map[string]string{
			`{"email":"a@example.com","password":"1234567"}`:                `{"field":"password","message":"must have at least 8 characters"}`,
			`{"password":"12345678"}`:                                       `{"field":"email","message":"must be an e-mail address"}`,
			`{"email":"a@example.com","password":"12345678","metadata":[]}`: `{"field":"metadata","message":"must be an object"}`,
		} {
			c.post("/v1/auth/sign-up", body, key).
				is(400, `{"code":"validation_failed","message":"The request is not valid.","errors":[`+fault+`]}`)
		}
	}},
	{"KY-03 no key and a wrong key are 401 (inferred)", false, func(c *client, _ *kynetra) {
		c.post("/v1/auth/sign-up", signUp).is(401, `{"code":"missing_credential","message":"The request carries no credential."}`)
		wrong := c.post("/v1/auth/sign-up", signUp, "Authorization: Bearer sk_prod_0000000000000000").
			is(401, `{"code":"invalid_api_key","message":"The API key is not valid."}`)
		c.post("/v1/auth/sign-up", signUp, "Authorization: Bearer sk_test_0000000000000000").same(wrong)
	}},
	{"KY-04 free: the 11th request in a second is 429", true, func(c *client, s *kynetra) {
		key := s.key(c, "ada", "free")
		c.signsUp(10, key)
		c.limited(key, `"second"`).has("Retry-After", "1")
		time.Sleep(time.Second)
		c.signsUp(1, key)
	}},
	{"KY-05 free: the 601st request in a minute is 429, and none sooner is", true, func(c *client, s *kynetra) {
		key := s.key(c, "ada", "free")
		c.signsUp(10, key)
		for range 59 {
			time.Sleep(time.Second)
			c.signsUp(10, key)
		}
		c.limited(key, `"minute","second"`)
		time.Sleep(999 * time.Millisecond)
		c.limited(key, `"minute","second"`).has("Retry-After", "1")
		time.Sleep(time.Millisecond)
		c.signsUp(10, key)
		c.limited(key, `"minute","second"`)
	}},
	{"KY-05 free: a burst that the second refuses takes nothing from the minute", true, func(c *client, s *kynetra) {
		key := s.key(c, "ada", "free")
		c.signsUp(10, key)
		for range 50 {
			c.limited(key, `"second"`)
		}
		if left := c.limited(key, `"second"`).Header.Get("RateLimit"); !strings.Contains(left, `"minute";r=590`) {
			c.tb.Errorf("RateLimit is %q", left)
		}
	}},
	{"KY-06 pro and enterprise have limits of their own, per account", true, func(c *client, s *kynetra) {
		pro, other, enterprise := s.key(c, "ada", "pro"), s.key(c, "bert", "pro"), s.key(c, "carl", "enterprise")
		c.signsUp(100, pro)
		c.limited(pro, `"second"`)
		c.signsUp(1, other)
		c.signsUp(20, enterprise)
		c.limited(enterprise, `"second"`)
		for range 59 {
			time.Sleep(time.Second)
			c.signsUp(100, pro)
		}
		time.Sleep(500 * time.Millisecond)
		c.limited(pro, `"minute","second"`)
		c.signsUp(1, other)
	}},
	{"KY-07 free: 10 requests in each of 60 seconds are all admitted (inferred)", true, func(c *client, s *kynetra) {
		key := s.key(c, "ada", "free")
		for range 600 {
			c.signsUp(1, key)
			time.Sleep(100 * time.Millisecond)
		}
		c.signsUp(1, key)
	}},
	{"404, 405 and 413 are flat errors (inferred)", false, func(c *client, s *kynetra) {
		key := s.key(c, "ada", "free")
		c.get("/nowhere").is(404, `{"code":"not_found","message":"Not Found"}`)
		c.get("/v1/auth/sign-up", key).is(405, `{"code":"method_not_allowed","message":"Method Not Allowed"}`).has("Allow", "POST")
		c.post("/v1/auth/sign-up", `{"email":"`+strings.Repeat("a", 20<<10)+`"}`, key).
			is(413, `{"code":"payload_too_large","message":"The request body is too large."}`)
	}},
}
