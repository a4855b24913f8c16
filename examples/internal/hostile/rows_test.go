package hostile_test

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
	"github.com/usher-go/usher/examples/internal/contract"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ushertest"
)

var attacks = slices.Concat(credentials, tokens, lifecycle, addresses, repetitions, responses)

// bytesOnly are attacks that only bytes on a connection can make.
var bytesOnly = []contract.Transport{contract.HTTP1}

// request returns the bytes of a request with these header lines.
func request(path string, lines ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

func bearerKeys(c *settings) { c.keys.Bearer = true }

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

// three a minute, with what a client may claim about itself.
func threeAMinute(c *settings) { c.perAddress = ratelimit.RollingWindow(3, time.Minute) }

func behindProxy(c *settings) {
	threeAMinute(c)
	c.proxies = []string{"127.0.0.1", "192.0.2.1"}
}

var addresses = []attack{
	{"R01 an untrusted peer gains nothing by the address that it claims", nil, threeAMinute, func(c *contract.Client, _ *target) {
		for i, name := range []string{
			"X-Forwarded-For", "X-Real-IP", "True-Client-IP", "X_Forwarded_For", "CF-Connecting-IP", "X-Client-IP", "X-Cluster-Client-IP", "Forwarded",
		} {
			value := fmt.Sprintf("203.0.113.%d", i)
			if name == "Forwarded" {
				value = "for=" + value
			}
			a := c.Get("/", name+": "+value)
			if want := 404; i < 3 {
				a.HasStatus(want)
			} else {
				a.HasStatus(429)
			}
			if ip := a.Member("metadata.ip"); ip != "127.0.0.1" {
				c.TB.Errorf("%s: metadata has the address %s", name, ip)
			}
		}
	}},
	{"R01 behind a trusted proxy only what it appended counts", nil, behindProxy, func(c *contract.Client, _ *target) {
		for i := range 4 {
			forged := fmt.Sprintf("X-Forwarded-For: 198.51.100.%d", i)
			a := c.Get("/", forged, "X-Forwarded-For: 203.0.113.9")
			if i < 3 {
				a.HasStatus(404)
			} else {
				a.HasStatus(429)
			}
		}
		c.Get("/", "X-Forwarded-For: 203.0.113.10").HasStatus(404)
	}},
	{"R03 one IPv6 network is one client", []contract.Transport{contract.Memory}, threeAMinute, func(c *contract.Client, _ *target) {
		for i := range 4 {
			a := c.From(netip.MustParseAddr(fmt.Sprintf("2001:db8:0:1:%d::%d", i, i+1))).Get("/")
			if i < 3 {
				a.HasStatus(404)
			} else {
				a.HasStatus(429)
			}
		}
		c.From(netip.MustParseAddr("2001:db8:0:2::1")).Get("/").HasStatus(404)
	}},
	{"R03 an IPv4 address is one client in all its notations", nil, behindProxy, func(c *contract.Client, _ *target) {
		for _, same := range []string{"203.0.113.5", "::ffff:203.0.113.5", "[::ffff:cb00:7105]:4711"} {
			c.Get("/", "X-Forwarded-For: "+same).HasStatus(404)
		}
		c.Get("/", "X-Forwarded-For: 203.0.113.5:80").HasStatus(429)
	}},
	{"R11 places are freed after panics, aborts, hijacks, timeouts, streams and clients that leave", nil,
		func(c *settings) {
			c.perAddress = ratelimit.Concurrency(2)
			c.routes = []web.Route{
				web.Handle("POST", "/panic", nil, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("x") })),
				web.Handle("POST", "/abort", nil, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })),
				{Method: "POST", Pattern: "/hijack", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
						_ = conn.Close()
					}
				})},
				{Method: "POST", Pattern: "/timeout", Handler: http.TimeoutHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					<-r.Context().Done()
				}), time.Millisecond, "")},
				{Method: "POST", Pattern: "/stream", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "text/event-stream")
					_, _ = io.WriteString(w, "data: 1\n\n")
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done() // until the client has gone
				})},
			}
		}, func(c *contract.Client, s *target) {
			for _, path := range []string{"/panic", "/abort", "/hijack", "/timeout"} {
				for i := range 5 {
					if a, err := c.Try("POST", path, "{}"); err == nil && a.StatusCode == 429 {
						c.TB.Fatalf("%s: request %d got no place", path, i+1)
					}
				}
			}
			_, leaveFirst := stream(c)
			_, leaveSecond := stream(c)
			c.Get("/").HasStatus(429).Has("Retry-After", "1")
			leaveFirst()
			leaveSecond()
			for range 2 { // The server notices in its own time that they have gone.
				status, leave := stream(c)
				for until := time.Now().Add(10 * time.Second); status == 429 && time.Now().Before(until); {
					leave()
					status, leave = stream(c)
				}
				defer leave()
				if status != 200 {
					c.TB.Fatal("a place was not freed")
				}
			}
		}},
	{"R16 a limiter that is not mounted, or is behind authentication by mistake, is found", nil, nil, func(c *contract.Client, s *target) {
		probe := func() *http.Request {
			return httptest.NewRequestWithContext(c.TB.Context(), http.MethodGet, "/notes", nil)
		}
		if _, err := s.outer.Reached(s.handler, probe()); err != nil {
			c.TB.Errorf("the outer limiter: %v", err)
		}
		if _, err := s.inner.Reached(s.handler, probe()); !errors.Is(err, ushertest.ErrNotReached) {
			c.TB.Errorf("the limiter behind authentication: %v", err)
		}
		key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
		for limiter, authenticated := range map[*ushertest.Watched]bool{s.inner: true, s.outer: false} {
			r := probe()
			r.Header.Set("X-API-Key", key)
			arrived, err := limiter.Reached(s.handler, r)
			if err != nil {
				c.TB.Fatal(err)
			}
			if _, known := usher.PrincipalFrom(arrived.Context()); known != authenticated {
				c.TB.Errorf("a limiter that stands behind authentication: %v, want %v", known, authenticated)
			}
		}
		unmounted := ushertest.Watch(web.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{ratelimit.PerAddress(1, time.Hour)}})))
		if _, err := unmounted.Reached(s.handler, probe()); !errors.Is(err, ushertest.ErrNotReached) {
			c.TB.Errorf("the limiter that is not mounted: %v", err)
		}
	}},
}

// stream begins a request to /stream, whose response does not end, and returns a
// function that ends it.
func stream(c *contract.Client) (status int, leave func()) {
	c.TB.Helper()
	ctx, cancel := context.WithCancel(c.TB.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+"/stream", http.NoBody)
	if err != nil {
		c.TB.Fatal(err)
	}
	resp, err := c.HTTP.Do(r) //nolint:bodyclose // by leave
	if err != nil {
		c.TB.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
		c.TB.Error(err)
	}
	return resp.StatusCode, func() {
		cancel()
		_ = resp.Body.Close()
	}
}

// hostileText holds what breaks careless encoders and pages.
const hostileText = "\"quotes\" \\ </script><script>alert(1)</script> \u2028\u2029 \xff\xfe \x00\x1f &"

func failing(err error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, err) })
}

func route(path string, h http.Handler) web.Route {
	return web.Route{Method: "GET", Pattern: path, Handler: h}
}

var responses = []attack{
	{"E01 a hostile message is valid JSON in every shape, and inert in a page", nil, nil, func(c *contract.Client, given *target) {
		for name, shape := range map[string]envelope.Shape{
			"standard": envelope.Standard(), "data": envelope.Data(), "typed": envelope.Typed(),
			"detail": envelope.Detail(), "problem": envelope.Problem(""), "bare": envelope.Bare(),
		} {
			s := newTarget(c.TB, settings{shape: shape, routes: []web.Route{route("/e", failing(&usher.Error{
				Status: 400, Code: hostileText, Message: hostileText, Param: hostileText,
				Fields: []usher.Field{{Name: hostileText, Message: hostileText}},
			}))}})
			a := contract.Serve(c.TB, given.router.Mount(s.App()), c.Over).Get("/e").HasStatus(400).Has("X-Content-Type-Options", "nosniff")
			if !json.Valid([]byte(a.Text)) {
				c.TB.Errorf("%s: no JSON: %q", name, a.Text)
			}
			for _, raw := range []string{"</script", "\u2028", "\u2029", "\xff", "\x00"} {
				if strings.Contains(a.Text, raw) {
					c.TB.Errorf("%s: the body holds %q: %q", name, raw, a.Text)
				}
			}
			if !strings.Contains(a.Text, `\"quotes\"`) {
				c.TB.Errorf("%s: the message is missing: %q", name, a.Text)
			}
		}
	}},
	{"E02 metadata cuts and escapes the URL, hides secrets and keeps to the real address", nil, nil, func(c *contract.Client, _ *target) {
		a := c.Get("/"+strings.Repeat("a", 8<<10), "X-Forwarded-For: 203.0.113.9").HasStatus(404)
		if url := a.Member("metadata.url"); len(url) > 3<<10 {
			c.TB.Errorf("the URL has %d bytes", len(url))
		}
		if ip := a.Member("metadata.ip"); ip != "127.0.0.1" {
			c.TB.Errorf("the address is %s", ip)
		}
		const canary = "s3cr3t-canary"
		for _, query := range []string{"api_key=", "apikey=", "API-KEY=", "access_token=", "password=", "x=1&token=", "client_secret=", "code=", "%61pi_key="} {
			a := c.Get("/nowhere?" + query + canary).HasStatus(404)
			if strings.Contains(a.Text, canary) {
				c.TB.Errorf("%s is repeated: %s", query, a.Text)
			}
		}
		a = c.Get("/x%0d%0aSet-Cookie:%20a=b?<script>=%22").HasStatus(404).Lacks("Set-Cookie")
		if !json.Valid([]byte(a.Text)) || strings.Contains(a.Text, "<script>") {
			c.TB.Errorf("the body is %s", a.Text)
		}
	}},
	{"E02 a method of 10 000 letters is cut", bytesOnly, nil, func(c *contract.Client, _ *target) {
		a := c.Raw(strings.Repeat("A", 10_000) + " /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if len(a.Text) > 1<<10 || !json.Valid([]byte(a.Text)) {
			c.TB.Errorf("the body is %s", contract.Cut(a.Text))
		}
	}},
	{"E05 a panic before the status is one envelope, after it and by http.ErrAbortHandler the connection ends", nil,
		func(c *settings) {
			writes := func(before string, v any) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					if before != "" {
						_, _ = io.WriteString(w, before)
					}
					panic(v)
				})
			}
			c.routes = []web.Route{
				web.Handle("POST", "/before", nil, writes("", "acme_live_secret")),
				web.Handle("POST", "/after", nil, writes(`{"a":`, "acme_live_secret")),
				web.Handle("POST", "/whole", nil, writes(`{"a":1}`, "acme_live_secret")),
				web.Handle("POST", "/large", nil, writes(`["`+strings.Repeat("a", 100<<10), "acme_live_secret")),
				web.Handle("POST", "/abort", nil, writes("", http.ErrAbortHandler)),
				web.Handle("POST", "/abort-after", nil, writes(`{"a":`, http.ErrAbortHandler)),
			}
		}, func(c *contract.Client, _ *target) {
			c.Post("/before", "{}").Enveloped(500, "Internal Server Error", "")
			for _, path := range []string{"/after", "/whole", "/large", "/abort", "/abort-after"} {
				a, err := c.Try("POST", path, "{}")
				if err == nil {
					c.TB.Errorf("%s looks whole: %d %s", path, a.StatusCode, contract.Cut(a.Text))
				} else if a != nil && json.Valid([]byte(a.Text)) {
					c.TB.Errorf("%s: what came is valid: %s", path, contract.Cut(a.Text))
				}
			}
			c.Post("/before", "{}").Enveloped(500, "Internal Server Error", "")
		}},
	{"E06 HEAD, 204, 304 and 103 have no body", nil, bodiless, func(c *contract.Client, _ *target) {
		get := c.Get("/json").Enveloped(200, "OK", `{"a":1}`)
		head := c.Do("HEAD", "/json", "").Is(200, "").Has("Content-Type", get.Header.Get("Content-Type"))
		if n := head.ContentLength; n != -1 && n != get.ContentLength {
			c.TB.Errorf("Content-Length is %d", n)
		}
		c.Do("HEAD", "/nowhere", "").Is(404, "")
		c.Get("/204").Is(204, "").Lacks("Content-Length", "Content-Type")
		c.Get("/304").Is(304, "").Has("ETag", `W/"1"`)

		var early []int
		ctx := httptrace.WithClientTrace(c.TB.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { early = append(early, code); return nil },
		})
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+"/103", nil)
		if err != nil {
			c.TB.Fatal(err)
		}
		a, err := c.Send(r)
		if err != nil {
			c.TB.Fatal(err)
		}
		a.Enveloped(200, "OK", `{"a":1}`)
		if !slices.Equal(early, []int{103}) {
			c.TB.Errorf("early statuses %v", early)
		}
	}},
	{"E06 responses without a body leave a connection in step", bytesOnly, bodiless, func(c *contract.Client, _ *target) {
		keep := func(method, path string) string { return method + " " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }
		all := keep("HEAD", "/json") + keep("GET", "/204") + keep("GET", "/304") + keep("HEAD", "/nowhere")
		statuses := c.Pipeline(all+request("/json"), "HEAD", "GET", "GET", "HEAD", "GET")
		if !slices.Equal(statuses, []int{200, 204, 304, 404, 200}) {
			c.TB.Errorf("statuses %v", statuses)
		}
	}},
	{"E08 the error of a store, a query or a handler is never in a response", nil,
		func(c *settings) {
			private := fmt.Errorf("select: %w", errPrivate)
			c.routes = []web.Route{
				route("/error", failing(private)),
				route("/wrapped", failing(&usher.Error{Status: 409, Code: "conflict", Message: "Taken.", Cause: private})),
				route("/text", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, private.Error(), 500) })),
				route("/json", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(503)
					_ = json.NewEncoder(w).Encode(map[string]string{"error": private.Error()})
				})),
				route("/panic", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(private) })),
			}
		}, func(c *contract.Client, s *target) {
			key, _ := s.key(c, apikey.Key{Level: usher.LevelFull})
			failure := errPrivate
			s.store.failure.Store(&failure)
			for path, want := range map[string]int{"/error": 500, "/wrapped": 409, "/text": 500, "/json": 503, "/panic": 500, "/notes": 503} {
				silent(c.Get(path, "X-API-Key: "+key).HasStatus(want))
			}
			silent(c.Get("/api-keys", web.AsAda).HasStatus(503).Has("Retry-After", "1"))
			silent(c.Post("/api-keys", `{"name":"k"}`, web.AsAda).HasStatus(503))
		}},
	{"E08 the error of the store of limits is never in a response, and admits nobody", nil,
		func(c *settings) {
			c.limits.Store, c.limits.OnStoreFailure = failingLimits{}, ratelimit.FailClosed
		}, func(c *contract.Client, s *target) {
			silent(c.Get("/notes").HasStatus(503).Has("Retry-After", "1"))
			if n := s.served.Load(); n != 0 {
				c.TB.Error("the handler ran")
			}
		}},
}

func bodiless(c *settings) {
	data := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "7")
		_, _ = io.WriteString(w, `{"a":1}`)
	}
	c.routes = []web.Route{
		route("/json", http.HandlerFunc(data)),
		route("/204", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })),
		route("/304", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `W/"1"`)
			w.WriteHeader(304)
		})),
		route("/103", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(103)
			data(w, r)
		})),
	}
}

var errPrivate = errors.New(`pq: password authentication failed for user "acme" at 10.0.0.7 (SQLSTATE 28P01)`)

// silent checks that a response contains nothing of errPrivate.
func silent(a *contract.Response) {
	a.Client.TB.Helper()
	text := a.Text + fmt.Sprint(a.Header)
	for _, word := range []string{"pq:", "password", "10.0.0.7", "SQLSTATE", "select", "goroutine", ".go:"} {
		if strings.Contains(text, word) {
			a.Client.TB.Errorf("%s: the response contains %q: %s", a.Sent, word, text)
		}
	}
}

type failingLimits struct{}

func (failingLimits) Take(context.Context, []ratelimit.Charge) (bool, error) {
	return false, errPrivate
}
func (failingLimits) Adjust(context.Context, []ratelimit.Charge) error { return errPrivate }
