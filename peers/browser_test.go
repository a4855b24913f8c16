package peers_test

import (
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/cors"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/ratelimit"
)

// exposed are the fields of usher that the pages of other origins may read.
var exposed = []string{
	"RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate", "X-Request-Id", "Idempotency-Replayed", "Location",
}

// A site is an API on the loopback for pages of three other origins: app is trusted,
// neighbor is of the same site as the API, and foreign is of another site.
type site struct {
	api, app, neighbor, foreign string
	// orders counts what POST /orders has done.
	orders atomic.Int32
	events *stream
	// together makes refreshes with the query "together" wait for each other.
	together sync.WaitGroup
	// The refresh with the query "late" waits after its arrival until that with "last" has
	// ended, and the one with "early" waits for that arrival.
	arrived, served chan struct{}
}

// newSite serves an API in the order that package usher documents. Its callers have a
// session in cookies or an API key.
func newSite(t *testing.T, c cors.Options) (s *site, key string) {
	t.Helper()
	blank := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!DOCTYPE html><title>page</title>")
	})
	s = &site{
		app: "http://" + serve(t, blank), neighbor: "http://" + serve(t, blank),
		foreign: "http://" + serveOn(t, "tcp", "127.0.0.2:0", blank),
		events:  newStream(),
		arrived: make(chan struct{}), served: make(chan struct{}),
	}
	manager, err := session.New(session.Config{Issuer: sessionIssuer, Audiences: []string{audience}, OnError: unexpected(t)})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := session.NewHandler(session.HandlerConfig{
		Manager: manager, RefreshCookie: &session.Cookie{}, AccessCookie: &session.Cookie{}, TrustedOrigins: []string{s.app},
	})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := jwtauth.New(jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{manager.TrustedIssuer()}, Cookie: "__Host-access_token",
		TrustedOrigins: []string{s.app}, Scopes: []string{"orders"}, OnError: unexpected(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := apikey.Open(apikey.ManagerConfig{Store: apikey.NewMemory(), Format: apikey.Native{Prefix: "shop"}}, apikey.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keys.Close() })
	_, created, err := keys.Manager.Create(t.Context(), apikey.Actor{System: true}, apikey.Key{Owner: "ann", Name: "page"})
	if err != nil {
		t.Fatal(err)
	}
	limits := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "caller", Key: ratelimit.ByPrincipal(), Limit: ratelimit.RollingWindow(20, time.Hour),
	}}}))
	once := usher.Must(idempotency.New(idempotency.Config{}))
	auth := usher.Authenticate(tokens, keys.Authenticator)
	caller := func(w http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		usher.Respond(w, r, usher.Reply{Data: map[string]string{"owner": p.Owner, "id": p.ID}})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		handler.Login(w, r, session.Session{Subject: "alice", Scopes: []string{"orders"}})
	})
	mux.HandleFunc("POST /refresh", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.RawQuery {
		case "together":
			s.together.Done()
			s.together.Wait()
		case "late":
			close(s.arrived)
			<-s.served
		case "early":
			<-s.arrived
		case "last":
			defer close(s.served)
		}
		handler.Refresh(w, r)
	})
	mux.HandleFunc("POST /logout", handler.Logout)
	mux.Handle("/me", usher.Chain(auth, limits).Wrap(http.HandlerFunc(caller)))
	mux.Handle("POST /orders", usher.Chain(auth, limits, once).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/orders/1")
		usher.Respond(w, r, usher.Reply{Status: http.StatusCreated, Data: s.orders.Add(1)})
	})))
	mux.Handle("GET /admin", usher.Chain(auth, usher.Require(usher.Requirement{Scopes: []string{"admin"}})).Wrap(http.HandlerFunc(caller)))
	mux.Handle("GET /events", usher.Chain(auth, limits).Wrap(s.events))
	mux.HandleFunc("POST /seen", s.events.see)
	c.AllowedOrigins, c.AllowCredentials = []string{s.app}, true
	c.AllowedMethods = []string{http.MethodGet, http.MethodPost, http.MethodPut}
	c.AllowedHeaders = []string{"X-API-Key", "Idempotency-Key", "Content-Type"}
	env := usher.Must(envelope.New(envelope.Config{Shape: envelope.Data(), Wrap: true}))
	s.api = "http://" + serve(t, usher.Chain(env, usher.Adapt(cors.New(c).Handler)).Wrap(mux))
	return s, created.Reveal()
}

// A fetched response is what a page can see of it.
type fetched struct {
	Status int
	Body   string
	// Fields are those of exposed that the page can read.
	Fields map[string]string
	// Refused is true if the browser keeps the response from the page.
	Refused bool
}

// code returns the code of an error.
func (f fetched) code() string {
	_, after, _ := strings.Cut(f.Body, `{"error":{"code":"`)
	code, _, _ := strings.Cut(after, `"`)
	return code
}

// fetch sends a request from the page as init describes it.
func (p *page) fetch(t *testing.T, url string, init object) (f fetched) {
	t.Helper()
	p.run(t, &f, `
		const [url, init, names] = args
		try {
			const r = await fetch(url, init)
			const fields = {}
			for (const name of names) if (r.headers.has(name)) fields[name] = r.headers.get(name)
			return {Status: r.status, Body: await r.text(), Fields: fields}
		} catch {
			return {Refused: true}
		}`, url, init, exposed)
	return f
}

// A page of a trusted origin logs in, calls, refreshes and logs out with cookies that its
// scripts never see. Pages of other origins can do nothing of that.
func TestABrowserKeepsASessionInCookies(t *testing.T) {
	s, _ := newSite(t, cors.Options{ExposedHeaders: exposed})
	app := chromium.open(t, s.app)
	send := func(p *page, method, path string) fetched {
		t.Helper()
		return p.fetch(t, s.api+path, object{"method": method, "credentials": "include"})
	}
	want := func(what string, got fetched, status int, code string) {
		t.Helper()
		if got.Status != status || got.code() != code || got.Refused {
			t.Errorf("%s: %+v, want %d %s", what, got, status, code)
		}
	}

	refused := send(app, "GET", "/me")
	want("before the login", refused, 401, usher.CodeMissingCredential)
	if !strings.HasPrefix(refused.Fields["WWW-Authenticate"], "Bearer") {
		t.Errorf("the page sees the challenge %q", refused.Fields["WWW-Authenticate"])
	}
	want("login", send(app, "POST", "/login"), 200, "")
	var visible string
	if app.run(t, &visible, "return document.cookie"); visible != "" {
		t.Errorf("scripts see %q", visible)
	}
	me := send(app, "GET", "/me")
	want("with the cookie", me, 200, "")
	if !strings.Contains(me.Body, "alice") {
		t.Errorf("the caller is %s", me.Body)
	}
	want("without cookies", app.fetch(t, s.api+"/me", object{"credentials": "omit"}), 401, usher.CodeMissingCredential)
	want("a change", send(app, "POST", "/orders"), 201, "")
	forbidden := send(app, "GET", "/admin")
	want("a scope that the session lacks", forbidden, 403, usher.CodeInsufficientScope)
	if !strings.Contains(forbidden.Fields["WWW-Authenticate"], "admin") {
		t.Errorf("the page sees the challenge %q", forbidden.Fields["WWW-Authenticate"])
	}

	// A request that was sent with the first refresh token is overtaken by one that was sent
	// with the second.
	var statuses []int
	app.run(t, &statuses, `
		const refresh = turn => fetch(args[0] + turn, {method: "POST", credentials: "include"})
		const late = refresh("late")
		const early = await refresh("early"), last = await refresh("last")
		return [early, last, await late].map(r => r.status)`, s.api+"/refresh?")
	if !slices.Equal(statuses, []int{200, 200, 200}) {
		t.Errorf("refreshes in another order: %v", statuses)
	}
	want("after refreshes in another order", send(app, "GET", "/me"), 200, "")
	want("one more refresh", send(app, "POST", "/refresh"), 200, "")

	// Several requests of one page find the access token expired, and each refreshes it with
	// the cookie that the page has at that time.
	want("another login", send(app, "POST", "/login"), 200, "")
	s.together.Add(5)
	app.run(t, &statuses, `
		const refresh = () => fetch(args[0], {method: "POST", credentials: "include"})
		return (await Promise.all(Array.from({length: 5}, refresh))).map(r => r.status)`, s.api+"/refresh?together")
	if !slices.Equal(statuses, []int{200, 200, 200, 200, 200}) {
		t.Errorf("refreshes at once: %v", statuses)
	}
	want("after a refresh", send(app, "GET", "/me"), 200, "")

	t.Run("other origins", func(t *testing.T) {
		for name, url := range map[string]string{"of the same site": s.neighbor, "of another site": s.foreign} {
			if failure := app.visit(t, url); failure != "" {
				t.Fatal(failure)
			}
			for path, method := range map[string]string{"/me": "GET", "/orders": "POST", "/refresh": "POST", "/login": "POST", "/logout": "POST"} {
				if got := send(app, method, path); !got.Refused {
					t.Errorf("a page %s reads the response of %s: %+v", name, path, got)
				}
				app.fetch(t, s.api+path, object{"method": method, "credentials": "include", "mode": "no-cors"})
			}
		}
		if n := s.orders.Load(); n != 1 {
			t.Errorf("pages of other origins have made %d orders", n-1)
		}
		if failure := app.visit(t, s.app); failure != "" {
			t.Fatal(failure)
		}
		want("after all of that", send(app, "GET", "/me"), 200, "")
	})

	want("logout", send(app, "POST", "/logout"), 200, "")
	want("after the logout", send(app, "GET", "/me"), 401, usher.CodeMissingCredential)
	want("a refresh after the logout", send(app, "POST", "/refresh"), 400, usher.CodeValidationFailed)
}

// A page reads every refusal, and each field of usher that CORS exposes. Preflights are not
// charged.
func TestABrowserReadsRefusals(t *testing.T) {
	for name, fields := range map[string][]string{"exposed": exposed, "not exposed": nil} {
		t.Run(name, func(t *testing.T) {
			s, key := newSite(t, cors.Options{ExposedHeaders: fields, MaxAge: -1})
			app := chromium.open(t, s.app)
			send := func(method, path, idempotencyKey string) (f fetched, names []string) {
				t.Helper()
				f = app.fetch(t, s.api+path, object{"method": method, "headers": object{"X-API-Key": key, "Idempotency-Key": idempotencyKey}})
				if f.Refused {
					t.Errorf("the page cannot read the response to %s", path)
				}
				if id := f.Fields["X-Request-Id"]; id == "" && fields != nil {
					t.Errorf("the page cannot read the ID of %s", path)
				}
				for name := range f.Fields {
					names = append(names, name)
				}
				slices.Sort(names)
				return f, names
			}
			for n, tt := range []struct {
				method, path, key string
				status            int
				code              string
				names             []string
			}{
				{"GET", "/me", "", 200, "", nil},
				{"POST", "/orders", "key-1", 201, "", []string{"Location"}},
				{"POST", "/orders", "key-1", 201, "", []string{"Location", "Idempotency-Replayed"}},
				{"PUT", "/orders", "", 405, "method_not_allowed", []string{}},
			} {
				got, names := send(tt.method, tt.path, tt.key)
				want := append([]string{"X-Request-Id"}, tt.names...)
				if tt.status != http.StatusMethodNotAllowed {
					want = append(want, "RateLimit", "RateLimit-Policy")
				}
				slices.Sort(want)
				if fields == nil {
					want = nil
				}
				if got.Status != tt.status || got.code() != tt.code || !reflect.DeepEqual(names, want) {
					t.Errorf("request %d, %s: %+v, want %v", n, tt.path, got, want)
				}
			}
			// 3 of 20 are used up, although each of these requests had a preflight.
			for n := 3; n < 20; n++ {
				if got, _ := send("GET", "/me", ""); got.Status != http.StatusOK {
					t.Fatalf("request %d: %+v", n, got)
				}
			}
			got, names := send("GET", "/me", "")
			want := []string{"RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id"}
			if fields == nil {
				want = nil
			}
			if got.Status != http.StatusTooManyRequests || !slices.Equal(names, want) || !strings.Contains(got.Body, "retry_after") {
				t.Errorf("%+v", got)
			}
			refused := app.fetch(t, s.api+"/me", object{"headers": object{"X-API-Key": "unknown"}})
			if refused.Status != http.StatusUnauthorized || refused.code() != usher.CodeInvalidAPIKey {
				t.Errorf("%+v", refused)
			}
		})
	}
}

// A link to a download that fails shows the error, in place of saving it as the file.
func TestABrowserDoesNotDownloadErrors(t *testing.T) {
	download := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/csv")
		w.Header().Set("Content-Disposition", `attachment; filename="orders.csv"`)
		switch r.URL.Path {
		case "/whole":
			_, _ = io.WriteString(w, "order\n1\n")
		case "/fail":
			usher.Fail(w, r, &usher.Error{Status: http.StatusNotFound, Code: "no_orders"})
		case "/error":
			http.Error(w, "no orders", http.StatusNotFound)
		case "/panic":
			panic("no orders")
		}
	})
	address := startServer(t, enveloped(t).Wrap(download)).URL
	p := chromium.open(t, address+"/fail")
	for path, downloads := range map[string]bool{"/whole": true, "/fail": false, "/error": false, "/panic": false} {
		if failure := p.visit(t, address+path); (failure != "") != downloads {
			t.Errorf("%s: downloads %t, want %t: %s", path, !downloads, downloads, failure)
		}
	}
}
