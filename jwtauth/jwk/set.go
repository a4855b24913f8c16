package jwk

import (
	"context"
	"slices"
)

// A Set has the keys of one issuer, as [Static] and [Remote] do. It must be safe for
// concurrent use.
type Set interface {
	// Find returns the keys that may have signed a token with this algorithm and this
	// kid, which is empty if the token has none. It also returns the version of the set
	// that has the keys. Finding no key is not an error. An error means that the keys are
	// unavailable, which leads to a 503; if it has a method RetryAfter() time.Duration,
	// that returns how long to wait before a retry. A set that can be fetched may fetch it
	// and wait for that before it reports that it does not have the key. A verifier
	// ignores keys that do not match, and tries at most 16. It calls Find without a
	// deadline of its own, so Find must return soon, and when ctx ends.
	Find(ctx context.Context, kid string, a Algorithm) (keys []*Key, version uint64, err error)
	// Version returns a number that changes when a key is removed or replaced, and an
	// error while the keys are unavailable. A token that was verified with keys of
	// another version is verified again. Version is called for each request, so it must
	// not wait.
	Version() (uint64, error)
}

// Static is a list of keys, at least one. A verifier copies the list.
type Static []*Key

// Find implements [Set].
func (s Static) Find(_ context.Context, kid string, a Algorithm) ([]*Key, uint64, error) {
	return fitting(s, kid, a), 0, nil
}

// Version implements [Set].
func (Static) Version() (uint64, error) { return 0, nil }

// fitting returns the keys that may have signed a token with this kid and algorithm, those
// with that ID first.
func fitting(keys []*Key, kid string, a Algorithm) []*Key {
	for i, k := range keys {
		if !k.Matches(kid, a) {
			continue
		}
		// Usually it is the only matching key.
		list := keys[i : i+1 : i+1]
		for _, k := range keys[i+1:] {
			if k.Matches(kid, a) {
				list = append(list, k)
			}
		}
		return byID(list, kid)
	}
	return nil
}

// byID sorts a list so that keys with this ID come first.
func byID(list []*Key, kid string) []*Key {
	if len(list) < 2 {
		return list
	}
	rank := func(k *Key) int {
		if k.id == kid {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b *Key) int { return rank(a) - rank(b) })
	return list
}

// A Refresher is a [Set] that can be fetched again. If none of the keys that Find has
// returned verifies the signature of a token, a verifier calls Refresh, because the
// issuer may have replaced them. [Sets] are several sets as one.
type Refresher interface {
	Set
	// Refresh looks for a key that verifies the token with this kid and algorithm. It
	// calls verifies, from its own goroutine, with keys that may have signed the token,
	// until that returns true; for a key that Find has returned it returns false. If no
	// key verifies the token, Refresh may fetch the set and wait for that. It returns the
	// version of the set that has the key, or false if the signature is bad. An error
	// means that the set may have such a key but could not be fetched.
	Refresh(ctx context.Context, kid string, a Algorithm, verifies func(*Key) bool) (version uint64, ok bool, err error)
}
