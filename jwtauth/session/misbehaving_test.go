package session_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/jwtauth/session"
)

// unreliable is a Store whose calls may misbehave.
type unreliable struct {
	session.Store
	calls faulty.Calls
}

func (u *unreliable) Insert(ctx context.Context, r session.Record, limit int) ([]session.Session, error) {
	if err := u.calls.Call(ctx); err != nil {
		return nil, err
	}
	return u.Store.Insert(context.WithoutCancel(ctx), r, limit)
}

func (u *unreliable) List(ctx context.Context, subject string, now time.Time) ([]session.Session, error) {
	if err := u.calls.Call(ctx); err != nil {
		return nil, err
	}
	return u.Store.List(context.WithoutCancel(ctx), subject, now)
}

func (u *unreliable) RevokeSubject(ctx context.Context, subject string, at time.Time) ([]session.Session, error) {
	if err := u.calls.Call(ctx); err != nil {
		return nil, err
	}
	return u.Store.RevokeSubject(context.WithoutCancel(ctx), subject, at)
}

func (u *unreliable) Lookup(ctx context.Context, h [sha256.Size]byte) (session.Record, error) {
	if err := u.calls.Call(ctx); err != nil {
		return session.Record{}, err
	}
	return u.Store.Lookup(context.WithoutCancel(ctx), h)
}

func (u *unreliable) SetDelivered(ctx context.Context, sessionID, tokenID string) error {
	if err := u.calls.Call(ctx); err != nil {
		return err
	}
	return u.Store.SetDelivered(context.WithoutCancel(ctx), sessionID, tokenID)
}

func (u *unreliable) Update(ctx context.Context, r session.Record) error {
	if err := u.calls.Call(ctx); err != nil {
		return err
	}
	return u.Store.Update(context.WithoutCancel(ctx), r)
}

func (u *unreliable) Revoke(ctx context.Context, subject, id string, at time.Time) (session.Session, error) {
	if err := u.calls.Call(ctx); err != nil {
		return session.Session{}, err
	}
	return u.Store.Revoke(context.WithoutCancel(ctx), subject, id, at)
}

// A client that retries keeps its session, whatever the store does: each refresh is 200
// or 503, never 401, and operators learn each cause.
func TestAStoreThatMisbehavesLogsNobodyOut(t *testing.T) {
	const n = 200
	tests := map[string]struct {
		fault    func() faulty.Fault
		failures int // of n refreshes, one a second
	}{
		"fails for 10 s":               {func() faulty.Fault { return faulty.For(10*time.Second, faulty.Fail) }, 10},
		"panics for 10 s":              {func() faulty.Fault { return faulty.For(10*time.Second, faulty.Panic) }, 10},
		"ignores its context for 10 s": {func() faulty.Fault { return faulty.For(10*time.Second, faulty.Late(5*time.Second)) }, 3},
		"fails once in 100 calls":      {func() faulty.Fault { return faulty.Every(100, faulty.Fail) }, 3 * n / 100},
		"panics once in 100 calls":     {func() faulty.Fault { return faulty.Every(100, faulty.Panic) }, 3 * n / 100},
		"is late once in 100 calls":    {func() faulty.Fault { return faulty.Every(100, faulty.Late(5*time.Second)) }, 3 * n / 100},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &unreliable{Store: newMemory(t, 0)}
				var reports, causes atomic.Int64
				m := newManager(t, func(c *session.Config) {
					c.Store = store
					c.OnError = func(_ context.Context, err error) {
						reports.Add(1)
						if errors.Is(err, faulty.ErrStore) {
							causes.Add(1)
						}
					}
				})
				h := newHandler(t, m, nil)
				text := login(t, m).RefreshToken()
				store.calls.Set(tt.fault())
				unavailable := 0
				for range n {
					switch w := post(t, h.Refresh, refreshBody(text)); w.Code {
					case 200:
						text = member(t, w, "refresh_token")
					case 503:
						unavailable++
					default:
						t.Fatalf("%d %s", w.Code, w.Body)
					}
					time.Sleep(time.Second)
				}
				// A failure to record the delivery does not fail the refresh, and after
				// an outage a breaker may refuse a few calls more than have failed.
				if unavailable == 0 || unavailable > tt.failures+10 {
					t.Errorf("%d of %d refreshes failed, want about %d", unavailable, n, tt.failures)
				}
				if int(reports.Load()) < unavailable {
					t.Errorf("%d reports of %d failures", reports.Load(), unavailable)
				}
				if name == "fails for 10 s" && causes.Load() == 0 {
					t.Error("OnError did not get the cause")
				}
				store.calls.Set(nil)
				time.Sleep(time.Minute)
				mustRefresh(t, m, text)
			})
		})
	}
}

// A login or logout during an outage gets a 503, and succeeds afterwards.
func TestAStoreThatMisbehavesAtALoginOrLogout(t *testing.T) {
	for name, fault := range map[string]faulty.Fault{"fails": faulty.Fail, "panics": faulty.Panic, "is late": faulty.Late(5 * time.Second)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &unreliable{Store: newMemory(t, 0)}
				var reports atomic.Int64
				m := newManager(t, func(c *session.Config) {
					c.Store, c.OnError = store, func(context.Context, error) { reports.Add(1) }
				})
				opened := login(t, m)
				store.calls.Set(faulty.For(10*time.Second, fault))
				if _, err := m.Login(t.Context(), session.Session{Subject: "ann"}); err == nil {
					t.Error("a login succeeded")
				}
				if _, err := m.Logout(t.Context(), opened.Session.Subject, opened.Session.ID); err == nil {
					t.Error("a logout succeeded")
				}
				if n := reports.Load(); n != 2 {
					t.Errorf("%d reports of 2 failures", n)
				}
				time.Sleep(time.Minute)
				next := login(t, m)
				mustRefresh(t, m, next.RefreshToken())
				if _, err := m.Logout(t.Context(), opened.Session.Subject, opened.Session.ID); err != nil {
					t.Error(err)
				}
				wantInvalid(t, m, opened.RefreshToken())
			})
		})
	}
}

// A client that retries although Claims fails for its session affects no other session.
func TestClaimsThatFailForOneSessionAffectNoOthers(t *testing.T) {
	for name, fail := range map[string]faulty.Fault{"fail": faulty.Fail, "panic": faulty.Panic} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls faulty.Calls
				calls.Set(fail)
				m := newManager(t, func(c *session.Config) {
					c.OnError = func(context.Context, error) {}
					c.Claims = func(ctx context.Context, s session.Session) (map[string]any, error) {
						if s.Subject == "bad" {
							return nil, calls.Call(ctx)
						}
						return nil, nil
					}
				})
				opened := login(t, m)
				for range 100 {
					if _, err := m.Login(t.Context(), session.Session{Subject: "bad"}); err == nil {
						t.Fatal("a login without its claims succeeded")
					}
				}
				mustRefresh(t, m, opened.RefreshToken())
				login(t, m)
			})
		})
	}
}

// A textStore refuses text as PostgreSQL does.
type textStore struct{ session.Store }

func (s textStore) Insert(ctx context.Context, r session.Record, limit int) ([]session.Session, error) {
	if text := fmt.Sprint(r.Subject, r.Data); !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return nil, errors.New("invalid byte sequence for encoding UTF8")
	}
	return s.Store.Insert(ctx, r, limit)
}

func (s textStore) List(ctx context.Context, subject string, now time.Time) ([]session.Session, error) {
	return s.Store.List(ctx, stored(subject), now)
}

func (s textStore) Revoke(ctx context.Context, subject, id string, at time.Time) (session.Session, error) {
	return s.Store.Revoke(ctx, stored(subject), stored(id), at)
}

func (s textStore) RevokeSubject(ctx context.Context, subject string, at time.Time) ([]session.Session, error) {
	return s.Store.RevokeSubject(ctx, stored(subject), at)
}

// stored panics if no session can have this text.
func stored(text string) string {
	if text == "" || len(text) > 255 || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		panic("invalid byte sequence for encoding UTF8")
	}
	return text
}

// The ID of the session that a user ends on another device comes from the client.
func TestTextThatNoSessionHasDoesNotReachTheStore(t *testing.T) {
	m := newManager(t, func(c *session.Config) { c.Store = textStore{c.Store} })
	for _, bad := range []string{"", "a\x00b", "a\xffb", strings.Repeat("x", 256)} {
		for _, of := range [][2]string{{"alice", bad}, {bad, "id"}} {
			if _, err := m.Logout(t.Context(), of[0], of[1]); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("Logout of %.10q, %.10q: %v, want %v", of[0], of[1], err, session.ErrNotFound)
			}
		}
		if list, err := m.Sessions(t.Context(), bad); err != nil || len(list) != 0 {
			t.Errorf("Sessions of %.10q: %v, %v", bad, list, err)
		}
		if ended, err := m.LogoutAll(t.Context(), bad); err != nil || len(ended) != 0 {
			t.Errorf("LogoutAll of %.10q: %v, %v", bad, ended, err)
		}
	}
	for _, id := range []string{"a b", "a/b", "é", strings.Repeat("x", 65)} {
		if _, err := m.Logout(t.Context(), "alice", id); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("Logout of %.10q: %v, want %v", id, err, session.ErrNotFound)
		}
	}
}

// A client often sets the name of a device.
func TestALoginWithDataThatIsNoTextAffectsNoOthers(t *testing.T) {
	m := newManager(t, func(c *session.Config) {
		c.Store = textStore{c.Store}
		c.OnError = func(context.Context, error) {}
	})
	opened := login(t, m)
	for n, bad := range []session.Session{
		{Subject: "ann", Data: map[string]string{"device": "a\x00b"}},
		{Subject: "ann", Data: map[string]string{"device": "a\xff"}},
		{Subject: "ann", Data: map[string]string{"\x00": "a"}},
		{Subject: "ann\x00"},
	} {
		for range 10 {
			_, err := m.Login(t.Context(), bad)
			if e, ok := errors.AsType[*usher.Error](err); !ok || e.Status != 500 {
				t.Fatalf("%d: %v", n, err)
			}
		}
	}
	mustRefresh(t, m, opened.RefreshToken())
	login(t, m)
}

// A failure to list sessions is an error, and never an empty list. So is a failure to end
// all sessions.
func TestAStoreThatMisbehavesAtAListOrALogoutEverywhere(t *testing.T) {
	for name, fault := range map[string]faulty.Fault{"fails": faulty.Fail, "panics": faulty.Panic, "is late": faulty.Late(5 * time.Second)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &unreliable{Store: newMemory(t, 0)}
				var reports atomic.Int64
				m := newManager(t, func(c *session.Config) {
					c.Store, c.OnError = store, func(context.Context, error) { reports.Add(1) }
				})
				opened := login(t, m)
				store.calls.Set(faulty.For(10*time.Second, fault))
				began := time.Now()
				if list, err := m.Sessions(t.Context(), "ann"); err == nil || len(list) > 0 {
					t.Errorf("a list: %v", list)
				}
				if ended, err := m.LogoutAll(t.Context(), "ann"); err == nil || len(ended) > 0 {
					t.Errorf("a logout: %v", ended)
				}
				if took := time.Since(began); took > 2*3*time.Second {
					t.Errorf("both took %v", took)
				}
				if n := reports.Load(); n != 2 {
					t.Errorf("%d reports of 2 failures", n)
				}
				time.Sleep(time.Minute)
				if list := must(m.Sessions(t.Context(), "ann")); len(list) > 1 {
					t.Errorf("%d sessions", len(list))
				}
				must(m.LogoutAll(t.Context(), "ann"))
				wantInvalid(t, m, opened.RefreshToken())
			})
		})
	}
}

// A mixedUp store returns another session than it was asked for.
type mixedUp struct {
	session.Store
	other session.Record
}

func (s *mixedUp) Lookup(context.Context, [sha256.Size]byte) (session.Record, error) {
	return s.other, nil
}

func (s *mixedUp) List(ctx context.Context, subject string, now time.Time) ([]session.Session, error) {
	list, err := s.Store.List(ctx, subject, now)
	return append(list, s.other.Session), err
}

func (s *mixedUp) Revoke(_ context.Context, subject, id string, _ time.Time) (session.Session, error) {
	other := s.other.Session
	if id == "same-ID" {
		other.ID = id
	} else {
		other.Subject = subject
	}
	return other, nil
}

// Responses that reach the wrong call, and records in the wrong place, reveal the sessions
// of others to nobody.
func TestAStoreThatMixesSessionsUpIsCorrupt(t *testing.T) {
	store := &mixedUp{Store: newMemory(t, 0), other: newSession("bert", time.Now().UTC(), time.Hour)}
	m := newManager(t, func(c *session.Config) { c.Store, c.OnError = store, func(context.Context, error) {} })
	h := newHandler(t, m, nil)
	tokens := login(t, m)
	list, listErr := m.Sessions(t.Context(), "ann")
	ended, endErr := m.Logout(t.Context(), "ann", tokens.Session.ID)
	_, refreshErr := m.Refresh(t.Context(), session.RefreshRequest{Token: tokens.RefreshToken()})
	_, sameErr := m.Logout(t.Context(), "ann", "same-ID")
	for what, err := range map[string]error{"Sessions": listErr, "Logout": endErr, "Logout by its ID": sameErr, "Refresh": refreshErr} {
		if !errors.Is(err, usher.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(list) > 0 || ended.ID != "" {
		t.Errorf("list %v, ended %v", list, ended)
	}
	if w := post(t, h.Refresh, refreshBody(tokens.RefreshToken())); w.Code != 503 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAStoreThatIsClosedIsUnavailable(t *testing.T) {
	store := newMemory(t, 0)
	m := newManager(t, func(c *session.Config) { c.Store, c.OnError = store, func(context.Context, error) {} })
	h := newHandler(t, m, nil)
	tokens := login(t, m)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Sessions(t.Context(), "ann"); !errors.Is(err, usher.ErrClosed) {
		t.Errorf("Sessions: %v", err)
	}
	for name, handler := range map[string]http.HandlerFunc{"refresh": h.Refresh, "logout": h.Logout} {
		if w := post(t, handler, refreshBody(tokens.RefreshToken())); w.Code != 503 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}
