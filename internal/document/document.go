// Package document serves public JSON documents that rarely change, such as key sets
// and metadata.
package document

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-go/usher/internal/exchange"
)

// A Document is the content of a response.
type Document struct {
	Body []byte
	// Type is the media type; empty means application/json.
	Type string
	// MaxAge is how long anybody may cache the response.
	MaxAge time.Duration
	// AnyOrigin lets pages of every origin read the responses, and send any header field
	// with the request, because OAuth clients in browsers add their own.
	AnyOrigin bool
}

// Serve responds to GET and HEAD with d, or with 304 if the client already has d. For any
// other method it sets Allow and calls notAllowed. No envelope wraps the response. If d is
// for any origin, Serve also responds to the preflight requests of browsers
// (https://fetch.spec.whatwg.org/#cors-preflight-request).
func Serve(w http.ResponseWriter, r *http.Request, d Document, notAllowed http.HandlerFunc) {
	h := w.Header()
	allow := "GET, HEAD"
	if d.AnyOrigin {
		h["Access-Control-Allow-Origin"] = []string{"*"}
		allow = "GET, HEAD, OPTIONS"
	}
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
	case r.Method == http.MethodOptions && d.AnyOrigin:
		h["Allow"] = []string{allow}
		h["Access-Control-Allow-Methods"] = []string{"GET, HEAD"}
		h["Access-Control-Allow-Headers"] = []string{"*"}
		h["Access-Control-Max-Age"] = []string{"86400"}
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		h["Allow"] = []string{allow}
		notAllowed(w, r)
		return
	}
	sum := sha256.Sum256(d.Body)
	etag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	h["Etag"] = []string{etag}
	h["Cache-Control"] = []string{"public, max-age=" + strconv.Itoa(int(d.MaxAge/time.Second))}
	status := http.StatusOK
	if matches(r.Header["If-None-Match"], etag) {
		status = http.StatusNotModified
	}
	if x := exchange.From(r.Context()); x != nil {
		x.Render(status) // the document has its own shape
	}
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	h["Content-Type"] = []string{"application/json"}
	if d.Type != "" {
		h["Content-Type"] = []string{d.Type}
	}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	_, _ = w.Write(d.Body) // a client that has disconnected needs no document
}

// matches reports whether If-None-Match names etag (RFC 9110, section 13.1.2).
func matches(fields []string, etag string) bool {
	return slices.ContainsFunc(fields, func(field string) bool {
		for tag := range strings.SplitSeq(field, ",") {
			if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
				return true
			}
		}
		return false
	})
}
