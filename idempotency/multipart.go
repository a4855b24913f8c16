package idempotency

import (
	"bytes"
	"encoding/binary"
	"mime"
	"net/http"
	"strings"
)

// fingerprintOf returns the fingerprint of r with this key. The bytes are what
// appendRequest has appended, and from bodyAt on the body.
//
// A multipart body counts by its parts: a client that builds a form again, as browsers do
// for each attempt, chooses another boundary.
func (h requestHash) fingerprintOf(key *Key, r *http.Request, request []byte, bodyAt int) [32]byte {
	types := r.Header["Content-Type"]
	if len(types) != 1 || !isMultipart(types[0]) {
		return h.fingerprint(key, request)
	}
	by := newBuffer()
	defer by.release()
	by.b = append(by.b, request[:bodyAt]...)
	by.b = appendMultipart(by.b, types[0], request[bodyAt:])
	return h.fingerprint(key, by.b)
}

// isMultipart reports whether a Content-Type is a multipart one.
func isMultipart(contentType string) bool {
	const prefix = "multipart/"
	contentType = strings.TrimSpace(contentType)
	return len(contentType) >= len(prefix) && strings.EqualFold(contentType[:len(prefix)], prefix)
}

// appendMultipart appends a body with this Content-Type such that two bodies have the same
// bytes only if they have the same parts, or are the same with the same type.
func appendMultipart(b []byte, contentType string, body []byte) []byte {
	// A type that cannot be parsed has no boundary.
	_, parameters, _ := mime.ParseMediaType(contentType)
	if pieces, ok := splitMultipart(body, parameters["boundary"]); ok {
		b = append(b, 1)
		for _, piece := range pieces {
			b = binary.AppendUvarint(b, uint64(len(piece)))
			b = append(b, piece...)
		}
		return b
	}
	b = append(b, 0)
	b = appendPart(b, contentType)
	return append(b, body...)
}

// splitMultipart returns what is before, between and after the delimiters of a body (RFC
// 2046, section 5.1.1). It returns false for anything that parsers could read in different
// ways, such as a delimiter that does not begin or end its line.
func splitMultipart(body []byte, boundary string) (pieces [][]byte, ok bool) {
	if boundary == "" {
		return nil, false
	}
	delimiter, newline := []byte("--"+boundary), []byte("\r\n")
	before, rest, found := bytes.Cut(body, delimiter)
	if !found || len(before) > 0 && !bytes.HasSuffix(before, newline) {
		return nil, false
	}
	for pieces = append(pieces, before); !bytes.HasPrefix(rest, []byte("--")); pieces = append(pieces, before) {
		if rest, ok = bytes.CutPrefix(rest, newline); !ok {
			return nil, false
		}
		if before, rest, ok = bytes.Cut(rest, delimiter); !ok {
			return nil, false
		}
		if before, ok = bytes.CutSuffix(before, newline); !ok {
			return nil, false
		}
	}
	after := rest[len("--"):]
	if len(after) > 0 && !bytes.HasPrefix(after, newline) || bytes.Contains(after, delimiter) {
		return nil, false
	}
	return append(pieces, after), true
}
