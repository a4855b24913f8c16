package jwk_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/internal/tokentest"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// A rotating issuer signs with one key and publishes that alone. A response with its key
// set takes 100 ms.
type rotating struct {
	publisher
	present atomic.Pointer[signer]
}

func newRotating(id string) *rotating {
	r := new(rotating)
	r.rotate(id)
	r.Serve(func(w http.ResponseWriter, _ *http.Request) {
		set := publish(*r.present.Load())
		time.Sleep(100 * time.Millisecond)
		_, _ = io.WriteString(w, set)
	})
	return r
}

// rotate replaces the key, without notice.
func (r *rotating) rotate(id string) {
	next := newSigner(id)
	r.present.Store(&next)
}

// An API gets 200 requests a second while its issuer replaces the only key 10 times. Each
// token is signed with the key of its time.
func TestUnannouncedRotationsRefuseNoValidToken(t *testing.T) {
	for name, id := range map[string]func(n int) string{
		"each with an ID of its own": strconv.Itoa,
		"all with one ID":            func(int) string { return "same" },
		"none with an ID":            func(int) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issuer := newRotating(id(0))
			api := served(t, trusting(t, overTLS(t, &issuer.publisher, func(c *jwk.RemoteConfig) { c.CoolDown = 0 })))
			var (
				requests sync.WaitGroup
				mu       sync.Mutex
				statuses = make(map[int]int)
			)
			for n := range 11 {
				if n > 0 {
					issuer.rotate(id(n))
				}
				present := issuer.present.Load()
				var accepted atomic.Int64
				for sent := 0; accepted.Load() < 40; sent++ { // for about 200 ms after the fetch
					if sent == 2000 {
						requests.Wait()
						t.Fatalf("after rotation %d: %v", n, statuses)
					}
					requests.Go(func() {
						got := status(t, api.Client(), api.URL, present.Token())
						if got == http.StatusOK {
							accepted.Add(1)
						}
						if issuer.present.Load() != present {
							return // the key was removed meanwhile
						}
						mu.Lock()
						defer mu.Unlock()
						statuses[got]++
					})
					time.Sleep(5 * time.Millisecond)
				}
			}
			requests.Wait()
			t.Logf("responses by status: %v; %d fetches", statuses, issuer.Fetches.Load())
			delete(statuses, http.StatusOK)
			delete(statuses, http.StatusServiceUnavailable)
			if len(statuses) > 0 {
				t.Errorf("valid tokens were refused: %v", statuses)
			}
		})
	}
}

// Clients keep their tokens after the key was removed. That must neither look like an
// outage nor keep tokens of the next key from being accepted.
func TestOldTokensDoNotDelayNewOnes(t *testing.T) {
	for name, id := range map[string]func(n int) string{
		"keys with IDs of their own": strconv.Itoa,
		"keys with one ID":           func(int) string { return "same" },
		"keys without IDs":           func(int) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := new(publisher)
				present := newSigner(id(0))
				p.Say(publish(present))
				v := trusting(t, simulated(t, p, nil))
				want(t, v, present.Token(), jwtauth.Accepted)
				for n := 1; n <= 10; n++ {
					old := present
					present = newSigner(id(n))
					p.Say(publish(present))
					want(t, v, present.Token(), jwtauth.Accepted)
					for range 20 {
						refused(t, v, old.Token())
						time.Sleep(100 * time.Millisecond)
					}
				}
				synctest.Wait()
				if n := p.Fetches.Load(); n != 11 {
					t.Errorf("%d fetches", n)
				}
				// They cause a fetch if the last one is long ago, in case the key is back.
				old := present
				present = newSigner(id(11))
				p.Say(publish(present))
				want(t, v, present.Token(), jwtauth.Accepted)
				time.Sleep(31 * time.Second)
				refused(t, v, old.Token())
				present = newSigner(id(12)) // and that starts no cool-down
				p.Say(publish(present))
				want(t, v, present.Token(), jwtauth.Accepted)
				p.Say(publish(old))
				time.Sleep(31 * time.Second)
				want(t, v, old.Token(), jwtauth.Accepted)
				if n := p.Fetches.Load(); n != 15 {
					t.Errorf("%d fetches", n)
				}
				// While the set cannot be fetched, they are refused as before.
				old, present = present, old
				time.Sleep(31 * time.Second)
				p.Serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
				refused(t, v, old.Token())
				want(t, v, present.Token(), jwtauth.Accepted)
			})
		})
	}
}

// refused fails unless the token is refused with a 401.
func refused(t *testing.T, v *jwtauth.Verifier, token string) {
	t.Helper()
	if w := respond(t, v, request(t, token)); w.Code != http.StatusUnauthorized {
		t.Errorf("%d, want 401", w.Code)
	}
}

// Instances of an issuer that disagree about its keys are fetched no more often than any.
func TestKeysThatComeAndGoAreNotNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newSigner("1"), newSigner("2")
		p := new(publisher)
		p.Serve(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, publish([]signer{one, two}[p.Fetches.Load()%2]))
		})
		v := trusting(t, simulated(t, p, nil))
		forger := newSigner("")
		for n := range 300 {
			forger.ID = "unknown" + strconv.Itoa(n)
			_ = tokentest.Verdict(t, v, forger.Token())
			time.Sleep(time.Second)
		}
		if n := p.Fetches.Load(); n > 1+2+10 { // the first, those of two new keys, and one each 30 s
			t.Errorf("%d fetches", n)
		}
	})
}

// The kids of the last 64 removed keys are remembered.
func TestRemovedKeysAreRememberedWithinABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(publisher)
		signers := make([]signer, 70)
		p.Say(publish(newSigner("first")))
		v := trusting(t, simulated(t, p, nil))
		for n := range signers {
			signers[n] = newSigner(strconv.Itoa(n))
			p.Say(publish(signers[n]))
			want(t, v, signers[n].Token(), jwtauth.Accepted)
		}
		// One that comes and goes takes the place of one.
		for n := range 100 {
			time.Sleep(31 * time.Second)
			s := signers[68+n%2]
			p.Say(publish(s))
			want(t, v, s.Token(), jwtauth.Accepted)
		}
		want(t, v, newSigner("unknown").Token(), jwtauth.UnknownKey) // starts a cool-down
		want(t, v, signers[4].Token(), jwtauth.Unavailable)
		for _, s := range signers[5:69] {
			want(t, v, s.Token(), jwtauth.UnknownKey)
		}
	})
}

// A token that no key verifies costs a bounded number of verifications.
func TestFewRemovedKeysAreTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(publisher)
		p.Say(publish(newSigner("")))
		remote := simulated(t, p, nil)
		v := trusting(t, remote)
		for range 20 {
			s := newSigner("")
			p.Say(publish(s))
			want(t, v, s.Token(), jwtauth.Accepted)
		}
		var tried []*jwk.Key
		refuse := func(k *jwk.Key) bool {
			tried = append(tried, k)
			return false
		}
		want(t, v, newSigner("").Token(), jwtauth.BadSignature) // starts a cool-down
		_, ok, err := remote.Refresh(t.Context(), "", jwk.EdDSA, refuse)
		if ok || err == nil || len(tried) != 5 {
			t.Errorf("%v, %v, after %d keys", ok, err, len(tried))
		}
	})
}

// A fetch that began before the request came may have missed its key.
func TestAFetchThatBeganBeforeDoesNotDecide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newSigner("old"), newSigner("next")
		p := new(publisher)
		p.Say(publish(old))
		v := trusting(t, simulated(t, p, nil))
		want(t, v, old.Token(), jwtauth.Accepted)
		routine := make(chan struct{}, 10)
		p.Serve(func(w http.ResponseWriter, _ *http.Request) {
			routine <- struct{}{}
			time.Sleep(400 * time.Millisecond)
			_, _ = io.WriteString(w, publish(old))
		})
		<-routine
		time.Sleep(100 * time.Millisecond)
		p.Serve(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(400 * time.Millisecond)
			_, _ = io.WriteString(w, publish(old, next))
		})
		began := time.Now()
		want(t, v, next.Token(), jwtauth.Accepted)
		if d := time.Since(began); d != 700*time.Millisecond {
			t.Errorf("after %v", d)
		}
	})
}

// A request waits a second, or less if its client, the Timeout or the Remote ends that.
func TestHowLongARequestWaitsForANewKey(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*jwk.RemoteConfig)
		during  func(*jwk.Remote, context.CancelFunc)
		want    time.Duration
		verdict jwtauth.Verdict
	}{
		"by default":         {want: time.Second, verdict: jwtauth.Unavailable},
		"a shorter Timeout":  {change: func(c *jwk.RemoteConfig) { c.Timeout = 300 * time.Millisecond }, want: 300 * time.Millisecond, verdict: jwtauth.Unavailable},
		"the client is gone": {during: func(_ *jwk.Remote, cancel context.CancelFunc) { cancel() }, want: 200 * time.Millisecond, verdict: jwtauth.Abandoned},
		"Close":              {during: func(r *jwk.Remote, _ context.CancelFunc) { _ = r.Close() }, want: 200 * time.Millisecond, verdict: jwtauth.Unavailable},
	} {
		for _, id := range []string{"unknown", "known", ""} {
			t.Run(name+" "+id, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					known := newSigner("known")
					if id == "" {
						known.ID = ""
					}
					p := new(publisher)
					p.Say(publish(known))
					remote := simulated(t, p, c.change)
					v := trusting(t, remote)
					want(t, v, known.Token(), jwtauth.Accepted)
					p.Serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if c.during != nil {
						go func() {
							time.Sleep(200 * time.Millisecond)
							c.during(remote, cancel)
						}()
					}
					began := time.Now()
					token, err := v.Verify(ctx, newSigner(id).Token())
					verdict := c.verdict
					if name == "Close" && id == "known" {
						verdict = jwtauth.BadSignature // the set stays as it is
					}
					if d := time.Since(began); token != nil || !errors.Is(err, verdict) || d != c.want {
						t.Errorf("%v after %v", err, d)
					}
					want(t, v, known.Token(), jwtauth.Accepted)
				})
			})
		}
	}
}

// While the set cannot be fetched, nobody knows which keys the issuer has.
func TestAnUnknownKeyDuringAnOutage(t *testing.T) {
	for _, id := range []string{"unknown", "known"} {
		t.Run(id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				known := newSigner("known")
				p := new(publisher)
				p.Say(publish(known))
				v := trusting(t, simulated(t, p, nil))
				want(t, v, known.Token(), jwtauth.Accepted)
				p.Serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
				text := newSigner(id).Token()
				for range 20 {
					before := time.Now()
					w := respond(t, v, request(t, text))
					if after, _ := strconv.Atoi(w.Header().Get("Retry-After")); w.Code != 503 || after < 1 || after > 30 {
						t.Errorf("%d %v", w.Code, w.Header())
					}
					if time.Since(before) != 0 {
						t.Error("a request has waited")
					}
					time.Sleep(700 * time.Millisecond)
				}
				if n := p.Fetches.Load(); n != 5 { // after 0, 1, 3 and 7 seconds of the outage
					t.Errorf("%d fetches", n)
				}
			})
		})
	}
}

// Among several sets one may have to find another key before its first fetch is over.
func TestRefreshWaitsForTheFirstFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(publisher)
		p.Serve(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(2 * time.Second)
			_, _ = io.WriteString(w, publish(newSigner("1")))
		})
		remote := simulated(t, p, nil)
		_, ok, err := remote.Refresh(t.Context(), "1", jwk.EdDSA, func(k *jwk.Key) bool { return k.ID() == "1" })
		if n := p.Fetches.Load(); !ok || err != nil || n != 1 {
			t.Errorf("%v, %v after %d fetches", ok, err, n)
		}
	})
}

// Clients that leave while they wait leave nothing behind: no goroutine, and no place that
// the token of a new key needs.
func TestClientsThatLeaveFreeTheirPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, next := newSigner("1"), newSigner("2")
		p, other := new(publisher), new(publisher)
		p.Say(publish(s))
		other.Say(publish(newSigner("other")))
		v := trusting(t, jwk.Sets{simulated(t, p, nil), simulated(t, other, nil)})
		want(t, v, s.Token(), jwtauth.Accepted)
		slow := func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(500 * time.Millisecond)
			_, _ = io.WriteString(w, publish(s, next))
		}
		p.Serve(slow)
		other.Serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, leave := context.WithCancel(t.Context())
		var leaving sync.WaitGroup
		for n := range 1000 {
			leaving.Go(func() { _, _ = v.Verify(ctx, newSigner(strconv.Itoa(n)).Token()) })
		}
		time.Sleep(100 * time.Millisecond)
		leave()
		leaving.Wait()
		want(t, v, next.Token(), jwtauth.Accepted)
		time.Sleep(time.Minute)
	})
}

// Tokens of unknown keys ask for fetches, but not in place of routine ones.
func TestTokensDelayNoRoutineRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner("1")
		p := new(publisher)
		p.Say(publish(s))
		v := trusting(t, simulated(t, p, func(c *jwk.RemoteConfig) { c.RefreshEvery, c.CoolDown = 10*time.Second, 10*time.Minute }))
		want(t, v, newSigner("foreign").Token(), jwtauth.UnknownKey)
		fetches := p.Fetches.Load()
		for range 100 {
			want(t, v, newSigner("foreign").Token(), jwtauth.Unavailable)
			time.Sleep(time.Second)
		}
		if n := p.Fetches.Load() - fetches; n < 9 || n > 12 {
			t.Errorf("%d fetches in 100 seconds", n)
		}
	})
}

// A request does not wait longer than Timeout, even if that is the time of two fetches.
func TestARequestWaitsNoLongerThanTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner("1")
		p := new(publisher)
		p.Say(publish(s))
		v := trusting(t, simulated(t, p, func(c *jwk.RemoteConfig) { c.Timeout = 200 * time.Millisecond }))
		want(t, v, s.Token(), jwtauth.Accepted)
		began := make(chan bool, 10)
		p.Serve(func(w http.ResponseWriter, _ *http.Request) {
			began <- true
			time.Sleep(150 * time.Millisecond)
			_, _ = io.WriteString(w, publish(s))
		})
		<-began // a routine refresh, which does not decide
		start := time.Now()
		want(t, v, newSigner("2").Token(), jwtauth.Unavailable)
		if waited := time.Since(start); waited != 200*time.Millisecond {
			t.Errorf("waited %v", waited)
		}
	})
}

// The keys are not unavailable because a client has left.
func TestAClientThatLeavesLearnsThatItHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(publisher)
		p.Say(publish(newSigner("1")))
		remote := simulated(t, p, nil)
		synctest.Wait()
		p.Serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, _, err := remote.Find(ctx, "2", jwk.EdDSA); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
