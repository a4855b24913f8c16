package service

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/examples/internal/contract"
)

// key imports a key of an account with a plan, as they were once issued, and
// returns the header line that carries it.
func (s *Service) key(c *contract.Client, owner, plan string) string {
	c.TB.Helper()
	text := "sk_prod_" + fmt.Sprintf("%016.16s", owner+plan)
	h, err := s.manager.Hash(apikey.NewSecret(text))
	if err != nil {
		c.TB.Fatal(err)
	}
	if _, err := s.manager.Import(c.TB.Context(), apikey.Actor{System: true}, apikey.Key{
		Owner: owner, Name: "imported", Plan: plan, Environment: "prod",
	}, h); err != nil {
		c.TB.Fatal(err)
	}
	return "Authorization: Bearer " + text
}

const signUp = `{"email":"a@example.com","password":"12345678","name":"A","metadata":{"from":"test"}}`

// signsUp sends n requests that must all succeed.
func signsUp(c *contract.Client, n int, key string) {
	c.TB.Helper()
	for i := range n {
		if a := c.Post("/v1/auth/sign-up", signUp, key); a.StatusCode != 201 {
			c.TB.Fatalf("request %d of %d: status %d: %s", i+1, n, a.StatusCode, a.Text)
		}
	}
}

// limited sends a request that must be refused by these policies.
func limited(c *contract.Client, key, policies string) *contract.Response {
	c.TB.Helper()
	return c.Post("/v1/auth/sign-up", signUp, key).Is(429,
		`{"code":"rate_limited","message":"Rate limit exceeded.","details":{"violated-policies":[`+policies+`]}}`)
}

func TestContract(t *testing.T) { contract.Run(t, New, rows) }

var rows = []contract.Row[*Service]{
	{Name: "KY-01 a sign-up is bare (inferred: 201)", Test: func(c *contract.Client, s *Service) {
		c.Post("/v1/auth/sign-up", signUp, s.key(c, "ada", "free")).
			Is(201, `{"userId":"u1","email":"a@example.com","createdAt":"<time>","verificationRequired":true}`)
	}},
	{Name: "KY-02 a short password, no e-mail and metadata that is no object are 400 (inferred)", Test: func(c *contract.Client, s *Service) {
		key := s.key(c, "ada", "free")
		for body, fault := range map[string]string{
			`{"email":"a@example.com","password":"1234567"}`:                `{"field":"password","message":"must have at least 8 characters"}`,
			`{"password":"12345678"}`:                                       `{"field":"email","message":"must be an e-mail address"}`,
			`{"email":"a@example.com","password":"12345678","metadata":[]}`: `{"field":"metadata","message":"must be an object"}`,
		} {
			c.Post("/v1/auth/sign-up", body, key).
				Is(400, `{"code":"validation_failed","message":"The request is not valid.","errors":[`+fault+`]}`)
		}
	}},
	{Name: "KY-03 no key and a wrong key are 401 (inferred)", Test: func(c *contract.Client, _ *Service) {
		c.Post("/v1/auth/sign-up", signUp).Is(401, `{"code":"missing_credential","message":"The request carries no credential."}`)
		wrong := c.Post("/v1/auth/sign-up", signUp, "Authorization: Bearer sk_prod_0000000000000000").
			Is(401, `{"code":"invalid_api_key","message":"The API key is not valid."}`)
		c.Post("/v1/auth/sign-up", signUp, "Authorization: Bearer sk_test_0000000000000000").Same(wrong)
	}},
	{Name: "KY-04 free: the 11th request in a second is 429", Timed: true, Test: func(c *contract.Client, s *Service) {
		key := s.key(c, "ada", "free")
		signsUp(c, 10, key)
		limited(c, key, `"second"`).Has("Retry-After", "1")
		time.Sleep(time.Second)
		signsUp(c, 1, key)
	}},
	{Name: "KY-05 free: the 601st request in a minute is 429, and none sooner is", Timed: true, Test: func(c *contract.Client, s *Service) {
		key := s.key(c, "ada", "free")
		signsUp(c, 10, key)
		for range 59 {
			time.Sleep(time.Second)
			signsUp(c, 10, key)
		}
		limited(c, key, `"minute","second"`)
		time.Sleep(999 * time.Millisecond)
		limited(c, key, `"minute","second"`).Has("Retry-After", "1")
		time.Sleep(time.Millisecond)
		signsUp(c, 10, key)
		limited(c, key, `"minute","second"`)
	}},
	{Name: "KY-05 free: a burst that the second refuses takes nothing from the minute", Timed: true, Test: func(c *contract.Client, s *Service) {
		key := s.key(c, "ada", "free")
		signsUp(c, 10, key)
		for range 50 {
			limited(c, key, `"second"`)
		}
		if left := limited(c, key, `"second"`).Header.Get("RateLimit"); !strings.Contains(left, `"minute";r=590`) {
			c.TB.Errorf("RateLimit is %q", left)
		}
	}},
	{Name: "KY-06 pro and enterprise have limits of their own, per account", Timed: true, Test: func(c *contract.Client, s *Service) {
		pro, other, enterprise := s.key(c, "ada", "pro"), s.key(c, "bert", "pro"), s.key(c, "carl", "enterprise")
		signsUp(c, 100, pro)
		limited(c, pro, `"second"`)
		signsUp(c, 1, other)
		signsUp(c, 20, enterprise)
		limited(c, enterprise, `"second"`)
		for range 59 {
			time.Sleep(time.Second)
			signsUp(c, 100, pro)
		}
		time.Sleep(500 * time.Millisecond)
		limited(c, pro, `"minute","second"`)
		signsUp(c, 1, other)
	}},
	{Name: "KY-07 free: 10 requests in each of 60 seconds are all admitted (inferred)", Timed: true, Test: func(c *contract.Client, s *Service) {
		key := s.key(c, "ada", "free")
		for range 600 {
			signsUp(c, 1, key)
			time.Sleep(100 * time.Millisecond)
		}
		signsUp(c, 1, key)
	}},
	{Name: "404, 405 and 413 are flat errors (inferred)", Test: func(c *contract.Client, s *Service) {
		key := s.key(c, "ada", "free")
		c.Get("/nowhere").Is(404, `{"code":"not_found","message":"Not Found"}`)
		c.Get("/v1/auth/sign-up", key).Is(405, `{"code":"method_not_allowed","message":"Method Not Allowed"}`).Has("Allow", "POST")
		c.Post("/v1/auth/sign-up", `{"email":"`+strings.Repeat("a", 20<<10)+`"}`, key).
			Is(413, `{"code":"payload_too_large","message":"The request body is too large."}`)
	}},
}
