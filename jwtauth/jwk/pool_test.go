package jwk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/internal/tokentest"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// A landlord responds for the hosts of many tenants without a network.
type landlord struct {
	mu      sync.Mutex
	sets    map[string]string // the key set of each host
	fetches map[string]int
	delay   time.Duration

	now, most atomic.Int64 // fetches at once
}

func newLandlord() *landlord {
	return &landlord{sets: make(map[string]string), fetches: make(map[string]int)}
}

func (l *landlord) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	delay := l.delay
	l.most.Store(max(l.most.Load(), l.now.Add(1)))
	l.mu.Unlock()
	defer l.now.Add(-1)
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	body := l.sets[r.URL.Host]
	if r.URL.Path == openIDPath {
		body = metadata("https://"+r.URL.Host, "https://"+r.URL.Host+"/keys")
	} else {
		l.fetches[r.URL.Host]++
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (l *landlord) publish(host string, signers ...signer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sets[host] = publish(signers...)
}

func (l *landlord) setDelay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

func (l *landlord) fetched(host string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fetches[host]
}

func mustPool(t *testing.T, l *landlord, change func(*jwk.PoolConfig)) *jwk.Pool {
	t.Helper()
	c := jwk.PoolConfig{Remote: jwk.RemoteConfig{Client: &http.Client{Transport: l}}}
	if change != nil {
		change(&c)
	}
	p := must(jwk.NewPool(c))
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// Most tenants of a service are idle, so their sets cost nothing: no more are kept than
// fit, and none is fetched that is not used.
func TestAPoolOfTenThousandTenants(t *testing.T) {
	tenants := 10_000
	if race.Enabled {
		tenants = 1000
	}
	const capacity = 256
	l := newLandlord()
	p := mustPool(t, l, func(c *jwk.PoolConfig) { c.Capacity = capacity })
	signers := make([]signer, tenants)
	verifiers := make([]*jwtauth.Verifier, tenants)
	host := func(n int) string { return fmt.Sprintf("t%d.example", n) }
	for n := range signers {
		signers[n] = newSigner("1")
		l.publish(host(n), signers[n])
		keys := p.Issuer("https://" + host(n))
		if n%2 == 0 {
			keys = p.URL("https://" + host(n) + "/keys")
		}
		verifiers[n] = mustVerifier(t, jwtauth.Config{CacheCapacity: -1, Issuers: []jwtauth.TrustedIssuer{{
			Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.EdDSA}, Keys: keys,
		}}})
	}
	before := runtime.NumGoroutine()
	var group sync.WaitGroup
	for worker := range 16 {
		group.Go(func() {
			for n := worker; n < tenants; n += 16 {
				want(t, verifiers[n], signers[n].Token(), jwtauth.Accepted)
				if n%100 == 99 {
					want(t, verifiers[n], signers[n-1].Token(), jwtauth.BadSignature)
				}
			}
		})
	}
	group.Wait()
	eventually(t, "goroutines that end with their sets", func() bool { return runtime.NumGoroutine() <= before+capacity+8 })
	last := tenants - 1
	find := func() { _, _, _ = p.Issuer("https://"+host(last)).Find(t.Context(), "1", jwk.EdDSA) }
	find()
	fetches := l.fetched(host(last))
	find()
	if n := l.fetched(host(last)); n != fetches {
		t.Errorf("%d fetches of a set that is kept, after %d", n, fetches)
	}
	// One that has gone comes back.
	first := l.fetched(host(0))
	want(t, verifiers[0], signers[0].Token(), jwtauth.Accepted)
	if n := l.fetched(host(0)); n != first+1 {
		t.Errorf("%d fetches after %d", n, first)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	want(t, verifiers[last], signers[last].Token(), jwtauth.Unavailable)
	want(t, verifiers[1], signers[1].Token(), jwtauth.Unavailable)
}

func TestAPoolClosesIdleSets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLandlord()
		s := newSigner("1")
		l.publish("idle.example", s)
		l.publish("busy.example", s)
		p := mustPool(t, l, nil)
		idle, busy := trusting(t, p.Issuer("https://idle.example")), trusting(t, p.Issuer("https://busy.example"))
		text := tokentest.Sealed(`{"alg":"EdDSA","kid":"1"}`, string(must(json.Marshal(tokentest.Claims(map[string]any{"exp": time.Now().Unix() + 1e6})))), jwt.SigningMethodEdDSA, s.Private)
		want(t, idle, text, jwtauth.Accepted)
		for range 120 {
			want(t, busy, text, jwtauth.Accepted) // remembered, most of the time
			time.Sleep(time.Minute)
		}
		if n := l.fetched("idle.example"); n < 6 || n > 9 {
			t.Errorf("%d fetches of a set that was used for an hour", n)
		}
		if n := l.fetched("busy.example"); n < 11 || n > 14 {
			t.Errorf("%d fetches of a set that is used for two hours", n)
		}
		before := l.fetched("idle.example")
		want(t, idle, text, jwtauth.Accepted)
		if n := l.fetched("idle.example"); n != before+1 {
			t.Errorf("%d fetches after %d", n, before)
		}
	})
}

// While a token is remembered, a verifier asks for the version of its keys only.
func TestAPoolKeepsTheSetOfARememberedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLandlord()
		l.publish("a.example", newSigner("1"))
		keys := mustPool(t, l, nil).Issuer("https://a.example")
		_, before, err := keys.Find(t.Context(), "1", jwk.EdDSA)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			time.Sleep(50 * time.Minute)
			if version, err := keys.Version(); version != before || err != nil {
				t.Errorf("%d %v, want %d", version, err, before)
			}
		}
		time.Sleep(2 * time.Hour)
		if _, err := keys.Version(); err == nil {
			t.Error("an idle set is kept")
		}
	})
}

// A set that is made again may lack the key of a token that is remembered.
func TestAPoolForgetsNoRemovalOfAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLandlord()
		old, next := newSigner("old"), newSigner("next")
		l.publish("a.example", old)
		l.publish("b.example", old)
		p := mustPool(t, l, func(c *jwk.PoolConfig) { c.Capacity = 1 })
		keys := p.Issuer("https://a.example")
		a, b := trusting(t, keys), trusting(t, p.Issuer("https://b.example"))
		if _, err := keys.Version(); err == nil {
			t.Error("a set that nobody has asked for is available")
		}
		text := old.Token()
		want(t, a, text, jwtauth.Accepted)
		before := must(keys.Version())
		want(t, b, text, jwtauth.Accepted)
		if _, err := keys.Version(); err == nil {
			t.Error("a set that had to go is available")
		}
		l.publish("a.example", next)
		want(t, a, next.Token(), jwtauth.Accepted)
		if must(keys.Version()) == before {
			t.Error("the version of another set is the same")
		}
		want(t, a, text, jwtauth.UnknownKey)
	})
}

// A set that a request uses is not idle, however long that takes, and its time begins when
// the request ends.
func TestAPoolClosesNoSetThatIsInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLandlord()
		s := newSigner("1")
		l.publish("a.example", s)
		l.setDelay(time.Second)
		p := mustPool(t, l, func(c *jwk.PoolConfig) { c.IdleTimeout = 800 * time.Millisecond })
		keys := p.URL("https://a.example/keys")
		if found, _, err := keys.Find(t.Context(), "1", jwk.EdDSA); len(found) != 1 || err != nil {
			t.Errorf("%v %v", found, err)
		}
		time.Sleep(700 * time.Millisecond)
		if _, err := keys.Version(); err != nil {
			t.Error(err)
		}
	})
}

// A set that has to go while a request waits for it serves that request.
func TestAPoolKeepsASetThatIsInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLandlord()
		s := newSigner("1")
		l.publish("a.example", s)
		l.publish("b.example", s)
		l.setDelay(100 * time.Millisecond)
		p := mustPool(t, l, func(c *jwk.PoolConfig) { c.Capacity = 1 })
		var group sync.WaitGroup
		for _, host := range []string{"a.example", "b.example"} {
			v := trusting(t, p.URL("https://"+host+"/keys"))
			group.Go(func() { want(t, v, s.Token(), jwtauth.Accepted) })
			// Another request for the set does not wait as long.
			group.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				if _, _, err := p.URL("https://"+host+"/keys").Find(ctx, "1", jwk.EdDSA); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
			time.Sleep(10 * time.Millisecond)
		}
		group.Wait()
	})
}

func TestClosingAPoolEndsRequestsThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLandlord()
		l.setDelay(time.Hour)
		p := mustPool(t, l, nil)
		v := trusting(t, p.Issuer("https://a.example"))
		var group sync.WaitGroup
		began := time.Now()
		group.Go(func() { want(t, v, newSigner("1").Token(), jwtauth.Unavailable) })
		time.Sleep(10 * time.Millisecond)
		for range 2 {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		group.Wait()
		if waited := time.Since(began); waited != 10*time.Millisecond {
			t.Errorf("after %v", waited)
		}
	})
}

// A client that names many tenants causes no more than 64 first fetches at once. The tokens of a
// set that is in the pool do not wait.
func TestAPoolFetchesFewSetsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLandlord()
		s := newSigner("1")
		l.publish("known.example", s)
		p := mustPool(t, l, nil)
		known := trusting(t, p.URL("https://known.example/keys"))
		want(t, known, s.Token(), jwtauth.Accepted)
		const tenants = 500
		l.setDelay(100 * time.Millisecond)
		var group sync.WaitGroup
		for n := range tenants {
			host := fmt.Sprintf("t%d.example", n)
			l.publish(host, s)
			v := trusting(t, p.URL("https://"+host+"/keys"))
			group.Go(func() { want(t, v, s.Token(), jwtauth.Accepted) })
		}
		for range 50 {
			began := time.Now()
			want(t, known, s.Token(), jwtauth.Accepted)
			if waited := time.Since(began); waited > 0 {
				t.Errorf("a token has waited %v", waited)
			}
			time.Sleep(20 * time.Millisecond)
		}
		group.Wait()
		// Those that hang hold up nobody for long.
		l.setDelay(time.Hour)
		for n := range 2 * tenants {
			v := trusting(t, p.URL(fmt.Sprintf("https://hanging%d.example/keys", n)))
			group.Go(func() { want(t, v, s.Token(), jwtauth.Unavailable) })
		}
		began := time.Now()
		synctest.Wait()
		want(t, known, s.Token(), jwtauth.Accepted)
		group.Wait()
		if waited := time.Since(began); waited > 6*time.Second {
			t.Errorf("the tokens have waited %v", waited)
		}
		l.setDelay(0)
		want(t, trusting(t, p.URL("https://t0.example/keys")), s.Token(), jwtauth.Accepted)
		if most := l.most.Load(); most > 64 {
			t.Errorf("%d fetches at once", most)
		}
	})
}

// The sets of a Pool share OnError, so what it is called with names the set. It may close
// the Pool.
func TestAPoolNamesTheSetThatFails(t *testing.T) {
	l := newLandlord()
	var p *jwk.Pool
	reported := make(chan error, 10)
	var once atomic.Bool
	ready := make(chan struct{})
	p = mustPool(t, l, func(c *jwk.PoolConfig) {
		c.Remote.OnError = func(_ context.Context, err error) {
			<-ready
			if once.CompareAndSwap(false, true) {
				_ = p.Close()
				reported <- err
			}
		}
	})
	close(ready)
	want(t, trusting(t, p.Issuer("https://a.example")), newSigner("1").Token(), jwtauth.Unavailable)
	select {
	case err := <-reported:
		if !strings.Contains(err.Error(), "https://a.example:") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("no error is reported")
	}
}

func TestPoolFaults(t *testing.T) {
	_, err := jwk.NewPool(jwk.PoolConfig{
		Remote:   jwk.RemoteConfig{URL: "https://a.example", Issuer: "https://a.example", Timeout: -1, Use: "enc"},
		Capacity: -1, IdleTimeout: -1,
	})
	const path = "jwk.PoolConfig."
	wantFaults(t, err, path+"Remote.URL", path+"Remote.Issuer", path+"Remote.Timeout", path+"Remote.Use", path+"Capacity", path+"IdleTimeout")
	p := mustPool(t, newLandlord(), nil)
	for name, keys := range map[string]jwk.Set{
		"no issuer":         p.Issuer(""),
		"not a URL":         p.Issuer("issuer"),
		"without TLS":       p.Issuer("http://a.example"),
		"a URL without TLS": p.URL("http://a.example"),
	} {
		if found, _, err := keys.Find(t.Context(), "1", jwk.EdDSA); err == nil {
			t.Errorf("%s: %v", name, found)
		}
	}
}
