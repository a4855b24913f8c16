package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth/session"
)

// Browsers ignore a cookie whose prefix promises more than its attributes do, and compare
// prefixes without regard to case.
func TestACookieThatBrowsersIgnoreIsAFault(t *testing.T) {
	long := strings.Repeat("x", 255)
	for name, tt := range map[string]struct {
		cookie session.Cookie
		fault  string
	}{
		"nothing set":                   {session.Cookie{}, ""},
		"a path":                        {session.Cookie{Path: "/auth"}, ""},
		"a domain":                      {session.Cookie{Domain: "example.com"}, ""},
		"insecure":                      {session.Cookie{DangerouslyInsecure: true}, ""},
		"__Host- by name":               {session.Cookie{Name: "__Host-x"}, ""},
		"__Host- by name, in lower":     {session.Cookie{Name: "__host-x", Path: "/"}, ""},
		"__Host- with a path":           {session.Cookie{Name: "__Host-x", Path: "/auth"}, "Name"},
		"__Host- with a domain":         {session.Cookie{Name: "__Host-x", Domain: "example.com"}, "Name"},
		"__Host- insecure":              {session.Cookie{Name: "__Host-x", DangerouslyInsecure: true}, "Name"},
		"__host- with a path":           {session.Cookie{Name: "__host-x", Path: "/auth"}, "Name"},
		"__HOST- with a domain":         {session.Cookie{Name: "__HOST-x", Domain: "example.com"}, "Name"},
		"__Host-Http- with a path":      {session.Cookie{Name: "__Host-Http-x", Path: "/auth"}, "Name"},
		"__Secure- with a path":         {session.Cookie{Name: "__Secure-x", Path: "/auth", Domain: "example.com"}, ""},
		"__Secure- insecure":            {session.Cookie{Name: "__Secure-x", DangerouslyInsecure: true}, "Name"},
		"__sEcure- insecure":            {session.Cookie{Name: "__sEcure-x", DangerouslyInsecure: true}, "Name"},
		"__Http- insecure":              {session.Cookie{Name: "__http-x", DangerouslyInsecure: true}, "Name"},
		"the prefix inside":             {session.Cookie{Name: "x__Host-", Path: "/auth", DangerouslyInsecure: true}, ""},
		"a name without a prefix":       {session.Cookie{Name: "__Hos", Path: "/auth", DangerouslyInsecure: true}, ""},
		"the longest name":              {session.Cookie{Name: long}, ""},
		"a longer name":                 {session.Cookie{Name: long + "x"}, "Name"},
		"the longest path":              {session.Cookie{Path: "/" + strings.Repeat("x", 1023)}, ""},
		"a longer path":                 {session.Cookie{Path: "/" + strings.Repeat("x", 1024)}, "Path"},
		"SameSite=None, for every page": {session.Cookie{SameSite: http.SameSiteNoneMode}, "SameSite"},
	} {
		for _, field := range []string{"RefreshCookie", "AccessCookie"} {
			c := session.HandlerConfig{Manager: newManager(t, nil)}
			if field == "RefreshCookie" {
				c.RefreshCookie = &tt.cookie
			} else {
				c.AccessCookie = &tt.cookie
			}
			_, err := session.NewHandler(c)
			want := "session.HandlerConfig." + field + "." + tt.fault + ":"
			if (err != nil) != (tt.fault != "") || err != nil && !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%s as %s: %v", name, field, err)
			}
		}
	}
}

// A browser discards a cookie whose name and value have more than 4,096 bytes, so its user
// would log in forever.
func TestACookieThatNoBrowserKeepsChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			size   int
			events []session.Event
		)
		store := newMemory(t, 0)
		m := newManager(t, func(c *session.Config) {
			c.Store = store
			c.Claims = func(context.Context, session.Session) (map[string]any, error) {
				return map[string]any{"groups": strings.Repeat("x", size)}, nil
			}
			c.Audit = func(_ context.Context, e session.Event) { events = append(events, e) }
		})
		h := newHandler(t, m, func(c *session.HandlerConfig) { c.AccessCookie = new(session.Cookie) })
		logIn := func() *httptest.ResponseRecorder {
			return post(t, func(w http.ResponseWriter, r *http.Request) { h.Login(w, r, session.Session{Subject: "ann"}) }, "")
		}
		// The largest that fits: the length of the token grows by 4 with 3 bytes of claims.
		for size = 4000; logIn().Code != 200; size-- {
		}
		w := logIn()
		if n := len(strings.Split(w.Result().Header.Get("Set-Cookie"), ";")[0]) - len("="); n < 4093 || n > 4096 {
			t.Errorf("the largest cookie has %d bytes", n)
		}
		sessions := store.Len()
		token := login(t, m).RefreshToken()

		size += 3
		events = nil
		w = logIn()
		wantStatus(t, w, 500)
		if w.Header()["Set-Cookie"] != nil || store.Len() != sessions+1 {
			t.Errorf("Set-Cookie %q, %d sessions", w.Header()["Set-Cookie"], store.Len())
		}
		w = post(t, h.Refresh, refreshBody(token))
		wantStatus(t, w, 500)
		for _, e := range events {
			refusal, ok := errors.AsType[*usher.Error](e.Err)
			if !ok || len(e.Ended) != 0 || !strings.Contains(fmt.Sprint(refusal.Cause), "bytes; browsers keep at most 4096") || strings.Contains(w.Body.String(), "4096") {
				t.Errorf("%+v", e)
			}
		}
		if len(events) != 2 {
			t.Errorf("%d events", len(events))
		}
		// The refresh token was not exchanged.
		size = 0
		wantStatus(t, post(t, h.Refresh, refreshBody(token)), 200)
		if last := events[len(events)-1]; last.Outcome != "rotated" {
			t.Errorf("%+v", last)
		}
		// A client that takes the tokens from the body has no such bound.
		size = 5000
		wantStatus(t, post(t, newHandler(t, m, nil).Refresh, refreshBody(login(t, m).RefreshToken())), 200)
	})
}

// Users who do not want to be remembered get cookies that end with their browser, at each
// refresh as well.
func TestCookiesThatEndWithTheBrowser(t *testing.T) {
	ends := func(s session.Session) bool { return s.Data["remember"] == "" }
	m := newManager(t, nil)
	h := newHandler(t, m, func(c *session.HandlerConfig) {
		c.RefreshCookie, c.AccessCookie = &session.Cookie{EndsWithBrowser: ends}, &session.Cookie{EndsWithBrowser: ends}
	})
	for _, remember := range []string{"", "yes"} {
		template := session.Session{Subject: "ann", Data: map[string]string{}}
		if remember != "" {
			template.Data["remember"] = remember
		}
		w := post(t, func(w http.ResponseWriter, r *http.Request) { h.Login(w, r, template) }, "")
		for range 3 {
			wantStatus(t, w, 200)
			for _, c := range w.Result().Cookies() {
				if (c.MaxAge > 0) != (remember != "") || !c.Expires.IsZero() || c.Value == "" {
					t.Errorf("remember %q: %s", remember, c)
				}
			}
			w = post(t, h.Refresh, "", "Cookie: "+cookieOf(w))
		}
		w = post(t, h.Logout, "", "Cookie: "+cookieOf(w))
		for _, c := range w.Result().Cookies() {
			if c.MaxAge >= 0 || c.Value != "" {
				t.Errorf("the logout does not remove %s", c)
			}
		}
		if len(w.Result().Cookies()) != 2 {
			t.Errorf("the logout removes %q", w.Result().Cookies())
		}
	}
	h = newHandler(t, m, func(c *session.HandlerConfig) {
		c.RefreshCookie = &session.Cookie{EndsWithBrowser: func(session.Session) bool { panic("no") }}
	})
	wantStatus(t, post(t, h.Refresh, refreshBody(login(t, m).RefreshToken())), 500)
}

// cookieOf returns the refresh cookie that a response sets.
func cookieOf(w *httptest.ResponseRecorder) string {
	for _, c := range w.Result().Cookies() {
		if c.Name == "__Host-refresh_token" {
			return c.Name + "=" + c.Value
		}
	}
	return ""
}
