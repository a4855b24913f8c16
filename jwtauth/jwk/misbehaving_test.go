package jwk_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/internal/tokentest"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// While the server of a key set misbehaves, the last set is used and no request with a
// key of that set waits; tokens of other keys are unavailable. Afterwards the present set
// is used.
func TestAKeySetWhoseServerMisbehaves(t *testing.T) {
	tests := map[string]faulty.Fault{
		"fails":                           faulty.Fail,
		"panics":                          faulty.Panic,
		"responds after the deadline":     faulty.Late(10 * time.Second),
		"ignores the context for minutes": faulty.Late(2 * time.Minute),
	}
	for name, fault := range tests {
		for _, cold := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " from the start"}[cold], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					former, present := newSigner("former"), newSigner("present")
					p := new(publisher)
					p.Say(publish(former))
					var (
						calls   faulty.Calls
						reports atomic.Int64
					)
					outage := func() { calls.Set(faulty.For(10*time.Minute, fault)) }
					if cold {
						outage()
					}
					v := trusting(t, simulated(t, p, func(c *jwk.RemoteConfig) {
						c.OnError = func(context.Context, error) { reports.Add(1) }
						c.Client = &http.Client{Transport: tokentest.RoundTrip(func(r *http.Request) (*http.Response, error) {
							if err := calls.Call(r.Context()); err != nil {
								return nil, err
							}
							return p.RoundTrip(r)
						})}
					}))
					wantFormer := jwtauth.Unavailable
					if !cold {
						want(t, v, former.Token(), jwtauth.Accepted)
						outage()
						wantFormer = jwtauth.Accepted
					} else {
						want(t, v, former.Token(), jwtauth.Unavailable) // after it has waited for the first fetch
						time.Sleep(10 * time.Second)
					}
					p.Say(publish(present))
					for range 100 {
						began := time.Now()
						want(t, v, former.Token(), wantFormer)
						if waited := time.Since(began); !cold && waited > 0 {
							t.Fatalf("a request waited %v", waited)
						}
						want(t, v, present.Token(), jwtauth.Unavailable)
						if waited := time.Since(began); !cold && waited > time.Second {
							t.Fatalf("a request waited %v", waited)
						}
						time.Sleep(time.Second)
					}
					time.Sleep(20 * time.Minute)
					if calls.N() == 0 || reports.Load() == 0 {
						t.Errorf("%d fetches and %d reports", calls.N(), reports.Load())
					}
					want(t, v, present.Token(), jwtauth.Accepted)
					want(t, v, former.Token(), jwtauth.UnknownKey)
				})
			})
		}
	}
}

// Only the operators notice one failed fetch in 100.
func TestAKeySetThatFailsOnceIn100Fetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner("1")
		p := new(publisher)
		p.Say(publish(s))
		var (
			calls   faulty.Calls
			reports atomic.Int64
		)
		calls.Set(faulty.Every(100, faulty.Fail))
		v := trusting(t, simulated(t, p, func(c *jwk.RemoteConfig) {
			c.OnError = func(context.Context, error) { reports.Add(1) }
			c.Client = &http.Client{Transport: tokentest.RoundTrip(func(r *http.Request) (*http.Response, error) {
				if err := calls.Call(r.Context()); err != nil {
					return nil, err
				}
				return p.RoundTrip(r)
			})}
		}))
		for calls.N() < 250 {
			want(t, v, s.Token(), jwtauth.Accepted)
			time.Sleep(time.Minute)
		}
		if reports.Load() != 2 {
			t.Errorf("%d reports of 2 failures", reports.Load())
		}
	})
}
