package jwk_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// A plainSet is a set of another package that cannot be fetched again.
type plainSet struct {
	keys    jwk.Static
	version uint64
	err     error
}

func (s plainSet) Find(ctx context.Context, kid string, a jwk.Algorithm) ([]*jwk.Key, uint64, error) {
	if s.err != nil {
		return nil, 0, s.err
	}
	keys, _, err := s.keys.Find(ctx, kid, a)
	return keys, s.version, err
}

func (s plainSet) Version() (uint64, error) { return s.version, s.err }

// A refreshedSet is a set of another package that refresh fetches again.
type refreshedSet struct {
	plainSet
	refresh func(ctx context.Context, verifies func(*jwk.Key) bool) (bool, error)
}

func (s refreshedSet) Refresh(ctx context.Context, _ string, _ jwk.Algorithm, verifies func(*jwk.Key) bool) (uint64, bool, error) {
	ok, err := s.refresh(ctx, verifies)
	return s.version, ok, err
}

var errDown = errors.New("down")

// No two states of the sets have one version: a token that was verified in one of them is
// not remembered in another.
func TestEachStateOfSetsHasAVersionOfItsOwn(t *testing.T) {
	states := []plainSet{{err: errDown}, {version: 0}, {version: 1}, {version: 2}, {version: 3}}
	seen := make(map[uint64]jwk.Sets)
	for _, a := range states {
		for _, b := range states {
			for _, c := range states {
				sets := jwk.Sets{a, b, c}
				version, err := sets.Version()
				if unavailable := a.err != nil && b.err != nil && c.err != nil; (err != nil) != unavailable {
					t.Errorf("%v: %v", sets, err)
				}
				if other, ok := seen[version]; ok {
					t.Errorf("%v and %v have the version %d", sets, other, version)
				}
				seen[version] = sets
			}
		}
	}
}

// The version that Refresh returns is not that of a set which it has changed, so that what
// was removed meanwhile is noticed.
func TestSetsRefreshReturnsTheVersionFromBefore(t *testing.T) {
	sets := jwk.Sets{plainSet{version: 1}, refreshedSet{plainSet{version: 1}, func(context.Context, func(*jwk.Key) bool) (bool, error) { return true, nil }}}
	before := must(sets.Version())
	version, ok, err := sets.Refresh(t.Context(), "", jwk.EdDSA, func(*jwk.Key) bool { return true })
	if version != before || !ok || err != nil {
		t.Errorf("%d %t %v, want %d", version, ok, err, before)
	}
}

// A set that is unavailable may have the key that no other set has.
func TestAKeyThatNoSetHasIsUnavailableWhileOneIs(t *testing.T) {
	s := newSigner("1")
	sets := jwk.Sets{jwk.Static{mustKey(t, jwk.KeyConfig{ID: "1", Algorithm: jwk.EdDSA, Material: s.Private})}, plainSet{err: errDown}}
	if keys, _, err := sets.Find(t.Context(), "1", jwk.EdDSA); len(keys) != 1 || err != nil && !errors.Is(err, errDown) {
		t.Errorf("%v %v", keys, err)
	}
	if keys, _, err := sets.Find(t.Context(), "2", jwk.EdDSA); len(keys) > 0 || !errors.Is(err, errDown) {
		t.Errorf("%v %v", keys, err)
	}
}

func TestASetThatFailsVerifiesNoToken(t *testing.T) {
	sets := jwk.Sets{refreshedSet{refresh: func(context.Context, func(*jwk.Key) bool) (bool, error) { return true, errDown }}}
	if _, ok, err := sets.Refresh(t.Context(), "", jwk.EdDSA, func(*jwk.Key) bool { return true }); ok || !errors.Is(err, errDown) {
		t.Errorf("%t %v", ok, err)
	}
}

// At most 16 keys are tried, so those that a token names come first, in whichever set they
// are.
func TestSetsReturnTheNamedKeyFirst(t *testing.T) {
	unnamed := jwk.Static{mustKey(t, jwk.KeyConfig{Algorithm: jwk.EdDSA, Material: newSigner("").Private})}
	named := jwk.Static{mustKey(t, jwk.KeyConfig{ID: "1", Algorithm: jwk.EdDSA, Material: newSigner("").Private})}
	keys, _, err := jwk.Sets{unnamed, unnamed, named}.Find(t.Context(), "1", jwk.EdDSA)
	if err != nil || len(keys) != 3 || keys[0].ID() != "1" {
		t.Errorf("%v %v", keys, err)
	}
}

// A set that does not end with its context holds no request, which learns nothing of the
// key, and calls no function of the request after it.
func TestSetsEndWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		k := mustKey(t, jwk.KeyConfig{ID: "1", Algorithm: jwk.EdDSA, Material: newSigner("").Private})
		slow := refreshedSet{refresh: func(_ context.Context, verifies func(*jwk.Key) bool) (bool, error) {
			time.Sleep(time.Minute)
			return verifies(k), nil
		}}
		verifies := func(*jwk.Key) bool { calls++; return true }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, ok, err := (jwk.Sets{slow}).Refresh(ctx, "", jwk.EdDSA, verifies); ok || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%t %v", ok, err)
		}
		quick := refreshedSet{refresh: func(context.Context, func(*jwk.Key) bool) (bool, error) { return true, nil }}
		if _, ok, err := (jwk.Sets{slow, quick}).Refresh(t.Context(), "", jwk.EdDSA, verifies); !ok || err != nil {
			t.Errorf("%t %v", ok, err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if calls > 0 {
			t.Errorf("%d calls after the end", calls)
		}
	})
}

// Refreshing a set gives a token no more than 32 further keys to be tried with.
func TestThirtyTwoKeysOfARefreshedSetAreTried(t *testing.T) {
	signers, keys := make([]signer, 33), make(jwk.Static, 33)
	for n := range signers {
		signers[n] = newSigner("")
		keys[n] = mustKey(t, jwk.KeyConfig{Algorithm: jwk.EdDSA, Material: signers[n].Private})
	}
	set := refreshedSet{
		plainSet{keys: jwk.Static{mustKey(t, jwk.KeyConfig{Algorithm: jwk.EdDSA, Material: newSigner("").Private})}},
		func(_ context.Context, verifies func(*jwk.Key) bool) (bool, error) {
			return slices.ContainsFunc(keys, verifies), nil
		},
	}
	v := trusting(t, set)
	want(t, v, signers[0].Token(), jwtauth.Accepted)
	want(t, v, signers[31].Token(), jwtauth.Accepted)
	want(t, v, signers[32].Token(), jwtauth.BadSignature)
}

// A set that says it has the key, without having asked the verifier, verifies no token.
func TestASetCannotVerifyAToken(t *testing.T) {
	s := newSigner("")
	v := trusting(t, refreshedSet{
		plainSet{keys: jwk.Static{mustKey(t, jwk.KeyConfig{Algorithm: jwk.EdDSA, Material: newSigner("").Private})}},
		func(context.Context, func(*jwk.Key) bool) (bool, error) { return true, nil },
	})
	want(t, v, s.Token(), jwtauth.BadSignature)
}

// A published set has no secrets, so tokens that name an algorithm for secrets cause no
// fetch and do not wait for one.
func TestAPublishedSetIsNotAskedForASecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(publisher)
		p.Serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		remote := simulated(t, p, nil)
		began := time.Now()
		for range 2 {
			if keys, _, err := remote.Find(t.Context(), "1", jwk.HS256); len(keys) > 0 || err != nil {
				t.Errorf("%v %v", keys, err)
			}
			if _, ok, err := remote.Refresh(t.Context(), "1", jwk.HS256, func(*jwk.Key) bool { return true }); ok || err != nil {
				t.Errorf("%t %v", ok, err)
			}
			if keys, _, err := (jwk.Sets{remote}).Find(t.Context(), "1", jwk.HS256); len(keys) > 0 || err != nil {
				t.Errorf("%v %v", keys, err)
			}
		}
		if waited := time.Since(began); waited > 0 {
			t.Errorf("waited %v", waited)
		}
	})
}
