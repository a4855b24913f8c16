package contract

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// key issues a key of an environment and returns its text.
func (s *kaiko) key(c *client, environment string) (string, apikey.Key) {
	c.tb.Helper()
	k, secret, err := s.manager.Create(c.tb.Context(), apikey.Actor{System: true}, apikey.Key{
		Owner: "ada", Name: "k", Environment: environment, Level: usher.LevelReadWrite,
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	return secret.Reveal(), k
}

const (
	analysis = "/v2/emotions/analysis"
	analyse  = `{"model":"emotion-v2","messages":[{"role":"user","content":"hi"}]}`
	analysed = `{"object":"emotions.analysis","model":"emotion-v2","emotions":{"joy":1}}`
)

const (
	other  = `{"model":"emotion-v2","messages":[{"role":"user","content":"no"}]}`
	repeat = "Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324"
)

// analyses checks how many analyses have run.
func (s *kaiko) analyses(c *client, want int) {
	c.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ran != want {
		c.tb.Errorf("%d analyses ran, want %d", s.ran, want)
	}
}

// typed is the body of an error; an empty param is none.
func typed(kind, code, message, param string) string {
	if param != "" {
		param = `,"param":"` + param + `"`
	}
	return `{"error":{"type":"` + kind + `","code":"` + code + `","message":"` + message + `"` + param + `,"request_id":"<request>"}}`
}

var (
	kaikoNoKey   = typed("authentication_error", "invalid_api_key", "The request carries no credential.", "")
	kaikoBadKey  = typed("authentication_error", "invalid_api_key", "The API key is not valid.", "")
	kaikoTwoKeys = typed("authentication_error", "invalid_api_key", "The request carries more than one credential.", "")
	kaikoRevoked = typed("forbidden_error", "key_revoked", "The API key is revoked or expired.", "")
	kaikoLimited = typed("rate_limit_error", "too_many_requests", "Rate limit exceeded.", "")
)

var kaikoRows = []row[*kaiko]{
	{"KK-01 an analysis is bare and tells what is left", true, func(c *client, s *kaiko) {
		key, _ := s.key(c, "live")
		c.post(analysis, analyse, "x-api-key: "+key).is(200, analysed).
			has("X-RateLimit-Limit", "1000").has("X-RateLimit-Remaining", "999").
			has("X-RateLimit-Reset", fmt.Sprint(time.Now().Add(time.Minute).Unix())).
			lacks("Retry-After", "RateLimit", "RateLimit-Policy")
	}},
	{"KK-02 the key as a bearer token is the same caller with the same counter (inferred: counter)", false, func(c *client, s *kaiko) {
		key, _ := s.key(c, "live")
		c.post(analysis, analyse, "x-api-key: "+key).is(200, analysed).has("X-RateLimit-Remaining", "999")
		c.post(analysis, analyse, "Authorization: Bearer "+key).is(200, analysed).has("X-RateLimit-Remaining", "998")
	}},
	{"KK-03 no key and a wrong key are invalid_api_key", false, func(c *client, _ *kaiko) {
		a := c.post(analysis, analyse).is(401, kaikoNoKey).has("WWW-Authenticate", "Bearer")
		a.has("X-Request-Id", a.member("error.request_id"))
		wrong := "kaiko_live_" + strings.Repeat("A", 43)
		c.post(analysis, analyse, "x-api-key: "+wrong).is(401, kaikoBadKey).
			same(c.post(analysis, analyse, "Authorization: Bearer "+wrong))
	}},
	{"KK-04 a key of another environment is invalid_api_key (inferred)", false, func(c *client, s *kaiko) {
		key, _ := s.key(c, "test")
		c.post(analysis, analyse, "x-api-key: "+key).is(401, kaikoBadKey)
	}},
	{"KK-05 a revoked key is 403 key_revoked, and too low a level is 403", false, func(c *client, s *kaiko) {
		key, k := s.key(c, "live")
		if _, err := s.manager.Update(c.tb.Context(), apikey.Actor{System: true}, "ada", k.ID, func(k *apikey.Key) { k.Level = usher.LevelReadOnly }); err != nil {
			c.tb.Fatal(err)
		}
		c.post(analysis, analyse, "x-api-key: "+key).
			is(403, typed("forbidden_error", "insufficient_permissions", "The credential does not permit this.", ""))
		if _, err := s.manager.Revoke(c.tb.Context(), apikey.Actor{System: true}, "ada", k.ID); err != nil {
			c.tb.Fatal(err)
		}
		c.post(analysis, analyse, "x-api-key: "+key).is(403, kaikoRevoked)
	}},
	{"KK-06 a key in each of the two fields is refused, whatever they hold (inferred)", false, func(c *client, s *kaiko) {
		a, _ := s.key(c, "live")
		b, _ := s.key(c, "live")
		c.post(analysis, analyse, "x-api-key: "+a, "Authorization: Bearer "+b).is(401, kaikoTwoKeys)
		c.post(analysis, analyse, "x-api-key: "+a, "Authorization: Bearer "+a).is(401, kaikoTwoKeys)
	}},
	{"KK-07 to KK-12 faults of a request have their types, codes and parameters", false, func(c *client, s *kaiko) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		for body, want := range map[string]string{
			`{"model":"emotion-v2"}`:               typed("invalid_request_error", "missing_field", "The 'messages' field is required", "messages"),
			`{"model":"emotion-v1","messages":[]}`: typed("invalid_request_error", "invalid_model", "The model does not exist", "model"),
		} {
			c.post(analysis, body, key).is(400, want)
		}
		c.post(analysis, `{"model":"emotion-v2","messages":[],"context_id":"ctx-9"}`, key).
			is(404, typed("not_found_error", "context_not_found", "The context does not exist or has expired", "context_id"))
		twice := `{"model":"emotion-v2","messages":[],"context_id":"ctx-1","external_id":"e"}`
		c.post(analysis, twice, key).is(200, analysed)
		c.post(analysis, twice, key).
			is(409, typed("conflict_error", "duplicate_id", "The external ID has been used in this context", "external_id"))
		c.post(analysis, `{"model":"`+strings.Repeat("a", 20<<10)+`"}`, key).
			is(413, typed("invalid_request_error", "payload_too_large", "The request body is too large.", ""))
		c.post(analysis, `{"model":"emotion-v2","messages":[{"role":"root"}]}`, key).
			is(422, typed("invalid_request_error", "invalid_role", "The role must be user, assistant or system", "messages[0].role"))
	}},
	{"KK-13 the 1001st request in a minute is 429, and Retry-After is there only then", true, func(c *client, s *kaiko) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		for range 1000 {
			c.post(analysis, analyse, key).status(200).lacks("Retry-After")
		}
		c.post(analysis, analyse, key).is(429, kaikoLimited).has("Retry-After", "60").
			has("X-RateLimit-Limit", "1000").has("X-RateLimit-Remaining", "0").
			has("X-RateLimit-Reset", fmt.Sprint(time.Now().Add(time.Minute).Unix()))
		other, _ := s.key(c, "live")
		c.post(analysis, analyse, "x-api-key: "+other).status(200)
		time.Sleep(time.Minute)
		c.post(analysis, analyse, key).status(200)
	}},
	{"KK-14 the 11th simultaneous request is 429, and each place is free again (inferred: answer)", true, func(c *client, s *kaiko) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		s.gate = make(chan struct{})
		var waiting sync.WaitGroup
		for range 10 {
			waiting.Go(func() {
				if a, err := c.try("POST", analysis, analyse, key); err != nil || a.StatusCode != 200 {
					c.tb.Errorf("one of ten got %v, %v", a, err)
				}
			})
		}
		time.Sleep(time.Second) // until all ten wait
		c.post(analysis, analyse, key).
			is(429, typed("rate_limit_error", "too_many_requests", "Too many requests at the same time.", "")).has("Retry-After", "1")
		close(s.gate)
		waiting.Wait()
		c.post(analysis, analyse, key).is(200, analysed).has("X-RateLimit-Remaining", "989")
	}},
	{"KK-15 tokens count against the month, and only chats cost them (inferred: answer)", true, func(c *client, s *kaiko) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		c.post("/v2/chat?tokens=60000", "", key).is(200, `{"total_tokens":60000}`)
		c.post("/v2/chat?tokens=60000", "", key).is(200, `{"total_tokens":60000}`)
		c.post("/v2/chat?tokens=1", "", key).
			is(429, typed("rate_limit_error", "too_many_requests", "The monthly token limit is reached.", ""))
		c.post(analysis, analyse, key).is(200, analysed)
		_ = s.auth.Close()              // its ticker would tick for a month
		time.Sleep(31 * 24 * time.Hour) // a bubble begins with January
		c.post("/v2/chat?tokens=1", "", key).is(200, `{"total_tokens":1}`)
	}},
	{"KK-16 a batch of 101 messages is 400 (inferred)", false, func(c *client, s *kaiko) {
		key, _ := s.key(c, "live")
		batch := func(n int) string { return `{"messages":[{}` + strings.Repeat(`,{}`, n-1) + `]}` }
		c.post("/v2/emotions/batch-analysis", batch(100), "x-api-key: "+key).is(200, `{"analysed":100}`)
		c.post("/v2/emotions/batch-analysis", batch(101), "x-api-key: "+key).
			is(400, typed("invalid_request_error", "too_many_messages", "A batch has at most 100 messages", "messages"))
	}},
	{"KK-17 a handler that takes longer than 30 s is 504 (inferred)", true, func(c *client, s *kaiko) {
		key, _ := s.key(c, "live")
		s.gate = make(chan struct{})
		start := time.Now()
		c.post(analysis, analyse, "x-api-key: "+key).is(504, typed("server_error", "timeout", "The request took longer than 30 seconds", ""))
		if d := time.Since(start); d != 30*time.Second {
			c.tb.Errorf("answered after %v", d)
		}
	}},
	{"KK-18 an unexpected failure is 500 internal and one of a dependency 503, neither with its cause", false, func(c *client, s *kaiko) {
		key, _ := s.key(c, "live")
		c.post(analysis, `{"model":"emotion-v2","messages":[{"role":"user","content":"crash"}]}`, "x-api-key: "+key).
			is(500, typed("server_error", "internal", "Internal Server Error", ""))
		s.outage = errors.New("dial tcp 10.0.0.7:5432: connection refused")
		c.post(analysis, analyse, "x-api-key: "+key).
			is(503, typed("server_error", "service_unavailable", "The API key could not be checked. Please try again.", "")).
			has("Retry-After", "1")
	}},
	{"KK-19 a repetition is the first answer, marked, and the work is done once (inferred: header)", false, func(c *client, s *kaiko) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		c.post(analysis, analyse, key, repeat).is(200, analysed).lacks("Idempotency-Replayed").has("X-RateLimit-Remaining", "999")
		c.post(analysis, analyse, key, repeat).is(200, analysed).has("Idempotency-Replayed", "true").
			has("Content-Type", "application/json").has("X-RateLimit-Remaining", "998")
		c.post(analysis, analyse, "Authorization: Bearer "+text, repeat).is(200, analysed).has("Idempotency-Replayed", "true")
		s.analyses(c, 1)

		// So is an answer that says no, to the byte. The request ID in the header is
		// that of the repetition.
		wrong := strings.Replace(repeat, "8", "9", 1)
		const body = `{"model":"emotion-v1","messages":[]}`
		refused := typed("invalid_request_error", "invalid_model", "The model does not exist", "model")
		first := c.post(analysis, body, key, wrong).is(400, refused).lacks("Idempotency-Replayed")
		second := c.post(analysis, body, key, wrong).is(400, refused).has("Idempotency-Replayed", "true")
		if second.body != first.body || second.Header.Get("X-Request-Id") == first.Header.Get("X-Request-Id") {
			c.tb.Errorf("first %s %s\nagain %s %s", first.Header.Get("X-Request-Id"), first.body, second.Header.Get("X-Request-Id"), second.body)
		}
	}},
	{"KK-20 a repetition while the first runs is 409 (inferred)", true, func(c *client, s *kaiko) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		s.gate = make(chan struct{})
		var first sync.WaitGroup
		first.Go(func() {
			if a, err := c.try("POST", analysis, analyse, key, repeat); err != nil || a.StatusCode != 200 {
				c.tb.Errorf("the first got %v, %v", a, err)
			}
		})
		time.Sleep(time.Second) // until it waits
		c.post(analysis, analyse, key, repeat).is(409, typed("conflict_error", "idempotency_in_progress",
			"A request with this idempotency key is still in progress.", "Idempotency-Key")).has("Retry-After", "1")
		close(s.gate)
		first.Wait()
		c.post(analysis, analyse, key, repeat).is(200, analysed).has("Idempotency-Replayed", "true")
		s.analyses(c, 1)
	}},
	{"KK-21 a key with another payload is 422 and not run (inferred)", false, func(c *client, s *kaiko) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		c.post(analysis, analyse, key, repeat).is(200, analysed)
		c.post(analysis, other, key, repeat).is(422, typed("invalid_request_error", "idempotency_key_reused",
			"This idempotency key was used for another request.", "Idempotency-Key")).lacks("Idempotency-Replayed")
		s.analyses(c, 1)
	}},
	{"KK-22 the same key with another API key is another request (inferred)", false, func(c *client, s *kaiko) {
		one, _ := s.key(c, "live")
		two, _ := s.key(c, "live")
		c.post(analysis, analyse, "x-api-key: "+one, repeat).is(200, analysed)
		c.post(analysis, other, "x-api-key: "+two, repeat).is(200, analysed).lacks("Idempotency-Replayed")
		s.analyses(c, 2)
	}},
	{"KK-23 a key that is too long, empty or there twice is 400 and not run (inferred)", false, func(c *client, s *kaiko) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		bad := typed("invalid_request_error", "idempotency_key_invalid",
			"The idempotency key must be sent once and have 1 to 255 visible ASCII characters.", "Idempotency-Key")
		c.post(analysis, analyse, key, "Idempotency-Key: "+strings.Repeat("k", 256)).is(400, bad)
		c.post(analysis, analyse, key, "Idempotency-Key: ").is(400, bad)
		c.post(analysis, analyse, key, repeat, repeat).is(400, bad)
		s.analyses(c, 0)
		c.post(analysis, analyse, key, "Idempotency-Key: "+strings.Repeat("k", 255)).is(200, analysed)
	}},
	{"KK-24 without a key every request runs", false, func(c *client, s *kaiko) {
		key, _ := s.key(c, "live")
		for range 2 {
			c.post(analysis, analyse, "x-api-key: "+key).is(200, analysed).lacks("Idempotency-Replayed")
		}
		s.analyses(c, 2)
	}},
	{"404 and 405 are typed (inferred)", false, func(c *client, _ *kaiko) {
		c.get("/v2/nowhere").is(404, typed("not_found_error", "not_found", "Not Found", ""))
		c.get(analysis).is(405, typed("invalid_request_error", "method_not_allowed", "Method Not Allowed", "")).has("Allow", "POST")
	}},
}
