// Package header has the rules for header fields of responses that are not what the
// handler began to write.
package header

import (
	"net/http"
	"strings"
)

// MakeError changes h, which may have fields of a success, to that of an error with this
// status. noStore becomes the value of Cache-Control: a refusal depends on who calls and
// when, and caches may store a 404 or a 410 even if no field allows them to (RFC 9110,
// section 15.1).
func MakeError(h http.Header, status int, noStore *[1]string) {
	ClearSuccess(h, status)
	noStore[0] = "no-store"
	h["Cache-Control"] = noStore[:]
}

// ClearSuccess removes from h what an error with this status must not have: fields about
// the bytes, the age and the place of a success, and fields with which a proxy would send
// something else or store the error. Fields for the caller or about the error stay:
// cookies, Retry-After, Allow, challenges, the state of limits, Vary, Link, CORS.
// Content-Type and Content-Encoding are for the caller of ClearSuccess.
func ClearSuccess(h http.Header, status int) {
	for name := range h {
		if ofSuccess(name) && !(name == "Content-Range" && status == http.StatusRequestedRangeNotSatisfiable) {
			delete(h, name)
		}
	}
}

func ofSuccess(name string) bool {
	switch name {
	case "Etag", "Last-Modified", "Expires", "Location",
		"Content-Disposition", "Content-Language", "Content-Location", "Content-Range",
		// Caches prefer these to Cache-Control (RFC 9213).
		"Surrogate-Control", "Edge-Control", "X-Accel-Expires",
		"X-Accel-Redirect", "X-Sendfile":
		return true
	}
	return DescribesBytes(name) || strings.HasSuffix(name, "Cache-Control")
}

// DescribesBytes reports whether the field with this name describes the bytes of a body,
// or offers parts of them, so that it is wrong for other bytes.
func DescribesBytes(name string) bool {
	switch name {
	case "Content-Length", "Accept-Ranges", "Digest", "Content-Digest", "Repr-Digest", "Content-Md5":
		return true
	}
	return false
}
