package jwk_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/internal/tokentest"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// secretSet returns a secret for HS256 with this ID.
func secretSet(t *testing.T, id string) jwk.Static {
	t.Helper()
	return jwk.Static{mustKey(t, jwk.KeyConfig{ID: id, Algorithm: jwk.HS256, Secret: secret})}
}

// unnamed returns a token that s has signed, without a kid.
func unnamed(s signer) string {
	return tokentest.Sealed(`{"alg":"EdDSA"}`, string(must(json.Marshal(tokentest.Claims(nil)))), jwt.SigningMethodEdDSA, s.Private)
}

// An issuer that moves from a secret to published keys has two sets. Neither hides the
// other, and a token is of either.
func TestSetsOfASecretAndAPublishedSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner("1")
		p := new(publisher)
		p.Serve(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		v := trustingOnly(t, jwk.Sets{simulated(t, p, nil), secretSet(t, "")}, jwk.HS256, jwk.EdDSA)

		// The published set is not there yet.
		began := time.Now()
		for range 100 {
			want(t, v, tokentest.Good(), jwtauth.Accepted)
		}
		if waited := time.Since(began); waited > 0 {
			t.Errorf("a token whose key is known has waited %v", waited)
		}
		want(t, v, s.Token(), jwtauth.Unavailable)
		forged := tokentest.Good()
		forged = forged[:len(forged)-4] + "AAAA"
		want(t, v, forged, jwtauth.BadSignature)

		p.Say(publish(s))
		time.Sleep(time.Minute)
		want(t, v, s.Token(), jwtauth.Accepted)
		want(t, v, tokentest.Good(), jwtauth.Accepted)

		// No secret is ever published, so a bad signature asks for nothing.
		time.Sleep(time.Minute)
		fetches := p.Fetches.Load()
		for range 100 {
			want(t, v, forged, jwtauth.BadSignature)
		}
		synctest.Wait()
		if n := p.Fetches.Load() - fetches; n != 0 {
			t.Errorf("%d fetches for bad signatures of a secret", n)
		}
	})
}

// A new key of one set is found at once while the server of another does not respond.
func TestSetsAreFetchedAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, next := newSigner("a"), newSigner("b"), newSigner("next")
		first, second := new(publisher), new(publisher)
		first.Say(publish(a))
		second.Say(publish(b))
		v := trusting(t, jwk.Sets{simulated(t, first, nil), simulated(t, second, nil)})
		want(t, v, a.Token(), jwtauth.Accepted)
		want(t, v, b.Token(), jwtauth.Accepted)
		first.Serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		second.Serve(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(100 * time.Millisecond)
			_, _ = w.Write([]byte(publish(b, next)))
		})
		began := time.Now()
		want(t, v, next.Token(), jwtauth.Accepted)
		if waited := time.Since(began); waited != 100*time.Millisecond {
			t.Errorf("the token has waited %v", waited)
		}
		// Whether the first set has the key of this token is not known.
		want(t, v, newSigner("foreign").Token(), jwtauth.Unavailable)
		first.Say(publish(a))
		time.Sleep(time.Minute)
		want(t, v, newSigner("foreign").Token(), jwtauth.UnknownKey)
	})
}

// A key without an ID may be any, so others are looked for when it does not verify a token.
func TestSetsLookForAnotherKeyWhenOneDoesNotVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, first, next := newSigner(""), newSigner("first"), newSigner("next")
		p := new(publisher)
		p.Serve(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(100 * time.Millisecond)
			_, _ = w.Write([]byte(publish(first)))
		})
		static := jwk.Static{mustKey(t, jwk.KeyConfig{Algorithm: jwk.EdDSA, Material: old.Private})}
		v := trusting(t, jwk.Sets{static, simulated(t, p, nil)})
		want(t, v, unnamed(old), jwtauth.Accepted)
		want(t, v, first.Token(), jwtauth.Accepted)
		want(t, v, unnamed(first), jwtauth.Accepted)
		p.Say(publish(first, next))
		want(t, v, next.Token(), jwtauth.Accepted)
		want(t, v, unnamed(next), jwtauth.Accepted)

		// But a key that the token names is the one, or none is.
		named := jwk.Static{mustKey(t, jwk.KeyConfig{ID: "named", Algorithm: jwk.EdDSA, Material: old.Private})}
		v = trusting(t, jwk.Sets{named, simulated(t, p, nil)})
		want(t, v, first.Token(), jwtauth.Accepted)
		fetches := p.Fetches.Load()
		want(t, v, newSigner("named").Token(), jwtauth.BadSignature)
		if n := p.Fetches.Load() - fetches; n != 0 {
			t.Errorf("%d fetches", n)
		}
	})
}

// What is remembered of a token ends when any of the sets loses a key, or may have.
func TestSetsHaveAVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newSigner("a"), newSigner("b"), newSigner("c")
		first, second := new(publisher), new(publisher)
		later := func(set string) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(100 * time.Millisecond)
				_, _ = io.WriteString(w, set)
			}
		}
		first.Serve(later(publish(a, c)))
		second.Serve(later(publish(b, c)))
		sets := jwk.Sets{simulated(t, first, nil), simulated(t, second, nil)}
		if _, err := sets.Version(); err == nil {
			t.Error("sets that are not there yet are available")
		}
		time.Sleep(2 * time.Second)
		v := trusting(t, sets)
		text := b.Token()
		want(t, v, text, jwtauth.Accepted)
		seen := map[uint64]string{must(sets.Version()): "at the start"}
		check := func(event string) {
			t.Helper()
			version := must(sets.Version())
			if before, ok := seen[version]; ok {
				t.Errorf("the version %s is that %s", event, before)
			}
			seen[version] = event
		}
		second.Say(publish(c))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		check("after a key of the second was removed")
		want(t, v, text, jwtauth.UnknownKey) // although it was remembered
		first.Say(publish(a))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		check("after a key of the first was removed")

		failing := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
		first.Serve(failing)
		time.Sleep(7 * time.Hour)
		check("after the first has become stale")
		want(t, v, c.Token(), jwtauth.Accepted)
		want(t, v, a.Token(), jwtauth.Unavailable)
		second.Serve(failing)
		time.Sleep(7 * time.Hour)
		if _, err := sets.Version(); err == nil {
			t.Error("stale sets are available")
		}
		want(t, v, c.Token(), jwtauth.Unavailable)
	})
}

func TestSetsInAVerifier(t *testing.T) {
	config := func(keys jwk.Set) jwtauth.Config {
		return jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
			Issuer: issuer, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.HS256}, Keys: keys,
		}}}
	}
	for name, keys := range map[string]jwk.Set{
		"no sets":                 jwk.Sets{},
		"a nil set":               jwk.Sets{nil},
		"an empty list of keys":   jwk.Sets{secretSet(t, "1"), jwk.Static{}},
		"a key of another kind":   jwk.Sets{jwk.Static{must(jwk.Generate(jwk.ES256))}},
		"a fault in a set of two": jwk.Sets{jwk.Sets{jwk.Static{nil}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jwtauth.New(config(keys))
			wantFaults(t, err, "jwtauth.Config.Issuers[0].Keys")
		})
	}
	keys := secretSet(t, "")
	sets := jwk.Sets{secretSet(t, "other"), jwk.Sets{keys}}
	v := mustVerifier(t, config(sets))
	clear(keys)
	clear(sets)
	want(t, v, tokentest.Good(), jwtauth.Accepted)
	if _, err := (jwk.Sets{}).Version(); err == nil {
		t.Error("no sets are available")
	}
}

// failingSet is a set of another package.
type failingSet struct {
	jwk.Static
	fail func()
}

func (failingSet) Find(context.Context, string, jwk.Algorithm) ([]*jwk.Key, uint64, error) {
	return nil, 0, nil
}

func (s failingSet) Refresh(context.Context, string, jwk.Algorithm, func(*jwk.Key) bool) (uint64, bool, error) {
	s.fail()
	return 0, false, nil
}

// A set that panics, or ends the goroutine, while it is refreshed is unavailable.
func TestASetThatPanicsIsUnavailable(t *testing.T) {
	s := newSigner("")
	static := jwk.Static{mustKey(t, jwk.KeyConfig{Algorithm: jwk.EdDSA, Material: s.Private})}
	for _, fail := range []func(){func() { panic("no") }, runtime.Goexit} {
		v := trusting(t, jwk.Sets{static, failingSet{fail: fail}})
		want(t, v, unnamed(s), jwtauth.Accepted)
		want(t, v, unnamed(newSigner("")), jwtauth.Unavailable)
	}
}

// A set that is unavailable hides no key that another has fetched for the token.
func TestSetsFindANewKeyWhileOneIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, next := newSigner("1"), newSigner("next")
		down, p := new(publisher), new(publisher)
		down.Serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
		p.Say(publish(s))
		v := trusting(t, jwk.Sets{simulated(t, down, nil), simulated(t, p, nil)})
		want(t, v, s.Token(), jwtauth.Accepted)
		p.Say(publish(s, next))
		want(t, v, next.Token(), jwtauth.Accepted)
	})
}

// Sets may be in Sets. A token whose key is there does not wait for the others either.
func TestSetsInSetsDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, next, own := newSigner("1"), newSigner("next"), newSigner("own")
		hanging, p := new(publisher), new(publisher)
		hanging.Serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		p.Say(publish(s))
		static := jwk.Static{mustKey(t, jwk.KeyConfig{ID: "own", Algorithm: jwk.EdDSA, Material: own.Private})}
		v := trusting(t, jwk.Sets{jwk.Sets{simulated(t, hanging, nil), jwk.Sets{simulated(t, p, nil)}}, static})
		synctest.Wait()
		began := time.Now()
		want(t, v, own.Token(), jwtauth.Accepted)
		want(t, v, s.Token(), jwtauth.Accepted)
		p.Say(publish(s, next))
		want(t, v, next.Token(), jwtauth.Accepted)
		want(t, v, newSigner("own").Token(), jwtauth.BadSignature)
		if waited := time.Since(began); waited > 0 {
			t.Errorf("the tokens have waited %v", waited)
		}
	})
}
