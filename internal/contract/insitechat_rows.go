package contract

import (
	"strings"
	"sync"
	"time"

	"github.com/usher-go/usher/apikey"
)

// key issues a key and returns the header line that presents it.
func (s *insiteChat) key(c *client, owner string) (string, apikey.Key) {
	c.tb.Helper()
	k, secret, err := s.manager.Create(c.tb.Context(), apikey.Actor{System: true}, apikey.Key{Owner: owner, Name: "k"})
	if err != nil {
		c.tb.Fatal(err)
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

var insiteChatRows = []row[*insiteChat]{
	{"IC-01 a list is a bare array and says nothing of limits", false, func(c *client, s *insiteChat) {
		key, _ := s.key(c, "ada")
		c.get("/v1/chatbots", key).is(200, "["+oneBot+"]").has("Content-Type", "application/json").lacks(limitFields...)
	}},
	{"IC-02 missing, malformed, unknown and revoked keys are the same body", false, func(c *client, s *insiteChat) {
		revoked, k := s.key(c, "ada")
		c.delete("/v1/api-keys/"+k.ID, asAda).status(204)
		c.get("/v1/chatbots").is(401, unauthorized)
		unknown := c.get("/v1/chatbots", "Authorization: Bearer ic_"+strings.Repeat("A", 44)).is(401, unauthorized)
		c.get("/v1/chatbots", "Authorization: Bearer nonsense").is(401, unauthorized).same(unknown)
		c.get("/v1/chatbots", revoked).is(401, unauthorized).same(unknown)
	}},
	{"IC-03 a key in X-API-Key or in the query is none (inferred)", false, func(c *client, s *insiteChat) {
		key, _ := s.key(c, "ada")
		text := strings.TrimPrefix(key, "Authorization: Bearer ")
		missing := c.get("/v1/chatbots")
		c.get("/v1/chatbots", "X-API-Key: "+text).is(401, unauthorized).same(missing)
		c.get("/v1/chatbots?api_key="+text).is(401, unauthorized).same(missing)
	}},
	{"IC-04 a bot that is absent is 404 with a detail", false, func(c *client, s *insiteChat) {
		key, _ := s.key(c, "ada")
		c.get("/v1/chatbots/other", key).is(404, `{"detail":"Chatbot not found."}`)
		c.get(botPath, key).is(200, oneBot)
	}},
	{"IC-05 sources are a bare array", false, func(c *client, s *insiteChat) {
		key, _ := s.key(c, "ada")
		const tail = `"page_count":0,"created_at":"2026-01-02T15:04:05.678901+00:00"}`
		c.get(botPath+"/sources", key).is(200, `[{"id":"s2","type":"text","title":"New","url":null,"status":"pending",`+tail+
			`,{"id":"s1","type":"text","title":"Old","url":null,"status":"done",`+strings.Replace(tail, "0", "1", 1)+`]`)
	}},
	{"IC-06 a chat answers with the response alone", false, func(c *client, s *insiteChat) {
		key, _ := s.key(c, "ada")
		c.post(botPath+"/chat", `{"message":"hi"}`, key).is(200, `{"response":"You said: hi"}`)
	}},
	{"IC-07 a malformed body and a missing field are 400", false, func(c *client, s *insiteChat) {
		key, _ := s.key(c, "ada")
		c.post(botPath+"/chat", `{`, key).is(400, `{"detail":"The request is not valid. body: The body must be a JSON object of the documented form."}`)
		c.post(botPath+"/chat", `{}`, key).is(400, `{"detail":"The request is not valid. message: Field required"}`)
	}},
	{"IC-08 the 61st request is 429 exactly as documented, without Retry-After", false, func(c *client, s *insiteChat) {
		key, _ := s.key(c, "ada")
		c.admitted(60, 200, "/v1/chatbots", key)
		a := c.get("/v1/chatbots", key).is(429, tooMany).has("Content-Type", "application/json").lacks(limitFields...)
		if a.body != tooMany {
			c.tb.Errorf("the body is %q", a.body)
		}
	}},
	{"IC-09 the window rolls: 60 within a second, then 429 at 59.9 s and 200 at 61.1 s", true, func(c *client, s *insiteChat) {
		key, _ := s.key(c, "ada")
		start := time.Now()
		for i := range 60 {
			time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / 60)))
			c.get("/v1/chatbots", key).status(200)
		}
		time.Sleep(time.Until(start.Add(59900 * time.Millisecond)))
		c.get("/v1/chatbots", key).is(429, tooMany)
		time.Sleep(time.Until(start.Add(61100 * time.Millisecond)))
		c.get("/v1/chatbots", key).status(200)
	}},
	{"IC-09 the window rolls: never 61 in any 60 s astride a full minute", true, func(c *client, s *insiteChat) {
		key, _ := s.key(c, "ada")
		time.Sleep(59 * time.Second)
		c.admitted(60, 200, "/v1/chatbots", key)
		time.Sleep(2 * time.Second)
		c.get("/v1/chatbots", key).is(429, tooMany)
	}},
	{"IC-10 two keys of an account have counters of their own", false, func(c *client, s *insiteChat) {
		a, _ := s.key(c, "ada")
		b, _ := s.key(c, "ada")
		c.admitted(60, 200, "/v1/chatbots", a)
		c.get("/v1/chatbots", a).status(429)
		c.get("/v1/chatbots", b).status(200)
	}},
	{"IC-11 the quota of the month has a text of its own, and only chats have it", true, func(c *client, s *insiteChat) {
		a, _ := s.key(c, "ada")
		b, _ := s.key(c, "ada")
		for range monthly {
			c.post(botPath+"/chat", `{}`, a).status(400) // costs nothing
			c.post(botPath+"/chat", `{"message":"hi"}`, a).status(200)
		}
		for _, key := range []string{a, b} {
			c.post(botPath+"/chat", `{"message":"hi"}`, key).is(429, `{"detail":"Monthly message limit reached."}`).lacks(limitFields...)
			c.get("/v1/chatbots", key).status(200)
		}
		_ = s.auth.Close()              // its ticker would tick for a month
		time.Sleep(31 * 24 * time.Hour) // a bubble begins with January
		c.post(botPath+"/chat", `{"message":"hi"}`, a).status(200)
	}},
	{"IC-12 the sixth active key is 400, also if all come at once", false, func(c *client, s *insiteChat) {
		var made, refused sync.Map
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				a, err := c.try("POST", "/v1/api-keys", `{"name":"k"}`, asAda)
				switch {
				case err != nil:
					c.tb.Error(err)
				case a.StatusCode == 201:
					made.Store(i, true)
				default:
					refused.Store(i, true)
					a.is(400, `{"detail":"Maximum 5 active API keys allowed."}`)
				}
			})
		}
		all.Wait()
		if n := size(&made); n != 5 {
			c.tb.Errorf("%d keys were made", n)
		}
		if n := size(&refused); n != 15 {
			c.tb.Errorf("%d were refused", n)
		}
		c.post("/v1/api-keys", `{"name":"k"}`, asBert).status(201)
	}},
	{"IC-13 revoking a key makes room for another, which is shown in this answer only", false, func(c *client, s *insiteChat) {
		var first apikey.Key
		for range 5 {
			_, first = s.key(c, "ada")
		}
		c.post("/v1/api-keys", `{"name":"k"}`, asAda).status(400)
		c.delete("/v1/api-keys/"+first.ID, asAda).status(204)
		key := c.post("/v1/api-keys", `{"name":"k"}`, asAda).is(201, `{"api_key":"ic_<44>","key":{"id":"<id>","name":"k","prefix":"ic_<5>","last_four":"<4>",`+
			`"scopes":[],"level":"none","environment":null,"created_at":"<instant>","updated_at":"<instant>",`+
			`"expires_at":null,"revoked_at":null,"last_used_at":null,"replaced_by":null}}`).member("api_key")
		if list := c.get("/v1/api-keys", asAda).status(200); strings.Contains(list.body, key[8:]) {
			c.tb.Error("the list shows the key")
		}
	}},
	{"IC-14 revoking an unknown key or another's is the same 404", false, func(c *client, s *insiteChat) {
		_, k := s.key(c, "bert")
		unknown := c.delete("/v1/api-keys/unknown", asAda).is(404, `{"detail":"API key not found."}`)
		c.delete("/v1/api-keys/"+k.ID, asAda).is(404, `{"detail":"API key not found."}`).same(unknown)
	}},
	{"IC-15 a revoked key is refused at once", false, func(c *client, s *insiteChat) {
		key, k := s.key(c, "ada")
		c.get("/v1/chatbots", key).status(200)
		c.delete("/v1/api-keys/"+k.ID, asAda).status(204)
		c.get("/v1/chatbots", key).is(401, unauthorized)
	}},
	{"IC-16 the last use is that of a successful call, and changes by no other", true, func(c *client, s *insiteChat) {
		key, k := s.key(c, "ada")
		lastUse := func() time.Time {
			time.Sleep(11 * time.Second) // until the next batch is written
			k, err := s.manager.Find(c.tb.Context(), "ada", k.ID)
			if err != nil {
				c.tb.Fatal(err)
			}
			return k.LastUsedAt
		}
		c.get("/v1/chatbots", key+"x").status(401)
		if at := lastUse(); !at.IsZero() {
			c.tb.Errorf("used at %v without a call", at)
		}
		used := time.Now()
		c.get("/v1/chatbots", key).status(200)
		if at := lastUse(); !at.Equal(used) {
			c.tb.Errorf("used at %v, want %v", at, used)
		}
		c.admitted(59, 200, "/v1/chatbots", key)
		used = lastUse()
		c.get("/v1/chatbots", key).status(429)
		if at := lastUse(); !at.Equal(used) {
			c.tb.Errorf("a refused call moved the last use from %v to %v", used, at)
		}
	}},
	{"IC-21 a server failure is 500 with a detail that says nothing of it (inferred: text)", false, func(c *client, s *insiteChat) {
		key, _ := s.key(c, "ada")
		s.broken = true
		c.get("/v1/chatbots", key).is(500, `{"detail":"Internal Server Error"}`)
	}},
	{"404, 405 and 413 have a detail (inferred: texts)", false, func(c *client, s *insiteChat) {
		key, _ := s.key(c, "ada")
		c.get("/v1/nowhere", key).is(404, `{"detail":"Not Found"}`)
		c.do("PUT", "/v1/chatbots", `{}`, key).is(405, `{"detail":"Method Not Allowed"}`)
		c.post(botPath+"/chat", `{"message":"`+strings.Repeat("a", 20<<10)+`"}`, key).is(413, `{"detail":"The request body is too large."}`)
	}},
}

func size(m *sync.Map) (n int) {
	m.Range(func(any, any) bool { n++; return true })
	return n
}
