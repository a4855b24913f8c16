package ratelimit

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
)

// A Key identifies whom a policy counts: an address, or any text. Keys are comparable, and
// never change. The zero Key is the one that all requests share under [Global].
type Key struct {
	// Keys of different origins differ: the ID of an API key and the subject of a token may
	// be the same text. So a key has one of these forms. A struct of more than four words
	// would be copied through memory, which takes a tenth of the time of a decision.
	//
	//	                  hi, lo                      text
	//	an address        its 16-byte form            ""
	//	a text            its origin, 0               the text
	//	a long text       its digest, with an odd lo  the name of its origin
	//	an empty text     0, 2                        the name of its origin
	hi, lo uint64
	text   string
}

// An origin is a name in one machine word, which is quicker to hash and to compare than
// the name. It is 0 for addresses alone.
type origin uint64

func originOf(name string) origin {
	if len(name) <= 8 {
		var b [8]byte
		copy(b[:], name)
		return origin(binary.BigEndian.Uint64(b[:]))
	}
	// Names come from the program: a collision of FNV-1a would be an accident of
	// one in 2^63, and no name of eight ASCII bytes has the highest bit.
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return origin(h | 1<<63)
}

const (
	textName     = "text"
	routeName    = "route"
	ownerName    = "owner"
	unknownName  = "unknown"
	combinedName = "combined"
	noName       = "\xff" // of a [usher.Kind] that is empty
)

const addressOrigin origin = 0

var (
	textOrigin     = originOf(textName)
	routeOrigin    = originOf(routeName)
	ownerOrigin    = originOf(ownerName)
	combinedOrigin = originOf(combinedName)
)

// longest is the length of the longest text that a key contains.
const longest = 64

// keyOf returns the key for a text. Clients may choose texts of any length, so a long one
// is kept as a digest: stores spend as little on its key as on any other. No key with a
// digest equals one with a text or an address, and no two texts with equal digests are
// known.
func keyOf(name, text string) Key {
	switch {
	case text == "":
		return Key{lo: 2, text: name}
	case len(text) > longest:
		hi, lo := hashText(text)
		return Key{hi, lo | 1, name}
	default:
		return Key{hi: uint64(originOf(name)), text: text}
	}
}

// isText reports whether k contains its text.
func (k *Key) isText() bool { return k.lo == 0 && k.text != "" }

// parts returns the origin of k, and its address or digest or text.
func (k *Key) parts() (o origin, hi, lo uint64, text string) {
	switch {
	case k.isText():
		return origin(k.hi), 0, 0, k.text
	case k.text == "":
		return addressOrigin, k.hi, k.lo, ""
	case k.lo == 2:
		return originOf(k.text), 0, 0, ""
	default:
		return originOf(k.text), k.hi, k.lo, ""
	}
}

// hashText returns the first 16 bytes of the SHA-256 digest of a text. It allocates nothing.
func hashText[T string | []byte](text T) (hi, lo uint64) {
	h := sha256.New()
	// Sum256 of a text would copy it to the heap.
	var buf [512]byte
	for len(text) > 0 {
		n := copy(buf[:], text)
		h.Write(buf[:n])
		text = text[n:]
	}
	sum := h.Sum(buf[:0])
	return binary.BigEndian.Uint64(sum), binary.BigEndian.Uint64(sum[8:])
}

// TextKey returns the key for a text, for instance the name in a login. It is never the key
// of an account, a caller or an address: for these, see [OwnerKey], [PrincipalKey] and
// [AddressKey]. A long text costs its hash for each request, and takes no more memory than a
// short one.
func TextKey(text string) Key {
	if text == "" || len(text) > longest {
		return keyOf(textName, text)
	}
	return Key{hi: uint64(textOrigin), text: text}
}

// AddressKey returns the key that [ByAddress] returns for requests from a block of addresses:
// a whole IPv4 address, or the network of an IPv6 client, of 64 bits by default (see
// [clientip.Network]). Bits of the address beyond the length of the block do not matter:
//
//	key := ratelimit.AddressKey(netip.PrefixFrom(addr, 64)) // of an IPv6 client
//
// An IPv4 address and its IPv4-mapped form are the same. A block that is not valid has the
// zero Key.
func AddressKey(p netip.Prefix) Key { return addressKey(p.Masked()) }

// addressKey returns the key for a block whose address has no further bits.
func addressKey(p netip.Prefix) Key {
	b := p.Addr().As16()
	return Key{hi: binary.BigEndian.Uint64(b[:8]), lo: binary.BigEndian.Uint64(b[8:])}
}

// PrincipalKey returns the key that [ByPrincipal] returns for requests of p.
func PrincipalKey(p usher.Principal) Key {
	return keyOf(cmp.Or(string(p.Kind), noName), cmp.Or(p.Line, p.ID))
}

// OwnerKey returns the key that [ByOwner] returns for requests of this account.
func OwnerKey(owner string) Key { return keyOf(ownerName, owner) }

// String returns a text that is different for each key. If the [KeyFunc] takes keys from a
// request, the text may have any bytes, at most 128 of them. Stores keep [Key.Digest] instead.
func (k Key) String() string { return string(k.append(nil)) }

// append prefixes the text with its length, so that no key is part of another.
func (k Key) append(b []byte) []byte {
	o, hi, lo, text := k.parts()
	for _, n := range [...]uint64{uint64(o), hi, lo} {
		b = strconv.AppendUint(b, n, 36)
		b = append(b, ':')
	}
	b = strconv.AppendInt(b, int64(len(text)), 10)
	b = append(b, ':')
	return append(b, text...)
}

// clone returns a key that keeps no request alive.
func (k Key) clone() Key {
	k.text = strings.Clone(k.text)
	return k
}

// A KeyFunc returns the key of a request under one policy, and whether the policy counts
// the request at all. It must be safe for concurrent use. A key that is taken from anything
// a client sends, other than a verified credential, lets the client choose its own counter.
// Add a policy by address to it, as a login does.
type KeyFunc func(r *http.Request) (Key, bool)

// Global counts all requests together.
func Global() KeyFunc {
	return func(*http.Request) (Key, bool) { return Key{}, true }
}

// ByAddress counts each client address, IPv6 addresses by their network
// ([clientip.Network]). Behind a proxy, put a [clientip.Resolver] outside the limiter:
// without one, or with one inside, all clients of the proxy share its key, so that one of
// them uses up the limit of all. To test this, call [clientip.Of] with the request that
// ushertest.Watched.Reached returns: it returns the address that counts.
//
// Requests whose address is unknown share one key, or one for each trusted proxy that has
// forwarded them without an address that can be read ([clientip.Via]). Such a key is never
// that of the proxy itself, nor of any other address.
func ByAddress() KeyFunc { return byAddress }

func byAddress(r *http.Request) (Key, bool) {
	n := clientip.Network(r)
	if !n.IsValid() {
		name := ""
		if via := clientip.Via(r); via.IsValid() {
			name = via.String()
		}
		return keyOf(unknownName, name), true
	}
	return addressKey(n), true
}

// ByPrincipal counts each caller that [usher.Authenticate] has admitted, by the kind of the
// credential and its Line, so that a rotated API key has the limit of the one that it
// replaces. Anonymous requests are counted by address.
func ByPrincipal() KeyFunc {
	return func(r *http.Request) (Key, bool) {
		p, ok := usher.PrincipalFrom(r.Context())
		if !ok {
			return byAddress(r)
		}
		return PrincipalKey(p), true
	}
}

// ByOwner counts each account, whichever of its credentials is used. A
// credential without an owner is counted by itself, anonymous requests by
// address.
func ByOwner() KeyFunc {
	return func(r *http.Request) (Key, bool) {
		p, ok := usher.PrincipalFrom(r.Context())
		switch {
		case !ok:
			return byAddress(r)
		case p.Owner == "":
			return PrincipalKey(p), true
		default:
			return OwnerKey(p.Owner), true
		}
	}
}

// ByRoute counts each route, by the pattern that the router has matched: put the limiter
// inside the router, or inside [usher.Pattern]. Requests that match no route share one
// key, and so do all requests whose pattern is not known yet.
func ByRoute() KeyFunc {
	return func(r *http.Request) (Key, bool) { return keyOf(routeName, r.Pattern), true }
}

// Combine counts every combination of the given keys, for instance
// Combine(ByPrincipal(), ByRoute()). It counts a request only if all of them do.
func Combine(keys ...KeyFunc) KeyFunc {
	keys = slices.Clone(keys)
	return func(r *http.Request) (Key, bool) {
		var buf [128]byte
		b := buf[:0]
		for _, f := range keys {
			k, ok := f(r)
			if !ok {
				return Key{}, false
			}
			b = k.append(b)
		}
		if len(b) > longest {
			hi, lo := hashText(b)
			return Key{hi, lo | 1, combinedName}, true
		}
		return keyOf(combinedName, string(b)), true
	}
}
