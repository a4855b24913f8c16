package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

func newHandler(tb testing.TB, m *session.Manager, change func(*session.HandlerConfig)) *session.Handler {
	tb.Helper()
	c := session.HandlerConfig{Manager: m}
	if change != nil {
		change(&c)
	}
	h, err := session.NewHandler(c)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

func inCookie(c *session.HandlerConfig) { c.RefreshCookie = new(session.Cookie) }

// post sends a request with header lines such as "Cookie: a=b" to a handler.
func post(tb testing.TB, serve http.HandlerFunc, body string, header ...string) *httptest.ResponseRecorder {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), http.MethodPost, "/", strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	serve(w, r)
	if w.Header().Get("Cache-Control") != "no-store" {
		tb.Errorf("Cache-Control %q", w.Header().Get("Cache-Control"))
	}
	return w
}

func refreshBody(token string) string { return fmt.Sprintf(`{"refresh_token":%q}`, token) }

func wantStatus(tb testing.TB, w *httptest.ResponseRecorder, status int) {
	tb.Helper()
	if w.Code != status {
		tb.Errorf("status %d, want %d: %s", w.Code, status, w.Body)
	}
}

func member(tb testing.TB, w *httptest.ResponseRecorder, name string) string {
	tb.Helper()
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		tb.Fatalf("%v: %s", err, w.Body)
	}
	text, _ := body[name].(string)
	return text
}

func TestTokensInJSONHaveTheNamesOfRFC6749(t *testing.T) {
	m := newManager(t, nil)
	h := newHandler(t, m, nil)
	w := post(t, func(w http.ResponseWriter, r *http.Request) {
		h.Login(w, r, session.Session{Subject: "ann", Scopes: []string{"read", "write"}})
	}, "")
	wantStatus(t, w, 200)
	shape := regexp.MustCompile(`^\{"access_token":"[\w-]+\.[\w-]+\.[\w-]+","token_type":"Bearer","expires_in":900,"refresh_token":"[\w-]{86}","scope":"read write"\}$`)
	if !shape.MatchString(w.Body.String()) {
		t.Errorf("login: %s", w.Body)
	}
	if len(w.Result().Cookies()) != 0 {
		t.Errorf("cookies: %v", w.Result().Cookies())
	}
	want(t, sessions(t, m, nil), member(t, w, "access_token"), jwtauth.Accepted)
	first := member(t, w, "refresh_token")
	w = post(t, h.Refresh, refreshBody(first))
	wantStatus(t, w, 200)
	if !shape.MatchString(w.Body.String()) {
		t.Errorf("refresh: %s", w.Body)
	}
	if again := post(t, h.Refresh, refreshBody(first)); again.Body.String() != w.Body.String() {
		t.Error("within the grace the responses differ")
	}
}

func TestRefreshCookieCannotBeReadOrSentElsewhere(t *testing.T) {
	tests := map[string]struct {
		cookie session.Cookie
		want   string
	}{
		"by default":        {session.Cookie{}, `__Host-refresh_token=<token>; Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=Strict`},
		"below a path":      {session.Cookie{Path: "/auth"}, `__Secure-refresh_token=<token>; Path=/auth; Max-Age=604800; HttpOnly; Secure; SameSite=Strict`},
		"for a domain":      {session.Cookie{Domain: "example.com"}, `__Secure-refresh_token=<token>; Path=/; Domain=example.com; Max-Age=604800; HttpOnly; Secure; SameSite=Strict`},
		"with another name": {session.Cookie{Name: "rt", SameSite: http.SameSiteLaxMode}, `rt=<token>; Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=Lax`},
		"in development":    {session.Cookie{DangerouslyInsecure: true}, `refresh_token=<token>; Path=/; Max-Age=604800; HttpOnly; SameSite=Strict`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, nil)
			h := newHandler(t, m, func(c *session.HandlerConfig) { c.RefreshCookie = &tt.cookie })
			w := post(t, h.Refresh, refreshBody(login(t, m).RefreshToken()))
			wantStatus(t, w, 200)
			if strings.Contains(w.Body.String(), "refresh_token") {
				t.Errorf("the refresh token is in the body as well: %s", w.Body)
			}
			lines := w.Header()["Set-Cookie"]
			got := regexp.MustCompile(`[\w-]{86}`).ReplaceAllString(strings.Join(lines, "\n"), "<token>")
			if got != tt.want {
				t.Errorf("Set-Cookie\n got %s\nwant %s", got, tt.want)
			}
			cookie := w.Result().Cookies()[0]
			w = post(t, h.Refresh, "", "Cookie: "+cookie.Name+"="+cookie.Value)
			wantStatus(t, w, 200)
		})
	}
}

func TestAccessTokenInACookieIsTakenByTheVerifier(t *testing.T) {
	m := newManager(t, nil)
	h := newHandler(t, m, func(c *session.HandlerConfig) {
		c.RefreshCookie, c.AccessCookie = new(session.Cookie), new(session.Cookie)
	})
	w := post(t, h.Refresh, refreshBody(login(t, m).RefreshToken()))
	wantStatus(t, w, 200)
	if got := w.Body.String(); got != `{"token_type":"Bearer","expires_in":900}` {
		t.Errorf("body %s", got)
	}
	v := mustVerifier(t, jwtauth.Config{
		Issuers: []jwtauth.TrustedIssuer{{
			Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: m.Keys(),
			Profile: jwtauth.ProfileSession,
		}},
		Cookie: "__Host-access_token",
	})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	for _, c := range w.Result().Cookies() {
		r.AddCookie(c)
	}
	if p, err := v.Authenticate(r); err != nil || p.ID != issuer+"|ann" {
		t.Errorf("%v, %v", p, err)
	}
	if !strings.Contains(strings.Join(w.Header()["Set-Cookie"], "\n"), "; Max-Age=900; HttpOnly; Secure; SameSite=Strict") {
		t.Errorf("Set-Cookie %q", w.Header()["Set-Cookie"])
	}
}

// No response reveals what is wrong with a refresh token: all have the same bytes.
func TestInvalidRefreshTokensGetTheSameResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, nil)
		h := newHandler(t, m, nil)
		expired, ended, stale := login(t, m), login(t, m), session.Tokens{}
		time.Sleep(7 * 24 * time.Hour)
		ended, stale = login(t, m), login(t, m)
		if _, err := m.Logout(t.Context(), ended.Session.Subject, ended.Session.ID); err != nil {
			t.Fatal(err)
		}
		mustRefresh(t, m, stale.RefreshToken())
		time.Sleep(time.Minute)
		var first *httptest.ResponseRecorder
		for name, token := range map[string]string{
			"malformed": "x", "unknown": b64(make([]byte, 64)), "access token": ended.AccessToken(),
			"expired": expired.RefreshToken(), "revoked": ended.RefreshToken(), "reused": stale.RefreshToken(),
		} {
			w := post(t, h.Refresh, refreshBody(token))
			wantStatus(t, w, 401)
			if first == nil {
				first = w
			}
			if w.Body.String() != first.Body.String() || compare.Diff(first.Header(), w.Header()) != "" {
				t.Errorf("%s: %v %s\nand %v %s", name, w.Header(), w.Body, first.Header(), first.Body)
			}
		}
		if got := first.Body.String(); !strings.Contains(got, `"code":"invalid_refresh_token"`) || strings.Contains(got, "jwtauth") {
			t.Errorf("body %s", got)
		}
		if first.Header().Get("WWW-Authenticate") == "" {
			t.Error("a 401 without a challenge")
		}
	})
}

func TestRefreshNamesTheFaultOfABadRequest(t *testing.T) {
	good := "" // set below
	tests := map[string]struct {
		body   string
		header []string
		cookie bool
		status int
	}{
		"no token":                               {"", nil, false, 400},
		"no token, where it may be in a cookie":  {"", nil, true, 400},
		"an empty object":                        {`{}`, nil, false, 400},
		"an empty token":                         {`{"refresh_token":""}`, nil, false, 400},
		"an empty token beside a cookie":         {`{"refresh_token":""}`, []string{"Cookie: __Host-refresh_token=<good>"}, true, 400},
		"a null token":                           {`{"refresh_token":null}`, nil, false, 400},
		"a token that is a number":               {`{"refresh_token":1}`, nil, false, 400},
		"another member":                         {`{"refresh_token":"<good>","x":1}`, nil, false, 400},
		"a name in other case":                   {`{"Refresh_Token":"<good>"}`, nil, false, 400},
		"not JSON":                               {`refresh_token=<good>`, nil, false, 400},
		"an array":                               {`["<good>"]`, nil, false, 400},
		"a body that is too long":                {`{"refresh_token":"` + strings.Repeat("x", 1<<20) + `"}`, nil, false, 413},
		"a token in a cookie that nobody reads":  {"", []string{"Cookie: __Host-refresh_token=<good>"}, false, 400},
		"five cookies":                           {"", []string{"Cookie: __Host-refresh_token=<good>; __Host-refresh_token=x; __Host-refresh_token=y; __Host-refresh_token=z; __Host-refresh_token=w"}, true, 401},
		"two cookies without a token":            {"", []string{"Cookie: __Host-refresh_token=x; __Host-refresh_token=y"}, true, 401},
		"an empty cookie":                        {"", []string{"Cookie: __Host-refresh_token="}, true, 400},
		"a cookie from another site":             {"", []string{"Cookie: __Host-refresh_token=<good>", "Sec-Fetch-Site: cross-site"}, true, 403},
		"a cookie from another origin":           {"", []string{"Cookie: __Host-refresh_token=<good>", "Origin: https://evil.example"}, true, 403},
		"a cookie from another host of the site": {"", []string{"Cookie: __Host-refresh_token=<good>", "Sec-Fetch-Site: same-site", "Origin: https://blog.example.com"}, true, 403},
		"a token in the body from another site that would set a cookie": {`{"refresh_token":"<good>"}`, []string{"Sec-Fetch-Site: cross-site"}, true, 403},
		"a bad token in the body, never a good one in the cookie":       {`{"refresh_token":"x"}`, []string{"Cookie: __Host-refresh_token=<good>"}, true, 401},

		"a good token":                                   {`{"refresh_token":"<good>"}`, nil, false, 200},
		"a good cookie":                                  {"", []string{"Cookie: __Host-refresh_token=<good>"}, true, 200},
		"a good cookie beside another":                   {"", []string{"Cookie: __Host-refresh_token=x; __Host-refresh_token=<good>"}, true, 200},
		"a good cookie twice, and an empty one":          {"", []string{"Cookie: __Host-refresh_token=<good>; __Host-refresh_token=; __Host-refresh_token=<good>"}, true, 200},
		"a good cookie and an empty object":              {"{}", []string{"Cookie: __Host-refresh_token=<good>"}, true, 200},
		"a good cookie from the same origin":             {"", []string{"Cookie: __Host-refresh_token=<good>", "Sec-Fetch-Site: same-origin"}, true, 200},
		"a good cookie from a trusted origin":            {"", []string{"Cookie: __Host-refresh_token=<good>", "Sec-Fetch-Site: same-site", "Origin: https://app.example.com"}, true, 200},
		"a good token in the body beside a stale cookie": {`{"refresh_token":"<good>"}`, []string{"Cookie: __Host-refresh_token=x"}, true, 200},
		"a good token in the body from any origin":       {`{"refresh_token":"<good>"}`, []string{"Sec-Fetch-Site: cross-site"}, false, 200},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, nil)
			h := newHandler(t, m, func(c *session.HandlerConfig) {
				c.TrustedOrigins = []string{"https://app.example.com"}
				if tt.cookie {
					inCookie(c)
				}
			})
			good = login(t, m).RefreshToken()
			var header []string
			for _, line := range tt.header {
				header = append(header, strings.ReplaceAll(line, "<good>", good))
			}
			w := post(t, h.Refresh, strings.ReplaceAll(tt.body, "<good>", good), header...)
			wantStatus(t, w, tt.status)
			if tt.status != 200 {
				// A request that was refused has exchanged nothing.
				wantStatus(t, post(t, h.Refresh, refreshBody(good)), 200)
			}
		})
	}
}

func TestHandlersArePOSTOnly(t *testing.T) {
	m := newManager(t, nil)
	h := newHandler(t, m, inCookie)
	good := login(t, m).RefreshToken()
	for name, serve := range map[string]http.HandlerFunc{"Refresh": h.Refresh, "Logout": h.Logout, "LogoutAll": h.LogoutAll} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete} {
			r := httptest.NewRequestWithContext(t.Context(), method, "/", nil)
			r.AddCookie(&http.Cookie{Name: "__Host-refresh_token", Value: good})
			w := httptest.NewRecorder()
			serve(w, r)
			if w.Code != 405 || w.Header().Get("Allow") != "POST" {
				t.Errorf("%s %s: %d, Allow %q", method, name, w.Code, w.Header().Get("Allow"))
			}
		}
	}
	mustRefresh(t, m, good)
}

func TestAStoreThatFailsIs503AndKeepsTheCookie(t *testing.T) {
	store := &hooked{Store: newMemory(t, 0)}
	m := newManager(t, func(c *session.Config) { c.Store = store })
	h := newHandler(t, m, inCookie)
	var down atomic.Bool // a session may end after the response to its login
	store.before = func(context.Context, string) error {
		if down.Load() {
			return errDown
		}
		return nil
	}
	good := login(t, m).RefreshToken()
	down.Store(true)
	doLogin := func(w http.ResponseWriter, r *http.Request) { h.Login(w, r, session.Session{Subject: "ann"}) }
	for name, serve := range map[string]http.HandlerFunc{"Login": doLogin, "Refresh": h.Refresh, "Logout": h.Logout} {
		w := post(t, serve, "", "Cookie: __Host-refresh_token="+good)
		if w.Code != 503 || w.Header().Get("Retry-After") != "1" || strings.Contains(w.Body.String(), "down") || len(w.Header()["Set-Cookie"]) != 0 {
			t.Errorf("%s: %d %v %s", name, w.Code, w.Header(), w.Body)
		}
	}
	down.Store(false)
	wantStatus(t, post(t, h.Refresh, "", "Cookie: __Host-refresh_token="+good), 200)
}

func TestMistakesOfTheApplicationAre500(t *testing.T) {
	m := newManager(t, func(c *session.Config) {
		c.Claims = func(_ context.Context, s session.Session) (map[string]any, error) {
			return map[string]any{s.Data["claim"]: "x"}, nil
		}
	})
	h := newHandler(t, m, nil)
	for _, s := range []session.Session{
		{}, {Subject: "ann", Scopes: []string{"a b"}}, {Subject: "ann", Data: map[string]string{"claim": "exp"}},
	} {
		w := post(t, func(w http.ResponseWriter, r *http.Request) { h.Login(w, r, s) }, "")
		wantStatus(t, w, 500)
		if strings.Contains(w.Body.String(), "jwtauth") {
			t.Errorf("the cause is shown: %s", w.Body)
		}
	}
}

func TestAnErrorOfClaimsIsTheResponse(t *testing.T) {
	var refusal error
	m := newManager(t, func(c *session.Config) {
		c.Claims = func(context.Context, session.Session) (map[string]any, error) { return nil, refusal }
	})
	h := newHandler(t, m, nil)
	good := login(t, m).RefreshToken()
	refusal = &usher.Error{Status: http.StatusForbidden, Code: "account_closed", Message: "The account is closed."}
	w := post(t, h.Refresh, refreshBody(good))
	wantStatus(t, w, 403)
	if member(t, w, "code") != "account_closed" {
		t.Errorf("body %s", w.Body)
	}
}

// A late 401 would remove the cookies of a login that happened in the meantime.
func TestARefreshThatIsRefusedRemovesNoCookie(t *testing.T) {
	m := newManager(t, nil)
	h := newHandler(t, m, inCookie)
	for _, body := range []string{"", refreshBody("x")} {
		w := post(t, h.Refresh, body, "Cookie: __Host-refresh_token=x")
		wantStatus(t, w, 401)
		if got := w.Header()["Set-Cookie"]; got != nil {
			t.Errorf("Set-Cookie %q", got)
		}
	}
}

func TestLogoutByAnyTokenOfTheSession(t *testing.T) {
	m := newManager(t, nil)
	h := newHandler(t, m, inCookie)
	v := sessions(t, m, nil)
	behind := usher.Authenticate(usher.Optional(v)).Wrap(http.HandlerFunc(h.Logout)).ServeHTTP
	first := login(t, m)
	second := mustRefresh(t, m, first.RefreshToken())
	tests := map[string]func() *httptest.ResponseRecorder{
		"in the body": func() *httptest.ResponseRecorder { return post(t, h.Logout, refreshBody(second.RefreshToken())) },
		"in a cookie": func() *httptest.ResponseRecorder {
			return post(t, h.Logout, "", "Cookie: __Host-refresh_token="+second.RefreshToken())
		},
		"a token that was exchanged": func() *httptest.ResponseRecorder { return post(t, h.Logout, refreshBody(first.RefreshToken())) },
		"the access token": func() *httptest.ResponseRecorder {
			return post(t, behind, "", "Authorization: Bearer "+second.AccessToken())
		},
	}
	for name, logout := range tests {
		t.Run(name, func(t *testing.T) {
			first = login(t, m)
			second = mustRefresh(t, m, first.RefreshToken())
			w := logout()
			wantStatus(t, w, 204)
			if got := w.Header().Get("Set-Cookie"); !strings.HasPrefix(got, "__Host-refresh_token=; Path=/; Max-Age=0;") {
				t.Errorf("Set-Cookie %q", got)
			}
			wantInvalid(t, m, second.RefreshToken())
			wantStatus(t, logout(), 204) // again
		})
	}
}

func TestLogoutWithoutASession(t *testing.T) {
	m := newManager(t, nil)
	inJSON, withCookies := newHandler(t, m, nil), newHandler(t, m, inCookie)
	wantStatus(t, post(t, inJSON.Logout, ""), 400)
	wantStatus(t, post(t, withCookies.Logout, ""), 204)
	for _, token := range []string{"x", b64(make([]byte, 64))} {
		wantStatus(t, post(t, inJSON.Logout, refreshBody(token)), 204) // RFC 7009, section 2.2
	}
	tokens := login(t, m)
	w := post(t, withCookies.Logout, "", "Cookie: __Host-refresh_token="+tokens.RefreshToken(), "Sec-Fetch-Site: cross-site")
	wantStatus(t, w, 403)
	mustRefresh(t, m, tokens.RefreshToken())
}

func TestLogoutAllNeedsASessionOfThisManager(t *testing.T) {
	m := newManager(t, nil)
	h := newHandler(t, m, inCookie)
	as := func(p *usher.Principal) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { h.LogoutAll(w, usher.WithPrincipal(r, p)) }
	}
	first, second := login(t, m), login(t, m)
	wantStatus(t, post(t, h.LogoutAll, refreshBody(first.RefreshToken())), 401)
	wantStatus(t, post(t, as(&usher.Principal{ID: "ann", Kind: usher.KindAPIKey}), ""), 403)
	other := &jwtauth.Token{Issuer: "https://other.example", Subject: "ann", SessionID: "x"}
	wantStatus(t, post(t, as(&usher.Principal{ID: "ann", Kind: usher.KindJWT, Details: other}), ""), 403)
	mustRefresh(t, m, first.RefreshToken())

	behind := usher.Authenticate(sessions(t, m, nil)).Wrap(http.HandlerFunc(h.LogoutAll)).ServeHTTP
	w := post(t, behind, "", "Authorization: Bearer "+first.AccessToken())
	wantStatus(t, w, 204)
	if len(w.Header()["Set-Cookie"]) != 1 {
		t.Errorf("Set-Cookie %q", w.Header()["Set-Cookie"])
	}
	wantInvalid(t, m, second.RefreshToken())
}

// Wherever a response is lost, its client may retry with the old token at any time. Once
// the access token in it was used, that is theft.
func TestAResponseIsDeliveredOnceItsAccessTokenIsUsed(t *testing.T) {
	for name, c := range map[string]struct{ hangsUp, uses, invalid bool }{
		"the client hangs up before the response": {hangsUp: true},
		"the response is lost after it was sent":  {},
		"the client uses the access token":        {uses: true, invalid: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &hooked{Store: newMemory(t, 0)}
				m := newManager(t, func(c *session.Config) { c.Store = store })
				h := newHandler(t, m, nil)
				v := mustVerifier(t, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{m.TrustedIssuer()}})
				token := login(t, m).RefreshToken()
				ctx, hangUp := context.WithCancel(t.Context())
				defer hangUp()
				store.after = func(_ context.Context, method string) error {
					if c.hangsUp && method == "Update" {
						hangUp()
					}
					return nil
				}
				r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(refreshBody(token)))
				r.Header.Set("Content-Type", "application/json")
				w := httptest.NewRecorder()
				h.Refresh(w, r)
				if c.uses {
					want(t, v, accessTokenIn(t, w), jwtauth.Accepted)
				}
				time.Sleep(time.Minute)
				_, err := m.Refresh(t.Context(), session.RefreshRequest{Token: token})
				if errors.Is(err, session.ErrInvalidRefreshToken) != c.invalid {
					t.Errorf("error %v", err)
				}
			})
		})
	}
}

// accessTokenIn returns the access token in a response.
func accessTokenIn(tb testing.TB, w *httptest.ResponseRecorder) string {
	tb.Helper()
	found := regexp.MustCompile(`"access_token":"([\w.-]+)"`).FindStringSubmatch(w.Body.String())
	if found == nil {
		tb.Fatalf("no access token in %s", w.Body)
	}
	return found[1]
}

func TestAViewThatFailsIsNotDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, nil)
		h := newHandler(t, m, func(c *session.HandlerConfig) {
			c.TokensView = func(session.Tokens) any { return func() {} }
		})
		token := login(t, m).RefreshToken()
		wantStatus(t, post(t, h.Refresh, refreshBody(token)), 500)
		time.Sleep(time.Minute)
		mustRefresh(t, m, token)
	})
}

func TestHandlerConfigFaultsAreReportedTogether(t *testing.T) {
	_, err := session.NewHandler(session.HandlerConfig{
		RefreshCookie:  &session.Cookie{Name: "a", Path: "x", SameSite: http.SameSiteNoneMode},
		AccessCookie:   &session.Cookie{Name: "a"},
		TrustedOrigins: []string{"https://ok.example", "example.com"},
		MaxBody:        -1,
	})
	const path = "session.HandlerConfig."
	for _, field := range []string{"Manager", "RefreshCookie.Path", "RefreshCookie.SameSite", "AccessCookie.Name", "TrustedOrigins[1]", "MaxBody"} {
		if err == nil || !strings.Contains(err.Error(), path+field+":") {
			t.Errorf("no fault of %s: %v", field, err)
		}
	}
	for _, c := range []session.Cookie{{Name: "a b"}, {Name: "a;"}, {Path: "/;"}, {Domain: "a b"}} {
		if _, err := session.NewHandler(session.HandlerConfig{Manager: newManager(t, nil), RefreshCookie: &c}); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestAuditGetsTheAddressOfTheClient(t *testing.T) {
	var events []session.Event
	m := newManager(t, func(c *session.Config) {
		c.Audit = func(_ context.Context, e session.Event) { events = append(events, e) }
	})
	h := newHandler(t, m, nil)
	w := post(t, func(w http.ResponseWriter, r *http.Request) { h.Login(w, r, session.Session{Subject: "ann"}) }, "")
	w = post(t, h.Refresh, refreshBody(member(t, w, "refresh_token")))
	post(t, h.Logout, refreshBody(member(t, w, "refresh_token")))
	var got []string
	for _, e := range events {
		got = append(got, e.Action+" "+e.Outcome+" "+e.Subject+" "+e.Address.String())
	}
	want := []string{"login accepted ann 192.0.2.1", "refresh rotated ann 192.0.2.1", "logout accepted ann 192.0.2.1"}
	if diff := compare.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// kisara is the session API of a documented service: the access token in an
// envelope, the refresh token in a cookie that scripts cannot read.
func kisara(tb testing.TB) (http.Handler, *session.Manager) {
	tb.Helper()
	shape := envelope.StandardConfig{ClientIP: true, OmitCode: true, OmitDetails: true, OmitRequestID: true}.Shape()
	env := must(envelope.New(envelope.Config{Shape: shape, Catalogue: envelope.Catalogue{Codes: map[string]envelope.Entry{
		"token_refreshed":             {Message: "Token refreshed successfully"},
		usher.CodeInvalidRefreshToken: {Message: "Invalid refresh token"},
		usher.CodeValidationFailed:    {Message: "Validation Error"},
	}}}))
	m := newManager(tb, nil)
	h := newHandler(tb, m, func(c *session.HandlerConfig) {
		c.RefreshCookie = &session.Cookie{Name: "refresh_token"}
		c.TokensView = func(t session.Tokens) any { return map[string]string{"access_token": t.AccessToken()} }
	})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth/refresh", h.Refresh)
	return env.Wrap(mux), m
}

func TestKisara(t *testing.T) {
	metadata := `,"metadata":\{"method":"POST","url":"/auth/refresh","execution_time_ms":\d+(\.\d+)?,"ip":"192.0.2.1","timestamp":"[^"]+"\}\}`
	refresh := func(t *testing.T, api http.Handler, body string, status int, want string) *httptest.ResponseRecorder {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/auth/refresh", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		wantStatus(t, w, status)
		if !regexp.MustCompile(`^` + want + metadata + `\s*$`).Match(w.Body.Bytes()) {
			t.Errorf("body %s\nwant %s", w.Body, want)
		}
		return w
	}
	const invalid = `\{"status_code":401,"message":"Invalid refresh token"`
	t.Run("KS-21 a good refresh token", func(t *testing.T) {
		api, m := kisara(t)
		w := refresh(t, api, refreshBody(login(t, m).RefreshToken()), 200,
			`\{"status_code":200,"message":"Token refreshed successfully","data":\{"access_token":"[\w.-]+"\}`)
		got := regexp.MustCompile(`[\w-]{86}`).ReplaceAllString(w.Header().Get("Set-Cookie"), "...")
		if got != "refresh_token=...; Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=Strict" {
			t.Errorf("Set-Cookie %q", got)
		}
	})
	t.Run("KS-22 a refresh token that was rotated, is wrong or has expired", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			api, m := kisara(t)
			first, expired := login(t, m), login(t, m)
			used(t, m, accessTokenIn(t, refresh(t, api, refreshBody(first.RefreshToken()), 200, `.*`)))
			time.Sleep(30 * time.Second)
			refresh(t, api, refreshBody(first.RefreshToken()), 401, invalid)
			refresh(t, api, refreshBody("wrong"), 401, invalid)
			time.Sleep(7 * 24 * time.Hour)
			refresh(t, api, refreshBody(expired.RefreshToken()), 401, invalid)
		})
	})
	t.Run("KS-23 no refresh token", func(t *testing.T) {
		api, _ := kisara(t)
		refresh(t, api, `{"refresh_token":""}`, 400, `\{"status_code":400,"message":"Validation Error","errors":\[\{"field":"refresh_token","message":"'refresh_token' must not be empty."\}\]`)
		refresh(t, api, `{}`, 400, `\{"status_code":400,"message":"Validation Error","errors":\[\{"field":"refresh_token","message":"'refresh_token' is required."\}\]`)
	})
}
