package jwtauth_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/jwtauth"
)

// quiet is a server that does not print the panics of its handlers.
func quiet(tb testing.TB, h http.Handler) *httptest.Server {
	tb.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	tb.Cleanup(s.Close)
	return s
}

func TestAnAuditThatPanicsTakesNoResponseAway(t *testing.T) {
	for _, worse := range []bool{false, true} {
		var told atomic.Int64
		i := newIssuer(t, func(c *jwtauth.IssuerConfig) {
			c.Audit = func(context.Context, jwtauth.SessionEvent) { panic("no") }
			c.OnError = func(err error) {
				if !strings.Contains(err.Error(), "Audit") {
					t.Error(err)
				}
				told.Add(1)
				if worse {
					panic("no either")
				}
			}
		})
		h := newSessionHandler(t, i, inCookie)
		mux := http.NewServeMux()
		mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) { h.Login(w, r, jwtauth.Session{Subject: "ann"}) })
		mux.HandleFunc("POST /refresh", h.Refresh)
		mux.HandleFunc("POST /logout", h.Logout)
		mux.Handle("POST /logout-all", usher.Authenticate(sessions(t, i, nil)).Wrap(http.HandlerFunc(h.LogoutAll)))
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
			if told.Load() < int64(n+1) {
				t.Errorf("%s: OnError was not told", tt.path)
			}
		}
	}
}

func TestAViewThatPanicsLeavesNoHalfASession(t *testing.T) {
	store := newRefreshStore(t, 0)
	var events atomic.Pointer[jwtauth.SessionEvent]
	i := newIssuer(t, func(c *jwtauth.IssuerConfig) {
		c.Store = store
		c.Audit = func(_ context.Context, e jwtauth.SessionEvent) { events.Store(&e) }
	})
	var panics atomic.Bool
	panics.Store(true)
	h := newSessionHandler(t, i, func(c *jwtauth.SessionHandlerConfig) {
		c.TokensView = func(t jwtauth.Tokens) any {
			if panics.Load() {
				panic(errors.New(t.RefreshToken()))
			}
			return t.RefreshToken()
		}
	})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) { h.Login(w, r, jwtauth.Session{Subject: "ann"}) })
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
		t.Errorf("the session of which nobody has the tokens was not ended: %+v", e)
	}
	opened := login(t, i)
	if got, body := send("/refresh", refreshBody(opened.RefreshToken())); got != 500 {
		t.Errorf("refresh: %d %s", got, body)
	}
	if e := cause.Load(); e == nil || !strings.HasSuffix(e.Cause.Error(), "TokensView panicked with a *errors.errorString") {
		t.Errorf("the cause is %+v", e)
	}
	// Nobody has the next token, so the one before it still serves.
	panics.Store(false)
	got, body := send("/refresh", refreshBody(opened.RefreshToken()))
	if got != 200 {
		t.Fatalf("refresh, once more: %d %s", got, body)
	}
	_, next, _ := strings.Cut(body, `"data":"`)
	next, _, _ = strings.Cut(next, `"`)
	mustRefresh(t, i, next)
}

// It runs on a goroutine of ours, where a panic would end the process.
func TestAnOnErrorThatPanicsEndsNoProcess(t *testing.T) {
	s, next := newSigner("1"), newSigner("2")
	p := new(publisher)
	p.serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	told := make(chan struct{}, 100)
	j := overTLS(t, p, func(c *jwtauth.JWKSConfig) {
		c.OnError = func(error) {
			select {
			case told <- struct{}{}:
			default:
			}
			panic("no")
		}
	})
	api := served(t, trusting(t, j))
	if got := status(t, api.Client(), api.URL, s.token()); got != 503 {
		t.Errorf("%d, want 503", got)
	}
	<-told
	p.say(publish(s))
	eventually(t, "the keys", func() bool { return status(t, api.Client(), api.URL, s.token()) == 200 })
	p.say(`{"keys":[]}`)
	if got := status(t, api.Client(), api.URL, next.token()); got != 401 { // asks for a fetch
		t.Errorf("%d, want 401", got)
	}
	<-told
	p.say(publish(s, next))
	if got := status(t, api.Client(), api.URL, newSigner("3").token()); got != 401 {
		t.Errorf("%d, want 401", got)
	}
	eventually(t, "the next key", func() bool { return status(t, api.Client(), api.URL, next.token()) == 200 })
}

// A callback that panics on the goroutine of a request lets nobody in, and spoils no
// request but that.
func TestACallbackOfTheVerifierThatPanicsSpoilsOneRequest(t *testing.T) {
	for name, set := range map[string]func(c *jwtauth.Config, fail func()){
		"Check": func(c *jwtauth.Config, fail func()) {
			c.Check = func(context.Context, *jwtauth.Token) error { fail(); return nil }
		},
		"Confirm": func(c *jwtauth.Config, fail func()) {
			c.Confirm = func(*http.Request, *jwtauth.Token) error { fail(); return nil }
		},
		"Principal": func(c *jwtauth.Config, fail func()) {
			c.Principal = func(_ *jwtauth.Token, p usher.Principal) usher.Principal { fail(); return p }
		},
	} {
		t.Run(name, func(t *testing.T) {
			var once atomic.Bool
			v := verifier(t, func(c *jwtauth.Config) {
				set(c, func() {
					if once.CompareAndSwap(false, true) {
						panic("no")
					}
				})
			})
			s := quiet(t, usher.Authenticate(v).Wrap(http.HandlerFunc(
				func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") })))
			text := token(claims(map[string]any{"cnf": map[string]any{}}))
			if name != "Confirm" {
				text = good()
			}
			r := must(http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil))
			r.Header.Set("Authorization", "Bearer "+text)
			if resp, err := s.Client().Do(r); err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode < 500 {
					t.Errorf("%d while the callback panics", resp.StatusCode)
				}
			}
			if got := status(t, s.Client(), s.URL, text); got != 200 {
				t.Errorf("%d, want 200", got)
			}
		})
	}
	t.Run("Principal of an introspection", func(t *testing.T) {
		var once atomic.Bool
		api := served(t, introspecting(t, active(nil), func(c *jwtauth.IntrospectionConfig) {
			c.Principal = func(_ *jwtauth.Token, p usher.Principal) usher.Principal {
				if once.CompareAndSwap(false, true) {
					panic("no")
				}
				return p
			}
		}))
		for _, want := range []int{503, 200} {
			if got := status(t, api.Client(), api.URL, opaque); got != want {
				t.Errorf("%d, want %d", got, want)
			}
		}
	})
}
