package jwk_test

import (
	"context"
	"net/http"
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
