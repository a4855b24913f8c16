package service

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/examples/internal/contract"
)

// key issues a key of an environment and returns its text.
func (s *Service) key(c *contract.Client, environment string) (string, apikey.Key) {
	c.TB.Helper()
	k, secret, err := s.manager.Create(c.TB.Context(), apikey.Actor{System: true}, apikey.Key{
		Owner: "ada", Name: "k", Environment: environment, Level: usher.LevelReadWrite,
	})
	if err != nil {
		c.TB.Fatal(err)
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
func (s *Service) analyses(c *contract.Client, want int) {
	c.TB.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ran != want {
		c.TB.Errorf("%d analyses ran, want %d", s.ran, want)
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

func TestContract(t *testing.T) { contract.Run(t, New, rows) }

var rows = []contract.Row[*Service]{
	{Name: "KK-01 an analysis is bare, with header fields of what is left", Timed: true, Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "live")
		c.Post(analysis, analyse, "x-api-key: "+key).Is(200, analysed).
			Has("X-RateLimit-Limit", "1000").Has("X-RateLimit-Remaining", "999").
			Has("X-RateLimit-Reset", fmt.Sprint(time.Now().Add(time.Minute).Unix())).
			Lacks("Retry-After", "RateLimit", "RateLimit-Policy")
	}},
	{Name: "KK-02 the key as a bearer token is the same caller with the same counter (inferred: counter)", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "live")
		c.Post(analysis, analyse, "x-api-key: "+key).Is(200, analysed).Has("X-RateLimit-Remaining", "999")
		c.Post(analysis, analyse, "Authorization: Bearer "+key).Is(200, analysed).Has("X-RateLimit-Remaining", "998")
	}},
	{Name: "KK-03 no key and a wrong key are invalid_api_key", Test: func(c *contract.Client, _ *Service) {
		a := c.Post(analysis, analyse).Is(401, kaikoNoKey).Has("WWW-Authenticate", "Bearer")
		a.Has("X-Request-Id", a.Member("error.request_id"))
		wrong := "kaiko_live_" + strings.Repeat("A", 43)
		c.Post(analysis, analyse, "x-api-key: "+wrong).Is(401, kaikoBadKey).
			Same(c.Post(analysis, analyse, "Authorization: Bearer "+wrong))
	}},
	{Name: "KK-04 a key of another environment is invalid_api_key (inferred)", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "test")
		c.Post(analysis, analyse, "x-api-key: "+key).Is(401, kaikoBadKey)
	}},
	{Name: "KK-05 a revoked key is 403 key_revoked, and too low a level is 403", Test: func(c *contract.Client, s *Service) {
		key, k := s.key(c, "live")
		if _, err := s.manager.Update(c.TB.Context(), apikey.Actor{System: true}, "ada", k.ID, func(k *apikey.Key) { k.Level = usher.LevelReadOnly }); err != nil {
			c.TB.Fatal(err)
		}
		c.Post(analysis, analyse, "x-api-key: "+key).
			Is(403, typed("forbidden_error", "insufficient_permissions", "The credential does not permit this.", ""))
		if _, err := s.manager.Revoke(c.TB.Context(), apikey.Actor{System: true}, "ada", k.ID); err != nil {
			c.TB.Fatal(err)
		}
		c.Post(analysis, analyse, "x-api-key: "+key).Is(403, kaikoRevoked)
	}},
	{Name: "KK-06 a key in each of the two fields is refused, whatever they hold (inferred)", Test: func(c *contract.Client, s *Service) {
		a, _ := s.key(c, "live")
		b, _ := s.key(c, "live")
		c.Post(analysis, analyse, "x-api-key: "+a, "Authorization: Bearer "+b).Is(401, kaikoTwoKeys)
		c.Post(analysis, analyse, "x-api-key: "+a, "Authorization: Bearer "+a).Is(401, kaikoTwoKeys)
	}},
	{Name: "KK-07 to KK-12 faults of a request have their types, codes and parameters", Test: func(c *contract.Client, s *Service) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		for body, want := range map[string]string{
			`{"model":"emotion-v2"}`:               typed("invalid_request_error", "missing_field", "The 'messages' field is required", "messages"),
			`{"model":"emotion-v1","messages":[]}`: typed("invalid_request_error", "invalid_model", "The model does not exist", "model"),
		} {
			c.Post(analysis, body, key).Is(400, want)
		}
		c.Post(analysis, `{"model":"emotion-v2","messages":[],"context_id":"ctx-9"}`, key).
			Is(404, typed("not_found_error", "context_not_found", "The context does not exist or has expired", "context_id"))
		twice := `{"model":"emotion-v2","messages":[],"context_id":"ctx-1","external_id":"e"}`
		c.Post(analysis, twice, key).Is(200, analysed)
		c.Post(analysis, twice, key).
			Is(409, typed("conflict_error", "duplicate_id", "The external ID has been used in this context", "external_id"))
		c.Post(analysis, `{"model":"`+strings.Repeat("a", 20<<10)+`"}`, key).
			Is(413, typed("invalid_request_error", "payload_too_large", "The request body is too large.", ""))
		c.Post(analysis, `{"model":"emotion-v2","messages":[{"role":"root"}]}`, key).
			Is(422, typed("invalid_request_error", "invalid_role", "The role must be user, assistant or system", "messages[0].role"))
	}},
	{Name: "KK-13 the 1001st request in a minute is 429, and Retry-After is there only then", Timed: true, Test: func(c *contract.Client, s *Service) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		for range 1000 {
			c.Post(analysis, analyse, key).HasStatus(200).Lacks("Retry-After")
		}
		c.Post(analysis, analyse, key).Is(429, kaikoLimited).Has("Retry-After", "60").
			Has("X-RateLimit-Limit", "1000").Has("X-RateLimit-Remaining", "0").
			Has("X-RateLimit-Reset", fmt.Sprint(time.Now().Add(time.Minute).Unix()))
		other, _ := s.key(c, "live")
		c.Post(analysis, analyse, "x-api-key: "+other).HasStatus(200)
		time.Sleep(time.Minute)
		c.Post(analysis, analyse, key).HasStatus(200)
	}},
	{Name: "KK-14 the 11th simultaneous request is 429, and each place is freed (inferred: response)", Timed: true, Test: func(c *contract.Client, s *Service) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		s.resume = make(chan struct{})
		var waiting sync.WaitGroup
		for range 10 {
			waiting.Go(func() {
				if a, err := c.Try("POST", analysis, analyse, key); err != nil || a.StatusCode != 200 {
					c.TB.Errorf("one of ten got %v, %v", a, err)
				}
			})
		}
		time.Sleep(time.Second) // until all ten wait
		c.Post(analysis, analyse, key).
			Is(429, typed("rate_limit_error", "too_many_requests", "Too many requests at the same time.", "")).Has("Retry-After", "1")
		close(s.resume)
		waiting.Wait()
		c.Post(analysis, analyse, key).Is(200, analysed).Has("X-RateLimit-Remaining", "989")
	}},
	{Name: "KK-15 tokens count against the month, and only chats cost them (inferred: response)", Timed: true, Test: func(c *contract.Client, s *Service) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		c.Post("/v2/chat?tokens=60000", "", key).Is(200, `{"total_tokens":60000}`)
		c.Post("/v2/chat?tokens=60000", "", key).Is(200, `{"total_tokens":60000}`)
		c.Post("/v2/chat?tokens=1", "", key).
			Is(429, typed("rate_limit_error", "too_many_requests", "The monthly token limit is reached.", ""))
		c.Post(analysis, analyse, key).Is(200, analysed)
		_ = s.auth.Close()              // its ticker would tick for a month
		time.Sleep(31 * 24 * time.Hour) // a bubble begins with January
		c.Post("/v2/chat?tokens=1", "", key).Is(200, `{"total_tokens":1}`)
	}},
	{Name: "KK-16 a batch of 101 messages is 400 (inferred)", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "live")
		batch := func(n int) string { return `{"messages":[{}` + strings.Repeat(`,{}`, n-1) + `]}` }
		c.Post("/v2/emotions/batch-analysis", batch(100), "x-api-key: "+key).Is(200, `{"analysed":100}`)
		c.Post("/v2/emotions/batch-analysis", batch(101), "x-api-key: "+key).
			Is(400, typed("invalid_request_error", "too_many_messages", "A batch has at most 100 messages", "messages"))
	}},
	{Name: "KK-17 a handler that takes longer than 30 s is 504 (inferred)", Timed: true, Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "live")
		s.resume = make(chan struct{})
		start := time.Now()
		c.Post(analysis, analyse, "x-api-key: "+key).Is(504, typed("server_error", "timeout", "The request took longer than 30 seconds", ""))
		if d := time.Since(start); d != 30*time.Second {
			c.TB.Errorf("the response came after %v", d)
		}
	}},
	{Name: "KK-18 an unexpected failure is 500 internal and one of a dependency 503, neither with its cause", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "live")
		c.Post(analysis, `{"model":"emotion-v2","messages":[{"role":"user","content":"crash"}]}`, "x-api-key: "+key).
			Is(500, typed("server_error", "internal", "Internal Server Error", ""))
		s.outage = errors.New("dial tcp 10.0.0.7:5432: connection refused")
		c.Post(analysis, analyse, "x-api-key: "+key).
			Is(503, typed("server_error", "service_unavailable", "The API key could not be checked. Please try again.", "")).
			Has("Retry-After", "1")
	}},
	{Name: "KK-19 a repetition gets the first response, marked, and the work is done once (inferred: header)", Test: func(c *contract.Client, s *Service) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		c.Post(analysis, analyse, key, repeat).Is(200, analysed).Lacks("Idempotency-Replayed").Has("X-RateLimit-Remaining", "999")
		c.Post(analysis, analyse, key, repeat).Is(200, analysed).Has("Idempotency-Replayed", "true").
			Has("Content-Type", "application/json").Has("X-RateLimit-Remaining", "998")
		c.Post(analysis, analyse, "Authorization: Bearer "+text, repeat).Is(200, analysed).Has("Idempotency-Replayed", "true")
		s.analyses(c, 1)

		// So does a repetition of a refused request, byte for byte but for the request ID, which
		// is that of the repetition.
		wrong := strings.Replace(repeat, "8", "9", 1)
		const body = `{"model":"emotion-v1","messages":[]}`
		refused := typed("invalid_request_error", "invalid_model", "The model does not exist", "model")
		first := c.Post(analysis, body, key, wrong).Is(400, refused).Lacks("Idempotency-Replayed")
		second := c.Post(analysis, body, key, wrong).Is(400, refused).Has("Idempotency-Replayed", "true")
		before, now := first.Header.Get("X-Request-Id"), second.Header.Get("X-Request-Id")
		if now == before || second.Text != strings.Replace(first.Text, before, now, 1) {
			c.TB.Errorf("first %s %s\nagain %s %s", before, first.Text, now, second.Text)
		}
	}},
	{Name: "KK-20 a repetition while the first runs is 409 (inferred)", Timed: true, Test: func(c *contract.Client, s *Service) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		s.resume = make(chan struct{})
		var first sync.WaitGroup
		first.Go(func() {
			if a, err := c.Try("POST", analysis, analyse, key, repeat); err != nil || a.StatusCode != 200 {
				c.TB.Errorf("the first got %v, %v", a, err)
			}
		})
		time.Sleep(time.Second) // until it waits
		began := time.Now()
		refused := c.Post(analysis, analyse, key, repeat).Is(409, typed("conflict_error", "idempotency_in_progress",
			"A request with this idempotency key is still in progress.", "Idempotency-Key"))
		if waited := time.Since(began); waited != 5*time.Second {
			c.TB.Errorf("the repetition is refused after %v", waited)
		}
		// The rest of the lease, which is 30 seconds.
		if n, err := strconv.Atoi(refused.Header.Get("Retry-After")); err != nil || n < 1 || n > 30 {
			c.TB.Errorf("Retry-After is %q", refused.Header.Get("Retry-After"))
		}
		close(s.resume)
		first.Wait()
		c.Post(analysis, analyse, key, repeat).Is(200, analysed).Has("Idempotency-Replayed", "true")
		s.analyses(c, 1)
	}},
	{Name: "KK-21 a key with another payload is 422 and not run (inferred)", Test: func(c *contract.Client, s *Service) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		c.Post(analysis, analyse, key, repeat).Is(200, analysed)
		c.Post(analysis, other, key, repeat).Is(422, typed("invalid_request_error", "idempotency_key_reused",
			"This idempotency key was used for another request.", "Idempotency-Key")).Lacks("Idempotency-Replayed")
		s.analyses(c, 1)
	}},
	{Name: "KK-22 the same key with another API key is another request (inferred)", Test: func(c *contract.Client, s *Service) {
		one, _ := s.key(c, "live")
		two, _ := s.key(c, "live")
		c.Post(analysis, analyse, "x-api-key: "+one, repeat).Is(200, analysed)
		c.Post(analysis, other, "x-api-key: "+two, repeat).Is(200, analysed).Lacks("Idempotency-Replayed")
		s.analyses(c, 2)
	}},
	{Name: "KK-23 a key that is too long, empty or there twice is 400 and not run (inferred)", Test: func(c *contract.Client, s *Service) {
		text, _ := s.key(c, "live")
		key := "x-api-key: " + text
		bad := typed("invalid_request_error", "idempotency_key_invalid",
			"The idempotency key must be sent once and have 1 to 255 visible ASCII characters.", "Idempotency-Key")
		c.Post(analysis, analyse, key, "Idempotency-Key: "+strings.Repeat("k", 256)).Is(400, bad)
		c.Post(analysis, analyse, key, "Idempotency-Key: ").Is(400, bad)
		c.Post(analysis, analyse, key, repeat, repeat).Is(400, bad)
		s.analyses(c, 0)
		c.Post(analysis, analyse, key, "Idempotency-Key: "+strings.Repeat("k", 255)).Is(200, analysed)
	}},
	{Name: "KK-24 without a key every request runs", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "live")
		for range 2 {
			c.Post(analysis, analyse, "x-api-key: "+key).Is(200, analysed).Lacks("Idempotency-Replayed")
		}
		s.analyses(c, 2)
	}},
	{Name: "404 and 405 are typed (inferred)", Test: func(c *contract.Client, _ *Service) {
		c.Get("/v2/nowhere").Is(404, typed("not_found_error", "not_found", "Not Found", ""))
		c.Get(analysis).Is(405, typed("invalid_request_error", "method_not_allowed", "Method Not Allowed", "")).Has("Allow", "POST")
	}},
}
