package service

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/examples/internal/contract"
	"github.com/usher-go/usher/examples/internal/web"
)

// key issues a key and returns the header line that carries it.
func (s *Service) key(c *contract.Client, owner string) (string, apikey.Key) {
	c.TB.Helper()
	k, secret, err := s.manager.Create(c.TB.Context(), apikey.Actor{System: true}, apikey.Key{Owner: owner, Name: "k"})
	if err != nil {
		c.TB.Fatal(err)
	}
	return "Authorization: Bearer " + secret.Reveal(), k
}

const (
	oneBot       = `{"id":"7a1e3f5c-0000-4000-8000-000000000001","name":"Help","slug":"help","provider":"gemini","is_active":true,"created_at":"2026-01-02T15:04:05.678901+00:00"}`
	botPath      = "/v1/chatbots/7a1e3f5c-0000-4000-8000-000000000001"
	unauthorized = `{"detail":"Unauthorized"}`
	tooMany      = `{"detail":"API rate limit exceeded. Max 60 requests per minute."}`
)

var limitFields = []string{"Retry-After", "RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}

func TestContract(t *testing.T) { contract.Run(t, New, rows) }

var rows = []contract.Row[*Service]{
	{Name: "IC-01 a list is a bare array, without header fields of limits", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada")
		c.Get("/v1/chatbots", key).Is(200, "["+oneBot+"]").Has("Content-Type", "application/json").Lacks(limitFields...)
	}},
	{Name: "IC-02 missing, malformed, unknown and revoked keys are the same body", Test: func(c *contract.Client, s *Service) {
		revoked, k := s.key(c, "ada")
		c.Delete("/v1/api-keys/"+k.ID, web.AsAda).HasStatus(204)
		c.Get("/v1/chatbots").Is(401, unauthorized)
		unknown := c.Get("/v1/chatbots", "Authorization: Bearer ic_"+strings.Repeat("A", 44)).Is(401, unauthorized)
		c.Get("/v1/chatbots", "Authorization: Bearer nonsense").Is(401, unauthorized).Same(unknown)
		c.Get("/v1/chatbots", revoked).Is(401, unauthorized).Same(unknown)
	}},
	{Name: "IC-03 a key in X-API-Key or in the query is none (inferred)", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada")
		text := strings.TrimPrefix(key, "Authorization: Bearer ")
		missing := c.Get("/v1/chatbots")
		c.Get("/v1/chatbots", "X-API-Key: "+text).Is(401, unauthorized).Same(missing)
		c.Get("/v1/chatbots?api_key="+text).Is(401, unauthorized).Same(missing)
	}},
	{Name: "IC-04 a bot that is absent is 404 with a detail", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada")
		c.Get("/v1/chatbots/other", key).Is(404, `{"detail":"Chatbot not found."}`)
		c.Get(botPath, key).Is(200, oneBot)
	}},
	{Name: "IC-05 sources are a bare array", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada")
		const tail = `"page_count":0,"created_at":"2026-01-02T15:04:05.678901+00:00"}`
		c.Get(botPath+"/sources", key).Is(200, `[{"id":"s2","type":"text","title":"New","url":null,"status":"pending",`+tail+
			`,{"id":"s1","type":"text","title":"Old","url":null,"status":"done",`+strings.Replace(tail, "0", "1", 1)+`]`)
	}},
	{Name: "IC-06 a chat responds with the text alone", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada")
		c.Post(botPath+"/chat", `{"message":"hi"}`, key).Is(200, `{"response":"You said: hi"}`)
	}},
	{Name: "IC-07 a malformed body and a missing field are 400", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada")
		c.Post(botPath+"/chat", `{`, key).Is(400, `{"detail":"The request is not valid. body: The body must be a JSON object of the documented form."}`)
		c.Post(botPath+"/chat", `{}`, key).Is(400, `{"detail":"The request is not valid. message: Field required"}`)
	}},
	{Name: "IC-08 the 61st request is 429 exactly as documented, without Retry-After", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada")
		c.Admitted(60, 200, "/v1/chatbots", key)
		a := c.Get("/v1/chatbots", key).Is(429, tooMany).Has("Content-Type", "application/json").Lacks(limitFields...)
		if a.Text != tooMany {
			c.TB.Errorf("the body is %q", a.Text)
		}
	}},
	{Name: "IC-09 the window rolls: 60 within a second, then 429 at 59.9 s and 200 at 61.1 s", Timed: true, Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada")
		start := time.Now()
		for i := range 60 {
			time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / 60)))
			c.Get("/v1/chatbots", key).HasStatus(200)
		}
		time.Sleep(time.Until(start.Add(59900 * time.Millisecond)))
		c.Get("/v1/chatbots", key).Is(429, tooMany)
		time.Sleep(time.Until(start.Add(61100 * time.Millisecond)))
		c.Get("/v1/chatbots", key).HasStatus(200)
	}},
	{Name: "IC-09 the window rolls: never 61 in any 60 s around a full minute", Timed: true, Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada")
		time.Sleep(59 * time.Second)
		c.Admitted(60, 200, "/v1/chatbots", key)
		time.Sleep(2 * time.Second)
		c.Get("/v1/chatbots", key).Is(429, tooMany)
	}},
	{Name: "IC-10 two keys of an account have counters of their own", Test: func(c *contract.Client, s *Service) {
		a, _ := s.key(c, "ada")
		b, _ := s.key(c, "ada")
		c.Admitted(60, 200, "/v1/chatbots", a)
		c.Get("/v1/chatbots", a).HasStatus(429)
		c.Get("/v1/chatbots", b).HasStatus(200)
	}},
	{Name: "IC-11 the quota of the month has a text of its own, and only chats have it", Timed: true, Test: func(c *contract.Client, s *Service) {
		a, _ := s.key(c, "ada")
		b, _ := s.key(c, "ada")
		for range monthly {
			c.Post(botPath+"/chat", `{}`, a).HasStatus(400) // costs nothing
			c.Post(botPath+"/chat", `{"message":"hi"}`, a).HasStatus(200)
		}
		for _, key := range []string{a, b} {
			c.Post(botPath+"/chat", `{"message":"hi"}`, key).Is(429, `{"detail":"Monthly message limit reached."}`).Lacks(limitFields...)
			c.Get("/v1/chatbots", key).HasStatus(200)
		}
		_ = s.auth.Close()              // its ticker would tick for a month
		time.Sleep(31 * 24 * time.Hour) // a bubble begins with January
		c.Post(botPath+"/chat", `{"message":"hi"}`, a).HasStatus(200)
	}},
	{Name: "IC-12 the sixth active key is 400, also if all come at once", Test: func(c *contract.Client, s *Service) {
		var made, refused sync.Map
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				a, err := c.Try("POST", "/v1/api-keys", `{"name":"k"}`, web.AsAda)
				switch {
				case err != nil:
					c.TB.Error(err)
				case a.StatusCode == 201:
					made.Store(i, true)
				default:
					refused.Store(i, true)
					a.Is(400, `{"detail":"Maximum 5 active API keys allowed."}`)
				}
			})
		}
		all.Wait()
		if n := size(&made); n != 5 {
			c.TB.Errorf("%d keys were made", n)
		}
		if n := size(&refused); n != 15 {
			c.TB.Errorf("%d were refused", n)
		}
		c.Post("/v1/api-keys", `{"name":"k"}`, web.AsBert).HasStatus(201)
	}},
	{Name: "IC-13 revoking a key makes room for another, which is shown in this response only", Test: func(c *contract.Client, s *Service) {
		var first apikey.Key
		for range 5 {
			_, first = s.key(c, "ada")
		}
		c.Post("/v1/api-keys", `{"name":"k"}`, web.AsAda).HasStatus(400)
		c.Delete("/v1/api-keys/"+first.ID, web.AsAda).HasStatus(204)
		key := c.Post("/v1/api-keys", `{"name":"k"}`, web.AsAda).Is(201, `{"api_key":"ic_<44>","key":{"id":"<id>","name":"k","description":null,"prefix":"ic_<5>","last_four":"<4>",`+
			`"scopes":[],"level":"none","environment":null,"allowed_networks":[],"created_at":"<instant>","created_by":"jwt:ada",`+
			`"updated_at":"<instant>","expires_at":null,"disabled_at":null,"revoked_at":null,"last_used_at":null,"last_used_from":null,`+
			`"replaced_by":null,"derived_from":null}}`).Member("api_key")
		if list := c.Get("/v1/api-keys", web.AsAda).HasStatus(200); strings.Contains(list.Text, key[8:]) {
			c.TB.Error("the list shows the key")
		}
	}},
	{Name: "IC-14 revoking an unknown key or another's is the same 404", Test: func(c *contract.Client, s *Service) {
		_, k := s.key(c, "bert")
		unknown := c.Delete("/v1/api-keys/unknown", web.AsAda).Is(404, `{"detail":"API key not found."}`)
		c.Delete("/v1/api-keys/"+k.ID, web.AsAda).Is(404, `{"detail":"API key not found."}`).Same(unknown)
	}},
	{Name: "IC-15 a revoked key is refused at once", Test: func(c *contract.Client, s *Service) {
		key, k := s.key(c, "ada")
		c.Get("/v1/chatbots", key).HasStatus(200)
		c.Delete("/v1/api-keys/"+k.ID, web.AsAda).HasStatus(204)
		c.Get("/v1/chatbots", key).Is(401, unauthorized)
	}},
	{Name: "IC-16 the last use is that of a successful call, and changes by no other", Timed: true, Test: func(c *contract.Client, s *Service) {
		key, k := s.key(c, "ada")
		lastUse := func() time.Time {
			time.Sleep(11 * time.Second) // until the next batch is written
			k, err := s.manager.Find(c.TB.Context(), "ada", k.ID)
			if err != nil {
				c.TB.Fatal(err)
			}
			return k.LastUsedAt
		}
		c.Get("/v1/chatbots", key+"x").HasStatus(401)
		if at := lastUse(); !at.IsZero() {
			c.TB.Errorf("used at %v without a call", at)
		}
		used := time.Now()
		c.Get("/v1/chatbots", key).HasStatus(200)
		if at := lastUse(); !at.Equal(used) {
			c.TB.Errorf("used at %v, want %v", at, used)
		}
		c.Admitted(59, 200, "/v1/chatbots", key)
		used = lastUse()
		c.Get("/v1/chatbots", key).HasStatus(429)
		if at := lastUse(); !at.Equal(used) {
			c.TB.Errorf("a refused call moved the last use from %v to %v", used, at)
		}
	}},
	{Name: "IC-21 a server failure is 500 with a detail that hides the cause (inferred: text)", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada")
		s.broken = true
		c.Get("/v1/chatbots", key).Is(500, `{"detail":"Internal Server Error"}`)
	}},
	{Name: "404, 405 and 413 have a detail (inferred: texts)", Test: func(c *contract.Client, s *Service) {
		key, _ := s.key(c, "ada")
		c.Get("/v1/nowhere", key).Is(404, `{"detail":"Not Found"}`)
		c.Do("PUT", "/v1/chatbots", `{}`, key).Is(405, `{"detail":"Method Not Allowed"}`)
		c.Post(botPath+"/chat", `{"message":"`+strings.Repeat("a", 20<<10)+`"}`, key).Is(413, `{"detail":"The request body is too large."}`)
	}},
}

func size(m *sync.Map) (n int) {
	m.Range(func(any, any) bool { n++; return true })
	return n
}
