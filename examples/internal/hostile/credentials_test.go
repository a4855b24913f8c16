package hostile_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/examples/internal/contract"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/internal/race"
)

// request returns the bytes of a request with these header lines.
func request(path string, lines ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

func bearerKeys(c *settings) { c.keys.Carriers = []apikey.Carrier{{Scheme: "Bearer"}} }

var credentials = []attack{
	{"A01 two lines with keys are 401 without a lookup, equal or not", nil, nil, func(c *contract.Client, s *target) {
		a, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		b, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		for _, second := range []string{a, b, "", "bad"} {
			s.refused(c.Get("/notes", "X-API-Key: "+a, "X-API-Key: "+second))
			s.refused(c.Get("/notes", "X-API-Key: "+second, "x-api-key: "+a))
		}
		s.refused(c.Get("/notes", "X-API-Key: "+a+", "+b))
		s.refused(c.Get("/notes", "X-API-Key: "+a+","))
		c.Get("/notes", "X-API-Key: "+a).HasStatus(200)
	}},
	{"A02 two bearer tokens, a list, a second word and a tab are 401 without a lookup", nil, bearerKeys, func(c *contract.Client, s *target) {
		key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		good := "Authorization: Bearer " + key
		s.refused(c.Get("/notes", good, good))
		s.refused(c.Get("/notes", good, "Authorization: Basic YTpi"))
		s.refused(c.Get("/notes", "Authorization: Basic YTpi", good))
		for _, value := range []string{
			"Bearer " + key + ", Bearer " + key, "Bearer " + key + ",", "Bearer " + key + " " + key, "Bearer x " + key,
			"Bearer\t" + key, "Bearer," + key, "Bearer", "Basic " + key, "Bearer" + key, key,
		} {
			s.refused(c.Get("/notes", "Authorization: "+value))
		}
		c.Get("/notes", good).HasStatus(200)
		c.Get("/notes", "Authorization: bearer  "+key+" ").HasStatus(200)
	}},
	{"A02 folded lines do not put a key together", bytesOnly, bearerKeys, func(c *contract.Client, s *target) {
		key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		s.refused(c.Raw(request("/notes", "Authorization: Bearer "+key[:20], "\t"+key[20:])))
		s.refused(c.Raw(request("/notes", "Authorization: Bearer "+key, " "+key)))
		s.refused(c.Raw(request("/notes", "authorization: Bearer "+key, "AUTHORIZATION: Bearer "+key)))
	}},
	{"A02 bytes that no key has are 401, and those that no field has never arrive", bytesOnly, nil, func(c *contract.Client, s *target) {
		key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		for _, value := range []string{key + "\xa0", "\xff" + key, key + "é", key[:10] + "\t" + key[10:]} {
			s.refused(c.Raw(request("/notes", "X-API-Key: "+value)))
		}
		for _, line := range []string{"X-API-Key: " + key + "\x00", "X-API-Key: \r" + key, "X-API-Key : " + key, "X-API-Key: \x7f" + key} {
			c.Raw(request("/notes", line)).HasStatus(400)
		}
		if n := s.served.Load(); n != 0 {
			c.TB.Errorf("the handler ran %d times", n)
		}
		c.Raw(request("/notes", "x-aPI-kEY: \t"+key+" \t")).HasStatus(200)
	}},
	{"A03 two kinds of credentials are 401 by default, whichever is good", nil, withTokens, func(c *contract.Client, s *target) {
		key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		session := contract.Bearer(s.login(c).AccessToken())
		for _, authorization := range []string{session, issued(nil), "Authorization: Bearer bad", contract.Bearer(key)} {
			for _, key := range []string{key, "bad"} {
				s.refused(c.Get("/notes", authorization, "X-API-Key: "+key))
			}
		}
		for _, line := range []string{session, issued(nil), "X-API-Key: " + key} {
			c.Get("/notes", line).HasStatus(200).Has("Cache-Control", "private").Has("Vary", "Authorization, X-Api-Key")
		}
	}},
	{"A03 with a precedence the first kind decides alone", nil,
		func(c *settings) {
			c.authenticate = func(s *target) []usher.Authenticator {
				return []usher.Authenticator{usher.Precedence(s.tokens, s.auth)}
			}
		}, func(c *contract.Client, s *target) {
			key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
			session := contract.Bearer(s.login(c).AccessToken())
			for _, bad := range []string{"Authorization: Bearer bad", session + "A", issued(map[string]any{"exp": 1}), contract.Bearer(key)} {
				s.refused(c.Get("/notes", bad, "X-API-Key: "+key))
			}
			c.Get("/notes", session, "X-API-Key: bad").HasStatus(200)
			if n := s.store.lookups.Load(); n != 0 {
				c.TB.Errorf("%d lookups", n)
			}
			c.Get("/notes", "X-API-Key: "+key).HasStatus(200)
		}},
	{"A04 a key in another field, the query, a cookie, the body or the trailer is none", nil, nil, func(c *contract.Client, s *target) {
		key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		missing := c.Get("/notes")
		s.refused(missing)
		for _, line := range []string{
			"X_API_Key: " + key, "X-Api_Key: " + key, "X-APIKey: " + key, "Api-Key: " + key, "Authorization: Bearer " + key,
			"Authorization: ApiKey " + key, "Cookie: X-API-Key=" + key + "; api_key=" + key, "X-Original-URL: /notes?api_key=" + key,
		} {
			a := c.Get("/notes", line)
			s.refused(a)
			a.Same(missing)
		}
		for _, query := range []string{"api_key=", "X-API-Key=", "key=", "access_token="} {
			a := c.Get("/notes?" + query + key)
			s.refused(a)
			if strings.Contains(a.Text, key) {
				c.TB.Errorf("the response repeats the key: %s", a.Text)
			}
		}
		s.refused(c.Post("/notes", `{"api_key":"`+key+`"}`))
		r, err := http.NewRequestWithContext(c.TB.Context(), http.MethodPost, c.URL+"/notes", io.MultiReader(strings.NewReader("{}")))
		if err != nil {
			c.TB.Fatal(err)
		}
		r.Trailer = http.Header{"X-Api-Key": {key}}
		a, err := c.Send(r)
		if err != nil {
			c.TB.Fatal(err)
		}
		s.refused(a)
	}},
	{"A06 a key of 900 KiB is 401 without a lookup, and costs what a short one costs", nil, nil, func(c *contract.Client, s *target) {
		long := "acme_live_" + strings.Repeat("a", 900<<10)
		a := c.Get("/notes", "X-API-Key: "+long)
		s.refused(a)
		if strings.Contains(a.Text, "aaaa") {
			c.TB.Error("the response repeats the key")
		}
		a.Same(c.Get("/notes", "X-API-Key: acme_live_short"))
		if race.Enabled {
			return
		}
		costs := func(key string) float64 {
			r := httptest.NewRequestWithContext(c.TB.Context(), http.MethodGet, "/notes", nil)
			r.Header["X-Api-Key"] = []string{key}
			return testing.AllocsPerRun(20, func() { s.handler.ServeHTTP(httptest.NewRecorder(), r) })
		}
		if long, short := costs(long), costs("acme_live_short"); long > short+1 {
			c.TB.Errorf("a long key costs %v allocations, a short one %v", long, short)
		}
	}},
	{"A08 malformed, unknown, revoked, expired and another environment's keys are the same bytes after at most one lookup", nil,
		func(c *settings) { c.keys.Environment = "live" }, func(c *contract.Client, s *target) {
			revoked, k := s.key(c, apikey.Key{})
			if _, err := s.manager.Revoke(c.TB.Context(), apikey.Actor{System: true}, "ada", k.ID); err != nil {
				c.TB.Fatal(err)
			}
			test, _ := s.key(c, apikey.Key{Environment: "test"})
			unknown, err := targetFormat.Generate(strings.NewReader(strings.Repeat("z", 1000)), "live")
			if err != nil {
				c.TB.Fatal(err)
			}
			first := c.Get("/notes", "X-API-Key: "+unknown).HasStatus(401)
			if n := s.store.lookups.Swap(0); n != 1 {
				c.TB.Errorf("%d lookups for an unknown key", n)
			}
			c.Get("/notes", "X-API-Key: "+revoked).Same(first)
			if n := s.store.lookups.Swap(0); n != 1 {
				c.TB.Errorf("%d lookups for a revoked key", n)
			}
			for _, bad := range []string{"x", unknown + "x", unknown[:len(unknown)-1] + "x", "acme_live_", test, strings.ToUpper(unknown)} {
				a := c.Get("/notes", "X-API-Key: "+bad)
				s.refused(a)
				a.Same(first)
			}
		}},
}

var lifecycle = []attack{
	{"A11 100 parallel creates at a cap of 5 leave exactly 5 keys", nil, nil, func(c *contract.Client, _ *target) {
		var made, refused atomic.Int64
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				switch a, err := c.Try("POST", "/api-keys", `{"name":"k"}`, web.AsAda); {
				case err != nil:
					c.TB.Error(err)
				case a.StatusCode == 201:
					made.Add(1)
				case a.StatusCode == 409:
					refused.Add(1)
				default:
					c.TB.Errorf("status %d: %s", a.StatusCode, a.Text)
				}
			})
		}
		all.Wait()
		if made.Load() != 5 || refused.Load() != 95 {
			c.TB.Errorf("%d made and %d refused", made.Load(), refused.Load())
		}
		if total := c.Get("/api-keys", web.AsAda).Member("pagination.total"); total != "5" {
			c.TB.Errorf("%s keys", total)
		}
	}},
	{"A16 an owner that is disabled and a key that is reduced are refused at the next request", nil,
		func(c *settings) {
			c.keys.Check = func(_ context.Context, k *apikey.Key) error {
				if k.Name == "disabled" {
					return &usher.Error{Status: http.StatusForbidden, Code: "account_disabled", Message: "The account is disabled."}
				}
				return nil
			}
		}, func(c *contract.Client, s *target) {
			text, k := s.key(c, apikey.Key{Level: usher.LevelFull})
			key := "X-API-Key: " + text
			change := func(f func(*apikey.Key)) {
				if _, err := s.manager.Update(c.TB.Context(), apikey.Actor{System: true}, k.Owner, k.ID, f); err != nil {
					c.TB.Fatal(err)
				}
			}
			c.Delete("/notes/1", key).HasStatus(200)
			change(func(k *apikey.Key) { k.Level = usher.LevelReadOnly })
			c.Delete("/notes/1", key).HasStatus(403)
			c.Post("/notes", `{}`, key).HasStatus(403)
			c.Get("/notes", key).HasStatus(200)
			change(func(k *apikey.Key) { k.Level = usher.LevelNone })
			c.Get("/notes", key).HasStatus(403)
			change(func(k *apikey.Key) { k.Level, k.Name = usher.LevelFull, "disabled" })
			if code := c.Get("/notes", key).HasStatus(403).Member("message"); code != "The account is disabled." {
				c.TB.Errorf("message %q", code)
			}
			if _, err := s.manager.Revoke(c.TB.Context(), apikey.Actor{System: true}, k.Owner, k.ID); err != nil {
				c.TB.Fatal(err)
			}
			c.Get("/notes", key).HasStatus(401)
		}},
}
