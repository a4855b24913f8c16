package jwtauth_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

func TestAnOnErrorThatPanicsEndsNoProcess(t *testing.T) {
	s, next := newSigner("1"), newSigner("2")
	p := new(publisher)
	p.Serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	reported := make(chan struct{}, 100)
	remote := overTLS(t, p, func(c *jwk.RemoteConfig) {
		c.OnError = func(context.Context, error) {
			select {
			case reported <- struct{}{}:
			default:
			}
			panic("no")
		}
	})
	api := served(t, trusting(t, remote))
	if got := status(t, api.Client(), api.URL, s.Token()); got != 503 {
		t.Errorf("%d, want 503", got)
	}
	<-reported
	p.Say(publish(s))
	eventually(t, "the keys", func() bool { return status(t, api.Client(), api.URL, s.Token()) == 200 })
	p.Say(`{"keys":[]}`)
	if got := status(t, api.Client(), api.URL, next.Token()); got != 503 { // causes a fetch
		t.Errorf("%d, want 503", got)
	}
	<-reported
	p.Say(publish(s, next))
	eventually(t, "the next key", func() bool { return status(t, api.Client(), api.URL, next.Token()) == 200 })
}

// A panickingSet is a key set whose method of this name panics.
type panickingSet struct {
	jwk.Set
	in string
}

func (s panickingSet) Find(ctx context.Context, kid string, a jwk.Algorithm) ([]*jwk.Key, uint64, error) {
	if s.in == "Find" {
		panic("no")
	}
	return s.Set.Find(ctx, kid, a)
}

func (s panickingSet) Version() (uint64, error) {
	if s.in == "Version" {
		panic("no")
	}
	return s.Set.Version()
}

func (s panickingSet) Refresh(context.Context, string, jwk.Algorithm, func(*jwk.Key) bool) (uint64, bool, error) {
	if s.in == "Refresh" {
		panic("no")
	}
	return 0, false, nil
}

// The keys of an issuer that is resolved may be anything, for instance a pointer to a set
// that was not made.
func TestAKeySetThatPanicsIs503(t *testing.T) {
	forged := good()
	forged = forged[:len(forged)-4] + "AAAA"
	for in, text := range map[string]string{"Find": good(), "Version": good(), "Refresh": forged} {
		t.Run(in, func(t *testing.T) {
			var reported error
			v := verifier(t, func(c *jwtauth.Config) {
				c.Issuers[0].Keys = panickingSet{c.Issuers[0].Keys, in}
				c.OnError = func(_ context.Context, err error) { reported = err }
			})
			for range 2 { // verified, and remembered
				want(t, v, text, map[bool]jwtauth.Verdict{true: jwtauth.Accepted, false: jwtauth.Unavailable}[in == "Version"])
			}
			if in != "Version" && (reported == nil || !strings.Contains(reported.Error(), "panic")) {
				t.Errorf("reported: %v", reported)
			}
		})
	}
}

// A callback that panics on the goroutine of a request admits nobody, and affects no
// other request.
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
