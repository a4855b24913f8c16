package session_test

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

// A site is a server with sessions in cookies, at https://app.example.com. Its
// login accepts any name.
type site struct {
	tb     testing.TB
	issuer *session.Manager
	server *httptest.Server
	routes atomic.Pointer[http.ServeMux]
	ended  jwtauth.RevocationList
	events chan session.Event
}

// cookies are two cookies of fixed names, as changed by change.
func cookies(change func(refresh, access *session.Cookie)) func(*session.HandlerConfig) {
	return func(c *session.HandlerConfig) {
		c.RefreshCookie, c.AccessCookie = &session.Cookie{Name: "refresh"}, &session.Cookie{Name: "access"}
		if change != nil {
			change(c.RefreshCookie, c.AccessCookie)
		}
	}
}

func newSite(tb testing.TB, store session.Store, change func(*session.HandlerConfig)) *site {
	tb.Helper()
	s := &site{tb: tb, events: make(chan session.Event, 1000)}
	s.issuer = newManager(tb, func(c *session.Config) {
		if store != nil {
			c.Store = store
		}
		c.Revocations = &s.ended
		c.Audit = func(_ context.Context, e session.Event) { s.events <- e }
	})
	s.configure(change)
	s.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.routes.Load().ServeHTTP(w, r) }))
	tb.Cleanup(s.server.Close)
	return s
}

// configure replaces the configuration.
func (s *site) configure(change func(*session.HandlerConfig)) {
	h := newHandler(s.tb, s.issuer, change)
	v := mustVerifier(s.tb, jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: s.issuer.Keys(),
			Profile: jwtauth.ProfileSession,
		}},
		Cookie: "access", Revocations: &s.ended,
		// The Verifier lets these pass, so that tests show what the Handler refuses.
		TrustedOrigins: []string{"https://evil.example", "https://blog.example.com", "https://spa.example.com"},
	})
	let := usher.Authenticate(usher.Optional(v))
	mux := http.NewServeMux()
	mux.HandleFunc("/auth/login", func(w http.ResponseWriter, r *http.Request) {
		h.Login(w, r, session.Session{Subject: r.URL.Query().Get("as")})
	})
	mux.HandleFunc("/auth/refresh", h.Refresh)
	mux.HandleFunc("/auth/logout", h.Logout)
	mux.Handle("/logout", let.Wrap(http.HandlerFunc(h.Logout)))
	mux.Handle("/logout-all", let.Wrap(http.HandlerFunc(h.LogoutAll)))
	mux.Handle("/app/page", usher.Authenticate(v).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		_, _ = io.WriteString(w, p.ID)
	})))
	s.routes.Store(mux)
}

// A browser keeps the cookies of a site.
type browser struct {
	tb     testing.TB
	client *http.Client
}

const origin = "https://app.example.com"

func (s *site) browser() *browser {
	client := *s.server.Client()
	client.Jar = must(cookiejar.New(nil))
	return &browser{s.tb, &client}
}

// send sends a request with header lines such as "Origin: null".
func (b *browser) send(method, path, body string, header ...string) (status int, text string) {
	b.tb.Helper()
	r := must(http.NewRequestWithContext(b.tb.Context(), method, origin+path, strings.NewReader(body)))
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	resp, err := b.client.Do(r)
	if err != nil {
		b.tb.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode, string(must(io.ReadAll(resp.Body)))
}

func (b *browser) want(status int, method, path, body string, header ...string) {
	b.tb.Helper()
	if got, text := b.send(method, path, body, header...); got != status {
		b.tb.Errorf("%s %s: %d, want %d: %s", method, path, got, status, text)
	}
}

// stored returns the cookies that are sent to a path, such as "refresh=...".
func (b *browser) stored(path string) (list []string) {
	r := must(http.NewRequestWithContext(b.tb.Context(), http.MethodGet, origin+path, nil))
	for _, c := range b.client.Jar.Cookies(r.URL) {
		list = append(list, c.Name+"="+c.Value)
	}
	return list
}

// value returns the value of a cookie.
func (b *browser) value(name string) string {
	b.tb.Helper()
	for _, c := range b.stored("/auth/refresh") {
		if value, ok := strings.CutPrefix(c, name+"="); ok {
			return value
		}
	}
	b.tb.Fatalf("no cookie %s", name)
	return ""
}

func TestAChangeOfTheCookiesLogsNobodyOut(t *testing.T) {
	type change func(refresh, access *session.Cookie)
	for name, tt := range map[string]struct{ before, after change }{
		"from one path to all paths": {func(r, a *session.Cookie) { r.Path, a.Path = "/auth", "/app" }, nil},
		"from all paths to one path": {nil, func(r, a *session.Cookie) { r.Path, a.Path = "/auth", "/app" }},
		"from the host to the domain": {nil, func(r, a *session.Cookie) {
			r.Domain, a.Domain = "example.com", "example.com"
		}},
		"from the domain to the host": {func(r, a *session.Cookie) { r.Domain, a.Domain = "example.com", "example.com" }, nil},
		"of both": {
			func(r, a *session.Cookie) {
				r.Path, a.Path, r.Domain, a.Domain = "/auth", "/app", "example.com", "example.com"
			}, nil,
		},
	} {
		for _, who := range []string{"ann", "bob"} {
			t.Run(name+", then a login of "+who, func(t *testing.T) {
				s := newSite(t, nil, cookies(tt.before))
				b := s.browser()
				page := func(who string) {
					t.Helper()
					if status, text := b.send("GET", "/app/page", ""); status != 200 || text != issuer+"|"+who {
						t.Errorf("the page: %d %s", status, text)
					}
				}
				b.want(200, "POST", "/auth/login?as=ann", "")
				b.want(200, "POST", "/auth/refresh", "")
				page("ann")
				s.configure(cookies(tt.after))
				for range 3 { // the former cookie is still there
					b.want(200, "POST", "/auth/refresh", "")
					page("ann")
				}
				for range 2 {
					b.want(200, "POST", "/auth/login?as="+who, "")
					page(who)
					b.want(200, "POST", "/auth/refresh", "")
					page(who)
				}
				if len(b.stored("/auth/refresh")) < 2 {
					t.Errorf("the browser has lost the former cookie: %q", b.stored("/auth/refresh"))
				}
				// The former cookie may outlive its session, but opens nothing.
				b.want(204, "POST", "/auth/logout", "")
				if status, _ := b.send("POST", "/auth/refresh", ""); status == 200 {
					t.Error("a refresh succeeded after the logout")
				}
				b.want(401, "GET", "/app/page", "")
			})
		}
	}
}

// Another host of the domain plants a cookie of its own session. That cookie is not used
// in place of the victim's, and does not end the victim's session.
func TestAPlantedCookieIsNotUsedBesideALiveOne(t *testing.T) {
	s := newSite(t, nil, cookies(nil))
	victim, attacker := s.browser(), s.browser()
	victim.want(200, "POST", "/auth/login?as=ann", "")
	attacker.want(200, "POST", "/auth/login?as=mallory", "")
	u := must(http.NewRequestWithContext(t.Context(), http.MethodGet, origin+"/auth/refresh", nil)).URL
	both := s.browser()
	for _, from := range []*browser{attacker, victim} {
		path := "/"
		if from == attacker {
			path = "/auth" // sent first, as it is longer
		}
		both.client.Jar.SetCookies(u, []*http.Cookie{{Name: "refresh", Value: from.value("refresh"), Path: path}})
	}
	both.want(401, "POST", "/auth/refresh", "")
	access := "Cookie: access=" + attacker.value("access") + "; access=" + victim.value("access")
	s.browser().want(401, "GET", "/app/page", "", access)
	victim.want(200, "POST", "/auth/refresh", "")
	attacker.want(200, "POST", "/auth/refresh", "")
	// Once the attacker's session has ended, the victim's is the only live one.
	attacker.want(204, "POST", "/logout", "")
	s.browser().want(200, "GET", "/app/page", "", "Cookie: access="+victim.value("access")+"; access=x")
}

func TestOfSeveralCookiesTheLiveAccessTokenCounts(t *testing.T) {
	v := verifier(t, func(c *jwtauth.Config) {
		c.Cookie = "access"
		c.Check = func(_ context.Context, t *jwtauth.Token) error {
			switch {
			case t.ID == "unknown":
				return errDown
			case t.ID == "closed":
				return &usher.Error{Status: http.StatusForbidden, Code: "account_closed"}
			}
			return nil
		}
	})
	now := time.Now().Unix()
	with := func(some map[string]any) string { return token(claims(some)) }
	older, latest := with(map[string]any{"jti": "older", "iat": now - 60}), with(map[string]any{"jti": "latest"})
	expired := with(map[string]any{"exp": now - 60, "iat": now - 120})
	unknown, closed := with(map[string]any{"jti": "unknown"}), with(map[string]any{"jti": "closed"})
	other := with(map[string]any{"sub": "bob"})
	for name, tt := range map[string]struct {
		cookies []string
		verdict jwtauth.Verdict
		id      string // of the token
	}{
		"the latest of one caller":            {[]string{older, latest}, jwtauth.Accepted, "latest"},
		"beside one that has expired":         {[]string{expired, latest}, jwtauth.Accepted, "latest"},
		"beside text that is not a token":     {[]string{"x", older}, jwtauth.Accepted, "older"},
		"four":                                {[]string{"x", "y", expired, latest}, jwtauth.Accepted, "latest"},
		"five":                                {[]string{"x", "y", "z", expired, latest}, jwtauth.Malformed, ""},
		"five, of which two are equal":        {[]string{"x", "x", "z", expired, latest}, jwtauth.Accepted, "latest"},
		"of two callers":                      {[]string{other, latest}, jwtauth.Malformed, ""},
		"beside one that cannot be verified":  {[]string{unknown, latest}, jwtauth.Unavailable, ""},
		"no valid token, one of them expired": {[]string{expired, "x"}, jwtauth.Expired, ""},
		"beside one whose account is closed":  {[]string{closed, latest}, jwtauth.Accepted, "latest"},
	} {
		t.Run(name, func(t *testing.T) {
			try := func(cookies []string) {
				t.Helper()
				r := request(t, "")
				r.Header.Set("Cookie", "access="+strings.Join(cookies, "; access="))
				p, err := v.Authenticate(r)
				if got := verdictOf(t, p, err); got != tt.verdict {
					t.Fatalf("%v, want %v", got, tt.verdict)
				}
				if p != nil && p.Details.(*jwtauth.Token).ID != tt.id {
					t.Errorf("the token is %q, want %q", p.Details.(*jwtauth.Token).ID, tt.id)
				}
			}
			try(tt.cookies)
			if tt.verdict == jwtauth.Accepted {
				slices.Reverse(tt.cookies)
				try(tt.cookies)
			}
		})
	}
}

func TestOfSeveralRefreshTokensTheLiveOneIsExchanged(t *testing.T) {
	m := newManager(t, func(c *session.Config) { c.Grace = time.Nanosecond })
	h := newHandler(t, m, inCookie)
	exchange := func(t *testing.T, status int, tokens ...string) {
		t.Helper()
		var list []string
		for _, token := range tokens {
			list = append(list, "__Host-refresh_token="+token)
		}
		wantStatus(t, post(t, h.Refresh, "", "Cookie: "+strings.Join(list, "; ")), status)
	}
	for name, run := range map[string]func(t *testing.T, order func(...string) []string){
		"the current token and the previous one": func(t *testing.T, order func(...string) []string) {
			first := login(t, m)
			second := mustRefresh(t, m, first.RefreshToken())
			exchange(t, 200, order(first.RefreshToken(), second.RefreshToken())...)
		},
		"the current token and a much older one": func(t *testing.T, order func(...string) []string) {
			first := login(t, m)
			second := mustRefresh(t, m, first.RefreshToken())
			third := mustRefresh(t, m, second.RefreshToken())
			exchange(t, 200, order(first.RefreshToken(), second.RefreshToken(), third.RefreshToken())...)
		},
		"a token whose response was lost and a much older one": func(t *testing.T, order func(...string) []string) {
			first := login(t, m)
			second := mustRefresh(t, m, first.RefreshToken())
			must(m.Refresh(t.Context(), session.RefreshRequest{Token: second.RefreshToken()})) // and nobody uses it
			exchange(t, 200, order(first.RefreshToken(), second.RefreshToken())...)
		},
		"a token of a session that has ended": func(t *testing.T, order func(...string) []string) {
			ended, live := login(t, m), login(t, m)
			if _, err := m.Logout(t.Context(), ended.Session.Subject, ended.Session.ID); err != nil {
				t.Fatal(err)
			}
			exchange(t, 200, order(ended.RefreshToken(), live.RefreshToken())...)
		},
		"text that is not a token, and a token of no session": func(t *testing.T, order func(...string) []string) {
			exchange(t, 200, order("x", b64(make([]byte, 64)), login(t, m).RefreshToken())...)
		},
		"no live session": func(t *testing.T, order func(...string) []string) {
			exchange(t, 401, order("x", b64(make([]byte, 64)))...)
		},
		"a token that was reused": func(t *testing.T, order func(...string) []string) {
			first := login(t, m)
			second := mustRefresh(t, m, first.RefreshToken())
			third := mustRefresh(t, m, second.RefreshToken())
			exchange(t, 401, order(first.RefreshToken(), "x")...)
			wantInvalid(t, m, third.RefreshToken()) // taken for theft
		},
		"two subjects": func(t *testing.T, order func(...string) []string) {
			ann, bob := login(t, m), must(m.Login(t.Context(), session.Session{Subject: "bob"}))
			exchange(t, 401, order(ann.RefreshToken(), bob.RefreshToken())...)
			mustRefresh(t, m, ann.RefreshToken())
			mustRefresh(t, m, bob.RefreshToken())
		},
		"two logins of one subject": func(t *testing.T, order func(...string) []string) {
			first := login(t, m)
			time.Sleep(time.Millisecond) // the clock of sessions has microseconds
			second := login(t, m)
			time.Sleep(time.Millisecond)
			exchange(t, 200, order(first.RefreshToken(), second.RefreshToken())...)
			last := must(m.Sessions(t.Context(), "ann"))[0]
			if last.ID != second.Session.ID || !last.RefreshedAt.After(last.CreatedAt) {
				t.Error("it was not the session with the last login")
			}
			mustRefresh(t, m, first.RefreshToken())
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(tokens ...string) []string { return tokens })
			run(t, func(tokens ...string) []string { slices.Reverse(tokens); return tokens })
		})
	}
}

// The previous token would get the same response again, or void it.
func TestTheCurrentRefreshTokenCountsBeforeTheFormer(t *testing.T) {
	for grace, want := range map[time.Duration]string{-1: "rotated", time.Minute: "kept"} {
		var outcome string
		m := newManager(t, func(c *session.Config) {
			c.Grace = grace
			c.Audit = func(_ context.Context, e session.Event) { outcome = e.Outcome }
		})
		h := newHandler(t, m, inCookie)
		for _, reverse := range []bool{false, true} {
			former := login(t, m).RefreshToken()
			current := must(m.Refresh(t.Context(), session.RefreshRequest{Token: former})).RefreshToken()
			list := []string{"__Host-refresh_token=" + former, "__Host-refresh_token=" + current}
			if reverse {
				slices.Reverse(list)
			}
			wantStatus(t, post(t, h.Refresh, "", "Cookie: "+strings.Join(list, "; ")), 200)
			if outcome != want {
				t.Errorf("grace %v, reverse %t: %s, want %s", grace, reverse, outcome, want)
			}
		}
	}
}

func TestASessionThatHasExpiredIsNotLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, nil)
		h := newHandler(t, m, inCookie)
		expired := login(t, m)
		time.Sleep(24 * time.Hour)
		live := must(m.Login(t.Context(), session.Session{Subject: "bob"}))
		time.Sleep(6 * 24 * time.Hour)
		wantStatus(t, post(t, h.Refresh, "", "Cookie: __Host-refresh_token="+expired.RefreshToken()+
			"; __Host-refresh_token="+live.RefreshToken()), 200)
	})
}

func TestLogoutEndsEverySessionOfTheRequest(t *testing.T) {
	const form, multipart = "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"
	part := func(name, value string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n--b--\r\n"
	}
	for name, tt := range map[string]struct {
		body, contentType string
		inBody            bool // <token> in the body stands for another session
	}{
		"nothing":                     {"", "", false},
		"a form with a CSRF field":    {"_csrf=abc", form, false},
		"a form of several parts":     {part("_csrf", "abc"), multipart, false},
		"text":                        {"bye", "text/plain", false},
		"no media type":               {"bye", "", false},
		"JSON with another member":    {`{"all":true}`, "application/json", false},
		"null":                        {"null", "application/json", false},
		"an array":                    {"[]", "application/json", false},
		"a token that is null":        {`{"refresh_token":null}`, "application/json", false},
		"a token that is empty":       {`{"refresh_token":""}`, "application/json", false},
		"a token that is a number":    {`{"refresh_token":1}`, "application/json", false},
		"truncated JSON":              {`{"refresh_token":`, "application/json", false},
		"a body that is too long":     {strings.Repeat("x", 5<<10), "text/plain", false},
		"a token in JSON":             {`{"refresh_token":"<token>"}`, "application/json", true},
		"a token in JSON with more":   {`{"refresh_token":"<token>","all":true}`, "application/json", true},
		"a token in JSON of a beacon": {`{"refresh_token":"<token>"}`, "text/plain;charset=UTF-8", true},
		"a token in a form":           {"refresh_token=<token>&_csrf=abc", form, true},
		"a token in several parts":    {part("refresh_token", "<token>"), multipart, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, nil, cookies(nil))
			b, other := s.browser(), s.browser()
			b.want(200, "POST", "/auth/login?as=ann", "")
			other.want(200, "POST", "/auth/login?as=ann", "")
			refresh, inBody := b.value("refresh"), other.value("refresh")
			b.want(204, "POST", "/auth/logout", strings.ReplaceAll(tt.body, "<token>", inBody), "Content-Type: "+tt.contentType)
			if got := b.stored("/auth/logout"); len(got) != 0 {
				t.Errorf("the browser still has %q", got)
			}
			wantInvalid(t, s.issuer, refresh)
			if tt.inBody {
				wantInvalid(t, s.issuer, inBody)
			} else {
				mustRefresh(t, s.issuer, inBody)
			}
		})
	}
}

func TestLogoutEndsTheSessionsOfSeveralCookies(t *testing.T) {
	m := newManager(t, nil)
	h := newHandler(t, m, inCookie)
	for name, tt := range map[string]struct{ cookies, want string }{ // e ends, l lives on
		"one":                                    {"s", "e"},
		"two":                                    {"ss", "ee"},
		"four":                                   {"ssss", "eeee"},
		"one token and text that is not a token": {"xs", "e"},
		"one token and an empty cookie":          {"_s", "e"},
		"one that has ended already":             {"ds", "ee"},
		"a fifth":                                {"sssss", "eeeel"},
	} {
		t.Run(name, func(t *testing.T) {
			var sent, tokens []string
			for _, c := range tt.cookies {
				token := map[rune]string{'x': "x", '_': ""}[c]
				if c == 's' || c == 'd' {
					opened := login(t, m)
					token = opened.RefreshToken()
					tokens = append(tokens, token)
					if c == 'd' {
						if _, err := m.Logout(t.Context(), opened.Session.Subject, opened.Session.ID); err != nil {
							t.Fatal(err)
						}
					}
				}
				sent = append(sent, "__Host-refresh_token="+token)
			}
			w := post(t, h.Logout, "", "Cookie: "+strings.Join(sent, "; "))
			wantStatus(t, w, 204)
			if got := w.Header()["Set-Cookie"]; len(got) != 1 {
				t.Errorf("Set-Cookie %q", got)
			}
			var got strings.Builder
			for _, token := range tokens {
				if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: token}); err != nil {
					got.WriteByte('e')
				} else {
					got.WriteByte('l')
				}
			}
			if got.String() != tt.want {
				t.Errorf("%s, want %s", got.String(), tt.want)
			}
		})
	}
}

// The session that authenticates the request ends as well, and only once.
func TestLogoutEndsTheSessionOfTheAccessToken(t *testing.T) {
	s := newSite(t, nil, cookies(nil))
	b, other := s.browser(), s.browser()
	b.want(200, "POST", "/auth/login?as=ann", "")
	other.want(200, "POST", "/auth/login?as=ann", "")
	access, refresh := b.value("access"), b.value("refresh")
	b.want(204, "POST", "/logout", refreshBody("stale"), "Content-Type: application/json")
	wantInvalid(t, s.issuer, refresh)
	s.browser().want(401, "GET", "/app/page", "", "Authorization: Bearer "+access)
	// Only the access token identifies the session, beside the cookie of another session.
	other.want(200, "POST", "/auth/login?as=bob", "")
	third := must(s.issuer.Login(t.Context(), session.Session{Subject: "ann"}))
	last := other.value("refresh")
	s.browser().want(204, "POST", "/logout", "", "Cookie: refresh="+last, "Authorization: Bearer "+third.AccessToken())
	wantInvalid(t, s.issuer, third.RefreshToken())
	wantInvalid(t, s.issuer, last)
	ended := map[string]int{}
	for len(s.events) > 0 {
		if e := <-s.events; e.Action == "logout" {
			ended[e.SessionID]++
		}
	}
	for id, n := range ended {
		if n != 1 {
			t.Errorf("session %s was ended %d times", id, n)
		}
	}
	if len(ended) != 4 { // that of the second login was replaced by the third
		t.Errorf("%d sessions were ended, want 4", len(ended))
	}
}

// If one session cannot be ended, the others still end, and the client can retry.
func TestALogoutThatFailsInPartEndsTheRest(t *testing.T) {
	store := &hooked{Store: newMemory(t, 0)}
	m := newManager(t, func(c *session.Config) { c.Store = store })
	h := newHandler(t, m, inCookie)
	first, second := login(t, m), login(t, m)
	lookups := 0
	store.before = func(_ context.Context, method string) error {
		if method == "Lookup" {
			if lookups++; lookups == 1 {
				return errDown
			}
		}
		return nil
	}
	both := "Cookie: __Host-refresh_token=" + first.RefreshToken() + "; __Host-refresh_token=" + second.RefreshToken()
	w := post(t, h.Logout, "", both)
	wantStatus(t, w, 503)
	if got := w.Header()["Set-Cookie"]; got != nil {
		t.Errorf("Set-Cookie %q", got)
	}
	wantInvalid(t, m, second.RefreshToken())
	wantStatus(t, post(t, h.Logout, "", both), 204)
	wantInvalid(t, m, first.RefreshToken())
}

// A page sends the request and goes on to another.
func TestAClientThatLeavesEndsItsSessionAllTheSame(t *testing.T) {
	for name, tt := range map[string]struct {
		path   string
		reused bool // the refresh token was exchanged before
		method string
	}{
		"logout, when the session is looked up": {"/auth/logout", false, "Lookup"},
		"logout, when it is ended":              {"/auth/logout", false, "Revoke"},
		"logout everywhere":                     {"/logout-all", false, "RevokeSubject"},
		"a token that is used again":            {"/auth/refresh", true, "Revoke"},
		"a login that replaces it":              {"/auth/login?as=ann", false, "Revoke"},
	} {
		t.Run(name, func(t *testing.T) {
			store := &hooked{Store: newMemory(t, 0)}
			s := newSite(t, store, cookies(nil))
			opened := login(t, s.issuer)
			latest := opened
			if tt.reused {
				latest = must(s.issuer.Refresh(t.Context(), session.RefreshRequest{Token: opened.RefreshToken()}))
				r := must(store.Lookup(t.Context(), sum(must(unb64(opened.RefreshToken()))[:32])))
				r.RefreshedAt, r.Delivered = r.RefreshedAt.Add(-time.Minute), true
				if err := store.Update(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			left, over := make(chan struct{}), make(chan struct{})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				go func() { <-r.Context().Done(); close(left) }()
				s.routes.Load().ServeHTTP(w, r)
				close(over)
			}))
			t.Cleanup(srv.Close)
			ctx, leave := context.WithCancel(t.Context())
			store.before = func(ctx context.Context, method string) error {
				if method == tt.method {
					leave()
					<-left
				}
				return ctx.Err()
			}
			r := must(http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+tt.path, http.NoBody))
			r.Header.Set("Cookie", "refresh="+opened.RefreshToken()+"; access="+latest.AccessToken())
			if resp, err := srv.Client().Do(r); err == nil {
				_ = resp.Body.Close()
			}
			<-over
			store.before = nil
			wantInvalid(t, s.issuer, latest.RefreshToken())
			s.browser().want(401, "GET", "/app/page", "", "Cookie: access="+latest.AccessToken())
		})
	}
}

func TestPagesOfOtherOriginsCannotLogInOrOut(t *testing.T) {
	elsewhere := map[string][]string{
		"another site":             {"Origin: https://evil.example", "Sec-Fetch-Site: cross-site"},
		"another host of the site": {"Origin: https://blog.example.com", "Sec-Fetch-Site: same-site"},
		"an old browser":           {"Origin: https://evil.example"},
		"a frame without origin":   {"Origin: null"},
	}
	for name, header := range elsewhere {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, nil, cookies(func(refresh, _ *session.Cookie) { refresh.Path = "/auth/refresh" }))
			b := s.browser()
			b.want(403, "POST", "/auth/login?as=mallory", "", header...)
			if got := b.stored("/auth/refresh"); len(got) != 0 {
				t.Errorf("the page has set %q", got)
			}
			b.want(200, "POST", "/auth/login?as=ann", "")
			before := b.stored("/auth/refresh")
			// Browsers send only the access cookie with these.
			b.want(403, "POST", "/logout", "", header...)
			b.want(403, "POST", "/logout-all", "", header...)
			b.want(403, "POST", "/auth/refresh", "", header...)
			b.want(403, "POST", "/auth/login?as=mallory", "", header...)
			if diff := compare.Diff(before, b.stored("/auth/refresh")); diff != "" {
				t.Error("the cookies have changed: " + diff)
			}
			b.want(200, "GET", "/app/page", "")
			// A token that no browser sends by itself may come from anywhere.
			bearer := append([]string{"Authorization: Bearer " + b.value("access")}, header...)
			s.browser().want(204, "POST", "/logout", "", bearer...)
			b.want(401, "GET", "/app/page", "")
		})
	}
	// SameSite keeps the cookies from being sent, but not from being set or removed by
	// the response to a form.
	for name, header := range elsewhere {
		t.Run("without a cookie, "+name, func(t *testing.T) {
			s := newSite(t, nil, cookies(nil))
			b := s.browser()
			mallory := must(s.issuer.Login(t.Context(), session.Session{Subject: "mallory"})).RefreshToken()
			refused := func(path, body string, more ...string) {
				t.Helper()
				r := must(http.NewRequestWithContext(t.Context(), http.MethodPost, origin+path, strings.NewReader(body)))
				for _, line := range append(more, header...) {
					name, value, _ := strings.Cut(line, ": ")
					r.Header.Set(name, value)
				}
				client := *b.client
				client.Jar = nil
				resp, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if resp.StatusCode != 403 || resp.Header["Set-Cookie"] != nil {
					t.Errorf("%s with %q: %d, Set-Cookie %q", path, body, resp.StatusCode, resp.Header["Set-Cookie"])
				}
			}
			refused("/auth/logout", "")
			refused("/logout", "")
			refused("/logout", "", "Authorization: Basic dTpw")
			refused("/auth/logout", "refresh_token="+mallory, "Content-Type: application/x-www-form-urlencoded")
			refused("/auth/refresh", `{"refresh_token":"`+mallory+`"}`, "Content-Type: application/json")
			mustRefresh(t, s.issuer, mallory)
		})
	}
	t.Run("a cookie that only the Verifier reads", func(t *testing.T) {
		s := newSite(t, nil, nil)
		opened := login(t, s.issuer)
		for _, path := range []string{"/logout", "/logout-all"} {
			s.browser().want(403, "POST", path, "", "Cookie: access="+opened.AccessToken(), "Origin: https://evil.example")
			s.browser().want(403, "POST", path, "", "Cookie: access="+opened.AccessToken(), "Origin: https://evil.example", "Authorization: Basic dTpw")
		}
		mustRefresh(t, s.issuer, opened.RefreshToken())
		s.browser().want(204, "POST", "/logout", "", "Cookie: access="+opened.AccessToken(), "Origin: "+origin)
	})
	t.Run("methods that need no page", func(t *testing.T) {
		s := newSite(t, nil, cookies(nil))
		b := s.browser()
		b.want(405, "GET", "/auth/login?as=mallory", "")
		if got := b.stored("/"); len(got) != 0 {
			t.Errorf("cookies %q", got)
		}
	})
	t.Run("a page of a trusted origin", func(t *testing.T) {
		s := newSite(t, nil, func(c *session.HandlerConfig) {
			cookies(nil)(c)
			c.TrustedOrigins = []string{"https://spa.example.com"}
		})
		b := s.browser()
		b.want(200, "POST", "/auth/login?as=ann", "", "Origin: https://spa.example.com", "Sec-Fetch-Site: same-site")
		b.want(204, "POST", "/logout", "", "Origin: https://spa.example.com", "Sec-Fetch-Site: same-site")
	})
	t.Run("tokens that are not in a cookie", func(t *testing.T) {
		s := newSite(t, nil, nil)
		s.browser().want(200, "POST", "/auth/login?as=ann", "", elsewhere["another site"]...)
	})
}

// Two tabs: one refreshes with the token of a session that has ended, the other logs
// in, and the refusal comes last.
func TestALateRefusalRemovesNoCookiesOfALogin(t *testing.T) {
	store := &hooked{Store: newMemory(t, 0)}
	s := newSite(t, store, cookies(nil))
	b := s.browser()
	b.want(200, "POST", "/auth/login?as=ann", "")
	if _, err := s.issuer.LogoutAll(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	arrived, release := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	store.before = func(_ context.Context, method string) error {
		if method == "Lookup" && once.CompareAndSwap(false, true) {
			close(arrived)
			<-release
		}
		return nil
	}
	refused := make(chan int)
	go func() {
		status, _ := b.send("POST", "/auth/refresh", "")
		refused <- status
	}()
	<-arrived
	b.want(200, "POST", "/auth/login?as=bob", "")
	close(release)
	if status := <-refused; status != 401 {
		t.Errorf("%d, want 401", status)
	}
	if got := b.stored("/auth/refresh"); len(got) != 2 {
		t.Errorf("the browser has %q", got)
	}
	b.want(200, "GET", "/app/page", "")
	b.want(200, "POST", "/auth/refresh", "")
}

func TestALoginEndsTheSessionThatItReplaces(t *testing.T) {
	s := newSite(t, nil, cookies(nil))
	b := s.browser()
	b.want(200, "POST", "/auth/login?as=ann", "")
	access, refresh := b.value("access"), b.value("refresh")
	b.want(200, "POST", "/auth/login?as=bob", "")
	wantInvalid(t, s.issuer, refresh)
	s.browser().want(401, "GET", "/app/page", "", "Authorization: Bearer "+access)
	b.want(200, "POST", "/auth/refresh", "")
}
