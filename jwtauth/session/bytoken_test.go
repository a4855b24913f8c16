package session_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
)

// A family is a session whose refresh token was exchanged twice, with a grace between, and
// what its clients have.
type family struct {
	m                    *session.Manager
	store                *hooked
	first, second, third session.Tokens
}

func newFamily(t *testing.T, change func(*session.Config)) family {
	f := family{store: &hooked{Store: newMemory(t, 0)}}
	f.m = newManager(t, func(c *session.Config) {
		c.Store = f.store
		if change != nil {
			change(c)
		}
	})
	f.first = login(t, f.m)
	f.second = must(f.m.Refresh(t.Context(), session.RefreshRequest{Token: f.first.RefreshToken()}))
	time.Sleep(30 * time.Second)
	f.third = must(f.m.Refresh(t.Context(), session.RefreshRequest{Token: f.second.RefreshToken()}))
	return f
}

// FindByToken finds what Refresh would exchange, and has no effect.
func TestFindByTokenHasNoEffect(t *testing.T) {
	for name, c := range map[string]struct {
		token func(family) string
		after func(*testing.T, family)
		found bool
	}{
		"the current token":                {func(f family) string { return f.third.RefreshToken() }, nil, true},
		"the previous one in the grace":    {func(f family) string { return f.second.RefreshToken() }, nil, true},
		"an old one, which would be reuse": {func(f family) string { return f.first.RefreshToken() }, nil, false},
		"the previous one, whose response was lost": {func(f family) string { return f.second.RefreshToken() },
			func(*testing.T, family) { time.Sleep(time.Minute) }, true},
		"the previous one, whose response was used": {func(f family) string { return f.second.RefreshToken() },
			func(t *testing.T, f family) {
				used(t, f.m, f.third.AccessToken())
				time.Sleep(time.Minute)
			}, false},
		"a token of an ended session": {func(f family) string { return f.third.RefreshToken() },
			func(t *testing.T, f family) {
				must(f.m.Logout(t.Context(), "ann", f.first.Session.ID))
			}, false},
		"a token of an expired session": {func(f family) string { return f.third.RefreshToken() },
			func(*testing.T, family) { time.Sleep(8 * 24 * time.Hour) }, false},
		"a token of no session": {func(family) string { return b64(make([]byte, 64)) }, nil, false},
		"an access token":       {func(f family) string { return f.third.AccessToken() }, nil, false},
		"no token":              {func(family) string { return "" }, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFamily(t, nil)
				if c.after != nil {
					c.after(t, f)
				}
				synctest.Wait()
				before := must(f.store.Lookup(t.Context(), sum(must(unb64(f.first.RefreshToken()))[:32])))
				s, err := f.m.FindByToken(t.Context(), c.token(f))
				if c.found != (err == nil) || c.found != (s.ID == f.first.Session.ID) || !c.found && !errors.Is(err, session.ErrInvalidRefreshToken) {
					t.Errorf("%+v, %v", s, err)
				}
				after := must(f.store.Lookup(t.Context(), sum(must(unb64(f.first.RefreshToken()))[:32])))
				if before.Revision != after.Revision || !before.RevokedAt.Equal(after.RevokedAt) {
					t.Error("the session was changed")
				}
				if c.found {
					mustRefresh(t, f.m, c.token(f))
				}
			})
		})
	}
}

// Any client that has had a token of a session may end it, whether the token is current or not.
func TestLogoutByTokenEndsTheSessionOfAnyOfItsTokens(t *testing.T) {
	for name, c := range map[string]struct {
		token func(family) string
		ended bool
	}{
		"the current token":     {func(f family) string { return f.third.RefreshToken() }, true},
		"the previous one":      {func(f family) string { return f.second.RefreshToken() }, true},
		"an old one":            {func(f family) string { return f.first.RefreshToken() }, true},
		"a token of no session": {func(family) string { return b64(make([]byte, 64)) }, false},
		"an access token":       {func(f family) string { return f.third.AccessToken() }, false},
		"no token":              {func(family) string { return "" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var list jwtauth.RevocationList
				var events []session.Event
				f := newFamily(t, func(c *session.Config) {
					c.Revocations = &list
					c.Audit = func(_ context.Context, e session.Event) { events = append(events, e) }
				})
				v := sessions(t, f.m, &list)
				events = nil
				s, err := f.m.LogoutByToken(t.Context(), c.token(f))
				if !c.ended {
					if !errors.Is(err, session.ErrNotFound) || len(events) != 0 {
						t.Errorf("%v, events %+v", err, events)
					}
					mustRefresh(t, f.m, f.third.RefreshToken())
					return
				}
				if err != nil || s.ID != f.first.Session.ID || s.RevokedAt.IsZero() {
					t.Errorf("%+v, %v", s, err)
				}
				if len(events) != 1 || events[0].Action != "logout" || events[0].Outcome != "accepted" || len(events[0].Ended) != 1 {
					t.Errorf("events %+v", events)
				}
				wantInvalid(t, f.m, f.third.RefreshToken())
				want(t, v, f.third.AccessToken(), jwtauth.Revoked)
				if _, err := f.m.LogoutByToken(t.Context(), c.token(f)); err != nil {
					t.Errorf("again: %v", err)
				}
			})
		})
	}
}

func TestAStoreThatFailsIsNoMissingSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, method := range []string{"Lookup", "Revoke"} {
			f := newFamily(t, nil)
			f.store.before = on(method, errDown)
			if _, err := f.m.LogoutByToken(t.Context(), f.third.RefreshToken()); !errors.Is(err, errDown) || errors.Is(err, session.ErrNotFound) {
				t.Errorf("%s: LogoutByToken: %v", method, err)
			}
			if _, err := f.m.FindByToken(t.Context(), f.third.RefreshToken()); method == "Lookup" && (!errors.Is(err, errDown) || errors.Is(err, session.ErrInvalidRefreshToken)) {
				t.Errorf("%s: FindByToken: %v", method, err)
			}
		}
	})
}
