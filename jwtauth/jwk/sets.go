package jwk

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/usher-go/usher/internal/guard"
)

// Sets are several sets of one issuer, at least one: for instance the secret of its
// former tokens and the set that it publishes for the new ones. A verifier copies the list.
//
// A key is found in whichever set has it, and a token whose key is there does not wait for
// the other sets. A set that is unavailable hides no key of another; but while no set has
// the key of a token and one is unavailable, the keys are unavailable. Sets that may have
// to be fetched for a token are fetched at the same time.
type Sets []Set

var _ Refresher = Sets(nil)

// A peeker is a set that can be asked for the keys that it has at present.
type peeker interface {
	// peek is Find without waiting.
	peek(kid string, a Algorithm) ([]*Key, error)
}

// Find implements [Set].
func (s Sets) Find(ctx context.Context, kid string, a Algorithm) ([]*Key, uint64, error) {
	keys, version, err := s.present(ctx, kid, a)
	if len(keys) > 0 {
		return keys, version, nil
	}
	if !slices.ContainsFunc(s, isRefresher) {
		return nil, version, err
	}
	found, err := anyOf(ctx, s, func(ctx context.Context, set Set) (bool, error) {
		keys, _, err := set.Find(ctx, kid, a)
		return len(keys) > 0, err
	})
	if found {
		keys, version, err = s.present(ctx, kid, a)
	}
	if len(keys) > 0 {
		return keys, version, nil
	}
	return nil, version, err
}

// present returns the keys that the sets have, and an error if one is unavailable. The
// version is from before, so that a change meanwhile is noticed later.
func (s Sets) present(ctx context.Context, kid string, a Algorithm) (keys []*Key, version uint64, err error) {
	version, _ = s.Version()
	errs := make([]error, len(s))
	for n, set := range s {
		var found []*Key
		found, errs[n] = peek(ctx, set, kid, a)
		keys = append(keys, found...)
	}
	return byID(keys, kid), version, errors.Join(errs...)
}

// peek returns the keys that a set has. A set of another package that has to be fetched
// may wait for that.
func peek(ctx context.Context, set Set, kid string, a Algorithm) (keys []*Key, err error) {
	switch set := set.(type) {
	case peeker:
		return set.peek(kid, a)
	case Sets:
		keys, _, err = set.present(ctx, kid, a)
	default:
		keys, _, err = set.Find(ctx, kid, a)
	}
	return keys, err
}

// Refresh implements [Refresher]. If sets have a key that the token names, only these are
// refreshed: a signature that the named key has not made is bad, whatever other sets may
// publish.
func (s Sets) Refresh(ctx context.Context, kid string, a Algorithm, verifies func(*Key) bool) (version uint64, ok bool, err error) {
	version, _ = s.Version()
	// The sets share the caller's function, which is for one goroutine.
	var mu sync.Mutex
	ended := false
	one := func(k *Key) bool {
		mu.Lock()
		defer mu.Unlock()
		return !ended && verifies(k)
	}
	ok, err = anyOf(ctx, s.naming(ctx, kid, a), func(ctx context.Context, set Set) (bool, error) {
		r, ok := set.(Refresher)
		if !ok {
			return false, nil
		}
		_, ok, err := r.Refresh(ctx, kid, a, one)
		return ok, err
	})
	mu.Lock()
	defer mu.Unlock()
	ended = true
	return version, ok, err
}

// naming returns the sets that have a key with this ID, or all if none has.
func (s Sets) naming(ctx context.Context, kid string, a Algorithm) Sets {
	var list Sets
	for _, set := range s {
		if keys, _ := peek(ctx, set, kid, a); named(keys, kid) {
			list = append(list, set)
		}
	}
	if len(list) == 0 {
		return s
	}
	return list
}

// Version implements [Set]. It changes when the version of a set does, and when a set
// becomes available or unavailable. It returns an error only if all are unavailable.
func (s Sets) Version() (uint64, error) {
	if len(s) == 0 {
		return 0, errors.New("jwk: there are no key sets")
	}
	const unavailable = 1
	version, errs := uint64(len(s)), make([]error, 0, len(s))
	for _, set := range s {
		v, err := set.Version()
		if err != nil {
			errs = append(errs, err)
			version = combine(version, unavailable)
			continue
		}
		version = combine(version, v<<1)
	}
	if len(errs) == len(s) {
		return version, errors.Join(errs...)
	}
	return version, nil
}

// combine returns a number for two, which is another one if either of them changes. It
// mixes the bits as SplitMix64 does.
func combine(a, b uint64) uint64 {
	x := a ^ b
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// errExited is the result of a set that has called runtime.Goexit.
var errExited = errors.New("jwk: a set has ended the goroutine that asked it")

func isRefresher(s Set) bool {
	_, ok := s.(Refresher)
	return ok
}

// anyOf calls ask for all sets at the same time, until one call returns true. Otherwise
// it returns the errors.
func anyOf(ctx context.Context, sets Sets, ask func(context.Context, Set) (bool, error)) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		ok  bool
		err error
	}
	results := make(chan result, len(sets))
	for _, set := range sets {
		go func() {
			r := result{err: errExited}
			defer func() { results <- r }()
			r.err = guard.Run(func() (err error) { r.ok, err = ask(ctx, set); return err })
		}()
	}
	var errs []error
	for range sets {
		select {
		case r := <-results:
			if r.ok && r.err == nil {
				return true, nil
			}
			errs = append(errs, r.err)
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return false, errors.Join(errs...)
}
