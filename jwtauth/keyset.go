package jwtauth

import "context"

// A KeySet knows the keys of one issuer. [StaticKeys] and [JWKS] are ones. It
// must be safe for concurrent use.
type KeySet interface {
	// Find returns the keys that may have signed a token with this kid, which is
	// empty if the token names none, and this algorithm, and the version of the
	// set that has them. A key that is not there is no error; keys that cannot be
	// known at the time are one, which is answered with 503. Keys that do not fit
	// are not used, and no more than four are tried.
	Find(ctx context.Context, kid string, a Algorithm) (keys []*Key, version uint64, err error)
	// Version returns a number that becomes another one when a key is removed or
	// replaced, and an error while the keys cannot be known. What was verified
	// with keys of another version is verified again. Version is called for each
	// request and must not wait.
	Version() (uint64, error)
}

// StaticKeys are keys that never change while a [Verifier] uses them. [New]
// copies the slice.
type StaticKeys []*Key

// Find implements [KeySet].
func (s StaticKeys) Find(_ context.Context, kid string, a Algorithm) ([]*Key, uint64, error) {
	return fitting(s, kid, a), 0, nil
}

// Version implements [KeySet].
func (StaticKeys) Version() (uint64, error) { return 0, nil }

// fitting returns those of keys that may have signed a token with this kid and
// algorithm.
func fitting(keys []*Key, kid string, a Algorithm) []*Key {
	for i, k := range keys {
		if !k.fits(kid, a) {
			continue
		}
		// Mostly it is one.
		list := keys[i : i+1 : i+1]
		for _, k := range keys[i+1:] {
			if k.fits(kid, a) {
				list = append(list, k)
			}
		}
		return list
	}
	return nil
}

// maxTries bounds how many keys one token may make us try.
const maxTries = 4
