package idempotency

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
)

// validate returns the error for a key that Config.ValidKey does not accept.
func (m *Middleware) validate(ctx context.Context, key string) error {
	valid := false
	err := guard.Run(func() error {
		valid = m.config.ValidKey(key)
		return nil
	})
	switch {
	case err != nil:
		err = fmt.Errorf("idempotency: Config.ValidKey: %w", err)
		m.failures.Error(ctx, err)
		return unavailable(err)
	case !valid:
		return m.refusals.unfit
	}
	return nil
}

// IsUUID reports whether key is a UUID of any version in the text form of RFC 9562, section
// 4, in lower or upper case. The Nil and the Max UUID are none, as they come from variables
// that were never set: all requests of a caller would share a key. IsUUID is a ready
// [Config.ValidKey].
func IsUUID(key string) bool {
	if len(key) != len("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx") {
		return false
	}
	zeros, ones := true, true
	for i := range len(key) {
		c := key[i] | 0x20 // in lower case, if it is a letter
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if key[i] != '-' {
				return false
			}
		case '0' <= key[i] && key[i] <= '9' || 'a' <= c && c <= 'f':
			zeros, ones = zeros && c == '0', ones && c == 'f'
		default:
			return false
		}
	}
	return !zeros && !ones
}

// appendPart appends the length of s and s, so that different lists of parts never have
// the same bytes.
func appendPart(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// The kinds of owners, as the first part of what is hashed.
const (
	byPrincipal = "principal"
	byOwner     = "owner"
	byNobody    = "anonymous"
)

// appendOwner appends the owner of the keys of r. It returns false if there is none.
func (m *Middleware) appendOwner(b []byte, r *http.Request) ([]byte, bool) {
	if m.config.Owner != nil {
		owner, ok := m.config.Owner(r)
		return appendPart(appendPart(b, byOwner), owner), ok
	}
	if p, ok := usher.PrincipalFrom(r.Context()); ok {
		return appendPrincipal(b, &p), true
	}
	return appendPart(b, byNobody), m.config.DangerouslyAllowAnonymous
}

// appendPrincipal appends what identifies a principal as an owner.
func appendPrincipal(b []byte, p *usher.Principal) []byte {
	b = appendPart(b, byPrincipal)
	b = appendPart(b, string(p.Kind))
	return appendPart(b, cmp.Or(p.Line, p.ID))
}

// unmatched is the route of a request that no router has matched yet. No router has
// this pattern.
const unmatched = " "

// route returns the pattern that r has matched, or an empty one.
func (m *Middleware) route(r *http.Request) string {
	if m.config.Route != nil {
		return m.config.Route(r)
	}
	return r.Pattern
}

// appendName appends the method, the route and the client's key.
func appendName(b []byte, method, route, key string) []byte {
	b = appendPart(b, method)
	b = appendPart(b, cmp.Or(route, unmatched))
	return appendPart(b, key)
}

// A keyDigest identifies a [Key] inside the record that is stored under it. One half
// comes from the owner, the other from the name. Both are hashes, so no two keys share a
// digest.
type keyDigest [16]byte

func (k *Key) digest() keyDigest { return digestOf(&k.Owner, &k.Name) }

func digestOf(owner, name *[32]byte) (d keyDigest) {
	copy(d[:8], owner[:])
	copy(d[8:], name[:])
	return d
}

// storeKey returns the key of the record for r. It overwrites scratch, and returns it in
// case it has grown.
func (m *Middleware) storeKey(scratch []byte, r *http.Request, key string) (k Key, grown []byte, ok bool) {
	b, ok := m.appendOwner(scratch[:0], r)
	if !ok {
		return k, b, false
	}
	k.Owner = m.owners.sum(b)
	b = appendName(b[:0], r.Method, m.route(r), key)
	k.Name = sha256.Sum256(b)
	return k, b, true
}
