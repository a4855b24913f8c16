package idempotency

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// A stored answer is, with integers in big-endian order:
//
//	0   version
//	1   kind
//	2   flags
//	3   status, 2 bytes
//	5   length of the header, 4 bytes
//	9   length of the body, 4 bytes
//	13  CRC-32 (Castagnoli) of everything else, 4 bytes
//	17  digest of the key, 16 bytes
//	33  header: name and value in turn, each after its length as a varint
//	    body
const (
	answerVersion = 1
	sumAt         = 13
	keyAt         = 17
	headerAt      = 33
)

// A kind says what a stored answer is for.
type kind uint8

const (
	replayable kind = 1 // give it again
	notKept    kind = 2 // the request ran; its answer could not be kept
	unknown    kind = 3 // the request may have had an effect
)

// flagRendered is set for an answer that has the shape of the service already.
const flagRendered = 1

var (
	errCorrupt = errors.New("idempotency: the stored answer is damaged")
	errVersion = errors.New("idempotency: the stored answer is of another version of this package")
	errForeign = errors.New("idempotency: the stored response belongs to another key")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// appendHead begins an answer: with the fields of h that are kept, whose names
// come sorted. A Content-Encoding of outer is that of a compressor further out, which
// has not seen the body yet and compresses each replay anew.
func appendHead(b []byte, status int, h http.Header, kept, outer []string) []byte {
	b = append(b, answerVersion, byte(replayable), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(status))
	b = append(b, make([]byte, headerAt-len(b))...)
	for name, values := range h {
		if _, keep := slices.BinarySearch(kept, name); !keep {
			continue
		}
		if name == "Content-Encoding" && slices.Equal(values, outer) {
			continue
		}
		for _, value := range values {
			b = appendPart(b, name)
			b = appendPart(b, value)
		}
	}
	binary.BigEndian.PutUint32(b[5:], uint32(len(b)-headerAt))
	return b
}

// seal ends a response to which the body has been appended, and binds it to key.
func seal(b []byte, flags byte, key *Key) {
	b[2] = flags
	digest := key.digest()
	copy(b[keyAt:], digest[:])
	header := int(binary.BigEndian.Uint32(b[5:]))
	binary.BigEndian.PutUint32(b[9:], uint32(len(b)-headerAt-header))
	binary.BigEndian.PutUint32(b[sumAt:], sum(b))
}

// bodyOf returns the body of an answer that is not sealed yet.
func bodyOf(b []byte) []byte { return b[headerAt+binary.BigEndian.Uint32(b[5:]):] }

// mark returns an answer that is only a kind.
func mark(k kind, status int, key *Key) []byte {
	b := appendHead(make([]byte, 0, headerAt), status, nil, nil, nil)
	b[1] = byte(k)
	seal(b, 0, key)
	return b
}

func sum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:sumAt], castagnoli), castagnoli, b[keyAt:])
}

// An answer is a stored one, read. The body is a part of the stored bytes.
type answer struct {
	kind     kind
	rendered bool
	status   int
	header   []byte
	body     []byte
}

// readAnswer reads the response that is stored under key. It allocates nothing.
func readAnswer(b []byte, key *Key) (a answer, err error) {
	if len(b) > 0 && b[0] != answerVersion {
		return a, errVersion
	}
	if len(b) < headerAt {
		return a, errCorrupt
	}
	rest := b[headerAt:]
	header, body := binary.BigEndian.Uint32(b[5:]), binary.BigEndian.Uint32(b[9:])
	if uint64(header)+uint64(body) != uint64(len(rest)) || binary.BigEndian.Uint32(b[sumAt:]) != sum(b) {
		return a, errCorrupt
	}
	if keyDigest(b[keyAt:]) != key.digest() {
		return a, errForeign
	}
	a = answer{
		kind:     kind(b[1]),
		rendered: b[2]&flagRendered != 0,
		status:   int(binary.BigEndian.Uint16(b[3:])),
		header:   rest[:header],
		body:     rest[header:],
	}
	known := a.kind == notKept || a.kind == unknown || a.kind == replayable && a.status >= 200 && a.status <= 999
	if !known || !validHeader(a.header) {
		return answer{}, errCorrupt
	}
	return a, nil
}

// cutPart returns the part that b begins with and what follows it.
func cutPart(b []byte) (part, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	return b[size : size+int(n)], b[size+int(n):], true
}

func validHeader(b []byte) bool {
	for ok := true; len(b) > 0; {
		if _, b, ok = cutPart(b); !ok {
			return false
		}
		if _, b, ok = cutPart(b); !ok {
			return false
		}
	}
	return true
}

// setHeader sets the stored fields in h, and one more field. All text is made in
// one piece, as are the slices of values, each of which belongs to this response
// alone and has room for no other.
func (a *answer) setHeader(h http.Header, name, value string) {
	fields := 1
	for b := a.header; len(b) > 0; fields++ {
		_, b, _ = cutPart(b)
		_, b, _ = cutPart(b)
	}
	values := make([]string, fields)
	values[0] = value
	h[name] = values[0:1:1]
	text := string(a.header)
	last, n := "", 1
	for b := a.header; len(b) > 0; n++ {
		var part []byte
		at := func() int { return len(text) - len(b) }
		part, b, _ = cutPart(b)
		name := text[at()-len(part) : at()]
		part, b, _ = cutPart(b)
		values[n] = text[at()-len(part) : at()]
		switch {
		case neverStored(name):
		case name == last:
			h[name] = append(h[name], values[n])
		default:
			h[name] = values[n : n+1 : n+1]
			last = name
		}
	}
}

// storedFields are the fields of an answer that are stored by default.
var storedFields = []string{
	"Allow", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language",
	"Content-Location", "Content-Type", "Etag", "Last-Modified", "Link", "Location",
	"Vary", "X-Content-Type-Options",
}

// neverStored reports whether a field belongs to one exchange and not to an
// answer: secrets, challenges, the state of limits, and what the connection or
// the server sees to.
func neverStored(name string) bool {
	switch name {
	case "Set-Cookie", "Set-Cookie2", "Authorization", "Www-Authenticate", "Proxy-Authenticate",
		"Authentication-Info", "Proxy-Authentication-Info",
		"Retry-After", "Ratelimit", "Ratelimit-Policy", "Ratelimit-Limit", "Ratelimit-Remaining", "Ratelimit-Reset",
		"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Content-Length", "Date", "X-Request-Id":
		return true
	}
	return strings.HasPrefix(name, "X-Ratelimit-")
}

// fieldsToStore returns the names of all fields to store, in canonical form.
func fieldsToStore(more []string) []string {
	names := slices.Clone(storedFields)
	for _, name := range more {
		names = append(names, textproto.CanonicalMIMEHeaderKey(name))
	}
	slices.Sort(names)
	return slices.Compact(names)
}
