package session_test

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
)

// A page has several requests under way, each with the refresh token that it had when it
// sent them, and they arrive at two nodes in another order.
func TestRequestsOfOneClientMayArriveInAnyOrder(t *testing.T) {
	for name, change := range map[string]func(*session.HandlerConfig){"in JSON": nil, "in cookies": inCookie} {
		for _, order := range []string{"01", "0101", "0110", "00110", "01110001"} {
			t.Run(name+", "+order, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store, list := newMemory(t, 0), new(jwtauth.RevocationList)
					var outcomes []string
					var nodes [2]*session.Handler
					var m *session.Manager
					for n := range nodes {
						m = newManager(t, func(c *session.Config) {
							c.Store, c.Revocations = store, list
							c.Audit = func(_ context.Context, e session.Event) { outcomes = append(outcomes, e.Outcome) }
						})
						nodes[n] = newHandler(t, m, change)
					}
					v := sessions(t, m, list)
					tokens := []string{login(t, m).RefreshToken()}
					refresh := func(n int, token string) (w *httptest.ResponseRecorder, next string) {
						if change == nil {
							w = post(t, nodes[n%2].Refresh, refreshBody(token))
							next = member(t, w, "refresh_token")
						} else {
							w = post(t, nodes[n%2].Refresh, "", "Cookie: __Host-refresh_token="+token)
							if c := w.Result().Cookies(); len(c) == 1 {
								next = c[0].Value
							}
						}
						wantStatus(t, w, http.StatusOK)
						return w, next
					}
					_, next := refresh(0, tokens[0])
					tokens = append(tokens, next)
					var access []string
					for n, sent := range order {
						time.Sleep(time.Second)
						w, got := refresh(n, tokens[sent-'0'])
						if got != tokens[1] {
							t.Errorf("request %d: another refresh token", n)
						}
						access = append(access, member(t, w, "access_token"))
						if sent == '1' && slices.Index(access, access[n]) != n {
							t.Errorf("request %d: an access token that another one has got", n)
						}
						if change != nil && !strings.Contains(w.Header().Get("Set-Cookie"), "; Max-Age=") {
							t.Errorf("request %d: %q", n, w.Header()["Set-Cookie"])
						}
					}
					for _, token := range access {
						want(t, v, token, jwtauth.Accepted)
					}
					// There is one chain, and the next token has a grace of its own.
					time.Sleep(30 * time.Second)
					if _, next = refresh(0, tokens[1]); next == tokens[1] {
						t.Error("the token has outlived the grace")
					}
					for n := range 2 {
						if _, got := refresh(n, tokens[1]); got != next {
							t.Error("another refresh token")
						}
					}
					if got := slices.Sorted(maps.Keys(count(outcomes))); !slices.Equal(got, []string{"accepted", "kept", "replayed", "rotated"}) {
						t.Errorf("outcomes %q", outcomes)
					}
				})
			})
		}
	}
}

func count(list []string) map[string]int {
	n := make(map[string]int)
	for _, s := range list {
		n[s]++
	}
	return n
}

// Many requests with either token arrive at once, and the response is not yet delivered.
func TestRequestsWithBothTokensMayArriveAtOnce(t *testing.T) {
	for round := range 20 {
		var reported error
		m := newManager(t, func(c *session.Config) {
			c.Store, c.Grace = &hooked{Store: newMemory(t, 0)}, time.Minute
			c.OnError = func(_ context.Context, err error) { reported = err }
		})
		first := login(t, m)
		second := must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}))
		var wg sync.WaitGroup
		for n := range 16 {
			token := [2]session.Tokens{first, second}[n%2].RefreshToken()
			wg.Go(func() {
				got, err := m.Refresh(t.Context(), session.RefreshRequest{Token: token})
				if err != nil || got.RefreshToken() != second.RefreshToken() {
					t.Errorf("round %d, token %d: %v", round, n%2, err)
				}
			})
		}
		wg.Wait()
		if reported != nil {
			t.Error(reported)
		}
	}
}

// A refresh that keeps the token has current claims and the scopes that it asks for, and
// extends neither the session nor the grace. Its access token does not outlive the session.
func TestAKeptTokenExtendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, calls := newMemory(t, 0), 0
		m := newManager(t, func(c *session.Config) {
			c.Store, c.RefreshLifetime = store, 15*time.Minute
			c.Claims = func(context.Context, session.Session) (map[string]any, error) {
				calls++
				return map[string]any{"call": calls}, nil
			}
		})
		v := trusting(t, m, nil)
		first := openScoped(t, m)
		second := ask(t, m, first.RefreshToken())
		for n := range 3 {
			time.Sleep(9 * time.Second)
			kept := ask(t, m, second.RefreshToken(), "write")
			wantScopes(t, v, kept, "write")
			token := must(v.Verify(t.Context(), kept.AccessToken()))
			var private struct {
				Call int `json:"call"`
			}
			if err := token.Claims(&private); err != nil || private.Call != n+3 {
				t.Errorf("claims of call %d, want %d: %v", private.Call, n+3, err)
			}
			s, was := kept.Session, second.Session
			if !s.RefreshedAt.Equal(was.RefreshedAt) || !s.ExpiresAt.Equal(was.ExpiresAt) || kept.RefreshToken() != second.RefreshToken() {
				t.Errorf("%+v, was %+v", s, was)
			}
			if left := 15*time.Minute - time.Duration(n+1)*9*time.Second; kept.RefreshLifetime != left || kept.AccessLifetime != left {
				t.Errorf("the tokens are valid for %v and %v, want %v", kept.RefreshLifetime, kept.AccessLifetime, left)
			}
		}
		time.Sleep(3 * time.Second)
		if third := ask(t, m, second.RefreshToken()); third.RefreshToken() == second.RefreshToken() {
			t.Error("the grace was extended")
		}
		wantInvalid(t, m, first.RefreshToken())
	})
}

// Only an exchange begins a grace: the token of a login is exchanged however young it is,
// and without a grace every token is.
func TestOnlyAnExchangedTokenIsKept(t *testing.T) {
	for _, grace := range []time.Duration{-1, 30 * time.Second} {
		m := newManager(t, func(c *session.Config) { c.Grace = grace })
		first := login(t, m)
		second := mustRefresh(t, m, first.RefreshToken())
		third := mustRefresh(t, m, second.RefreshToken())
		if first.RefreshToken() == second.RefreshToken() || (second.RefreshToken() == third.RefreshToken()) != (grace > 0) {
			t.Errorf("a grace of %v: the token was kept or exchanged wrongly", grace)
		}
	}
}

// A client that sends the token of a response has the response, so it was not lost.
func TestAResponseWhoseTokenWasKeptWasDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := new(jwtauth.RevocationList)
		m := newManager(t, func(c *session.Config) { c.Revocations = list })
		v := sessions(t, m, list)
		first := login(t, m)
		second := ask(t, m, first.RefreshToken())
		kept := ask(t, m, second.RefreshToken())
		time.Sleep(time.Minute)
		wantInvalid(t, m, first.RefreshToken())
		for _, tokens := range []session.Tokens{first, second, kept} {
			want(t, v, tokens.AccessToken(), jwtauth.Revoked)
		}
	})
}

// A thief refreshes within the grace with the token of the user, who does not notice. But the
// next token is only one's, and the other one ends the session with all access tokens.
func TestAThiefOfAYoungTokenIsNoticedAfterTheNextExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := new(jwtauth.RevocationList)
		m := newManager(t, func(c *session.Config) { c.Revocations = list })
		v := sessions(t, m, list)
		shared := mustRefresh(t, m, login(t, m).RefreshToken())
		time.Sleep(29 * time.Second)
		stolen := mustRefresh(t, m, shared.RefreshToken())
		want(t, v, stolen.AccessToken(), jwtauth.Accepted)
		time.Sleep(time.Second)
		next := mustRefresh(t, m, shared.RefreshToken()) // by either
		time.Sleep(30 * time.Second)
		wantInvalid(t, m, shared.RefreshToken()) // by the other one
		wantInvalid(t, m, next.RefreshToken())
		for _, tokens := range []session.Tokens{shared, stolen, next} {
			want(t, v, tokens.AccessToken(), jwtauth.Revoked)
		}
	})
}
