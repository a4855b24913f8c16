package session_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

var hs256Method = jwt.SigningMethodHS256

func sum(b []byte) [sha256.Size]byte { return sha256.Sum256(b) }

func unb64(text string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(text) }

// hooked is a store with functions that are called before and after each method.
type hooked struct {
	session.Store
	calls atomic.Int64
	// before and after, if not nil, are called with the name of each method. An error of
	// theirs is the method's.
	before, after func(ctx context.Context, method string) error
	// delivery, if not nil, is called before SetDelivered in their place. That method may
	// run after the request that has caused it, while a test changes before and after.
	delivery func() error
}

func (f *hooked) call(ctx context.Context, method string, do func() error) error {
	f.calls.Add(1)
	if f.before != nil {
		if err := f.before(ctx, method); err != nil {
			return err
		}
	}
	err := do()
	if f.after != nil {
		if failure := f.after(ctx, method); failure != nil {
			return failure
		}
	}
	return err
}

func (f *hooked) Insert(ctx context.Context, r session.Record, limit int) (ended []session.Session, err error) {
	err = f.call(ctx, "Insert", func() (err error) { ended, err = f.Store.Insert(ctx, r, limit); return err })
	return ended, err
}

func (f *hooked) Lookup(ctx context.Context, h [sha256.Size]byte) (r session.Record, err error) {
	err = f.call(ctx, "Lookup", func() (err error) { r, err = f.Store.Lookup(ctx, h); return err })
	return r, err
}

func (f *hooked) List(ctx context.Context, subject string, now time.Time) (list []session.Session, err error) {
	err = f.call(ctx, "List", func() (err error) { list, err = f.Store.List(ctx, subject, now); return err })
	return list, err
}

func (f *hooked) Update(ctx context.Context, r session.Record) error {
	return f.call(ctx, "Update", func() error { return f.Store.Update(ctx, r) })
}

func (f *hooked) SetDelivered(ctx context.Context, sessionID, tokenID string) error {
	f.calls.Add(1)
	if f.delivery != nil {
		if err := f.delivery(); err != nil {
			return err
		}
	}
	return f.Store.SetDelivered(ctx, sessionID, tokenID)
}

func (f *hooked) Revoke(ctx context.Context, subject, id string, at time.Time) (s session.Session, err error) {
	err = f.call(ctx, "Revoke", func() (err error) { s, err = f.Store.Revoke(ctx, subject, id, at); return err })
	return s, err
}

func (f *hooked) RevokeSubject(ctx context.Context, subject string, at time.Time) (ended []session.Session, err error) {
	err = f.call(ctx, "RevokeSubject", func() (err error) { ended, err = f.Store.RevokeSubject(ctx, subject, at); return err })
	return ended, err
}

// on returns a hook that fails the named method.
func on(method string, err error) func(context.Context, string) error {
	return func(_ context.Context, called string) error {
		if called == method {
			return err
		}
		return nil
	}
}

// used calls Used for an access token.
func used(tb testing.TB, m *session.Manager, accessToken string) {
	tb.Helper()
	var claims struct{ ISS, SID, JTI string }
	payload := must(unb64(strings.Split(accessToken, ".")[1]))
	if err := json.Unmarshal(payload, &claims); err != nil {
		tb.Fatal(err)
	}
	m.Used(tb.Context(), &jwtauth.Token{Issuer: claims.ISS, SessionID: claims.SID, ID: claims.JTI})
}

// mustRefresh refreshes and uses the access token in the response.
func mustRefresh(tb testing.TB, m *session.Manager, token string) session.Tokens {
	tb.Helper()
	t, err := m.Refresh(tb.Context(), session.RefreshRequest{Token: token})
	if err != nil {
		tb.Fatalf("Refresh: %v", err)
	}
	used(tb, m, t.AccessToken())
	return t
}

func wantInvalid(tb testing.TB, m *session.Manager, token string) {
	tb.Helper()
	t, err := m.Refresh(tb.Context(), session.RefreshRequest{Token: token})
	if !errors.Is(err, session.ErrInvalidRefreshToken) || t.AccessToken() != "" || t.RefreshToken() != "" {
		tb.Errorf("error %v, want ErrInvalidRefreshToken", err)
	}
}

// same fails unless a and b are the same response, byte for byte.
func same(tb testing.TB, a, b session.Tokens) {
	tb.Helper()
	if a.AccessToken() == "" || a.AccessToken() != b.AccessToken() || a.RefreshToken() != b.RefreshToken() ||
		a.AccessLifetime != b.AccessLifetime || a.RefreshLifetime != b.RefreshLifetime {
		tb.Error("two responses differ")
	}
}

func TestRefreshTokensAreOpaqueAnd256BitsEach(t *testing.T) {
	m := newManager(t, nil)
	first := login(t, m)
	second := mustRefresh(t, m, first.RefreshToken())
	a, b := must(unb64(first.RefreshToken())), must(unb64(second.RefreshToken()))
	if len(a) != 64 || len(b) != 64 {
		t.Fatalf("%d and %d bytes", len(a), len(b))
	}
	if string(a[:32]) != string(b[:32]) || string(a[32:]) == string(b[32:]) {
		t.Error("want one half that stays the same in the session and one that is new")
	}
}

func TestRefreshExchangesTheTokenForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, nil)
		v := sessions(t, m, nil)
		tokens := login(t, m)
		seen := map[string]bool{tokens.RefreshToken(): true, tokens.AccessToken(): true}
		for range 5 {
			next := mustRefresh(t, m, tokens.RefreshToken())
			if seen[next.RefreshToken()] || seen[next.AccessToken()] || next.Session.ID != tokens.Session.ID {
				t.Fatal("an old token, or another session")
			}
			seen[next.RefreshToken()], seen[next.AccessToken()] = true, true
			want(t, v, next.AccessToken(), jwtauth.Accepted)
			tokens = next
			time.Sleep(30 * time.Second)
		}
	})
}

// J15: two simultaneous refreshes with one token.
func TestJ15ConcurrentRefreshesOfOneTokenGetTheSameResponse(t *testing.T) {
	for _, a := range []jwk.Algorithm{jwk.HS256, jwk.PS256, jwk.ES256} {
		t.Run(string(a), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, func(c *session.Config) {
					c.Grace = time.Minute
					c.Keys = []session.SigningKey{{Key: signing(t, "k1", a)}}
				})
				tokens := login(t, m)
				for range 5 {
					responses := make([]session.Tokens, 32)
					var wg sync.WaitGroup
					start := make(chan struct{})
					for n := range responses {
						wg.Go(func() {
							<-start
							got, err := m.Refresh(t.Context(), session.RefreshRequest{Token: tokens.RefreshToken()})
							if err != nil {
								t.Error(err)
								return
							}
							used(t, m, got.AccessToken())
							responses[n] = got
						})
					}
					close(start)
					wg.Wait()
					for _, other := range responses[1:] {
						same(t, responses[0], other)
					}
					tokens = responses[0]
					time.Sleep(time.Minute)
				}
			})
		})
	}
}

func TestReplayWithinTheGraceIsTheSameResponseForEveryAlgorithm(t *testing.T) {
	for _, a := range algorithms {
		t.Run(string(a), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				m := newManager(t, func(c *session.Config) {
					c.Keys = []session.SigningKey{{Key: signing(t, "k1", a)}}
					c.Claims = func(context.Context, session.Session) (map[string]any, error) {
						calls++
						return map[string]any{"call": calls}, nil
					}
				})
				first := login(t, m)
				second := mustRefresh(t, m, first.RefreshToken())
				time.Sleep(30*time.Second - time.Microsecond)
				same(t, second, mustRefresh(t, m, first.RefreshToken()))
				if calls != 2 {
					t.Errorf("%d calls of Claims, want one for the login and one for the refresh", calls)
				}
				// There is one chain: the token in the response is the good one.
				mustRefresh(t, m, second.RefreshToken())
			})
		})
	}
}

func TestJ15ReplayAfterTheGraceEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list jwtauth.RevocationList
		m := newManager(t, func(c *session.Config) { c.Revocations = &list })
		v := sessions(t, m, &list)
		first := login(t, m)
		second := mustRefresh(t, m, first.RefreshToken())
		want(t, v, second.AccessToken(), jwtauth.Accepted)
		time.Sleep(30 * time.Second)
		wantInvalid(t, m, first.RefreshToken())
		wantInvalid(t, m, second.RefreshToken())
		want(t, v, first.AccessToken(), jwtauth.Revoked)
		want(t, v, second.AccessToken(), jwtauth.Revoked)
	})
}

func TestTheGraceIsForTheImmediatePredecessorAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, nil)
		first := login(t, m)
		second := mustRefresh(t, m, first.RefreshToken())
		time.Sleep(30 * time.Second)
		third := mustRefresh(t, m, second.RefreshToken())
		wantInvalid(t, m, first.RefreshToken())
		wantInvalid(t, m, third.RefreshToken())
	})
}

func TestNoGraceMakesEverySecondUseAReuse(t *testing.T) {
	for _, delivered := range []bool{true, false} {
		m := newManager(t, func(c *session.Config) { c.Grace = -1 })
		first := login(t, m)
		second := must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}))
		if delivered {
			used(t, m, second.AccessToken())
		}
		wantInvalid(t, m, first.RefreshToken())
		wantInvalid(t, m, second.RefreshToken())
	}
}

func TestATokenThatWasNeverIssuedEndsNothing(t *testing.T) {
	m := newManager(t, nil)
	tokens := login(t, m)
	b := must(unb64(tokens.RefreshToken()))
	for n := range 32 { // another session's half, with the good one of this session
		b[n] ^= 0xff
	}
	wantInvalid(t, m, b64(b))
	// The ID of a session reveals neither half of its tokens.
	wantInvalid(t, m, b64(append([]byte(tokens.Session.ID + "......")[:32], b[32:]...)))
	mustRefresh(t, m, tokens.RefreshToken())
}

func TestACrashBetweenRotationAndResponseLogsNobodyOut(t *testing.T) {
	tests := map[string]time.Duration{
		"the client tries again within the grace": 5 * time.Second,
		"the client tries again the next day":     24 * time.Hour,
		"the client tries again just in time":     7*24*time.Hour - time.Second,
	}
	for name, pause := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := managerConfig(t)
				store := &hooked{Store: c.Store}
				c.Store = store
				m := must(session.New(c))
				first := mustRefresh(t, m, login(t, m).RefreshToken())
				time.Sleep(30 * time.Second)
				// The store has made the change when the server dies.
				store.after = on("Update", errDown)
				if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}); !errors.Is(err, errDown) {
					t.Fatalf("error %v", err)
				}
				store.after = nil
				time.Sleep(pause)

				m = must(session.New(c)) // the server is started again
				second := mustRefresh(t, m, first.RefreshToken())
				want(t, sessions(t, m, nil), second.AccessToken(), jwtauth.Accepted)
				third := mustRefresh(t, m, second.RefreshToken())
				mustRefresh(t, m, third.RefreshToken())
			})
		})
	}
}

// Somebody else may have read a response that was not delivered. Using its token reveals
// that.
func TestAnUndeliveredResponseIsVoidOnceItsTokenIsExchangedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list jwtauth.RevocationList
		m := newManager(t, func(c *session.Config) { c.Revocations = &list })
		v := sessions(t, m, &list)
		first := login(t, m)
		lost := must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}))
		time.Sleep(time.Minute)
		second := mustRefresh(t, m, first.RefreshToken())
		if second.RefreshToken() == lost.RefreshToken() {
			t.Fatal("the same token again, long after the grace: a thief would go unnoticed")
		}
		want(t, v, lost.AccessToken(), jwtauth.Revoked)
		want(t, v, first.AccessToken(), jwtauth.Accepted)
		want(t, v, second.AccessToken(), jwtauth.Accepted)
		wantInvalid(t, m, lost.RefreshToken())
		wantInvalid(t, m, second.RefreshToken())
		want(t, v, second.AccessToken(), jwtauth.Revoked)
		want(t, v, lost.AccessToken(), jwtauth.Revoked)
	})
}

func TestAResponseWhoseTokenWasUsedWasDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, nil)
		first := login(t, m)
		second := must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}))
		time.Sleep(time.Minute)
		third := mustRefresh(t, m, second.RefreshToken())
		wantInvalid(t, m, first.RefreshToken())
		wantInvalid(t, m, third.RefreshToken())
	})
}

func TestARecoveredTokenHasAGraceAndThenIsReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, nil)
		first := login(t, m)
		must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}))
		time.Sleep(time.Minute)
		second := mustRefresh(t, m, first.RefreshToken())
		same(t, second, mustRefresh(t, m, first.RefreshToken()))
		time.Sleep(time.Minute)
		wantInvalid(t, m, first.RefreshToken())
		wantInvalid(t, m, second.RefreshToken())
	})
}

func TestSessionsEndWhenIdleAndInAnyCase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, nil)
		const day = 24 * time.Hour
		idle, busy := login(t, m), login(t, m)
		time.Sleep(7*day - time.Second)
		// Just in time.
		idle, busy = mustRefresh(t, m, idle.RefreshToken()), mustRefresh(t, m, busy.RefreshToken())
		for range 3 {
			time.Sleep(6 * day)
			busy = mustRefresh(t, m, busy.RefreshToken())
		}
		wantInvalid(t, m, idle.RefreshToken())
		time.Sleep(5*day - 10*time.Second)
		busy = mustRefresh(t, m, busy.RefreshToken())
		time.Sleep(11 * time.Second) // the thirtieth day
		wantInvalid(t, m, busy.RefreshToken())
	})
}

func TestAnEndedSessionGetsNoReplay(t *testing.T) {
	m := newManager(t, nil)
	first := login(t, m)
	mustRefresh(t, m, first.RefreshToken())
	if _, err := m.Logout(t.Context(), first.Session.Subject, first.Session.ID); err != nil {
		t.Fatal(err)
	}
	wantInvalid(t, m, first.RefreshToken())
}

func TestGarbageCostsNoCallOfTheStore(t *testing.T) {
	store := &hooked{Store: newMemory(t, 0)}
	m := newManager(t, func(c *session.Config) { c.Store = store })
	tokens := login(t, m)
	good := tokens.RefreshToken()
	store.calls.Store(0)
	for _, text := range []string{
		"", "x", good[1:], good + "A", good[:len(good)-1] + "=", good[:len(good)-1] + "B", // bits that mean nothing
		good[:len(good)-2] + "\r\n", " " + good[1:], good[:43] + "." + good[44:], strings.Repeat("A", 1<<20), strings.Repeat(".", 1<<20),
		strings.ReplaceAll(good, string(good[0]), "+"), tokens.AccessToken(),
	} {
		if text == good {
			t.Fatal("not garbage")
		}
		wantInvalid(t, m, text)
	}
	if n := store.calls.Load(); n != 0 {
		t.Errorf("%d calls", n)
	}
}

func TestAStoreThatFailsIsNeverAWrongToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &hooked{Store: newMemory(t, 0)}
		m := newManager(t, func(c *session.Config) { c.Store = store })
		first := login(t, m)
		for _, method := range []string{"Lookup", "Update"} {
			store.before = on(method, errDown)
			if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}); !errors.Is(err, errDown) || errors.Is(err, session.ErrInvalidRefreshToken) {
				t.Errorf("%s: error %v", method, err)
			}
		}
		store.before = on("Insert", errDown)
		if _, err := m.Login(t.Context(), session.Session{Subject: "ann"}); !errors.Is(err, errDown) {
			t.Errorf("Login: %v", err)
		}
		synctest.Wait() // for the end of a session that the store may have
		store.before = on("Revoke", errDown)
		if _, err := m.Logout(t.Context(), first.Session.Subject, first.Session.ID); !errors.Is(err, errDown) {
			t.Errorf("Logout: %v", err)
		}
		store.before = on("RevokeSubject", errDown)
		if _, err := m.LogoutAll(t.Context(), "ann"); !errors.Is(err, errDown) {
			t.Errorf("LogoutAll: %v", err)
		}
		// Wait until the failures are forgotten, because they could make other calls fail
		// at once.
		time.Sleep(3 * time.Second)
		store.before = nil
		second := mustRefresh(t, m, first.RefreshToken())
		time.Sleep(30 * time.Second)
		mustRefresh(t, m, second.RefreshToken())
		// If a session could not be ended, the next use tries to end it again.
		store.before = on("Revoke", errDown)
		if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}); !errors.Is(err, errDown) {
			t.Errorf("reuse: %v", err)
		}
		store.before = nil
		wantInvalid(t, m, first.RefreshToken())
		wantInvalid(t, m, second.RefreshToken())
	})
}

func TestRevocationsThatFailAreTriedAgain(t *testing.T) {
	list := &jwtauth.RevocationList{Capacity: 1}
	m := newManager(t, func(c *session.Config) { c.Revocations = list })
	if err := list.RevokeToken(t.Context(), issuer, "other", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	tokens := login(t, m)
	for range 2 {
		if _, err := m.Logout(t.Context(), tokens.Session.Subject, tokens.Session.ID); !errors.Is(err, usher.ErrFull) {
			t.Errorf("Logout: %v", err)
		}
		if _, err := m.LogoutAll(t.Context(), "ann"); !errors.Is(err, usher.ErrFull) {
			t.Errorf("LogoutAll: %v", err)
		}
	}
}

func TestAStoreThatHangsDelaysNoCallBeyondTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &hooked{Store: newMemory(t, 0)}
		m := newManager(t, func(c *session.Config) { c.Store = store })
		tokens := login(t, m)
		store.before = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		for name, call := range map[string]func() error{
			"Login": func() error { _, err := m.Login(t.Context(), session.Session{Subject: "ann"}); return err },
			"Refresh": func() error {
				_, err := m.Refresh(t.Context(), session.RefreshRequest{Token: tokens.RefreshToken()})
				return err
			},
			"Logout":    func() error { _, err := m.Logout(t.Context(), "ann", tokens.Session.ID); return err },
			"LogoutAll": func() error { _, err := m.LogoutAll(t.Context(), "ann"); return err },
		} {
			start := time.Now()
			err := call()
			if took := time.Since(start); err == nil || took != 3*time.Second {
				t.Errorf("%s: %v after %v", name, err, took)
			}
		}
		time.Sleep(10 * time.Second) // until the call that ends the session of the login has ended
	})
}

func TestAStoreThatAlwaysReportsAConflictIsGivenUp(t *testing.T) {
	store := &hooked{Store: newMemory(t, 0)}
	m := newManager(t, func(c *session.Config) { c.Store = store })
	tokens := login(t, m)
	store.before = on("Update", session.ErrConflict)
	store.calls.Store(0)
	if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: tokens.RefreshToken()}); err == nil || errors.Is(err, session.ErrInvalidRefreshToken) {
		t.Errorf("error %v", err)
	}
	if n := store.calls.Load(); n > 20 {
		t.Errorf("%d calls", n)
	}
}

func TestAResponseThatCannotBeDecryptedIsAFailureOfTheStore(t *testing.T) {
	store := newMemory(t, 0)
	m := newManager(t, func(c *session.Config) { c.Store = store })
	first := login(t, m)
	mustRefresh(t, m, first.RefreshToken())
	half := must(unb64(first.RefreshToken()))[:32]
	r := must(store.Lookup(t.Context(), sum(half)))
	r.Response[len(r.Response)/2] ^= 1
	if err := store.Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}); err == nil || errors.Is(err, session.ErrInvalidRefreshToken) {
		t.Errorf("error %v", err)
	}
}

// Somebody with an older token and a copy of the store cannot read the last response.
func TestAResponseIsDecryptedByItsOwnTokenOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory(t, 0)
		m := newManager(t, func(c *session.Config) { c.Store = store })
		first := login(t, m)
		second := mustRefresh(t, m, first.RefreshToken())
		time.Sleep(30 * time.Second)
		mustRefresh(t, m, second.RefreshToken())
		b := must(unb64(first.RefreshToken()))
		r := must(store.Lookup(t.Context(), sum(b[:32])))
		r.Previous = sum(b)
		if err := store.Update(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if tokens, err := m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}); err == nil || tokens.RefreshToken() != "" {
			t.Errorf("error %v", err)
		}
	})
}

// Nobody can refresh with the contents of the store: neither with its hashes nor with the
// response.
func TestACopyOfTheStoreRefreshesNothing(t *testing.T) {
	store := newMemory(t, 0)
	m := newManager(t, func(c *session.Config) { c.Store = store })
	first := login(t, m)
	second := mustRefresh(t, m, first.RefreshToken())
	half := must(unb64(first.RefreshToken()))[:32]
	r := must(store.Lookup(t.Context(), sum(half)))
	for _, token := range []string{first.RefreshToken(), second.RefreshToken()} {
		for n, part := range [][]byte{must(unb64(token))[:32], must(unb64(token))[32:], []byte(token)} {
			for _, stored := range [][]byte{r.Handle[:], r.Current[:], r.Previous[:], r.Response} {
				if strings.Contains(string(stored), string(part)) {
					t.Errorf("part %d of a token is in the store", n)
				}
			}
		}
	}
	if strings.Contains(string(r.Response), second.AccessToken()) {
		t.Error("the access token is in the store")
	}
	for _, b := range [][]byte{append(r.Handle[:], r.Current[:]...), append(half, r.Current[:]...)} {
		wantInvalid(t, m, b64(b))
	}
}

func TestAuditGetsEveryOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		store := &hooked{Store: newMemory(t, 0)}
		m := newManager(t, func(c *session.Config) {
			c.Store = store
			c.Audit = func(_ context.Context, e session.Event) {
				if e.Time.IsZero() || (e.Err == nil) != strings.Contains("accepted rotated kept replayed recovered", e.Outcome) {
					t.Errorf("%+v", e)
				}
				known := ""
				if e.SessionID != "" {
					known = " a session"
				}
				got = append(got, fmt.Sprintf("%s %s %s%s", e.Action, e.Outcome, e.Subject, known))
			}
		})
		first := login(t, m)
		second := must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}))
		_ = must(m.Refresh(t.Context(), session.RefreshRequest{Token: first.RefreshToken()}))
		time.Sleep(time.Minute)
		third := mustRefresh(t, m, first.RefreshToken())
		mustRefresh(t, m, third.RefreshToken())
		store.before = on("Lookup", errDown)
		_, _ = m.Refresh(t.Context(), session.RefreshRequest{Token: third.RefreshToken()})
		store.before = nil
		for _, token := range []string{"x", b64(make([]byte, 64)), second.RefreshToken(), third.RefreshToken()} {
			wantInvalid(t, m, token)
		}
		idle := login(t, m)
		time.Sleep(8 * 24 * time.Hour)
		wantInvalid(t, m, idle.RefreshToken())
		_, _ = m.Logout(t.Context(), "ann", idle.Session.ID)
		_, _ = m.LogoutAll(t.Context(), "ann")
		want := []string{
			"login accepted ann a session",
			"refresh rotated ann a session",
			"refresh replayed ann a session",
			"refresh recovered ann a session",
			"refresh kept ann a session",
			"refresh unavailable ",
			"refresh malformed ",
			"refresh unknown ",
			"refresh reused ann a session",
			"refresh revoked ann a session",
			"login accepted ann a session",
			"refresh expired ann a session",
			"logout accepted ann a session",
			"logout_all accepted ann",
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
