package idempotency

import (
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"strings"

	"github.com/usher-go/usher"
)

// maxKey is the longest key of a client, in bytes.
const maxKey = 255

// parseKey returns the key in the value of a header field: raw, or as a String of
// RFC 8941 without parameters, which is the same key. A key has 1 to 255 visible
// characters of ASCII.
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

// unquote returns the text of a String (RFC 8941, section 3.3.3), in which only
// the quote and the backslash are escaped.
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

// appendPart appends s and its length before it, so that no two lists of parts
// are the same bytes.
func appendPart(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// Who may be the owner of a key, as the first part of what is hashed.
const (
	byPrincipal = "principal"
	byOwner     = "owner"
	byNobody    = "anonymous"
)

// owner appends to b who calls, and reports whether r has anybody.
func (m *Middleware) owner(b []byte, r *http.Request) ([]byte, bool) {
	if m.config.Owner != nil {
		owner, ok := m.config.Owner(r)
		return appendPart(appendPart(b, byOwner), owner), ok
	}
	if p, ok := usher.PrincipalFrom(r.Context()); ok {
		b = appendPart(b, byPrincipal)
		b = appendPart(b, string(p.Kind))
		return appendPart(b, p.ID), true
	}
	return appendPart(b, byNobody), m.config.DangerouslyAllowAnonymous
}

// unmatched is the route of a request that no router has matched yet. It is no
// pattern of a router.
const unmatched = " "

// name appends to b what the key names: the method, the route and the key.
func (m *Middleware) name(b []byte, r *http.Request, key string) []byte {
	route := r.Pattern
	if m.config.Route != nil {
		route = m.config.Route(r)
	}
	if route == "" {
		route = unmatched
	}
	b = appendPart(b, r.Method)
	b = appendPart(b, route)
	return appendPart(b, key)
}

// A keyDigest stands for a [Key] in what a store keeps with it: half of it for the
// owner and half for the name. Both are hashes, so no two keys share it.
type keyDigest [16]byte

func (k *Key) digest() (d keyDigest) {
	copy(d[:8], k.Owner[:])
	copy(d[8:], k.Name[:])
	return d
}

// fingerprint returns the fingerprint of a request with this key. The first half
// is the digest of the key, so that a store cannot pass off the record of another
// key as this one's; the second is a hash of the request.
func fingerprint(key *Key, request []byte) (f [32]byte) {
	digest, hash := key.digest(), sha256.Sum256(request)
	copy(f[copy(f[:], digest[:]):], hash[:])
	return f
}

// appendRequest appends what the fingerprint is of, but for the body. The target is
// there as the client sent it and as the request has it now: between the two are
// those who strip prefixes and those who rewrite paths.
func appendRequest(b []byte, r *http.Request) []byte {
	b = appendPart(b, r.Method)
	b = appendPart(b, strings.ToLower(r.Host))
	b = appendPart(b, originForm(r.RequestURI))
	b = appendPart(b, r.URL.EscapedPath())
	b = appendPart(b, r.URL.RawQuery)
	types := r.Header["Content-Type"]
	b = binary.AppendUvarint(b, uint64(len(types)))
	for _, t := range types {
		b = appendPart(b, mediaType(t))
	}
	codings := r.Header["Content-Encoding"]
	b = binary.AppendUvarint(b, uint64(len(codings)))
	for _, c := range codings {
		b = appendPart(b, strings.ToLower(c))
	}
	return b
}

// originForm returns a request target without what its absolute form adds (RFC
// 9112, section 3.2.2): the scheme, and the host, which the server has taken from it.
func originForm(target string) string {
	if strings.HasPrefix(target, "/") {
		return target
	}
	_, target, _ = strings.Cut(target, "://")
	if i := strings.IndexAny(target, "/?"); i >= 0 {
		return target[i:]
	}
	return "/"
}

// mediaType returns the type without its parameters: the boundary of a multipart
// body is in the body as well.
func mediaType(value string) string {
	value, _, _ = strings.Cut(value, ";")
	return strings.ToLower(strings.TrimSpace(value))
}

// storeKey returns the key of the record for r. The scratch is overwritten.
func (m *Middleware) storeKey(scratch []byte, r *http.Request, key string) (k Key, scratchNow []byte, ok bool) {
	b, ok := m.owner(scratch[:0], r)
	if !ok {
		return k, b, false
	}
	k.Owner = sha256.Sum256(b)
	b = m.name(b[:0], r, key)
	k.Name = sha256.Sum256(b)
	return k, b, true
}
