package session

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/document"
	"github.com/usher-go/usher/internal/jose"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// A SigningKey is a key of a [Manager] and the time from which it signs.
//
// To change keys without refusing anybody, add the next key with a From by which every
// node and every verifier in other services will have it: an hour ahead is plenty. It is
// published at once and signs from that time on. The old key verifies until its last
// token has expired, and can be removed after that.
type SigningKey struct {
	// Key is a private key or a secret. Its ID must be unique.
	Key *jwk.Key
	// From is when the key begins to sign; it signs until the From of the next key. Zero
	// means that the key has always signed.
	From time.Time
}

// A signer is a SigningKey that is ready for use.
type signer struct {
	key    *jwk.Key
	header string // of the tokens, encoded, with the dot that follows it
	from   time.Time
	// gone is when the last token of the key has expired; zero if no other key follows.
	gone time.Time
}

// newSigners returns keys in the order in which they sign, and adds their faults.
func newSigners(f config.Faults[usher.ConfigError], keys []SigningKey, typ string, access time.Duration, now time.Time) signers {
	if len(keys) == 0 {
		f.Add("Keys", "at least one is required with a Store")
		return nil
	}
	signs := false
	list := make(signers, 0, len(keys))
	for n, k := range keys {
		f := f.In(fmt.Sprintf("Keys[%d]", n))
		same := func(is func(SigningKey) bool) bool { return slices.ContainsFunc(keys[:n], is) }
		signs = signs || !k.From.After(now)
		switch {
		case k.Key == nil || k.Key.Algorithm() == "":
			f.Add("Key", "was not made by package jwk")
			continue
		case !k.Key.CanSign():
			f.Add("Key", "is public and cannot sign")
		case k.Key.ID() == "":
			f.Add("Key", "must have an ID, so that tokens can name it")
		case same(func(other SigningKey) bool { return other.Key != nil && other.Key.ID() == k.Key.ID() }):
			f.Add("Key", "must not have the same ID as another key")
		}
		f.If(same(func(other SigningKey) bool { return other.From.Equal(k.From) }), "From", "must not equal that of another key")
		list = append(list, signer{key: k.Key, header: tokenHeader(k.Key, typ), from: k.From})
	}
	f.If(!signs, "Keys", "one key must sign now; leave the From of the first one zero")
	slices.SortFunc(list, func(a, b signer) int { return a.from.Compare(b.from) })
	for n := range list {
		if n+1 < len(list) {
			list[n].gone = list[n+1].from.Add(access + maxLeeway)
		}
	}
	return list
}

// tokenHeader returns the first segment of the tokens that k signs, and a dot.
func tokenHeader(k *jwk.Key, typ string) string {
	// Strings always encode.
	header, _ := json.Marshal(struct {
		Algorithm jwk.Algorithm `json:"alg"`
		ID        string        `json:"kid"`
		Type      string        `json:"typ"`
	}{k.Algorithm(), k.ID(), typ})
	return jose.Encoding.EncodeToString(header) + "."
}

func (s *signer) isGone(now time.Time) bool { return !s.gone.IsZero() && !now.Before(s.gone) }

// signers are the keys of a Manager, in the order in which they sign.
type signers []signer

// at returns the key that signs at this time.
func (list signers) at(now time.Time) *signer {
	s := &list[0]
	for n := range list {
		if !list[n].from.After(now) {
			s = &list[n]
		}
	}
	return s
}

func (s *signer) isPublished(now time.Time) bool {
	return !s.key.Algorithm().Symmetric() && !s.isGone(now)
}

// Keys returns the keys that verify the access tokens, for a [jwtauth.Verifier] in this
// process: the key that signs, keys that will sign, and keys with a token that may still
// be valid.
func (m *Manager) Keys() jwk.Set { return m.signers }

// Find implements [jwk.Set].
func (list signers) Find(_ context.Context, kid string, a jwk.Algorithm) (keys []*jwk.Key, version uint64, err error) {
	now := time.Now()
	for n := range list {
		if s := &list[n]; !s.isGone(now) && s.key.Matches(kid, a) {
			keys = append(keys, s.key)
		}
	}
	return keys, list.version(now), nil
}

// Version implements [jwk.Set]. It is the number of keys whose tokens have all expired.
func (list signers) Version() (uint64, error) { return list.version(time.Now()), nil }

func (list signers) version(now time.Time) (n uint64) {
	for k := range list {
		if list[k].isGone(now) {
			n++
		}
	}
	return n
}

// ServeJWKS responds with the public keys of the Manager, for verifiers in other services
// (RFC 7517, section 5): the key that signs, keys that will sign, and keys with a token
// that may still be valid. Secrets are not published; if all keys are secrets, the set is
// empty.
//
//	mux.HandleFunc("/.well-known/jwks.json", manager.ServeJWKS)
//
// The response may be cached for 5 minutes, and pages of every origin may read it. No
// envelope wraps it.
func (m *Manager) ServeJWKS(w http.ResponseWriter, r *http.Request) {
	body, err := m.publicKeys(time.Now())
	if err != nil {
		usher.Fail(w, r, err)
		return
	}
	d := document.Document{Body: body, Type: "application/jwk-set+json", MaxAge: 5 * time.Minute, AnyOrigin: true}
	document.Serve(w, r, d, usher.MethodNotAllowed)
}

func (m *Manager) publicKeys(now time.Time) ([]byte, error) {
	set := struct {
		Keys []*jwk.Key `json:"keys"`
	}{[]*jwk.Key{}}
	for n := range m.signers {
		s := &m.signers[n]
		if s.isPublished(now) {
			set.Keys = append(set.Keys, s.key)
		}
	}
	return json.Marshal(set)
}
