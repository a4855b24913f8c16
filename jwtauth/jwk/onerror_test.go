package jwk_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/internal/tokentest"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// An OnError that hangs, as it may where the network that delivers reports is down too,
// does not end the fetches: the keys are those of the issuer once it is back.
func TestAnOnErrorThatHangsDelaysNoFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		former, present := newSigner("former"), newSigner("present")
		p := new(publisher)
		p.Say(publish(former))
		var calls faulty.Calls
		hang := make(chan struct{})
		v := trusting(t, simulated(t, p, func(c *jwk.RemoteConfig) {
			c.OnError = func(context.Context, error) { <-hang }
			c.Client = &http.Client{Transport: tokentest.RoundTrip(func(r *http.Request) (*http.Response, error) {
				if err := calls.Call(r.Context()); err != nil {
					return nil, err
				}
				return p.RoundTrip(r)
			})}
		}))
		want(t, v, former.Token(), jwtauth.Accepted)
		calls.Set(faulty.For(time.Hour, faulty.Fail))
		time.Sleep(time.Hour)
		p.Say(publish(present))
		time.Sleep(10 * time.Hour)
		want(t, v, present.Token(), jwtauth.Accepted)
		close(hang)
	})
}

// An operator reads of a key that cannot be used once, and not at each refresh, in
// whatever order the issuer publishes its keys; of one for encryption never.
func TestSkippedKeysAreReportedWhenTheyChange(t *testing.T) {
	weak := func(kid string) string {
		return `{"kty":"RSA","kid":"` + kid + `","alg":"RS256","n":"` + b64(rsaKey().N.Bytes()[:128]) + `","e":"AQAB"}`
	}
	encryption := `{"kty":"RSA","kid":"enc","use":"enc","alg":"RSA-OAEP","n":"` + b64(rsaKey().N.Bytes()) + `","e":"AQAB"}`
	good := newSigner("good").JWK()
	synctest.Test(t, func(t *testing.T) {
		p := new(publisher)
		reports := make(chan error, 100)
		busy := make(chan struct{})
		close(busy)
		p.Say(keySetOf(good, encryption))
		simulated(t, p, func(c *jwk.RemoteConfig) {
			c.OnError = func(_ context.Context, err error) { reports <- err; <-busy }
		})
		for _, step := range []struct {
			name string
			set  string
			want []string // the kids that one report has, or nil
		}{
			{"a key for encryption", keySetOf(good, encryption), nil},
			{"two weak keys", keySetOf(weak("a"), good, weak("b"), encryption), []string{"a", "b"}},
			{"in another order", keySetOf(good, weak("b"), weak("a")), nil},
			{"one of them removed", keySetOf(weak("b"), good), []string{"b"}},
			{"both", keySetOf(weak("b"), weak("a"), good), []string{"a", "b"}},
			{"none", keySetOf(good), nil},
			{"both again", keySetOf(weak("b"), weak("a"), good), []string{"a", "b"}},
		} {
			p.Say(step.set)
			time.Sleep(time.Hour)
			synctest.Wait()
			if n := len(reports); n != min(len(step.want), 1) {
				t.Fatalf("%s: %d reports", step.name, n)
			}
			if step.want != nil {
				text := (<-reports).Error()
				if got := strings.Count(text, "is skipped because"); got != len(step.want) {
					t.Errorf("%s: %s", step.name, text)
				}
				for _, kid := range step.want {
					if !strings.Contains(text, `the key "`+kid+`"`) {
						t.Errorf("%s: %s", step.name, text)
					}
				}
			}
		}
		// A report that an OnError which hangs would miss comes later.
		busy = make(chan struct{})
		p.Serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
		time.Sleep(time.Hour)
		p.Say(keySetOf(good, weak("c")))
		time.Sleep(time.Hour)
		if len(reports) != 1 {
			t.Fatalf("%d reports of an OnError that hangs", len(reports))
		}
		t.Log(<-reports)
		close(busy)
		time.Sleep(time.Hour)
		if len(reports) != 1 || !strings.Contains((<-reports).Error(), `the key "c"`) {
			t.Error("a skipped key was not reported")
		}
	})
}

func TestOnErrorMayCloseTheRemote(t *testing.T) {
	for name, response := range map[string]string{
		"after a fetch that fails": "no set",
		"after one that skips":     keySetOf(newSigner("good").JWK(), "{}"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := new(publisher)
				p.Say(response)
				var (
					remote *jwk.Remote
					closed atomic.Bool
				)
				made := make(chan struct{})
				remote = simulated(t, p, func(c *jwk.RemoteConfig) {
					c.OnError = func(context.Context, error) {
						<-made
						closed.Store(remote.Close() == nil)
					}
				})
				close(made)
				time.Sleep(time.Hour)
				if n := p.Fetches.Load(); n != 1 || !closed.Load() {
					t.Errorf("closed: %v, after %d fetches", closed.Load(), n)
				}
			})
		})
	}
}
