package jwtauth

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/usher-go/usher"
)

// A SigningKey is a key of an [Issuer] and when it signs.
//
// To change keys without refusing anybody, add the next key with a From that
// every node and every verifier of another service will have heard of by then: an
// hour ahead is plenty. It is published at once, signs from then on, and the old
// one verifies until its last token has expired. Take that out any time later.
type SigningKey struct {
	// Key is a private key or a secret, with an ID of its own.
	Key *Key
	// From is when the key begins to sign, until that of the next one. The zero
	// value means that it always has.
	From time.Time
}

// A signer is a SigningKey that is ready for use.
type signer struct {
	key    *Key
	header string // of the tokens, encoded, with the dot behind it
	from   time.Time
	// gone is when its last token has expired; zero if no other key is to follow.
	gone time.Time
}

// newSigners returns keys in the order in which they sign.
func newSigners(keys []SigningKey, typ string, access time.Duration, now time.Time) (list []signer, errs []error) {
	const path = "jwtauth.IssuerConfig.Keys"
	if len(keys) == 0 {
		return nil, []error{&usher.ConfigError{Field: path, Reason: "at least one is required"}}
	}
	for n, k := range keys {
		fault := func(field, reason string) {
			errs = append(errs, &usher.ConfigError{Field: fmt.Sprintf("%s[%d].%s", path, n, field), Reason: reason})
		}
		same := func(is func(SigningKey) bool) bool { return slices.ContainsFunc(keys[:n], is) }
		switch {
		case k.Key == nil || k.Key.method == nil:
			fault("Key", "was not made by NewKey")
			continue
		case !k.Key.CanSign():
			fault("Key", "is public and cannot sign")
		case k.Key.ID() == "":
			fault("Key", "needs an ID, so that tokens can name it")
		case same(func(other SigningKey) bool { return other.Key != nil && other.Key.ID() == k.Key.ID() }):
			fault("Key", "has the ID of another one")
		}
		if same(func(other SigningKey) bool { return other.From.Equal(k.From) }) {
			fault("From", "is that of another one; which of them signs?")
		}
		list = append(list, signer{key: k.Key, header: tokenHeader(k.Key, typ), from: k.From})
	}
	slices.SortFunc(list, func(a, b signer) int { return a.from.Compare(b.from) })
	for n := range list {
		if n+1 < len(list) {
			list[n].gone = list[n+1].from.Add(access + maxLeeway)
		}
	}
	if len(errs) == 0 && list[0].from.After(now) {
		errs = append(errs, &usher.ConfigError{Field: path, Reason: "none of them signs yet; let the first have no From"})
	}
	return list, errs
}

// tokenHeader returns the first segment of the tokens that k signs, and a dot.
func tokenHeader(k *Key, typ string) string {
	// Strings only, which always encode.
	header, _ := json.Marshal(struct {
		Algorithm Algorithm `json:"alg"`
		ID        string    `json:"kid"`
		Type      string    `json:"typ"`
	}{k.algorithm, k.id, typ})
	return segments.EncodeToString(header) + "."
}

// signer returns the key that signs at this time.
func (i *Issuer) signer(now time.Time) *signer {
	s := &i.signers[0]
	for n := range i.signers {
		if !i.signers[n].from.After(now) {
			s = &i.signers[n]
		}
	}
	return s
}

func (s *signer) isGone(now time.Time) bool { return !s.gone.IsZero() && !now.Before(s.gone) }

// Find implements [KeySet]. It knows the keys that sign, those that will, and
// those of which a token may still be good.
func (i *Issuer) Find(_ context.Context, kid string, a Algorithm) (keys []*Key, version uint64, err error) {
	now := time.Now()
	for n := range i.signers {
		if s := &i.signers[n]; !s.isGone(now) && s.key.fits(kid, a) {
			keys = append(keys, s.key)
		}
	}
	return keys, i.version(now), nil
}

// Version implements [KeySet]. It is the number of keys that are gone.
func (i *Issuer) Version() (uint64, error) { return i.version(time.Now()), nil }

func (i *Issuer) version(now time.Time) (n uint64) {
	for k := range i.signers {
		if i.signers[k].isGone(now) {
			n++
		}
	}
	return n
}
