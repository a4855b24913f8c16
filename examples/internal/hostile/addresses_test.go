package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/examples/internal/contract"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ushertest"
)

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
		unmounted := ushertest.Watch(usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{ratelimit.PerAddress(1, time.Hour)}})))
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
