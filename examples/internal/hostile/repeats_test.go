package hostile_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/examples/internal/contract"
	"github.com/usher-go/usher/examples/internal/web"
	"github.com/usher-go/usher/idempotency"
)

// full issues a key that may do everything and returns the header line that
// carries it.
func (s *target) full(c *contract.Client, owner string) string {
	c.TB.Helper()
	text, _ := s.key(c, apikey.Key{Owner: owner, Level: usher.LevelFull})
	return "X-API-Key: " + text
}

// ran checks how many requests have reached a handler.
func (s *target) ran(c *contract.Client, want int64) {
	c.TB.Helper()
	if n := s.served.Load(); n != want {
		c.TB.Errorf("%d requests reached a handler, want %d", n, want)
	}
}

// repeat is the header line of an idempotency key.
const repeat = "Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324"

// orders responds to each request with a number of its own and the body it read.
func orders(c *settings) {
	var n atomic.Int64
	order := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, `{"order":"<%d>","of":%q,"body":%q}`, n.Add(1), p.Owner, body)
	})
	c.guarded = []web.Route{
		{Method: "POST", Pattern: "/orders", Handler: order},
		{Method: "PATCH", Pattern: "/orders", Handler: order},
		{Method: "POST", Pattern: "/refunds", Handler: order},
	}
}

// statuses responds with the status in the path, or panics at 0.
func statuses(profile idempotency.Profile) func(*settings) {
	return func(c *settings) {
		c.once.Profile = profile
		c.guarded = []web.Route{{Method: "POST", Pattern: "/status/{status}", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			status, _ := strconv.Atoi(r.PathValue("status"))
			if status == 0 {
				panic("an order was half made")
			}
			usher.Fail(w, r, &usher.Error{Status: status, Code: "no", Message: "No."})
		})}}
	}
}

var repetitions = []attack{
	{"P01 the same key of two callers is two requests, and neither sees the other's response", nil, orders, func(c *contract.Client, s *target) {
		ada, bert := s.full(c, "ada"), s.full(c, "bert")
		first := c.Post("/orders", `{"a":1}`, ada, repeat).HasStatus(201)
		other := c.Post("/orders", `{"a":1}`, bert, repeat).HasStatus(201).Lacks("Idempotency-Replayed")
		s.ran(c, 2)
		if other.Member("data.of") != "bert" || other.Member("data.order") == first.Member("data.order") {
			c.TB.Errorf("bert got %s", other.Text)
		}
		c.Post("/orders", `{"a":1}`, repeat).HasStatus(401)
		c.Post("/orders", `{"a":1}`, "X-API-Key: bad", repeat).HasStatus(401)
		again := c.Post("/orders", `{"a":1}`, ada, repeat).HasStatus(201).Has("Idempotency-Replayed", "true")
		if again.Member("data") != first.Member("data") {
			c.TB.Errorf("ada got %s and then %s", first.Text, again.Text)
		}
		s.ran(c, 2)
	}},
	{"P02 the same key with another method, route or query never gets the stored response", nil, orders, func(c *contract.Client, s *target) {
		ada := s.full(c, "ada")
		first := c.Post("/orders", `{"a":1}`, ada, repeat).HasStatus(201).Member("data.order")
		for _, r := range [][2]string{{"PATCH", "/orders"}, {"POST", "/refunds"}, {"POST", "/orders?a=1"}, {"POST", "/%6frders"}} {
			a := c.Do(r[0], r[1], `{"a":1}`, ada, repeat).Lacks("Idempotency-Replayed")
			if strings.Contains(a.Text, first) {
				c.TB.Errorf("%s %s got %s", r[0], r[1], a.Text)
			}
		}
		c.Post("/orders?a=1", `{"a":1}`, ada, repeat).HasStatus(422)
	}},
	{"P03 the same key with other bytes is 422 and not run", nil, orders, func(c *contract.Client, s *target) {
		ada := s.full(c, "ada")
		c.Post("/orders", `{"a":1}`, ada, repeat).HasStatus(201)
		for _, body := range []string{`{"a":2}`, `{"a":1} `, `{"a": 1}`, "", "\ufeff" + `{"a":1}`} {
			c.Post("/orders", body, ada, repeat).Enveloped(422, "This idempotency key was used for another request.", "").Lacks("Idempotency-Replayed")
		}
		s.ran(c, 1)
	}},
	{"P08 a response that cannot be stored passes unchanged, and a retry neither gets it nor runs", nil,
		func(c *settings) {
			c.once.MaxResponse = 1 << 10
			post := func(path string, f http.HandlerFunc) web.Route {
				return web.Route{Method: "POST", Pattern: path, Handler: f}
			}
			c.guarded = []web.Route{
				post("/large", func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/octet-stream")
					for range 1 << 10 {
						_, _ = io.WriteString(w, strings.Repeat("a", 1<<10))
					}
				}),
				post("/stream", func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "text/event-stream")
					_, _ = io.WriteString(w, "data: 1\n\n")
					_ = http.NewResponseController(w).Flush()
					_, _ = io.WriteString(w, "data: 2\n\n")
				}),
				post("/trailer", func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "text/plain")
					w.Header().Set("Trailer", "X-Sum")
					_, _ = io.WriteString(w, "a")
					w.Header().Set("X-Sum", "1")
				}),
			}
		}, func(c *contract.Client, s *target) {
			ada := s.full(c, "ada")
			for path, body := range map[string]string{
				"/large": strings.Repeat("a", 1<<20), "/stream": "data: 1\n\ndata: 2\n\n", "/trailer": "a",
			} {
				s.served.Store(0)
				first := c.Post(path, "{}", ada, repeat).HasStatus(200)
				if first.Text != body {
					c.TB.Errorf("%s: %d bytes, want %d", path, len(first.Text), len(body))
				}
				if path == "/trailer" && first.Trailer.Get("X-Sum") != "1" {
					c.TB.Errorf("the trailer is %v", first.Trailer)
				}
				c.Post(path, "{}", ada, repeat).Lacks("Retry-After").
					Enveloped(409, "The first request with this idempotency key was processed, but its response is no longer available.", "")
				s.ran(c, 1)
			}
		}},
	{"P08 a hijacked connection is the handler's, and a retry does not run", bytesOnly,
		func(c *settings) {
			c.guarded = []web.Route{{Method: "POST", Pattern: "/hijack", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
					_, _ = io.WriteString(conn, "HTTP/1.1 299 Mine\r\nContent-Length: 0\r\n\r\n")
					_ = conn.Close()
				}
			})}}
		}, func(c *contract.Client, s *target) {
			ada := s.full(c, "ada")
			c.Post("/hijack", "{}", ada, repeat).HasStatus(299)
			retry := func() *contract.Response { return c.Post("/hijack", "{}", ada, repeat).HasStatus(409) }
			a := retry()
			// It is in progress until the handler has returned.
			for until := time.Now().Add(10 * time.Second); a.Header.Get("Retry-After") != "" && time.Now().Before(until); {
				a = retry()
			}
			a.Lacks("Retry-After")
			s.ran(c, 1)
		}},
	{"P11 a refusal before the work is not kept; a panic may have had an effect and is not run again", nil,
		statuses(idempotency.ProfileDefault), func(c *contract.Client, s *target) {
			ada := s.full(c, "ada")
			for _, status := range []int{401, 403, 409, 429, 503} {
				s.served.Store(0)
				for range 2 {
					c.Post(fmt.Sprint("/status/", status), "{}", ada, repeat).Enveloped(status, "No.", "").Lacks("Idempotency-Replayed")
				}
				s.ran(c, 2)
			}
			s.served.Store(0)
			c.Post("/status/400", "{}", ada, "Idempotency-Key: a").Enveloped(400, "No.", "")
			c.Post("/status/400", "{}", ada, "Idempotency-Key: a").HasStatus(400).Has("Idempotency-Replayed", "true")
			s.ran(c, 1)
			c.Post("/status/0", "{}", ada, "Idempotency-Key: b").Enveloped(500, "Internal Server Error", "")
			c.Post("/status/0", "{}", ada, "Idempotency-Key: b").Lacks("Retry-After").
				Enveloped(409, "The first request with this idempotency key failed, and may have had an effect. It is not repeated.", "")
			s.ran(c, 2)
		}},
	{"P11 where each handler is one transaction, nothing but success is kept", nil,
		statuses(idempotency.ProfileKeepSuccess), func(c *contract.Client, s *target) {
			ada := s.full(c, "ada")
			for _, status := range []int{400, 401, 403, 409, 429, 500, 0} {
				s.served.Store(0)
				for range 2 {
					c.Post(fmt.Sprint("/status/", status), "{}", ada, repeat).Lacks("Idempotency-Replayed")
				}
				s.ran(c, 2)
			}
		}},
}
