package idempotency

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// A requestHash hashes requests. The zero requestHash is SHA-256, which is the same in every
// process. With seeds it is two hashes of 64 bits, of which no client can predict any bit:
// that suffices inside a process, as a caller that found a collision would only get a
// response of its own, and takes a fifth of the time.
type requestHash struct{ seeds *[2]maphash.Seed }

func newRequestHash() requestHash {
	return requestHash{&[2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
}

// fingerprint returns the fingerprint of a request with this key. The first half is the
// digest of the key, so that the record of another key is recognized as such; the second
// half is a hash of the request.
func (h requestHash) fingerprint(key *Key, request []byte) (f [32]byte) {
	digest := key.digest()
	half := f[copy(f[:], digest[:]):]
	if h.seeds == nil {
		sum := sha256.Sum256(request)
		copy(half, sum[:])
		return f
	}
	binary.LittleEndian.PutUint64(half, maphash.Bytes(h.seeds[0], request))
	binary.LittleEndian.PutUint64(half[8:], maphash.Bytes(h.seeds[1], request))
	return f
}

// appendRequest appends what the fingerprint covers, except for the body. It covers the
// target both as the client sent it and as it is now, because an outer middleware may
// strip prefixes or rewrite paths. Of the header it covers also the fields with the given
// names, if the request has them.
func appendRequest(b []byte, r *http.Request, fields []string) []byte {
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
	for _, name := range fields {
		values := r.Header[name]
		if len(values) == 0 {
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(values)))
		b = appendPart(b, name)
		for _, v := range values {
			b = appendPart(b, v)
		}
	}
	return append(b, 0) // no further field
}

// listedFields returns the canonical names of Config.FingerprintHeaders, each once and in
// one order, so that the order of the list has no meaning.
func listedFields(names []string) []string {
	listed := make([]string, len(names))
	for i, name := range names {
		listed[i] = textproto.CanonicalMIMEHeaderKey(name)
	}
	slices.Sort(listed)
	return slices.Compact(listed)
}

// unfitField returns why a fingerprint cannot cover the field with this canonical name, or
// "". A retry often carries another credential, as tokens expire, and it may be sent in
// another way. The response would be that the key was used for another request, upon which a
// caller may repeat the effect with a new key.
func unfitField(name, keyHeader string) string {
	switch name {
	case "Authorization", "Proxy-Authorization", "Cookie":
		return "must not be " + name + ", as a retry may carry a new credential"
	case "Connection", "Content-Length", "Date", "Expect", "Te", "Trailer", "Transfer-Encoding", "Traceparent", "Tracestate", "X-Request-Id":
		return "must not be " + name + ", which belongs to a single exchange"
	case "Host", "Content-Type", "Content-Encoding":
		return "must not be " + name + ", which is always compared"
	case keyHeader:
		return "must not be the field of the key"
	}
	return ""
}

// originForm returns a request target without the scheme and host of the absolute form
// (RFC 9112, section 3.2.2). The server has copied the host to r.Host.
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

// mediaType returns the type without its parameters. The one that matters, the boundary of
// a multipart body, has its effect on the body.
func mediaType(value string) string {
	value, _, _ = strings.Cut(value, ";")
	return strings.ToLower(strings.TrimSpace(value))
}
