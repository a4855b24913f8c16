package session_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
)

// A thief with the previous refresh token repeats its exchange, within the grace and for
// other scopes than the client has asked for. Once the client has exchanged it again,
// every access token of the lost response is void, not only the first.
func TestEveryAccessTokenOfALostResponseEndsWithIt(t *testing.T) {
	for _, sets := range []int{1, 3, 40} {
		t.Run(strconv.Itoa(sets), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, func(c *session.Config) { c.Revocations = new(jwtauth.RevocationList) })
				v := trusting(t, m, nil)
				var scopes []string
				for n := range 40 {
					scopes = append(scopes, fmt.Sprintf("scope-%d", n))
				}
				opened := must(m.Login(t.Context(), session.Session{Subject: "ann", Scopes: scopes}))
				lost := []session.Tokens{ask(t, m, opened.RefreshToken())}
				for n := range sets {
					for range 2 { // of the same scopes
						lost = append(lost, ask(t, m, opened.RefreshToken(), scopes[n]))
					}
				}
				time.Sleep(time.Minute)
				found := ask(t, m, opened.RefreshToken())
				for n, tokens := range lost {
					want(t, v, tokens.AccessToken(), jwtauth.Revoked)
					if tokens.RefreshToken() != lost[0].RefreshToken() {
						t.Errorf("another refresh token in response %d", n)
					}
				}
				want(t, v, found.AccessToken(), jwtauth.Accepted)
			})
		})
	}
}

// slowRevoker is a list that takes some time for each session.
type slowRevoker struct{ jwtauth.RevocationList }

func (r *slowRevoker) RevokeSession(ctx context.Context, issuer, id string, until time.Time) error {
	select {
	case <-time.After(100 * time.Millisecond):
		return r.RevocationList.RevokeSession(ctx, issuer, id, until)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A thief with the password of a subject opens as many sessions as there may be, and keeps
// them fresh, so that to end them one after the other would take longer than the timeout.
func TestManySessionsCannotPreventALogoutAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := new(slowRevoker)
		m := newManager(t, func(c *session.Config) { c.Revocations = list })
		v := sessions(t, m, list)
		opened := make([]session.Tokens, 100)
		for n := range opened {
			opened[n] = login(t, m)
		}
		ended, err := m.LogoutAll(t.Context(), "ann")
		if err != nil || len(ended) != len(opened) {
			t.Fatalf("%d sessions have ended: %v", len(ended), err)
		}
		for _, tokens := range opened {
			want(t, v, tokens.AccessToken(), jwtauth.Revoked)
		}
	})
}

// untils is a list that records until when a revocation must last.
type untils struct {
	jwtauth.RevocationList
	least time.Time
}

func (u *untils) note(until time.Time) {
	if u.least.IsZero() || until.Before(u.least) {
		u.least = until
	}
}

func (u *untils) RevokeToken(ctx context.Context, issuer, id string, until time.Time) error {
	u.note(until)
	return u.RevocationList.RevokeToken(ctx, issuer, id, until)
}

func (u *untils) RevokeSession(ctx context.Context, issuer, id string, until time.Time) error {
	u.note(until)
	return u.RevocationList.RevokeSession(ctx, issuer, id, until)
}

func (u *untils) RevokeSubject(ctx context.Context, issuer, subject string, before, until time.Time) error {
	u.note(until)
	return u.RevocationList.RevokeSubject(ctx, issuer, subject, before, until)
}

// A node whose clock is 5 minutes ahead has issued a token, and a Verifier tolerates 5
// minutes. No revocation of that token ends before the Verifier refuses it.
func TestARevocationOutlivesTokensOfNodesThatAreAhead(t *testing.T) {
	for name, end := range map[string]func(context.Context, *session.Manager, session.Tokens) error{
		"logout": func(ctx context.Context, m *session.Manager, tokens session.Tokens) error {
			_, err := m.Logout(ctx, tokens.Session.Subject, tokens.Session.ID)
			return err
		},
		"logout all": func(ctx context.Context, m *session.Manager, tokens session.Tokens) error {
			_, err := m.LogoutAll(ctx, tokens.Session.Subject)
			return err
		},
		"a lost response": func(ctx context.Context, m *session.Manager, tokens session.Tokens) error {
			for range 2 {
				if _, err := m.Refresh(ctx, session.RefreshRequest{Token: tokens.RefreshToken()}); err != nil {
					return err
				}
				time.Sleep(time.Minute)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				list := new(untils)
				m := newManager(t, func(c *session.Config) { c.Revocations = list })
				tokens := login(t, m)
				began := time.Now()
				if err := end(t.Context(), m, tokens); err != nil {
					t.Fatal(err)
				}
				if lasts := list.least.Sub(began); lasts < 15*time.Minute+5*time.Minute+5*time.Minute {
					t.Errorf("a revocation lasts %v", lasts)
				}
			})
		})
	}
}

// The store loses the results of logins that it has stored, or returns them too late.
// Nobody has the tokens of those sessions, so they take the place of no other one.
func TestALoginWhoseResultIsLostTakesNoPlace(t *testing.T) {
	for name, lose := range map[string]func() error{
		"an error": func() error { return errDown },
		"too late": func() error {
			time.Sleep(5 * time.Second)
			return nil
		},
		"a panic": func() error { panic("lost") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &hooked{Store: newMemory(t, 0)}
				m := newManager(t, func(c *session.Config) {
					c.Store, c.MaxSessions, c.Revocations = store, 2, new(jwtauth.RevocationList)
					c.OnError = func(context.Context, error) {}
				})
				desktop := login(t, m)
				time.Sleep(time.Second)
				for range 3 {
					store.after = func(_ context.Context, method string) error {
						if method == "Insert" {
							return lose()
						}
						return nil
					}
					if _, err := m.Login(t.Context(), session.Session{Subject: "ann"}); err == nil {
						t.Fatal("nothing has failed")
					}
					time.Sleep(10 * time.Second)
					synctest.Wait()
					store.after = nil
				}
				if live := must(m.Sessions(t.Context(), "ann")); len(live) != 1 || live[0].ID != desktop.Session.ID {
					t.Errorf("%d sessions are live", len(live))
				}
				phone := login(t, m)
				mustRefresh(t, m, desktop.RefreshToken())
				mustRefresh(t, m, phone.RefreshToken())
			})
		})
	}
}

// A thief logs in while the subject ends all sessions, and the store loses the result of
// that. No later call learns which sessions it has ended.
func TestALogoutAllWhoseResultIsLostEndsSessionsThatWereJustOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, list := &hooked{Store: newMemory(t, 0)}, new(jwtauth.RevocationList)
		m := newManager(t, func(c *session.Config) { c.Store, c.Revocations = store, list })
		v := sessions(t, m, list)
		login(t, m)
		var stolen session.Tokens
		store.before = func(_ context.Context, method string) error {
			if method == "RevokeSubject" && stolen.Session.ID == "" {
				stolen = login(t, m)
			}
			return nil
		}
		lost := false
		store.after = func(_ context.Context, method string) error {
			if method == "RevokeSubject" && !lost {
				lost = true
				return errDown
			}
			return nil
		}
		for range 3 { // of the subject
			if _, err := m.LogoutAll(t.Context(), "ann"); err == nil {
				break
			}
			time.Sleep(time.Second)
		}
		want(t, v, stolen.AccessToken(), jwtauth.Revoked)
		wantInvalid(t, m, stolen.RefreshToken())
	})
}
