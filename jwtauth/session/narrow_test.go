package session_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
)

// ask refreshes and asks for these scopes.
func ask(tb testing.TB, m *session.Manager, token string, scopes ...string) session.Tokens {
	tb.Helper()
	return must(m.Refresh(tb.Context(), session.RefreshRequest{Token: token, Scopes: scopes}))
}

// wantScopes fails unless the access token in t has these scopes, and t says so.
func wantScopes(tb testing.TB, v *jwtauth.Verifier, t session.Tokens, scopes ...string) {
	tb.Helper()
	token, err := v.Verify(tb.Context(), t.AccessToken())
	if err != nil {
		tb.Errorf("Verify: %v", err)
		return
	}
	if !slices.Equal(token.Scopes, scopes) || !slices.Equal(t.Scopes, scopes) {
		tb.Errorf("the token has %q, and the response says %q; want %q", token.Scopes, t.Scopes, scopes)
	}
	if !slices.Equal(t.Session.Scopes, []string{"read", "write", "admin"}) {
		tb.Errorf("the session has %q", t.Session.Scopes)
	}
}

func openScoped(tb testing.TB, m *session.Manager) session.Tokens {
	tb.Helper()
	return must(m.Login(tb.Context(), session.Session{Subject: "ann", Scopes: []string{"read", "write", "admin"}}))
}

func TestARefreshMayAskForFewerScopes(t *testing.T) {
	m := newManager(t, nil)
	v := trusting(t, m, nil)
	tokens := openScoped(t, m)
	wantScopes(t, v, tokens, "read", "write", "admin")
	for _, c := range []struct{ ask, get []string }{
		{[]string{"read"}, []string{"read"}},
		{[]string{"admin", "read", "admin"}, []string{"read", "admin"}},
		{[]string{"admin", "write", "read"}, []string{"read", "write", "admin"}},
		{nil, []string{"read", "write", "admin"}}, // the session keeps its own
	} {
		tokens = ask(t, m, tokens.RefreshToken(), c.ask...)
		wantScopes(t, v, tokens, c.get...)
	}
}

func TestAScopeThatTheSessionLacksIsRefusedAndNothingIsExchanged(t *testing.T) {
	for _, bad := range [][]string{{"root"}, {"read", "root"}, {"READ"}, {""}, {"read write"}, {"read\x00"}} {
		for _, exchanged := range []bool{false, true} {
			var outcomes []string
			m := newManager(t, func(c *session.Config) {
				c.Audit = func(_ context.Context, e session.Event) { outcomes = append(outcomes, e.Outcome) }
			})
			tokens := openScoped(t, m)
			var next session.Tokens
			if exchanged {
				next = ask(t, m, tokens.RefreshToken())
			}
			got, err := m.Refresh(t.Context(), session.RefreshRequest{Token: tokens.RefreshToken(), Scopes: bad})
			e, ok := errors.AsType[*usher.Error](err)
			if !ok || e.Status != 400 || e.Code != usher.CodeInvalidScope || got.AccessToken() != "" || outcomes[len(outcomes)-1] != "denied" {
				t.Errorf("%q: %v, %q", bad, err, outcomes)
			}
			if exchanged {
				same(t, next, ask(t, m, tokens.RefreshToken()))
			} else {
				ask(t, m, tokens.RefreshToken())
			}
		}
	}
	// An old token is theft, whatever it asks for.
	m := newManager(t, func(c *session.Config) { c.Grace = -1 })
	first := openScoped(t, m)
	third := ask(t, m, ask(t, m, first.RefreshToken()).RefreshToken())
	if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken(), Scopes: []string{"root"}}); !errors.Is(err, session.ErrInvalidRefreshToken) {
		t.Errorf("error %v", err)
	}
	wantInvalid(t, m, third.RefreshToken())
}

// A repeated request gets what it asks for, whatever the first one has asked for, and there
// is one chain of refresh tokens.
func TestAReplayGrantsWhatItAsksFor(t *testing.T) {
	all := []string{"read", "write", "admin"}
	for _, first := range [][]string{nil, {"read"}, {"read", "write"}} {
		for _, second := range [][]string{nil, {"read"}, {"admin"}, {"write", "read"}} {
			m := newManager(t, nil)
			v := trusting(t, m, nil)
			opened := openScoped(t, m)
			scopes := func(asked []string) []string {
				if asked == nil {
					return all
				}
				return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !slices.Contains(asked, s) })
			}
			a, b := ask(t, m, opened.RefreshToken(), first...), ask(t, m, opened.RefreshToken(), second...)
			wantScopes(t, v, a, scopes(first)...)
			wantScopes(t, v, b, scopes(second)...)
			if a.RefreshToken() != b.RefreshToken() {
				t.Error("two refresh tokens")
			}
			if equal := slices.Equal(scopes(first), scopes(second)); equal != (a.AccessToken() == b.AccessToken()) {
				t.Errorf("asked for %q and %q: the same access token: %t", first, second, !equal)
			}
			same(t, a, ask(t, m, opened.RefreshToken(), first...))
		}
	}
}

// The use of any access token that belongs to the successor shows that a client has it.
func TestTheUseOfAReplayedTokenOfOtherScopesDelivers(t *testing.T) {
	for _, uses := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, nil)
			v := trusting(t, m, nil)
			first := openScoped(t, m)
			ask(t, m, first.RefreshToken())
			replayed := ask(t, m, first.RefreshToken(), "read")
			if uses {
				want(t, v, replayed.AccessToken(), jwtauth.Accepted)
			}
			time.Sleep(time.Minute)
			if uses {
				wantInvalid(t, m, first.RefreshToken())
			} else {
				ask(t, m, first.RefreshToken())
			}
		})
	}
}

func TestConcurrentRequestsForDifferentScopesShareOneRefreshToken(t *testing.T) {
	m := newManager(t, nil)
	v := trusting(t, m, nil)
	opened := openScoped(t, m)
	asked := []string{"read", "write", "admin"}
	responses := make([]session.Tokens, 24)
	var wg sync.WaitGroup
	for n := range responses {
		wg.Go(func() { responses[n] = ask(t, m, opened.RefreshToken(), asked[n%3]) })
	}
	wg.Wait()
	for n, r := range responses {
		wantScopes(t, v, r, asked[n%3])
		if r.RefreshToken() != responses[0].RefreshToken() {
			t.Error("two refresh tokens")
		}
	}
}

func TestASessionIsRefreshedByItsClientOnly(t *testing.T) {
	for _, bound := range []string{"web", ""} {
		for _, other := range []string{"", "web", "app", "WEB", "web "} {
			if other == bound {
				continue
			}
			t.Run(bound+" by "+other, func(t *testing.T) {
				var events []session.Event
				m := newManager(t, func(c *session.Config) {
					c.Audit = func(_ context.Context, e session.Event) { events = append(events, e) }
				})
				v := trusting(t, m, nil)
				opened := must(m.Login(t.Context(), session.Session{Subject: "ann", Client: bound}))
				if tok := must(v.Verify(t.Context(), opened.AccessToken())); tok.ClientID != bound {
					t.Errorf("client_id %q, want %q", tok.ClientID, bound)
				}
				by := func(client, token string) (session.Tokens, error) {
					return m.Refresh(t.Context(), session.RefreshRequest{Token: token, Client: client})
				}
				second := must(by(bound, opened.RefreshToken()))
				third := must(by(bound, second.RefreshToken()))
				// The current one, the previous one, and one whose use would end the session.
				for _, token := range []string{third.RefreshToken(), second.RefreshToken(), opened.RefreshToken()} {
					got, err := by(other, token)
					if !errors.Is(err, session.ErrInvalidRefreshToken) || got.AccessToken() != "" {
						t.Errorf("error %v", err)
					}
					if e := events[len(events)-1]; e.Outcome != "wrong_client" || e.SessionID != opened.Session.ID || e.Ended != nil {
						t.Errorf("event %+v", e)
					}
				}
				fourth := must(by(bound, third.RefreshToken()))
				if tok := must(v.Verify(t.Context(), fourth.AccessToken())); tok.ClientID != bound {
					t.Errorf("client_id %q, want %q", tok.ClientID, bound)
				}
			})
		}
	}
}

func TestTheBodyOfARefreshNamesScopesAndClient(t *testing.T) {
	for name, c := range map[string]struct {
		members string
		status  int
		body    string
	}{
		"all scopes":                       {`"client_id":"web"`, 200, `"scope":"read write admin"`},
		"fewer scopes":                     {`"client_id":"web","scope":"admin read"`, 200, `"scope":"read admin"`},
		"an empty scope is none":           {`"client_id":"web","scope":""`, 200, `"scope":"read write admin"`},
		"a scope that the session lacks":   {`"client_id":"web","scope":"read root"`, 400, `"code":"invalid_scope"`},
		"only a space separates scopes":    {`"client_id":"web","scope":"read\u00a0admin"`, 400, `"code":"invalid_scope"`},
		"no tab separates scopes":          {`"client_id":"web","scope":"read\tadmin"`, 400, `"code":"invalid_scope"`},
		"more spaces than necessary":       {`"client_id":"web","scope":" admin  read "`, 200, `"scope":"read admin"`},
		"a list of scopes":                 {`"client_id":"web","scope":["read"]`, 400, `"code":"validation_failed"`},
		"a client that is a number":        {`"client_id":7`, 400, `"code":"validation_failed"`},
		"another client":                   {`"client_id":"app"`, 401, `"code":"invalid_refresh_token"`},
		"no client":                        {`"scope":"read"`, 401, `"code":"invalid_refresh_token"`},
		"a member that nobody has defined": {`"client_id":"web","audience":"x"`, 400, `"code":"validation_failed"`},
	} {
		for _, cookie := range []bool{false, true} {
			m := newManager(t, nil)
			change := inCookie
			if !cookie {
				change = nil
			}
			h := newHandler(t, m, change)
			token := must(m.Login(t.Context(), session.Session{
				Subject: "ann", Client: "web", Scopes: []string{"read", "write", "admin"},
			})).RefreshToken()
			body, field := `{"refresh_token":"`+token+`",`+c.members+`}`, "X-None: x"
			if cookie {
				body, field = `{`+c.members+`}`, "Cookie: __Host-refresh_token="+token
			}
			w := post(t, h.Refresh, body, field)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
				t.Errorf("%s, in a cookie %t: %d %s", name, cookie, w.Code, w.Body)
			}
		}
	}
}

// Of several cookies only those of the client count.
func TestOfSeveralRefreshTokensThoseOfTheClientCount(t *testing.T) {
	m := newManager(t, nil)
	h := newHandler(t, m, inCookie)
	web := must(m.Login(t.Context(), session.Session{Subject: "ann", Client: "web"}))
	time.Sleep(time.Millisecond)
	app := must(m.Login(t.Context(), session.Session{Subject: "bob", Client: "app"}))
	for _, order := range [][2]string{{web.RefreshToken(), app.RefreshToken()}, {app.RefreshToken(), web.RefreshToken()}} {
		w := post(t, h.Refresh, `{"client_id":"web"}`, "Cookie: __Host-refresh_token="+order[0]+"; __Host-refresh_token="+order[1])
		wantStatus(t, w, 200)
	}
	if s := must(m.Sessions(t.Context(), "bob"))[0]; !s.RefreshedAt.Equal(s.CreatedAt) {
		t.Error("the other client's session was refreshed")
	}
}
