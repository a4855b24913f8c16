package contract

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/ratelimit"
)

var attacks = slices.Concat(credentials, tokens, lifecycle, addresses, repetitions, answers)

// bytesOnly are attacks that only bytes on a connection can make.
var bytesOnly = []transport{http1}

// request returns the bytes of a request with these header lines.
func request(path string, lines ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

func bearerKeys(c *settings) { c.keys.Bearer = true }

var credentials = []attack{
	{"A01 two lines with keys are 401 without a lookup, equal or not", nil, nil, func(c *client, s *target) {
		a, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		b, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		for _, second := range []string{a, b, "", "bad"} {
			s.refused(c.get("/notes", "X-API-Key: "+a, "X-API-Key: "+second))
			s.refused(c.get("/notes", "X-API-Key: "+second, "x-api-key: "+a))
		}
		s.refused(c.get("/notes", "X-API-Key: "+a+", "+b))
		s.refused(c.get("/notes", "X-API-Key: "+a+","))
		c.get("/notes", "X-API-Key: "+a).status(200)
	}},
	{"A02 two bearer tokens, a list, a second word and a tab are 401 without a lookup", nil, bearerKeys, func(c *client, s *target) {
		key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		good := "Authorization: Bearer " + key
		s.refused(c.get("/notes", good, good))
		s.refused(c.get("/notes", good, "Authorization: Basic YTpi"))
		s.refused(c.get("/notes", "Authorization: Basic YTpi", good))
		for _, value := range []string{
			"Bearer " + key + ", Bearer " + key, "Bearer " + key + ",", "Bearer " + key + " " + key, "Bearer x " + key,
			"Bearer\t" + key, "Bearer," + key, "Bearer", "Basic " + key, "Bearer" + key, key,
		} {
			s.refused(c.get("/notes", "Authorization: "+value))
		}
		c.get("/notes", good).status(200)
		c.get("/notes", "Authorization: bearer  "+key+" ").status(200)
	}},
	{"A02 folded lines do not put a key together", bytesOnly, bearerKeys, func(c *client, s *target) {
		key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		s.refused(c.raw(request("/notes", "Authorization: Bearer "+key[:20], "\t"+key[20:])))
		s.refused(c.raw(request("/notes", "Authorization: Bearer "+key, " "+key)))
		s.refused(c.raw(request("/notes", "authorization: Bearer "+key, "AUTHORIZATION: Bearer "+key)))
	}},
	{"A02 bytes that no key has are 401, and those that no field has never arrive", bytesOnly, nil, func(c *client, s *target) {
		key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		for _, value := range []string{key + "\xa0", "\xff" + key, key + "é", key[:10] + "\t" + key[10:]} {
			s.refused(c.raw(request("/notes", "X-API-Key: "+value)))
		}
		for _, line := range []string{"X-API-Key: " + key + "\x00", "X-API-Key: \r" + key, "X-API-Key : " + key, "X-API-Key: \x7f" + key} {
			c.raw(request("/notes", line)).status(400)
		}
		if n := s.served.Load(); n != 0 {
			c.tb.Errorf("the handler ran %d times", n)
		}
		c.raw(request("/notes", "x-aPI-kEY: \t"+key+" \t")).status(200)
	}},
	{"A03 two kinds of credentials are 401 by default, whichever is good", nil, withTokens, func(c *client, s *target) {
		key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		session := bearer(s.login(c).AccessToken())
		for _, authorization := range []string{session, issued(nil), "Authorization: Bearer bad", bearer(key)} {
			for _, key := range []string{key, "bad"} {
				s.refused(c.get("/notes", authorization, "X-API-Key: "+key))
			}
		}
		for _, line := range []string{session, issued(nil), "X-API-Key: " + key} {
			c.get("/notes", line).status(200).has("Cache-Control", "private").has("Vary", "Authorization, X-Api-Key")
		}
	}},
	{"A03 by precedence the first kind decides alone", nil,
		func(c *settings) {
			c.authenticate = func(s *target) []usher.Authenticator {
				return []usher.Authenticator{usher.Precedence(s.tokens, s.auth)}
			}
		}, func(c *client, s *target) {
			key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
			session := bearer(s.login(c).AccessToken())
			for _, bad := range []string{"Authorization: Bearer bad", session + "A", issued(map[string]any{"exp": 1}), bearer(key)} {
				s.refused(c.get("/notes", bad, "X-API-Key: "+key))
			}
			c.get("/notes", session, "X-API-Key: bad").status(200)
			if n := s.store.lookups.Load(); n != 0 {
				c.tb.Errorf("%d lookups", n)
			}
			c.get("/notes", "X-API-Key: "+key).status(200)
		}},
	{"A04 a key in another field, the query, a cookie, the body or the trailer is none", nil, nil, func(c *client, s *target) {
		key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		missing := c.get("/notes")
		s.refused(missing)
		for _, line := range []string{
			"X_API_Key: " + key, "X-Api_Key: " + key, "X-APIKey: " + key, "Api-Key: " + key, "Authorization: Bearer " + key,
			"Authorization: ApiKey " + key, "Cookie: X-API-Key=" + key + "; api_key=" + key, "X-Original-URL: /notes?api_key=" + key,
		} {
			a := c.get("/notes", line)
			s.refused(a)
			a.same(missing)
		}
		for _, query := range []string{"api_key=", "X-API-Key=", "key=", "access_token="} {
			a := c.get("/notes?" + query + key)
			s.refused(a)
			if strings.Contains(a.body, key) {
				c.tb.Errorf("the answer repeats the key: %s", a.body)
			}
		}
		s.refused(c.post("/notes", `{"api_key":"`+key+`"}`))
		r, err := http.NewRequestWithContext(c.tb.Context(), http.MethodPost, c.url+"/notes", io.MultiReader(strings.NewReader("{}")))
		if err != nil {
			c.tb.Fatal(err)
		}
		r.Trailer = http.Header{"X-Api-Key": {key}}
		a, err := c.send(r)
		if err != nil {
			c.tb.Fatal(err)
		}
		s.refused(a)
	}},
	{"A06 a key of 900 KiB is 401 without a lookup, and costs what a short one costs", nil, nil, func(c *client, s *target) {
		long := "acme_live_" + strings.Repeat("a", 900<<10)
		a := c.get("/notes", "X-API-Key: "+long)
		s.refused(a)
		if strings.Contains(a.body, "aaaa") {
			c.tb.Error("the answer repeats the key")
		}
		a.same(c.get("/notes", "X-API-Key: acme_live_short"))
		if race.Enabled {
			return
		}
		costs := func(key string) float64 {
			r := httptest.NewRequestWithContext(c.tb.Context(), http.MethodGet, "/notes", nil)
			r.Header["X-Api-Key"] = []string{key}
			return testing.AllocsPerRun(20, func() { s.handler.ServeHTTP(httptest.NewRecorder(), r) })
		}
		if long, short := costs(long), costs("acme_live_short"); long > short+1 {
			c.tb.Errorf("a long key costs %v allocations, a short one %v", long, short)
		}
	}},
	{"A08 malformed, unknown, revoked, expired and another environment's keys are the same bytes after at most one lookup", nil,
		func(c *settings) { c.keys.Environment = "live" }, func(c *client, s *target) {
			revoked, k := s.key(c, apikey.Key{})
			if _, err := s.manager.Revoke(c.tb.Context(), apikey.Actor{System: true}, "ada", k.ID); err != nil {
				c.tb.Fatal(err)
			}
			test, _ := s.key(c, apikey.Key{Environment: "test"})
			unknown, err := targetFormat.Generate(strings.NewReader(strings.Repeat("z", 1000)), "live")
			if err != nil {
				c.tb.Fatal(err)
			}
			first := c.get("/notes", "X-API-Key: "+unknown).status(401)
			if n := s.store.lookups.Swap(0); n != 1 {
				c.tb.Errorf("%d lookups for an unknown key", n)
			}
			c.get("/notes", "X-API-Key: "+revoked).same(first)
			if n := s.store.lookups.Swap(0); n != 1 {
				c.tb.Errorf("%d lookups for a revoked key", n)
			}
			for _, bad := range []string{"x", unknown + "x", unknown[:len(unknown)-1] + "x", "acme_live_", test, strings.ToUpper(unknown)} {
				a := c.get("/notes", "X-API-Key: "+bad)
				s.refused(a)
				a.same(first)
			}
		}},
}

var lifecycle = []attack{
	{"A11 100 parallel creates at a cap of 5 leave exactly 5 keys", nil, nil, func(c *client, _ *target) {
		var made, refused atomic.Int64
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				switch a, err := c.try("POST", "/api-keys", `{"name":"k"}`, asAda); {
				case err != nil:
					c.tb.Error(err)
				case a.StatusCode == 201:
					made.Add(1)
				case a.StatusCode == 409:
					refused.Add(1)
				default:
					c.tb.Errorf("status %d: %s", a.StatusCode, a.body)
				}
			})
		}
		all.Wait()
		if made.Load() != 5 || refused.Load() != 95 {
			c.tb.Errorf("%d made and %d refused", made.Load(), refused.Load())
		}
		if total := c.get("/api-keys", asAda).member("pagination.total"); total != "5" {
			c.tb.Errorf("%s keys", total)
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
		}, func(c *client, s *target) {
			text, k := s.key(c, apikey.Key{Level: usher.LevelFull})
			key := "X-API-Key: " + text
			change := func(f func(*apikey.Key)) {
				if _, err := s.manager.Update(c.tb.Context(), apikey.Actor{System: true}, k.Owner, k.ID, f); err != nil {
					c.tb.Fatal(err)
				}
			}
			c.delete("/notes/1", key).status(200)
			change(func(k *apikey.Key) { k.Level = usher.LevelReadOnly })
			c.delete("/notes/1", key).status(403)
			c.post("/notes", `{}`, key).status(403)
			c.get("/notes", key).status(200)
			change(func(k *apikey.Key) { k.Level = usher.LevelNone })
			c.get("/notes", key).status(403)
			change(func(k *apikey.Key) { k.Level, k.Name = usher.LevelFull, "disabled" })
			if code := c.get("/notes", key).status(403).member("message"); code != "The account is disabled." {
				c.tb.Errorf("message %q", code)
			}
			if _, err := s.manager.Revoke(c.tb.Context(), apikey.Actor{System: true}, k.Owner, k.ID); err != nil {
				c.tb.Fatal(err)
			}
			c.get("/notes", key).status(401)
		}},
}

// three a minute, with what a client may claim about itself.
func threeAMinute(c *settings) { c.perAddress = ratelimit.RollingWindow(3, time.Minute) }

func behindProxy(c *settings) {
	threeAMinute(c)
	c.proxies = []string{"127.0.0.1", "192.0.2.1"}
}

var addresses = []attack{
	{"R01 what an untrusted peer says about its address buys nothing", nil, threeAMinute, func(c *client, _ *target) {
		for i, name := range []string{
			"X-Forwarded-For", "X-Real-IP", "True-Client-IP", "X_Forwarded_For", "CF-Connecting-IP", "X-Client-IP", "X-Cluster-Client-IP", "Forwarded",
		} {
			value := fmt.Sprintf("203.0.113.%d", i)
			if name == "Forwarded" {
				value = "for=" + value
			}
			a := c.get("/", name+": "+value)
			if want := 404; i < 3 {
				a.status(want)
			} else {
				a.status(429)
			}
			if ip := a.member("metadata.ip"); ip != "127.0.0.1" {
				c.tb.Errorf("%s: metadata has the address %s", name, ip)
			}
		}
	}},
	{"R01 behind a trusted proxy only what it appended counts", nil, behindProxy, func(c *client, _ *target) {
		for i := range 4 {
			forged := fmt.Sprintf("X-Forwarded-For: 198.51.100.%d", i)
			a := c.get("/", forged, "X-Forwarded-For: 203.0.113.9")
			if i < 3 {
				a.status(404)
			} else {
				a.status(429)
			}
		}
		c.get("/", "X-Forwarded-For: 203.0.113.10").status(404)
	}},
	{"R03 one IPv6 network is one client", []transport{memory}, threeAMinute, func(c *client, _ *target) {
		for i := range 4 {
			a := c.from(netip.MustParseAddr(fmt.Sprintf("2001:db8:0:1:%d::%d", i, i+1))).get("/")
			if i < 3 {
				a.status(404)
			} else {
				a.status(429)
			}
		}
		c.from(netip.MustParseAddr("2001:db8:0:2::1")).get("/").status(404)
	}},
	{"R03 an IPv4 address is one client in all its notations", nil, behindProxy, func(c *client, _ *target) {
		for _, same := range []string{"203.0.113.5", "::ffff:203.0.113.5", "[::ffff:cb00:7105]:4711"} {
			c.get("/", "X-Forwarded-For: "+same).status(404)
		}
		c.get("/", "X-Forwarded-For: 203.0.113.5:80").status(429)
	}},
	{"R11 places come back after panics, aborts, hijacks, timeouts, streams and clients that leave", nil,
		func(c *settings) {
			c.perAddress = ratelimit.Concurrency(2)
			c.routes = []Route{
				{"POST", "/panic", nil, handle(func(http.ResponseWriter, *http.Request) { panic("x") })},
				{"POST", "/abort", nil, handle(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })},
				{"POST", "/hijack", nil, handle(func(w http.ResponseWriter, _ *http.Request) {
					if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
						_ = conn.Close()
					}
				})},
				{"POST", "/timeout", nil, http.TimeoutHandler(handle(func(_ http.ResponseWriter, r *http.Request) {
					<-r.Context().Done()
				}), time.Millisecond, "")},
				{"POST", "/stream", nil, handle(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "text/event-stream")
					_, _ = io.WriteString(w, "data: 1\n\n")
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done() // until the client has gone
				})},
			}
		}, func(c *client, s *target) {
			for _, path := range []string{"/panic", "/abort", "/hijack", "/timeout"} {
				for i := range 5 {
					if a, err := c.try("POST", path, "{}"); err == nil && a.StatusCode == 429 {
						c.tb.Fatalf("%s: request %d found no place", path, i+1)
					}
				}
			}
			_, leaveFirst := c.stream()
			_, leaveSecond := c.stream()
			c.get("/").status(429).has("Retry-After", "1")
			leaveFirst()
			leaveSecond()
			for range 2 { // The server notices in its own time that they have gone.
				status, leave := c.stream()
				for until := time.Now().Add(10 * time.Second); status == 429 && time.Now().Before(until); {
					leave()
					status, leave = c.stream()
				}
				defer leave()
				if status != 200 {
					c.tb.Fatal("a place did not come back")
				}
			}
		}},
	{"R16 a limiter that is not mounted, or stands behind authentication by mistake, is found", nil, nil, func(c *client, s *target) {
		probe := func() *http.Request {
			return httptest.NewRequestWithContext(c.tb.Context(), http.MethodGet, "/notes", nil)
		}
		if err := ratelimit.CheckMounted(s.handler, probe(), s.door, false); err != nil {
			c.tb.Errorf("the limiter at the door: %v", err)
		}
		if err := ratelimit.CheckMounted(s.handler, probe(), s.inside, false); !errors.Is(err, ratelimit.ErrNotMounted) {
			c.tb.Errorf("the limiter behind authentication: %v", err)
		}
		key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		r := probe()
		r.Header.Set("X-API-Key", key)
		if err := ratelimit.CheckMounted(s.handler, r, s.inside, true); err != nil {
			c.tb.Errorf("the limiter of callers: %v", err)
		}
		r = probe()
		r.Header.Set("X-API-Key", key)
		if err := ratelimit.CheckMounted(s.handler, r, s.door, true); err == nil {
			c.tb.Error("the limiter at the door passes for one behind authentication")
		}
		forgotten := must(s.door.With(ratelimit.Policy{Name: "forgotten", Key: ratelimit.Everyone(), Limit: ratelimit.Unlimited()}))
		if err := ratelimit.CheckMounted(s.handler, probe(), forgotten, false); !errors.Is(err, ratelimit.ErrNotMounted) {
			c.tb.Errorf("the forgotten limiter: %v", err)
		}
	}},
}

// stream begins a request to /stream, whose answer does not end, and returns what
// ends it.
func (c *client) stream() (status int, leave func()) {
	c.tb.Helper()
	ctx, cancel := context.WithCancel(c.tb.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/stream", http.NoBody)
	if err != nil {
		c.tb.Fatal(err)
	}
	resp, err := c.http.Do(r) //nolint:bodyclose // by leave
	if err != nil {
		c.tb.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
		c.tb.Error(err)
	}
	return resp.StatusCode, func() {
		cancel()
		_ = resp.Body.Close()
	}
}

// hostileText holds what breaks careless encoders and pages.
const hostileText = "\"quotes\" \\ </script><script>alert(1)</script> \u2028\u2029 \xff\xfe \x00\x1f &"

func failing(err error) http.Handler {
	return handle(func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, err) })
}

func route(path string, h http.Handler) Route { return Route{Method: "GET", Pattern: path, Handler: h} }

var answers = []attack{
	{"E01 a hostile message is valid JSON in every shape, and inert in a page", nil, nil, func(c *client, given *target) {
		for name, shape := range map[string]envelope.Shape{
			"standard": envelope.Standard(), "data": envelope.Data(), "typed": envelope.Typed(),
			"detail": envelope.Detail(), "problem": envelope.Problem(""), "bare": envelope.Bare(),
		} {
			s := newTarget(c.tb, settings{shape: shape, routes: []Route{route("/e", failing(&usher.Error{
				Status: 400, Code: hostileText, Message: hostileText, Param: hostileText,
				Fields: []usher.Field{{Name: hostileText, Message: hostileText}},
			}))}})
			a := serve(c.tb, given.mount(c.tb, s.app()), c.over).get("/e").status(400).has("X-Content-Type-Options", "nosniff")
			if !json.Valid([]byte(a.body)) {
				c.tb.Errorf("%s: no JSON: %q", name, a.body)
			}
			for _, raw := range []string{"</script", "\u2028", "\u2029", "\xff", "\x00"} {
				if strings.Contains(a.body, raw) {
					c.tb.Errorf("%s: the body holds %q: %q", name, raw, a.body)
				}
			}
			if !strings.Contains(a.body, `\"quotes\"`) {
				c.tb.Errorf("%s: the message is missing: %q", name, a.body)
			}
		}
	}},
	{"E02 metadata cuts and escapes the URL, hides secrets and keeps to the real address", nil, nil, func(c *client, _ *target) {
		a := c.get("/"+strings.Repeat("a", 8<<10), "X-Forwarded-For: 203.0.113.9").status(404)
		if url := a.member("metadata.url"); len(url) > 3<<10 {
			c.tb.Errorf("the URL has %d bytes", len(url))
		}
		if ip := a.member("metadata.ip"); ip != "127.0.0.1" {
			c.tb.Errorf("the address is %s", ip)
		}
		const canary = "s3cr3t-canary"
		for _, query := range []string{"api_key=", "apikey=", "API-KEY=", "access_token=", "password=", "x=1&token=", "client_secret=", "code=", "%61pi_key="} {
			a := c.get("/nowhere?" + query + canary).status(404)
			if strings.Contains(a.body, canary) {
				c.tb.Errorf("%s is repeated: %s", query, a.body)
			}
		}
		a = c.get("/x%0d%0aSet-Cookie:%20a=b?<script>=%22").status(404).lacks("Set-Cookie")
		if !json.Valid([]byte(a.body)) || strings.Contains(a.body, "<script>") {
			c.tb.Errorf("the body is %s", a.body)
		}
	}},
	{"E02 a method of 10 000 letters is cut", bytesOnly, nil, func(c *client, _ *target) {
		a := c.raw(strings.Repeat("A", 10_000) + " /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if len(a.body) > 1<<10 || !json.Valid([]byte(a.body)) {
			c.tb.Errorf("the body is %s", cut(a.body))
		}
	}},
	{"E05 a panic before the status is one envelope, after it and by http.ErrAbortHandler the connection ends", nil,
		func(c *settings) {
			writes := func(before string, v any) http.Handler {
				return handle(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					if before != "" {
						_, _ = io.WriteString(w, before)
					}
					panic(v)
				})
			}
			c.routes = []Route{
				{"POST", "/before", nil, writes("", "acme_live_secret")},
				{"POST", "/after", nil, writes(`{"a":`, "acme_live_secret")},
				{"POST", "/whole", nil, writes(`{"a":1}`, "acme_live_secret")},
				{"POST", "/large", nil, writes(`["`+strings.Repeat("a", 100<<10), "acme_live_secret")},
				{"POST", "/abort", nil, writes("", http.ErrAbortHandler)},
				{"POST", "/abort-after", nil, writes(`{"a":`, http.ErrAbortHandler)},
			}
		}, func(c *client, _ *target) {
			c.post("/before", "{}").env(500, "Internal Server Error", "")
			for _, path := range []string{"/after", "/whole", "/large", "/abort", "/abort-after"} {
				a, err := c.try("POST", path, "{}")
				if err == nil {
					c.tb.Errorf("%s looks whole: %d %s", path, a.StatusCode, cut(a.body))
				} else if a != nil && json.Valid([]byte(a.body)) {
					c.tb.Errorf("%s: what came is valid: %s", path, cut(a.body))
				}
			}
			c.post("/before", "{}").env(500, "Internal Server Error", "")
		}},
	{"E06 HEAD, 204, 304 and 103 have no body", nil, bodiless, func(c *client, _ *target) {
		get := c.get("/json").env(200, "OK", `{"a":1}`)
		head := c.do("HEAD", "/json", "").is(200, "").has("Content-Type", get.Header.Get("Content-Type"))
		if n := head.ContentLength; n != -1 && n != get.ContentLength {
			c.tb.Errorf("Content-Length is %d", n)
		}
		c.do("HEAD", "/nowhere", "").is(404, "")
		c.get("/204").is(204, "").lacks("Content-Length", "Content-Type")
		c.get("/304").is(304, "").has("ETag", `W/"1"`)

		var early []int
		ctx := httptrace.WithClientTrace(c.tb.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { early = append(early, code); return nil },
		})
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/103", nil)
		if err != nil {
			c.tb.Fatal(err)
		}
		a, err := c.send(r)
		if err != nil {
			c.tb.Fatal(err)
		}
		a.env(200, "OK", `{"a":1}`)
		if !slices.Equal(early, []int{103}) {
			c.tb.Errorf("early statuses %v", early)
		}
	}},
	{"E06 answers without a body leave a connection in step", bytesOnly, bodiless, func(c *client, _ *target) {
		keep := func(method, path string) string { return method + " " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }
		all := keep("HEAD", "/json") + keep("GET", "/204") + keep("GET", "/304") + keep("HEAD", "/nowhere")
		statuses := c.pipeline(all+request("/json"), "HEAD", "GET", "GET", "HEAD", "GET")
		if !slices.Equal(statuses, []int{200, 204, 304, 404, 200}) {
			c.tb.Errorf("statuses %v", statuses)
		}
	}},
	{"E08 what a store, a query or a handler failed with is never in an answer", nil,
		func(c *settings) {
			private := fmt.Errorf("select: %w", errPrivate)
			c.routes = []Route{
				route("/error", failing(private)),
				route("/wrapped", failing(&usher.Error{Status: 409, Code: "conflict", Message: "Taken.", Cause: private})),
				route("/text", handle(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, private.Error(), 500) })),
				route("/json", handle(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(503)
					_ = json.NewEncoder(w).Encode(map[string]string{"error": private.Error()})
				})),
				route("/panic", handle(func(http.ResponseWriter, *http.Request) { panic(private) })),
			}
		}, func(c *client, s *target) {
			key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
			failure := errPrivate
			s.store.failure.Store(&failure)
			for path, want := range map[string]int{"/error": 500, "/wrapped": 409, "/text": 500, "/json": 503, "/panic": 500, "/notes": 503} {
				silent(c.get(path, "X-API-Key: "+key).status(want))
			}
			silent(c.get("/api-keys", asAda).status(503).has("Retry-After", "1"))
			silent(c.post("/api-keys", `{"name":"k"}`, asAda).status(503))
		}},
	{"E08 what the store of limits failed with is never in an answer, and opens no door", nil,
		func(c *settings) {
			c.limits.Store, c.limits.OnStoreFailure = failingLimits{}, ratelimit.FailClosed
		}, func(c *client, s *target) {
			silent(c.get("/notes").status(503).has("Retry-After", "1"))
			if n := s.served.Load(); n != 0 {
				c.tb.Error("the handler ran")
			}
		}},
}

func bodiless(c *settings) {
	data := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "7")
		_, _ = io.WriteString(w, `{"a":1}`)
	}
	c.routes = []Route{
		route("/json", handle(data)),
		route("/204", handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })),
		route("/304", handle(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `W/"1"`)
			w.WriteHeader(304)
		})),
		route("/103", handle(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(103)
			data(w, r)
		})),
	}
}

var errPrivate = errors.New(`pq: password authentication failed for user "acme" at 10.0.0.7 (SQLSTATE 28P01)`)

// silent checks that an answer says nothing of errPrivate.
func silent(a *answer) {
	a.c.tb.Helper()
	said := a.body + fmt.Sprint(a.Header)
	for _, word := range []string{"pq:", "password", "10.0.0.7", "SQLSTATE", "select", "goroutine", ".go:"} {
		if strings.Contains(said, word) {
			a.c.tb.Errorf("%s: the answer says %q: %s", a.what, word, said)
		}
	}
}

type failingLimits struct{}

func (failingLimits) Take(context.Context, []ratelimit.Charge) (bool, error) {
	return false, errPrivate
}
func (failingLimits) Adjust(context.Context, []ratelimit.Charge) error { return errPrivate }
