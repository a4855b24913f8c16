package jwtauth_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
)

// A stall is what a call of a store that is not well does: it ends with an error of
// the store, or it does not end before the test does.
type stall struct {
	do      func() error
	release chan struct{}
	end     func()                 // of what hangs
	on      atomic.Pointer[string] // the method that stalls
	calls   atomic.Int64
}

func newStall(tb testing.TB, kind string) *stall {
	tb.Helper()
	s := &stall{release: make(chan struct{})}
	s.end = sync.OnceFunc(func() { close(s.release) })
	tb.Cleanup(s.end)
	s.do = map[string]func() error{
		"hangs":  func() error { <-s.release; return errDown },
		"panics": func() error { panic("no") },
		"fails":  func() error { return errDown },
		"exits":  func() error { runtime.Goexit(); return nil },
	}[kind]
	return s
}

// at stalls when the method is the one that is to stall.
func (s *stall) at(method string) error {
	if on := s.on.Load(); on == nil || *on != method {
		return nil
	}
	s.calls.Add(1)
	return s.do()
}

// before is at for the store of faulty.
func (s *stall) before(_ context.Context, method string) error { return s.at(method) }

// A stalling Revoker.
type stalling struct {
	list jwtauth.RevocationList
	*stall
}

func (s *stalling) Revoked(ctx context.Context, t *jwtauth.Token) (bool, error) {
	if err := s.at("Revoked"); err != nil {
		return false, err
	}
	return s.list.Revoked(ctx, t)
}

func (s *stalling) RevokeSession(ctx context.Context, issuer, id string, until time.Time) error {
	if err := s.at("RevokeSession"); err != nil {
		return err
	}
	return s.list.RevokeSession(ctx, issuer, id, until)
}

func (s *stalling) RevokeSubject(ctx context.Context, issuer, subject string, before, until time.Time) error {
	if err := s.at("Revoker.RevokeSubject"); err != nil {
		return err
	}
	return s.list.RevokeSubject(ctx, issuer, subject, before, until)
}

// patient makes a client give up long after each deadline that a server has here.
func patient(c *http.Client) *http.Client {
	c.Timeout = 10 * time.Second
	return c
}

const impatience = 400 * time.Millisecond

func TestAStoreThatIsNotWellIs503InTime(t *testing.T) {
	for _, kind := range []string{"hangs", "panics", "fails", "exits"} {
		for _, tt := range []struct{ method, request string }{
			{"Insert", "login"}, {"Lookup", "refresh"}, {"Update", "refresh"}, {"Lookup", "logout"}, {"Revoke", "logout"},
			{"RevokeSubject", "logout-all"}, {"RevokeSession", "logout"}, {"Revoker.RevokeSubject", "logout-all"},
			{"Revoked", "page"}, {"Revoked", "login"}, {"Revoked", "refresh"}, {"Claims", "login"}, {"Claims", "refresh"},
		} {
			t.Run(tt.method+" "+kind+" at a "+tt.request, func(t *testing.T) {
				t.Parallel()
				s := newStall(t, kind)
				store, revocations := &faulty{RefreshStore: newRefreshStore(t, 0), before: s.before}, &stalling{stall: s}
				i := newIssuer(t, func(c *jwtauth.IssuerConfig) {
					c.Store, c.Revocations, c.Timeout = store, revocations, impatience
					c.Claims = func(context.Context, jwtauth.Session) (map[string]any, error) { return nil, s.at("Claims") }
				})
				h := newSessionHandler(t, i, inCookie)
				v := mustVerifier(t, jwtauth.Config{
					Issuers: []jwtauth.TrustedIssuer{{
						Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwtauth.Algorithm{jwtauth.HS256}, Keys: i,
						Profile: jwtauth.ProfileSession,
					}},
					Revocations: revocations, RevocationTimeout: impatience,
				})
				let := usher.Authenticate(usher.Optional(v))
				mux := http.NewServeMux()
				mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { h.Login(w, r, jwtauth.Session{Subject: "ann"}) })
				mux.HandleFunc("/refresh", h.Refresh)
				mux.HandleFunc("/logout", h.Logout)
				mux.Handle("/logout-all", let.Wrap(http.HandlerFunc(h.LogoutAll)))
				mux.Handle("/page", usher.Authenticate(v).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
				server := httptest.NewServer(mux)
				t.Cleanup(server.Close)
				t.Cleanup(s.end)
				opened := login(t, i)
				send := func() int {
					t.Helper()
					r := must(http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/"+tt.request, nil))
					if tt.request == "refresh" || tt.request == "logout" {
						r.AddCookie(&http.Cookie{Name: "__Host-refresh_token", Value: opened.RefreshToken()})
					}
					if tt.request == "page" || tt.request == "logout-all" {
						r.Header.Set("Authorization", "Bearer "+opened.AccessToken())
					}
					resp, err := patient(server.Client()).Do(r)
					if err != nil {
						t.Fatal(err)
					}
					_ = resp.Body.Close()
					if resp.StatusCode == 503 && resp.Header.Get("Retry-After") == "" {
						t.Error("503 without Retry-After")
					}
					return resp.StatusCode
				}
				s.on.Store(&tt.method)
				if got := send(); got != 503 || s.calls.Load() == 0 {
					t.Errorf("%d after %d calls, want 503", got, s.calls.Load())
				}
				s.on.Store(nil)
				if got := send(); got >= 400 {
					t.Errorf("%d once the store is well again", got)
				}
			})
		}
	}
}

func TestAnAuthorizationServerThatIsNotWellIs503InTime(t *testing.T) {
	for _, kind := range []string{"hangs", "panics", "fails", "exits"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newStall(t, kind)
			i := must(jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{
				Endpoint: "https://issuer.example", ClientID: "api", ClientSecret: "x", Issuer: issuer, Audiences: []string{audience},
				Client: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return nil, s.do() })}, Timeout: impatience,
			}))
			api := served(t, i)
			if got := status(t, patient(api.Client()), api.URL, opaque); got != 503 {
				t.Errorf("%d, want 503", got)
			}
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Requests pile up neither calls nor goroutines while the revocations hang, and each
// is told so at once or in time.
func TestCallsOfRevocationsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests = 5000
		s := newStall(t, "hangs")
		method := "Revoked"
		s.on.Store(&method)
		v := verifier(t, func(c *jwtauth.Config) { c.Revocations = &stalling{stall: s} })
		text := good()
		began := time.Now()
		got := make(chan jwtauth.Verdict, requests)
		for range requests {
			go func() { got <- verdict(t, v, text) }()
		}
		synctest.Wait()
		if calls, refused := s.calls.Load(), len(got); calls != 64 || refused != requests-64-16*64 {
			t.Errorf("%d calls, and %d were refused at once", calls, refused)
		}
		for range requests {
			if v := <-got; v != jwtauth.Unavailable {
				t.Errorf("%v", v)
			}
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("the last has waited %v, want the default of a second", took)
		}
		if s.calls.Load() != 64 {
			t.Errorf("%d calls", s.calls.Load())
		}
	})
}

// Whoever sends invented tokens and hangs up leaves nothing behind that grows.
func TestAbandonedIntrospectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests = 2000
		release := make(chan struct{})
		defer func() { close(release); synctest.Wait() }()
		var calls atomic.Int64
		i := introspection(t, nil, func(c *jwtauth.IntrospectionConfig) {
			c.MaxCalls = 2
			c.Client = &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				calls.Add(1)
				<-release // whatever its context says
				return nil, errDown
			})}
		})
		for n := range requests {
			ctx, hangUp := context.WithCancel(t.Context())
			go func() {
				_, err := i.Verify(ctx, "invented"+strconv.Itoa(n))
				// The line may be full before the client is seen to have gone.
				if !errors.Is(err, jwtauth.Abandoned) && !errors.Is(err, jwtauth.Unavailable) {
					t.Error(err)
				}
			}()
			hangUp()
		}
		synctest.Wait()
		if n := goroutinesOfIntrospection(); n > 100 {
			t.Errorf("%d goroutines are left", n)
		}
		if calls.Load() != 2 {
			t.Errorf("%d calls", calls.Load())
		}
		time.Sleep(time.Minute)
		if n := goroutinesOfIntrospection(); n < 2 || n > 10 {
			t.Errorf("%d goroutines are left after the timeout, where 2 hang", n)
		}
	})
}

// goroutinesOfIntrospection returns how many goroutines are about an introspection.
func goroutinesOfIntrospection() (n int) {
	stacks := make([]byte, 64<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for goroutine := range bytes.SplitSeq(stacks, []byte("\n\n")) {
		if bytes.Contains(goroutine, []byte("/introspection.go:")) {
			n++
		}
	}
	return n
}

func TestStoresInTheProcessAreCalledDirectly(t *testing.T) {
	i := newIssuer(t, func(c *jwtauth.IssuerConfig) { c.Revocations = new(jwtauth.RevocationList) })
	if !jwtauth.CallsDirectly(i) {
		t.Error("MemoryRefreshStore or RevocationList is guarded")
	}
}

func TestRevocationTimeoutIsNotNegative(t *testing.T) {
	_, err := jwtauth.New(jwtauth.Config{RevocationTimeout: -1})
	wantFaults(t, err, "jwtauth.Config.RevocationTimeout", "jwtauth.Config.Issuers")
	_, err = jwtauth.NewIntrospection(jwtauth.IntrospectionConfig{RevocationTimeout: -1})
	if err == nil || !strings.Contains(err.Error(), "jwtauth.IntrospectionConfig.RevocationTimeout") {
		t.Error(err)
	}
}
