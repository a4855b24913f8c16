package idempotency

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"strings"

	"github.com/usher-go/usher"
)

// maxKey is the maximum length of a client's key, in bytes.
const maxKey = 255

// parseKey returns the key in the value of a header field. A key has 1 to 255 visible
// ASCII characters. It is sent as it is, or as an RFC 8941 String without parameters;
// both are the same key.
func parseKey(value string) (key string, ok bool) {
	if strings.HasPrefix(value, `"`) {
		if value, ok = unquote(value); !ok {
			return "", false
		}
	}
	if value == "" || len(value) > maxKey {
		return "", false
	}
	for i := range len(value) {
		if value[i] <= ' ' || value[i] >= 0x7f {
			return "", false
		}
	}
	return value, true
}

// unquote returns the value of an RFC 8941 String (section 3.3.3), in which only quotes
// and backslashes are escaped.
func unquote(s string) (string, bool) {
	if len(s) < 2 || len(s) > 2*maxKey+2 || s[len(s)-1] != '"' {
		return "", false
	}
	s = s[1 : len(s)-1]
	if strings.IndexByte(s, '\\') < 0 {
		return s, strings.IndexByte(s, '"') < 0
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return "", false
		case '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), true
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
	return appendPart(b, p.ID)
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

func (k *Key) digest() (d keyDigest) {
	copy(d[:8], k.Owner[:])
	copy(d[8:], k.Name[:])
	return d
}

// storeKey returns the key of the record for r. It overwrites scratch, and returns it in
// case it has grown.
func (m *Middleware) storeKey(scratch []byte, r *http.Request, key string) (k Key, grown []byte, ok bool) {
	b, ok := m.appendOwner(scratch[:0], r)
	if !ok {
		return k, b, false
	}
	k.Owner = sha256.Sum256(b)
	b = appendName(b[:0], r.Method, m.route(r), key)
	k.Name = sha256.Sum256(b)
	return k, b, true
}
