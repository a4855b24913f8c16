package usherpg_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

// grace is short, so that a test can wait for its end.
const grace = 50 * time.Millisecond

// A lossy is a service of one or more nodes that share a database. There is a network
// between a client and each node, and between each node and the database.
type lossy struct {
	nodes    []string            // URLs
	networks [2][]*servers.Proxy // to the nodes, and to the database
	direct   []string            // URLs without a network
}

// The networks.
const (
	toService = iota
	toDatabase
)

func newLossy(t *testing.T, s *servers.Server, key *jwk.Key, nodes int) *lossy {
	l := new(lossy)
	for range nodes {
		database := servers.NewProxy(t, s.Addr)
		p := open(t, connect(t, database.Addr, func(c *pgxpool.Config) { c.MaxConns = 4 }))
		m := usher.Must(session.New(session.Config{
			Issuer: "https://api.example", Audiences: []string{"https://api.example"}, Keys: []session.SigningKey{{Key: key}},
			Store: p.Sessions(), Revocations: p.Revocations(), Grace: grace,
			OnError: func(context.Context, error) {}, // the network fails on purpose
		}))
		h := usher.Must(session.NewHandler(session.HandlerConfig{Manager: m}))
		v := usher.Must(jwtauth.New(jwtauth.Config{
			Issuers: []jwtauth.TrustedIssuer{m.TrustedIssuer()}, OnError: func(context.Context, error) {},
		}))
		mux := http.NewServeMux()
		mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
			h.Login(w, r, session.Session{Subject: r.Header.Get("X-Subject")})
		})
		mux.HandleFunc("POST /refresh", h.Refresh)
		mux.HandleFunc("POST /logout", h.Logout)
		mux.Handle("GET /me", usher.Authenticate(v).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		service := httptest.NewServer(mux)
		t.Cleanup(service.Close)
		network := servers.NewProxy(t, service.Listener.Addr().String())
		l.nodes = append(l.nodes, "http://"+network.Addr)
		l.direct = append(l.direct, service.URL)
		l.networks[toService] = append(l.networks[toService], network)
		l.networks[toDatabase] = append(l.networks[toDatabase], database)
	}
	return l
}

// A point is where the network fails: at the n-th request during an action.
type point struct {
	action  string
	network int
	n       int
	whole   bool // the request is lost, and otherwise its reply
}

func (p point) String() string {
	what := "the reply to request"
	if p.whole {
		what = "request"
	}
	return fmt.Sprintf("%s %d %s during a %s", what, p.n, [...]string{"to the service", "to the database"}[p.network], p.action)
}

// A person is a client with the tokens that it has received. It tries again until it gets a
// response, each time at the next node.
type person struct {
	*lossy
	subject         string
	access, refresh string
	urls            []string
	pause           time.Duration // before it tries again
	fails           *point        // nil if the network does not fail
	reached         bool          // it has failed
	tries           int
}

// during arms the network for an action.
func (p *person) during(action string, do func() error) error {
	if p.fails == nil || p.fails.action != action {
		return do()
	}
	var cuts []func() bool
	for _, proxy := range p.networks[p.fails.network] {
		cuts = append(cuts, proxy.CutNth(p.fails.n, p.fails.whole))
	}
	err := do()
	for i, cut := range cuts {
		p.reached = p.reached || cut()
		p.networks[p.fails.network][i].CutNth(0, false)
	}
	return err
}

// send sends a request once, and returns the status, or 0 if there is no response.
func (p *person) send(method, path, body string) (status int, data []byte) {
	p.tries++
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, p.urls[p.tries%len(p.urls)]+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Subject", p.subject)
	if path == "/me" {
		r.Header.Set("Authorization", "Bearer "+p.access)
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(r)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = resp.Body.Close() }()
	if data, err = io.ReadAll(resp.Body); err != nil {
		return 0, nil
	}
	return resp.StatusCode, data
}

var errRefused = errors.New("refused")

// call sends a request until there is a response.
func (p *person) call(method, path, body string) ([]byte, error) {
	status := 0
	for range 6 {
		var data []byte
		switch status, data = p.send(method, path, body); {
		case status == 200, status == 204:
			return data, nil
		case status == 401:
			return nil, fmt.Errorf("%s: %w: %s", path, errRefused, data)
		}
		time.Sleep(p.pause)
	}
	return nil, fmt.Errorf("%s: %d after all tries", path, status)
}

func (p *person) receive(data []byte, err error) error {
	if err != nil {
		return err
	}
	var body struct {
		Data struct {
			Access  string `json:"access_token"`
			Refresh string `json:"refresh_token"`
		} `json:"data"`
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&body); err != nil {
		return err
	}
	p.access, p.refresh = body.Data.Access+body.Access, body.Data.Refresh+body.Refresh
	return nil
}

func (p *person) login() error {
	return p.during("login", func() error { return p.receive(p.call("POST", "/login", "")) })
}

func (p *person) exchange() error {
	return p.during("refresh", func() error { return p.receive(p.call("POST", "/refresh", `{"refresh_token":"`+p.refresh+`"}`)) })
}

func (p *person) use() error {
	return p.during("use", func() error { _, err := p.call("GET", "/me", ""); return err })
}

func (p *person) logout() error {
	return p.during("logout", func() error { _, err := p.call("POST", "/logout", `{"refresh_token":"`+p.refresh+`"}`); return err })
}

// thief returns a client with the tokens of p, whose network does not fail.
func (p *person) thief() *person {
	return &person{lossy: p.lossy, access: p.access, refresh: p.refresh, urls: p.direct}
}

// powerless returns an error if p can use a token that it has.
func (p *person) powerless() error {
	if err := p.use(); !errors.Is(err, errRefused) {
		return fmt.Errorf("the access token: %w", or(err))
	}
	if err := p.exchange(); !errors.Is(err, errRefused) {
		return fmt.Errorf("the refresh token: %w", or(err))
	}
	return nil
}

var errAccepted = errors.New("accepted")

func or(err error) error {
	if err == nil {
		return errAccepted
	}
	return err
}

// steps calls one function after the other until one fails.
func steps(list ...func() error) error {
	for n, step := range list {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", n, err)
		}
	}
	return nil
}

// later waits until the grace is over.
func later() error {
	time.Sleep(grace + 10*time.Millisecond)
	return nil
}

// stories are what may happen to a session. Each returns an error if an honest client was
// logged out, or if somebody else has a token that is valid.
var stories = map[string]func(p *person) error{
	"an honest client": func(p *person) error {
		return steps(p.login, p.use, p.exchange, p.use, later, p.use, p.exchange, p.exchange, p.use, p.logout, p.powerless)
	},
	"a thief who is first, and uses all that is stolen": func(p *person) error {
		if err := p.login(); err != nil {
			return err
		}
		thief := p.thief()
		return steps(thief.exchange, thief.use, later, p.next, thief.powerless)
	},
	"a thief who is first, and keeps quiet": func(p *person) error {
		if err := p.login(); err != nil {
			return err
		}
		thief := p.thief()
		return steps(thief.exchange, later, p.next, thief.powerless)
	},
	"a thief who is second": func(p *person) error {
		if err := p.login(); err != nil {
			return err
		}
		thief := p.thief()
		return steps(p.exchange, p.use, later, func() error { _ = thief.exchange(); return nil }, p.next, thief.powerless)
	},
	"a thief while the victim's response is lost": func(p *person) error {
		if err := p.login(); err != nil {
			return err
		}
		thief := p.thief()
		return steps(p.lose, later, thief.exchange, later, p.next, thief.powerless)
	},
	"a thief who has read the response that the victim lost": func(p *person) error {
		if err := p.login(); err != nil {
			return err
		}
		reader := p.thief()
		return steps(reader.exchange, reader.exchange, reader.use, later, p.next, reader.powerless)
	},
	"a thief who has read it, and refreshes at once and again later": func(p *person) error {
		if err := p.login(); err != nil {
			return err
		}
		reader := p.thief()
		return steps(reader.exchange, reader.exchange, later, reader.exchange, later, p.next, reader.powerless)
	},
}

// next is the next refresh of a victim, who may be logged out by it.
func (p *person) next() error {
	if err := p.exchange(); err != nil && !errors.Is(err, errRefused) {
		return err
	}
	return nil
}

// lose sends a refresh whose response is lost.
func (p *person) lose() error {
	for _, network := range p.networks[toService] {
		network.CutNth(1, false)
	}
	status, _ := p.send("POST", "/refresh", `{"refresh_token":"`+p.refresh+`"}`)
	for _, network := range p.networks[toService] {
		network.CutNth(0, false)
	}
	if status != 0 {
		return fmt.Errorf("the response was not lost: %d", status)
	}
	return nil
}

// Wherever the network fails, no honest client is logged out, and no stolen token outlives
// the next refresh of its victim.
func TestSessionsOverANetworkThatFails(t *testing.T) {
	t.Parallel()
	s, _ := migrated(t)
	key := usher.Must(jwk.Generate(jwk.HS256))
	var running sync.WaitGroup
	for nodes := 1; nodes <= 2; nodes++ {
		const services = 3
		free := make(chan *lossy, services)
		for range services {
			free <- newLossy(t, s, key, nodes)
		}
		for story, follow := range stories {
			for _, pause := range []time.Duration{0, grace + 10*time.Millisecond} {
				for _, p := range points(story) {
					running.Go(func() {
						l := <-free
						defer func() { free <- l }()
						// The last point is the one that is not reached.
						for p.n = 1; ; p.n++ {
							client := &person{lossy: l, subject: story, urls: l.nodes, pause: pause, fails: &p}
							if err := follow(client); err != nil {
								t.Errorf("%s, %d nodes, a pause of %v, without %v: %v", story, nodes, pause, p, err)
								return
							}
							if !client.reached {
								break
							}
							if p.n > 40 {
								t.Errorf("%s: no end", p.action)
								return
							}
						}
						if p.n == 1 {
							t.Errorf("%s: no request %v", story, p)
						}
					})
				}
			}
		}
	}
	running.Wait()
}

// points returns where the network fails in a story, without the number of the request.
func points(story string) (list []point) {
	actions := []string{"refresh"}
	if story == "an honest client" {
		actions = []string{"login", "use", "refresh", "logout"}
	}
	for _, action := range actions {
		for _, network := range []int{toService, toDatabase} {
			for _, whole := range []bool{true, false} {
				list = append(list, point{action: action, network: network, whole: whole})
			}
		}
	}
	return list
}
