package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
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

// A journal records the events with which Audit was called.
type journal struct {
	mu     sync.Mutex
	events []session.Event
}

func (j *journal) add(_ context.Context, e session.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, e)
}

// last returns the last event as text: its action, outcome and subject, and the devices of
// the sessions that it has ended.
func (j *journal) last() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := j.events[len(j.events)-1]
	return strings.Join(append([]string{e.Action, e.Outcome, e.Subject}, devices(e.Ended)...), " ")
}

// devices returns the names of the devices of sessions, sorted unless they are of a list.
func devices(list []session.Session) []string {
	names := make([]string, 0, len(list))
	for _, s := range list {
		names = append(names, s.Data["device"])
	}
	return names
}

func sortedDevices(list []session.Session) []string {
	return slices.Sorted(slices.Values(devices(list)))
}

// loginOn logs ann in on a device.
func loginOn(tb testing.TB, m *session.Manager, subject, device string) session.Tokens {
	tb.Helper()
	t, err := m.Login(tb.Context(), session.Session{Subject: subject, Data: map[string]string{"device": device}})
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func TestALoginBeyondTheLimitEndsTheSessionThatWasRefreshedLeastRecently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			list  jwtauth.RevocationList
			audit journal
		)
		m := newManager(t, func(c *session.Config) {
			c.Store = &hooked{Store: newMemory(t, 0)}
			c.Revocations, c.MaxSessions, c.Audit = &list, 3, audit.add
		})
		v := sessions(t, m, &list)
		opened := map[string]session.Tokens{}
		for _, device := range []string{"phone", "laptop", "tablet"} {
			opened[device] = loginOn(t, m, "ann", device)
			time.Sleep(time.Second)
		}
		other := loginOn(t, m, "bert", "phone")
		opened["phone"] = mustRefresh(t, m, opened["phone"].RefreshToken())
		want(t, v, opened["laptop"].AccessToken(), jwtauth.Accepted) // and remembered
		time.Sleep(time.Second)

		opened["watch"] = loginOn(t, m, "ann", "watch")
		if got := audit.last(); got != "login accepted ann laptop" {
			t.Errorf("audit: %s", got)
		}
		want(t, v, opened["laptop"].AccessToken(), jwtauth.Revoked)
		wantInvalid(t, m, opened["laptop"].RefreshToken())
		for _, tokens := range []session.Tokens{opened["phone"], opened["tablet"], opened["watch"], other} {
			want(t, v, tokens.AccessToken(), jwtauth.Accepted)
		}
		got := must(m.Sessions(t.Context(), "ann"))
		if names := devices(got); !slices.Equal(names, []string{"watch", "phone", "tablet"}) {
			t.Errorf("sessions on %v", names)
		}
	})
}

func TestTheLimitHoldsForParallelLogins(t *testing.T) {
	var audit journal
	m := newManager(t, func(c *session.Config) { c.MaxSessions, c.Audit = 5, audit.add })
	var running sync.WaitGroup
	for i := range 40 {
		running.Go(func() { loginOn(t, m, "ann", fmt.Sprint(i)) })
	}
	running.Wait()
	left := must(m.Sessions(t.Context(), "ann"))
	names := devices(left)
	for _, e := range audit.events {
		names = append(names, devices(e.Ended)...)
	}
	slices.Sort(names)
	if len(left) != 5 || len(slices.Compact(names)) != 40 {
		t.Errorf("%d sessions are left, and %d are left or in the audit", len(left), len(names))
	}
}

func TestASubjectHasAHundredSessions(t *testing.T) {
	m := newManager(t, nil)
	for range 101 {
		login(t, m)
	}
	if n := len(must(m.Sessions(t.Context(), "ann"))); n != 100 {
		t.Errorf("%d sessions", n)
	}
}

// A session that has long had no access token needs no revocation, so that the limit costs
// no room in their list.
func TestALoginRevokesOnlyAccessTokensThatMayBeValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list jwtauth.RevocationList
		m := newManager(t, func(c *session.Config) { c.Revocations, c.MaxSessions = &list, 1 })
		login(t, m)
		time.Sleep(time.Hour)
		login(t, m)
		if n := list.Len(); n != 0 {
			t.Errorf("%d revocations", n)
		}
		time.Sleep(15 * time.Minute)
		login(t, m)
		if n := list.Len(); n != 1 {
			t.Errorf("%d revocations", n)
		}
	})
}

// The tokens of an ended session must not stay valid because nobody noticed that they were
// not revoked.
func TestALoginFailsIfTheAccessTokensOfSessionsThatItEndedCannotBeRevoked(t *testing.T) {
	list := &jwtauth.RevocationList{Capacity: 1}
	store, audit := newMemory(t, 0), new(journal)
	m := newManager(t, func(c *session.Config) {
		c.Revocations, c.MaxSessions, c.Store, c.Audit = list, 1, store, audit.add
		c.OnError = func(context.Context, error) {}
	})
	first := loginOn(t, m, "ann", "phone")
	if err := list.RevokeToken(t.Context(), issuer, "other", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Login(t.Context(), session.Session{Subject: "ann"}); !errors.Is(err, usher.ErrFull) {
		t.Errorf("Login: %v", err)
	}
	if n := len(must(m.Sessions(t.Context(), "ann"))); n != 0 {
		t.Errorf("%d sessions, although nobody has their tokens", n)
	}
	if e := audit.events[1]; e.Action != "login" || e.Outcome != "unavailable" || len(e.Ended) != 1 || e.Ended[0].ID != first.Session.ID {
		t.Errorf("audit: %+v", e)
	}
	if e := audit.events[2]; e.Action != "logout" || e.Subject != "ann" || e.SessionID != audit.events[1].SessionID {
		t.Errorf("audit: %+v", e)
	}
}

func TestAUserEndsOneDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			list  jwtauth.RevocationList
			audit journal
		)
		m := newManager(t, func(c *session.Config) {
			c.Revocations, c.Audit = &list, audit.add
			c.OnError = func(_ context.Context, err error) { t.Errorf("reported: %v", err) }
		})
		v := sessions(t, m, &list)
		phone, laptop, other := loginOn(t, m, "ann", "phone"), loginOn(t, m, "ann", "laptop"), loginOn(t, m, "bert", "tablet")
		for _, tokens := range []session.Tokens{phone, laptop, other} {
			want(t, v, tokens.AccessToken(), jwtauth.Accepted)
		}
		// Ann can neither end Bert's session nor find out that it exists.
		for _, of := range [][2]string{{"ann", other.Session.ID}, {"ANN", phone.Session.ID}, {"", phone.Session.ID}, {"ann", "x"}, {"ann", ""}, {"ann", strings.ToLower(phone.Session.ID)}} {
			if s, err := m.Logout(t.Context(), of[0], of[1]); !errors.Is(err, session.ErrNotFound) || s.ID != "" {
				t.Errorf("%q: %+v, %v", of, s, err)
			}
			if got := audit.last(); got != "logout unknown "+of[0] {
				t.Errorf("audit: %s", got)
			}
		}
		for _, tokens := range []session.Tokens{phone, laptop, other} {
			want(t, v, tokens.AccessToken(), jwtauth.Accepted)
		}
		if n := list.Len(); n != 0 {
			t.Errorf("%d revocations", n)
		}
		ended := must(m.Logout(t.Context(), "ann", phone.Session.ID))
		if ended.ID != phone.Session.ID || ended.Data["device"] != "phone" || ended.RevokedAt.IsZero() {
			t.Errorf("%+v", ended)
		}
		if got := audit.last(); got != "logout accepted ann phone" {
			t.Errorf("audit: %s", got)
		}
		want(t, v, phone.AccessToken(), jwtauth.Revoked)
		wantInvalid(t, m, phone.RefreshToken())
		want(t, v, laptop.AccessToken(), jwtauth.Accepted)
		mustRefresh(t, m, laptop.RefreshToken())
		mustRefresh(t, m, other.RefreshToken())
		// Again, although it has ended already.
		time.Sleep(time.Second)
		if again := must(m.Logout(t.Context(), "ann", phone.Session.ID)); !again.RevokedAt.Equal(ended.RevokedAt) {
			t.Errorf("%+v", again)
		}
		if got := audit.last(); got != "logout accepted ann" {
			t.Errorf("audit: %s", got)
		}
	})
}

func TestSessionsReturnsLiveSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, nil)
		if got, err := m.Sessions(t.Context(), "ann"); err != nil || len(got) != 0 {
			t.Errorf("%v, %v", got, err)
		}
		old := loginOn(t, m, "ann", "old")
		time.Sleep(6 * 24 * time.Hour)
		ended, phone := loginOn(t, m, "ann", "ended"), loginOn(t, m, "ann", "phone")
		loginOn(t, m, "bert", "tablet")
		must(m.Logout(t.Context(), "ann", ended.Session.ID))
		got := must(m.Sessions(t.Context(), "ann"))
		if names := devices(got); !slices.Equal(names, []string{"phone", "old"}) {
			t.Errorf("sessions on %v", names)
		}
		if s := got[0]; s.ID != phone.Session.ID || !s.CreatedAt.Equal(phone.Session.CreatedAt) || !s.EndsAt.Equal(phone.Session.EndsAt) {
			t.Errorf("%+v, want %+v", s, phone.Session)
		}
		time.Sleep(25 * time.Hour)
		if names := devices(must(m.Sessions(t.Context(), "ann"))); !slices.Equal(names, []string{"phone"}) {
			t.Errorf("sessions on %v once %s has expired", names, old.Session.ID)
		}
	})
}

func TestLogoutAllReturnsTheSessionsThatItEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var audit journal
		m := newManager(t, func(c *session.Config) { c.Audit = audit.add })
		ended := loginOn(t, m, "ann", "ended")
		loginOn(t, m, "ann", "phone")
		loginOn(t, m, "ann", "laptop")
		loginOn(t, m, "bert", "tablet")
		must(m.Logout(t.Context(), "ann", ended.Session.ID))
		time.Sleep(time.Microsecond)
		got := must(m.LogoutAll(t.Context(), "ann"))
		if names := sortedDevices(got); !slices.Equal(names, []string{"laptop", "phone"}) {
			t.Errorf("ended on %v", names)
		}
		if e := audit.events[len(audit.events)-1]; e.Action != "logout_all" || e.SessionID != "" || !slices.Equal(sortedDevices(e.Ended), []string{"laptop", "phone"}) {
			t.Errorf("audit: %+v", e)
		}
		time.Sleep(time.Second)
		if got := must(m.LogoutAll(t.Context(), "ann")); len(got) != 0 {
			t.Errorf("ended again: %v", got)
		}
	})
}

func TestAReusedTokenIsAuditedWithTheSessionThatItEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var audit journal
		m := newManager(t, func(c *session.Config) { c.Audit = audit.add })
		first := loginOn(t, m, "ann", "phone")
		mustRefresh(t, m, first.RefreshToken())
		time.Sleep(30 * time.Second)
		wantInvalid(t, m, first.RefreshToken())
		if got := audit.last(); got != "refresh reused ann phone" {
			t.Errorf("audit: %s", got)
		}
		wantInvalid(t, m, first.RefreshToken())
		if got := audit.last(); got != "refresh revoked ann" {
			t.Errorf("audit: %s", got)
		}
	})
}

// A node whose clock is ahead issues access tokens that seem to be issued after the
// logout.
func TestLogoutAllEndsAccessTokensFromTheFuture(t *testing.T) {
	var list jwtauth.RevocationList
	m := newManager(t, func(c *session.Config) { c.Revocations = &list })
	s := login(t, m).Session
	must(m.LogoutAll(t.Context(), "ann"))
	access := &jwtauth.Token{Issuer: issuer, Subject: "ann", SessionID: s.ID, IssuedAt: time.Now().Add(3 * time.Second)}
	if !must(list.Revoked(t.Context(), access)) {
		t.Error("not revoked")
	}
}

func TestALoginMayEndItsSessionSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, nil)
		ends := time.Now().Add(10*time.Minute + time.Nanosecond)
		short := must(m.Login(t.Context(), session.Session{Subject: "ann", EndsAt: ends}))
		if s := short.Session; !s.EndsAt.Equal(ends.Truncate(time.Microsecond)) || !s.ExpiresAt.Equal(s.EndsAt) || short.AccessLifetime != 10*time.Minute {
			t.Errorf("%+v, access for %v", s, short.AccessLifetime)
		}
		short = mustRefresh(t, m, short.RefreshToken())
		long := must(m.Login(t.Context(), session.Session{Subject: "ann", EndsAt: time.Now().AddDate(1, 0, 0)}))
		if s := long.Session; !s.EndsAt.Equal(s.CreatedAt.Add(30 * 24 * time.Hour)) {
			t.Errorf("%+v", s)
		}
		time.Sleep(10 * time.Minute)
		wantInvalid(t, m, short.RefreshToken())
		for _, past := range []time.Time{time.Now(), time.Now().Add(-time.Hour)} {
			if _, err := m.Login(t.Context(), session.Session{Subject: "ann", EndsAt: past}); err == nil {
				t.Errorf("a session that ended at %v", past)
			}
		}
	})
}

func TestALoginStaysWithinTheBoundsOfASession(t *testing.T) {
	scopes := func(n, length int) []string { return slices.Repeat([]string{strings.Repeat("s", length)}, n) }
	data := func(n, name, value int) map[string]string {
		d := map[string]string{}
		for i := range n {
			d[fmt.Sprintf("%0*d", name, i)] = strings.Repeat("v", value)
		}
		return d
	}
	m := newManager(t, func(c *session.Config) { c.OnError = func(context.Context, error) {} })
	for name, tt := range map[string]struct {
		template session.Session
		fits     bool
	}{
		"everything at its bound": {session.Session{Subject: strings.Repeat("é", 127) + "x", Client: strings.Repeat("é", 127) + "x", Scopes: scopes(20, 255), Data: data(32, 64, 1024)}, true},
		"many scopes":             {session.Session{Subject: "a", Scopes: scopes(100, 20)}, true},
		"no subject":              {session.Session{}, false},
		"a long subject":          {session.Session{Subject: strings.Repeat("é", 128)}, false},
		"a long scope":            {session.Session{Subject: "a", Scopes: scopes(1, 256)}, false},
		"too many scopes":         {session.Session{Subject: "a", Scopes: scopes(101, 1)}, false},
		"too much data":           {session.Session{Subject: "a", Data: data(33, 2, 1)}, false},
		"a long name of data":     {session.Session{Subject: "a", Data: data(1, 65, 1)}, false},
		"a long value of data":    {session.Session{Subject: "a", Data: data(1, 1, 1025)}, false},
	} {
		_, err := m.Login(t.Context(), tt.template)
		e, refused := errors.AsType[*usher.Error](err)
		if (err == nil) != tt.fits || refused && e.Status != 500 {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := managerConfig(t)
	c.MaxSessions = 1001
	if _, err := session.New(c); err == nil || !strings.Contains(err.Error(), "MaxSessions") {
		t.Errorf("1001 sessions: %v", err)
	}
}

// A memory that is full must not leave the access tokens of the sessions that it removes
// valid.
func TestAFullMemoryReportsTheLiveSessionThatItRemoved(t *testing.T) {
	var (
		list  jwtauth.RevocationList
		audit journal
	)
	m := newManager(t, func(c *session.Config) { c.Store, c.Revocations, c.Audit = newMemory(t, 2), &list, audit.add })
	v := sessions(t, m, &list)
	first := loginOn(t, m, "ann", "phone")
	want(t, v, first.AccessToken(), jwtauth.Accepted)
	loginOn(t, m, "bert", "laptop")
	loginOn(t, m, "eve", "tablet")
	if got := audit.last(); got != "login accepted eve phone" {
		t.Errorf("audit: %s", got)
	}
	want(t, v, first.AccessToken(), jwtauth.Revoked)
}

// The access token proves whose session it was, so that it ends even if the store has lost
// the session.
func TestALogoutOfASessionThatTheStoreHasLostEndsItsAccessToken(t *testing.T) {
	var (
		list  jwtauth.RevocationList
		audit journal
	)
	m := newManager(t, func(c *session.Config) { c.Revocations, c.Audit = &list, audit.add })
	lost := login(t, m)
	restarted := newManager(t, func(c *session.Config) { c.Revocations, c.Audit = &list, audit.add })
	v := sessions(t, restarted, &list)
	logout := usher.Authenticate(v).Wrap(http.HandlerFunc(newHandler(t, restarted, nil).Logout))
	w := httptest.NewRecorder()
	r := request(t, lost.AccessToken())
	r.Method = http.MethodPost
	logout.ServeHTTP(w, r)
	if got := audit.last(); w.Code >= 300 || got != "logout accepted ann" {
		t.Errorf("%d %s, audit: %s", w.Code, w.Body, got)
	}
	want(t, v, lost.AccessToken(), jwtauth.Revoked)
}
