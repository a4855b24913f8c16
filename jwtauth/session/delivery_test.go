package session_test

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session"
)

// trusting returns a Verifier of the access tokens of m.
func trusting(tb testing.TB, m *session.Manager, change func(*jwtauth.Config)) *jwtauth.Verifier {
	tb.Helper()
	c := jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{m.TrustedIssuer()}}
	if change != nil {
		change(&c)
	}
	return mustVerifier(tb, c)
}

func TestAUseIsStoredOnceForEachTokenAndNode(t *testing.T) {
	for name, capacity := range map[string]int{"tokens are remembered": 0, "no token is remembered": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &hooked{Store: newMemory(t, 0)}
				m := newManager(t, func(c *session.Config) { c.Store = store })
				v := trusting(t, m, func(c *jwtauth.Config) { c.CacheCapacity = capacity })
				first := login(t, m)
				second := must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}))
				store.calls.Store(0)
				for range 10 {
					want(t, v, first.AccessToken(), jwtauth.Accepted)
					want(t, v, second.AccessToken(), jwtauth.Accepted)
				}
				synctest.Wait()
				if n := store.calls.Load(); n != 2 {
					t.Errorf("%d calls for two tokens", n)
				}
			})
		})
	}
}

func TestAUseThatWasNotStoredIsStoredAtTheNextVerification(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports atomic.Int64
		store := &hooked{Store: newMemory(t, 0)}
		m := newManager(t, func(c *session.Config) {
			c.Store = store
			c.OnError = func(_ context.Context, err error) {
				if !errors.Is(err, errDown) {
					t.Errorf("reported: %v", err)
				}
				reports.Add(1)
			}
		})
		first := login(t, m)
		second := must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}))
		store.delivery = func() error { return errDown }
		want(t, trusting(t, m, nil), second.AccessToken(), jwtauth.Accepted)
		synctest.Wait()
		if n := reports.Load(); n != 1 {
			t.Errorf("%d reports", n)
		}
		store.delivery = nil
		want(t, trusting(t, m, nil), second.AccessToken(), jwtauth.Accepted)
		time.Sleep(time.Minute)
		wantInvalid(t, m, first.RefreshToken())
	})
}

// A store that hangs delays no request, and few calls of it run at a time. The calls for
// refreshes have places of their own.
func TestUsesWaitForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		store := &hooked{Store: newMemory(t, 0)}
		m := newManager(t, func(c *session.Config) {
			c.Store = store
			c.OnError = func(context.Context, error) {}
		})
		v := trusting(t, m, nil)
		tokens := make([]session.Tokens, 3000)
		for n := range tokens {
			tokens[n] = must(m.Login(t.Context(), session.Session{Subject: strconv.Itoa(n)}))
		}
		store.delivery = func() error {
			defer running.Add(-1)
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Minute) // whatever the context says
			return nil
		}
		began := time.Now()
		for _, tokens := range tokens {
			want(t, v, tokens.AccessToken(), jwtauth.Accepted)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("the requests took %v", took)
		}
		synctest.Wait()
		if n := most.Load(); n != 64 {
			t.Errorf("%d calls ran at a time", n)
		}
		for _, tokens := range tokens[:100] {
			must(m.Refresh(t.Context(), session.RefreshRequest{Token: tokens.RefreshToken()}))
		}
		time.Sleep(10 * time.Minute) // until the calls have ended
	})
}

func TestOnlyTokensOfTheManagerAreUsed(t *testing.T) {
	store := &hooked{Store: newMemory(t, 0)}
	m := newManager(t, func(c *session.Config) { c.Store = store })
	store.calls.Store(0)
	for _, token := range []jwtauth.Token{
		{}, {Issuer: "https://other.example", SessionID: "s", ID: "t"}, {Issuer: issuer, ID: "t"}, {Issuer: issuer, SessionID: "s"},
		{Issuer: issuer, SessionID: "s\x00", ID: "t"}, {Issuer: issuer, SessionID: "s", ID: "\xff"},
	} {
		m.Used(t.Context(), &token)
	}
	time.Sleep(10 * time.Millisecond) // for a goroutine that should not be there
	if n := store.calls.Load(); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// A token of a response that was replaced shows nothing about the response that replaced
// it, and neither does one of the session before its refresh.
func TestTheUseOfAnEarlierTokenDeliversNothing(t *testing.T) {
	for name, early := range map[string]func(opened, lost session.Tokens) session.Tokens{
		"of the login":         func(opened, _ session.Tokens) session.Tokens { return opened },
		"of the lost response": func(_, lost session.Tokens) session.Tokens { return lost },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, nil)
				opened := login(t, m)
				lost := must(m.Refresh(t.Context(), session.RefreshRequest{Token: opened.RefreshToken()}))
				time.Sleep(time.Minute)
				must(m.Refresh(t.Context(), session.RefreshRequest{Token: opened.RefreshToken()}))
				used(t, m, early(opened, lost).AccessToken())
				time.Sleep(time.Minute)
				mustRefresh(t, m, opened.RefreshToken()) // lost again
			})
		})
	}
}

// The clock of one node is behind, or was set back.
func TestAClockThatIsBehindDoesNotStretchTheGrace(t *testing.T) {
	for name, c := range map[string]struct {
		behind   time.Duration
		replayed bool
	}{
		"by less than the grace": {30*time.Second - time.Microsecond, true},
		"by the grace":           {30 * time.Second, false},
		"by an hour":             {time.Hour, false},
	} {
		for _, delivered := range []bool{true, false} {
			t.Run(name+", delivered "+strconv.FormatBool(delivered), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newMemory(t, 0)
					m := newManager(t, func(c *session.Config) { c.Store = store })
					first := login(t, m)
					second := must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}))
					if delivered {
						used(t, m, second.AccessToken())
					}
					// The other node has done that later by its own clock.
					r := must(store.Lookup(t.Context(), sum(must(unb64(first.RefreshToken()))[:32])))
					r.RefreshedAt = r.RefreshedAt.Add(c.behind)
					if err := store.Update(t.Context(), r); err != nil {
						t.Fatal(err)
					}
					switch {
					case c.replayed:
						same(t, second, must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()})))
					case delivered:
						wantInvalid(t, m, first.RefreshToken())
					default:
						third := mustRefresh(t, m, first.RefreshToken())
						if third.AccessToken() == second.AccessToken() {
							t.Error("the response was repeated")
						}
					}
				})
			})
		}
	}
}

func TestAUseIsStoredAlthoughItsRequestHasEnded(t *testing.T) {
	for _, direct := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, func(c *session.Config) {
				if !direct {
					c.Store = &hooked{Store: c.Store}
				}
			})
			first := login(t, m)
			second := must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, _ = trusting(t, m, nil).Verify(ctx, second.AccessToken())
			time.Sleep(time.Minute)
			wantInvalid(t, m, first.RefreshToken())
		})
	}
}
