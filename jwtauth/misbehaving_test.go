package jwtauth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/jwtauth"
)

// unreliable is a Revocations whose calls may misbehave.
type unreliable struct {
	list  jwtauth.RevocationList
	calls faulty.Calls
}

func (u *unreliable) Revoked(ctx context.Context, t *jwtauth.Token) (bool, error) {
	if err := u.calls.Call(ctx); err != nil {
		return false, err
	}
	return u.list.Revoked(ctx, t)
}

// While the server cannot find out whether a token was revoked, the token is neither
// accepted nor called invalid, and operators learn each cause.
func TestRevocationsThatMisbehave(t *testing.T) {
	const n = 1000
	tests := map[string]struct {
		fault       func() faulty.Fault
		unavailable int // of n requests, one every 20 ms
	}{
		"fail":                              {func() faulty.Fault { return faulty.Fail }, n},
		"panic":                             {func() faulty.Fault { return faulty.Panic }, n},
		"respond after the deadline":        {func() faulty.Fault { return faulty.Late(5 * time.Second) }, n},
		"fail once in 100 calls":            {func() faulty.Fault { return faulty.Every(100, faulty.Fail) }, n / 100},
		"panic once in 100 calls":           {func() faulty.Fault { return faulty.Every(100, faulty.Panic) }, n / 100},
		"are late once in 100 calls":        {func() faulty.Fault { return faulty.Every(100, faulty.Late(5*time.Second)) }, n / 100},
		"fail for the first 10 of the 20 s": {func() faulty.Fault { return faulty.For(10*time.Second, faulty.Fail) }, n / 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := new(unreliable)
				var reports, causes atomic.Int64
				v := verifier(t, func(c *jwtauth.Config) {
					c.Revocations = u
					c.OnError = func(_ context.Context, err error) {
						reports.Add(1)
						if errors.Is(err, faulty.ErrStore) {
							causes.Add(1)
						}
					}
				})
				if err := u.list.RevokeToken(t.Context(), issuer, "revoked", time.Now().Add(time.Hour)); err != nil {
					t.Fatal(err)
				}
				text, gone := good(), token(claims(map[string]any{"jti": "revoked"}))
				want(t, v, text, jwtauth.Accepted)
				u.calls.Set(tt.fault())
				verdicts := make(chan jwtauth.Verdict, n)
				for range n {
					go func() { verdicts <- verdict(t, v, text) }()
					time.Sleep(20 * time.Millisecond)
				}
				got := make(map[jwtauth.Verdict]int)
				for range n {
					got[<-verdicts]++
				}
				// After an outage a breaker may refuse a few calls more than have failed.
				if got[jwtauth.Unavailable] < tt.unavailable || got[jwtauth.Unavailable] > tt.unavailable+n/5 {
					t.Errorf("%d are unavailable, want %d", got[jwtauth.Unavailable], tt.unavailable)
				}
				if got[jwtauth.Accepted]+got[jwtauth.Unavailable] != n {
					t.Errorf("verdicts %v", got)
				}
				if int(reports.Load()) != got[jwtauth.Unavailable] {
					t.Errorf("%d reports of %d failures", reports.Load(), got[jwtauth.Unavailable])
				}
				if name == "fail" && causes.Load() == 0 {
					t.Error("OnError did not get the cause")
				}
				u.calls.Set(nil)
				time.Sleep(time.Minute)
				want(t, v, text, jwtauth.Accepted)
				want(t, v, gone, jwtauth.Revoked)
			})
		})
	}
}

// A client that sends tokens which the server or the application cannot handle does not
// stop the calls for the tokens of others.
func TestTokensThatFailTheirIntrospectionAffectNoOthers(t *testing.T) {
	respond := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for name, bad := range map[string]http.HandlerFunc{
		"a 500":                    respond(500, ""),
		"text that is not Unicode": respond(200, `{"active":true,"name":"\ud800"}`),
		"a panic of Principal": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, active(map[string]any{"sub": "bad"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := new(publisher)
				p.Serve(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasPrefix(r.PostFormValue("token"), "bad") {
						bad(w, r)
						return
					}
					_, _ = io.WriteString(w, active(nil))
				})
				i := introspection(t, p, func(c *jwtauth.IntrospectionConfig) {
					c.OnError = func(context.Context, error) {}
					c.Principal = func(t *jwtauth.Token, standard usher.Principal) usher.Principal {
						if t.Subject == "bad" {
							panic("no such user")
						}
						return standard
					}
				})
				want(t, i, "known", jwtauth.Accepted)
				time.Sleep(time.Minute) // until it must be renewed
				for n := range 100 {
					want(t, i, "bad"+strconv.Itoa(n), jwtauth.Unavailable)
				}
				want(t, i, "new", jwtauth.Accepted)
				want(t, i, "known", jwtauth.Accepted)
			})
		})
	}
}

// During an outage of the authorization server requests fail at once.
func TestAnOutageOfIntrospectionFailsFastAndEnds(t *testing.T) {
	for name, fail := range map[string]http.HandlerFunc{
		"a gateway without the server": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"a server that is overloaded":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"a server that hangs":          func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				p := new(publisher)
				p.Serve(func(w http.ResponseWriter, r *http.Request) { calls.Add(1); fail(w, r) })
				i := introspection(t, p, func(c *jwtauth.IntrospectionConfig) { c.OnError = func(context.Context, error) {} })
				for n := range 100 {
					go want(t, i, "a"+strconv.Itoa(n), jwtauth.Unavailable)
				}
				time.Sleep(3500 * time.Millisecond)
				before := calls.Load()
				for n := range 100 {
					want(t, i, "b"+strconv.Itoa(n), jwtauth.Unavailable)
				}
				if n := calls.Load() - before; n > 1 {
					t.Errorf("%d calls during the outage, want at most a probe", n)
				}
				p.Say(active(nil))
				time.Sleep(10 * time.Second)
				want(t, i, "c", jwtauth.Accepted)
				want(t, i, "d", jwtauth.Accepted)
			})
		})
	}
}
