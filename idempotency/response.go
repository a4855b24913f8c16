package idempotency

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/unrendered"
)

// A Response is a response as it is stored.
//
// The shape of an envelope around the middleware is not stored, but put around the response
// again when that is sent. So of what a handler has passed to usher.Respond, Body is the
// encoded data alone; its code, message and page are stored beside. Of an error that was
// passed to usher.Fail, Body is a JSON object with those of its public members code, type,
// message, param, errors and details that are not empty.
type Response struct {
	// Status is the final status.
	Status int
	// Header has the header fields that are stored with a response, by their canonical
	// names. Others are ignored: see [Config.KeepHeaders].
	Header http.Header
	// Body is the body.
	Body []byte
}

// A stored response has this form, with integers in big-endian order:
//
//	0   version
//	1   flags
//	2   status, 2 bytes
//	4   length of the header, 4 bytes
//	8   length of the form, 4 bytes
//	12  length of the body, 4 bytes
//	16  CRC-32 (Castagnoli) of everything else, 4 bytes
//	20  digest of the key, 16 bytes
//	36  header: name and value in turn, each preceded by its length as a varint
//	    form: how the body gets the shape of the service, or nothing for a body as it is sent
//	    body
const (
	responseVersion = 2
	flagsAt         = 1
	statusAt        = 2
	headerLengthAt  = 4
	formLengthAt    = 8
	bodyLengthAt    = 12
	sumAt           = 16
	digestAt        = 20
	headerAt        = 36
)

// The flags of a stored response.
const (
	// flagRendered is set if the response already has the shape of the service.
	flagRendered = 1
	// flagUntyped is set if the handler has kept the server from detecting the type.
	flagUntyped = 2
)

var (
	errCorrupt  = fmt.Errorf("idempotency: the stored response is damaged: %w", usher.ErrCorrupt)
	errOtherKey = fmt.Errorf("idempotency: the stored response belongs to another key: %w", usher.ErrCorrupt)
	errVersion  = errors.New("idempotency: the response was stored by another version of this package")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// appendHead begins a response with the fields of h whose names are in kept. A
// Content-Encoding equal to outer belongs to an outer compressor, which has not
// seen the body yet and compresses each replay itself.
func appendHead(b []byte, status int, h http.Header, kept, outer []string) []byte {
	b = append(b, responseVersion, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(status))
	b = append(b, make([]byte, headerAt-len(b))...)
	for name, values := range h {
		if len(values) == 0 && name == "Content-Type" {
			b[flagsAt] |= flagUntyped
		}
		// Few names have the same length, so that this compares little but lengths.
		if !slices.Contains(kept, name) || neverStored(name, status) {
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
	binary.BigEndian.PutUint32(b[headerLengthAt:], uint32(len(b)-headerAt))
	return b
}

// appendForm appends the form to a response, which then gets its body.
func appendForm(b []byte, form *unrendered.Form) []byte {
	start := len(b)
	b = form.Append(b)
	binary.BigEndian.PutUint32(b[formLengthAt:], uint32(len(b)-start))
	return b
}

// seal completes a response to which the body has been appended, and binds it to key.
func seal(b []byte, flags byte, key *Key) {
	b[flagsAt] |= flags
	digest := key.digest()
	copy(b[digestAt:], digest[:])
	binary.BigEndian.PutUint32(b[bodyLengthAt:], uint32(len(bodyOf(b))))
	binary.BigEndian.PutUint32(b[sumAt:], sum(b))
}

// bodyOf returns the body of a response that is not sealed yet.
func bodyOf(b []byte) []byte {
	return b[headerAt+binary.BigEndian.Uint32(b[headerLengthAt:])+binary.BigEndian.Uint32(b[formLengthAt:]):]
}

func sum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:sumAt], castagnoli), castagnoli, b[digestAt:])
}

// A storedResponse is what readResponse returns. Header, form and body are parts of the
// stored bytes.
type storedResponse struct {
	rendered bool
	untyped  bool
	status   int
	fields   int // of the header
	header   []byte
	form     []byte
	body     []byte
}

// readResponse reads the response that is stored under key. It does not allocate.
func readResponse(b []byte, key *Key) (r storedResponse, err error) {
	if len(b) > 0 && b[0] != responseVersion {
		return r, errVersion
	}
	if len(b) < headerAt {
		return r, errCorrupt
	}
	rest := b[headerAt:]
	length := func(at int) uint64 { return uint64(binary.BigEndian.Uint32(b[at:])) }
	header, form, body := length(headerLengthAt), length(formLengthAt), length(bodyLengthAt)
	if header+form+body != uint64(len(rest)) || binary.BigEndian.Uint32(b[sumAt:]) != sum(b) {
		return r, errCorrupt
	}
	if keyDigest(b[digestAt:]) != key.digest() {
		return r, errOtherKey
	}
	fields, ok := countFields(rest[:header])
	if !ok {
		return r, errCorrupt
	}
	r = storedResponse{
		rendered: b[flagsAt]&flagRendered != 0,
		untyped:  b[flagsAt]&flagUntyped != 0,
		status:   int(binary.BigEndian.Uint16(b[statusAt:])),
		fields:   fields,
		header:   rest[:header],
		form:     rest[header : header+form],
		body:     rest[header+form:],
	}
	if r.status < 200 || r.status > 999 {
		return storedResponse{}, errCorrupt
	}
	return r, nil
}

// cutPart returns the first part of b and the rest.
func cutPart(b []byte) (part, rest []byte, ok bool) {
	if len(b) > 0 && int(b[0]) < min(len(b), 1<<7) { // almost always
		end := 1 + int(b[0])
		return b[1:end], b[end:], true
	}
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	return b[size : size+int(n)], b[size+int(n):], true
}

// countFields returns the number of fields in a stored header.
func countFields(b []byte) (n int, ok bool) {
	for ; len(b) > 0; n++ {
		if _, b, ok = cutPart(b); !ok {
			return 0, false
		}
		if _, b, ok = cutPart(b); !ok {
			return 0, false
		}
	}
	return n, true
}

// setHeader sets the stored fields in h, and the field with this name. All text is
// allocated at once, and so are the slices of values. These are not shared with other
// responses, and appending to one does not overwrite the next.
func (r *storedResponse) setHeader(h http.Header, name, value string) {
	values := make([]string, 1+r.fields)
	values[0] = value
	h[name] = values[0:1:1]
	if r.untyped {
		h["Content-Type"] = nil
	}
	text := string(r.header)
	last, n := "", 1
	for b := r.header; len(b) > 0; n++ {
		var part []byte
		at := func() int { return len(text) - len(b) }
		part, b, _ = cutPart(b)
		name := text[at()-len(part) : at()]
		part, b, _ = cutPart(b)
		values[n] = text[at()-len(part) : at()]
		switch {
		case neverStored(name, r.status):
		case name == last:
			h[name] = append(h[name], values[n])
		default:
			h[name] = values[n : n+1 : n+1]
			last = name
		}
	}
}

// readUnsealed returns the parts of a response that is not sealed yet.
func readUnsealed(b []byte) storedResponse {
	header := b[headerAt : headerAt+binary.BigEndian.Uint32(b[headerLengthAt:])]
	return storedResponse{
		untyped: b[flagsAt]&flagUntyped != 0,
		status:  int(binary.BigEndian.Uint16(b[statusAt:])), header: header, body: bodyOf(b),
	}
}

// response returns a copy of r.
func (r *storedResponse) response() *Response {
	h := make(http.Header)
	if r.untyped {
		h["Content-Type"] = nil
	}
	for rest := r.header; len(rest) > 0; {
		var name, value []byte
		name, rest, _ = cutPart(rest)
		value, rest, _ = cutPart(rest)
		h[string(name)] = append(h[string(name)], string(value))
	}
	return &Response{Status: r.status, Header: h, Body: bytes.Clone(r.body)}
}

// standardHeaders are the header fields that are always stored.
var standardHeaders = []string{
	"Allow", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language",
	"Content-Location", "Content-Type", "Etag", "Last-Modified", "Link", "Location",
	"Retry-After", "Vary", "X-Content-Type-Options",
}

// neverStored reports whether a header field of a response with this status belongs to a
// single exchange: secrets, challenges, the state of limits, and fields of the connection
// or the server. Retry-After belongs to the resource after a success and in a redirect, as
// in a 202 whose location is polled. In an error it says when the request may be repeated,
// which does not apply to a response that is final.
func neverStored(name string, status int) bool {
	switch name {
	case "Retry-After":
		return status >= 400
	case "Set-Cookie", "Set-Cookie2", "Authorization", "Www-Authenticate", "Proxy-Authenticate",
		"Authentication-Info", "Proxy-Authentication-Info",
		"Ratelimit", "Ratelimit-Policy", "Ratelimit-Limit", "Ratelimit-Remaining", "Ratelimit-Reset",
		"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Content-Length", "Date", "X-Request-Id":
		return true
	}
	return strings.HasPrefix(name, "X-Ratelimit-")
}

// keptHeaders returns the names of all header fields to store, sorted and in canonical
// form.
func keptHeaders(more []string) []string {
	names := slices.Clone(standardHeaders)
	for _, name := range more {
		names = append(names, textproto.CanonicalMIMEHeaderKey(name))
	}
	slices.Sort(names)
	return slices.Compact(names)
}
