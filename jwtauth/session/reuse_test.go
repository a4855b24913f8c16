package session_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
)

// A revoker is a list whose next RevokeSession calls a function first.
type revoker struct {
	jwtauth.RevocationList
	first func() error
	calls atomic.Int64
}

func (r *revoker) RevokeSession(ctx context.Context, issuer, id string, until time.Time) error {
	if r.calls.Add(1) == 1 && r.first != nil {
		if err := r.first(); err != nil {
			return err
		}
	}
	return r.RevocationList.RevokeSession(ctx, issuer, id, until)
}

// A thief has the latest tokens, and the victim's reuse of an older one is noticed while
// something fails. Whatever fails, the thief's access token ends at the next refresh by
// either of them.
func TestReuseEndsTheAccessTokensAlsoIfItFailsAtFirst(t *testing.T) {
	for name, fail := range map[string]func(*hooked, *revoker){
		"the Revoker fails": func(_ *hooked, r *revoker) { r.first = func() error { return errDown } },
		"the process ends before the Revoker is called": func(s *hooked, _ *revoker) {
			var once atomic.Bool
			s.after = func(_ context.Context, method string) error {
				if method == "Revoke" && once.CompareAndSwap(false, true) {
					return errDown
				}
				return nil
			}
		},
	} {
		for _, who := range []string{"the victim", "the thief"} {
			t.Run(name+", then "+who+" tries again", func(t *testing.T) {
				store, revocations := &hooked{Store: newMemory(t, 0)}, new(revoker)
				m := newManager(t, func(c *session.Config) {
					c.Store, c.Revocations, c.Grace = store, revocations, -1
				})
				h := newHandler(t, m, inCookie)
				mux := http.NewServeMux()
				mux.HandleFunc("POST /refresh", h.Refresh)
				mux.Handle("GET /", usher.Authenticate(sessions(t, m, revocations)).Wrap(http.HandlerFunc(
					func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") })))
				s := httptest.NewServer(mux)
				defer s.Close()
				refresh := func(tokens session.Tokens, want int) {
					t.Helper()
					r := must(http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/refresh", nil))
					r.AddCookie(&http.Cookie{Name: "__Host-refresh_token", Value: tokens.RefreshToken()})
					resp, err := s.Client().Do(r)
					if err != nil {
						t.Fatal(err)
					}
					_ = resp.Body.Close()
					if resp.StatusCode != want {
						t.Errorf("refresh: %d, want %d", resp.StatusCode, want)
					}
				}
				victims := login(t, m)
				stolen := mustRefresh(t, m, victims.RefreshToken())
				fail(store, revocations)
				refresh(victims, 503)
				if got := status(t, s.Client(), s.URL, stolen.AccessToken()); got != 200 {
					t.Fatalf("%d: nothing has failed", got)
				}
				if who == "the victim" {
					refresh(victims, 401)
				} else {
					refresh(stolen, 401)
				}
				if got := status(t, s.Client(), s.URL, stolen.AccessToken()); got != 401 {
					t.Errorf("%d for the access token of the thief", got)
				}
			})
		}
	}
}

// The Revoker is called again only while an access token may still be valid.
func TestAnEndedSessionIsRevokedAgainWhileItsAccessTokensLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		revocations := new(revoker)
		m := newManager(t, func(c *session.Config) { c.Revocations = revocations })
		tokens := login(t, m)
		if _, err := m.Logout(t.Context(), tokens.Session.Subject, tokens.Session.ID); err != nil {
			t.Fatal(err)
		}
		wantInvalid(t, m, tokens.RefreshToken())
		if n := revocations.calls.Load(); n != 2 {
			t.Errorf("%d calls, want one more", n)
		}
		if n := revocations.Len(); n != 1 {
			t.Errorf("%d revocations, want 1", n)
		}
		time.Sleep(25*time.Minute + time.Millisecond) // the access lifetime, the most that clocks may be off, and the largest leeway
		wantInvalid(t, m, tokens.RefreshToken())
		if n := revocations.calls.Load(); n != 2 {
			t.Errorf("%d calls, want no more", n)
		}
	})
}

// tokenRevoker is a list whose RevokeToken fails with err, unless that is nil.
type tokenRevoker struct {
	jwtauth.RevocationList
	err   error
	calls atomic.Int64
}

func (r *tokenRevoker) RevokeToken(ctx context.Context, issuer, id string, until time.Time) error {
	r.calls.Add(1)
	if r.err != nil {
		return r.err
	}
	return r.RevocationList.RevokeToken(ctx, issuer, id, until)
}

// If the access token of a lost response cannot be ended, nothing is exchanged, and the
// client tries again. Once that token has expired anyway, nothing needs to be ended.
func TestTheAccessTokenOfALostResponseEndsBeforeTheExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		revocations := &tokenRevoker{err: errDown}
		m := newManager(t, func(c *session.Config) { c.Revocations = revocations })
		v := sessions(t, m, revocations)
		first := login(t, m)
		lost := must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}))
		time.Sleep(time.Minute)
		if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}); !errors.Is(err, errDown) {
			t.Fatalf("error %v", err)
		}
		revocations.err = nil
		mustRefresh(t, m, first.RefreshToken())
		want(t, v, lost.AccessToken(), jwtauth.Revoked)

		first = login(t, m)
		must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}))
		time.Sleep(time.Hour)
		calls := revocations.calls.Load()
		mustRefresh(t, m, first.RefreshToken())
		if n := revocations.calls.Load() - calls; n != 0 {
			t.Errorf("%d calls for a token that has expired", n)
		}
	})
}
