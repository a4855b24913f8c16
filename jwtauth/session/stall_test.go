package session_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/internal/tokentest"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
)

func TestAStoreThatFailsIs503InTime(t *testing.T) {
	for _, kind := range []string{"hangs", "panics", "fails", "exits"} {
		for _, tt := range []struct{ method, request string }{
			{"Insert", "login"}, {"Lookup", "refresh"}, {"Update", "refresh"}, {"Lookup", "logout"}, {"Revoke", "logout"},
			{"RevokeSubject", "logout-all"}, {"RevokeSession", "logout"}, {"Revoker.RevokeSubject", "logout-all"},
			{"Revoked", "page"}, {"Revoked", "login"}, {"Revoked", "refresh"}, {"Claims", "login"}, {"Claims", "refresh"},
		} {
			t.Run(tt.method+" "+kind+" at a "+tt.request, func(t *testing.T) {
				t.Parallel()
				s := tokentest.NewStall(t, kind)
				store, revocations := &hooked{Store: newMemory(t, 0), before: s.Before}, &tokentest.Stalling{Stall: s}
				m := newManager(t, func(c *session.Config) {
					c.Store, c.Revocations, c.Timeout = store, revocations, tokentest.Impatience
					c.Claims = func(context.Context, session.Session) (map[string]any, error) { return nil, s.At("Claims") }
				})
				h := newHandler(t, m, inCookie)
				v := mustVerifier(t, jwtauth.Config{
					Issuers: []jwtauth.TrustedIssuer{{
						Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: m.Keys(),
						Profile: jwtauth.ProfileSession,
					}},
					Revocations: revocations, RevocationTimeout: tokentest.Impatience,
				})
				let := usher.Authenticate(usher.Optional(v))
				mux := http.NewServeMux()
				mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { h.Login(w, r, session.Session{Subject: "ann"}) })
				mux.HandleFunc("/refresh", h.Refresh)
				mux.HandleFunc("/logout", h.Logout)
				mux.Handle("/logout-all", let.Wrap(http.HandlerFunc(h.LogoutAll)))
				mux.Handle("/page", usher.Authenticate(v).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
				server := httptest.NewServer(mux)
				t.Cleanup(server.Close)
				t.Cleanup(s.End)
				opened := login(t, m)
				send := func() int {
					t.Helper()
					r := must(http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/"+tt.request, nil))
					if tt.request == "refresh" || tt.request == "logout" {
						r.AddCookie(&http.Cookie{Name: "__Host-refresh_token", Value: opened.RefreshToken()})
					}
					if tt.request == "page" || tt.request == "logout-all" {
						r.Header.Set("Authorization", "Bearer "+opened.AccessToken())
					}
					resp, err := tokentest.Patient(server.Client()).Do(r)
					if err != nil {
						t.Fatal(err)
					}
					_ = resp.Body.Close()
					if resp.StatusCode == 503 && resp.Header.Get("Retry-After") == "" {
						t.Error("503 without Retry-After")
					}
					return resp.StatusCode
				}
				s.On.Store(&tt.method)
				if got := send(); got != 503 || s.Calls.Load() == 0 {
					t.Errorf("%d after %d calls, want 503", got, s.Calls.Load())
				}
				s.On.Store(nil)
				if got := send(); got >= 400 {
					t.Errorf("%d once the store works again", got)
				}
			})
		}
	}
}

func TestStoresInTheProcessAreCalledDirectly(t *testing.T) {
	m := newManager(t, func(c *session.Config) { c.Revocations = new(jwtauth.RevocationList) })
	if !session.CallsDirectly(m) {
		t.Error("Memory or RevocationList is guarded")
	}
}
