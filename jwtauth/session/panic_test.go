package session_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/jwtauth/session"
)

func TestAnAuditThatPanicsTakesNoResponseAway(t *testing.T) {
	for _, worse := range []bool{false, true} {
		var reported atomic.Int64
		m := newManager(t, func(c *session.Config) {
			c.Audit = func(context.Context, session.Event) { panic("no") }
			c.OnError = func(_ context.Context, err error) {
				if !strings.Contains(err.Error(), "Audit") {
					t.Error(err)
				}
				reported.Add(1)
				if worse {
					panic("no either")
				}
			}
		})
		h := newHandler(t, m, inCookie)
		mux := http.NewServeMux()
		mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) { h.Login(w, r, session.Session{Subject: "ann"}) })
		mux.HandleFunc("POST /refresh", h.Refresh)
		mux.HandleFunc("POST /logout", h.Logout)
		mux.Handle("POST /logout-all", usher.Authenticate(sessions(t, m, nil)).Wrap(http.HandlerFunc(h.LogoutAll)))
		s := quiet(t, mux)
		var refresh, access string
		for n, tt := range []struct {
			path string
			want int
		}{{"/login", 200}, {"/refresh", 200}, {"/refresh", 200}, {"/logout", 204}, {"/refresh", 401}, {"/login", 200}, {"/logout-all", 204}} {
			r := must(http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+tt.path, nil))
			r.Header.Set("Cookie", "__Host-refresh_token="+refresh)
			r.Header.Set("Authorization", "Bearer "+access)
			resp, err := s.Client().Do(r)
			if err != nil {
				t.Fatalf("%s: %v", tt.path, err)
			}
			body := string(must(io.ReadAll(resp.Body)))
			_ = resp.Body.Close()
			if resp.StatusCode != tt.want {
				t.Errorf("%s: %d, want %d: %s", tt.path, resp.StatusCode, tt.want, body)
			}
			if c := resp.Cookies(); len(c) > 0 && c[0].Value != "" {
				refresh = c[0].Value
			}
			if _, rest, ok := strings.Cut(body, `"access_token":"`); ok {
				access, _, _ = strings.Cut(rest, `"`)
			}
			if reported.Load() < int64(n+1) {
				t.Errorf("%s: OnError was not called", tt.path)
			}
		}
	}
}

func TestAViewThatPanicsLeavesNoSession(t *testing.T) {
	store := newMemory(t, 0)
	var events atomic.Pointer[session.Event]
	m := newManager(t, func(c *session.Config) {
		c.Store = store
		c.Audit = func(_ context.Context, e session.Event) { events.Store(&e) }
	})
	var panics atomic.Bool
	panics.Store(true)
	h := newHandler(t, m, func(c *session.HandlerConfig) {
		c.TokensView = func(t session.Tokens) any {
			if panics.Load() {
				panic(errors.New(t.RefreshToken()))
			}
			return t.RefreshToken()
		}
	})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) { h.Login(w, r, session.Session{Subject: "ann"}) })
	mux.HandleFunc("POST /refresh", h.Refresh)
	var cause atomic.Pointer[usher.Error]
	env := must(envelope.New(envelope.Config{OnError: func(_ context.Context, err error) {
		e, _ := errors.AsType[*usher.Error](err)
		cause.Store(e)
	}}))
	s := quiet(t, env.Wrap(mux))
	send := func(path, body string) (int, string) {
		t.Helper()
		r := must(http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, strings.NewReader(body)))
		r.Header.Set("Content-Type", "application/json")
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode, string(must(io.ReadAll(resp.Body)))
	}
	if got, body := send("/login", ""); got != 500 {
		t.Errorf("login: %d %s", got, body)
	}
	if e := events.Load(); e == nil || e.Action != "logout" || e.Outcome != "accepted" {
		t.Errorf("the session whose tokens nobody has was not ended: %+v", e)
	}
	opened := login(t, m)
	if got, body := send("/refresh", refreshBody(opened.RefreshToken())); got != 500 {
		t.Errorf("refresh: %d %s", got, body)
	}
	if e := cause.Load(); e == nil || !strings.HasSuffix(e.Cause.Error(), "TokensView panicked with a *errors.errorString") {
		t.Errorf("the cause is %+v", e)
	}
	// Nobody has the next token, so the previous one is still valid.
	panics.Store(false)
	got, body := send("/refresh", refreshBody(opened.RefreshToken()))
	if got != 200 {
		t.Fatalf("refresh, once more: %d %s", got, body)
	}
	_, next, _ := strings.Cut(body, `"data":"`)
	next, _, _ = strings.Cut(next, `"`)
	mustRefresh(t, m, next)
}

// It runs on a goroutine of the package, where a panic would end the process.
