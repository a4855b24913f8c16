package envelope

import (
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/usher-go/usher/internal/header"
)

// A description is what the header states about the body.
type description struct {
	mediaType mediaType
	etag      string   // the one entity tag, or ""
	stale     bool     // the header has fields for dropStale
	encoding  []string // such as gzip
	trailer   bool     // fields follow the body
	// attachment is set if the client saves the body as a file.
	attachment bool
	// contentRange is not empty if the body is a part of the whole.
	contentRange string
}

// describe reads the header in one pass, which costs less than a look-up of every
// name.
func describe(h http.Header) description {
	d := description{mediaType: undeclared}
	for name, values := range h {
		if len(values) == 0 {
			continue
		}
		switch name {
		case "Content-Type":
			d.mediaType = mediaTypeOf(values[0])
		case "Etag":
			if len(values) == 1 {
				d.etag = values[0]
			}
		case "Content-Encoding":
			d.encoding = values
		case "Content-Range":
			d.contentRange = values[0]
		case "Content-Disposition":
			kind, _, _ := strings.Cut(values[0], ";")
			d.attachment = strings.EqualFold(strings.TrimSpace(kind), "attachment")
		case "Trailer":
			d.trailer = true
		default:
			d.stale = d.stale || header.DescribesBytes(name)
		}
	}
	return d
}

func isEncoding(v string) bool { return v != "" && !strings.EqualFold(v, "identity") }

// A mediaType is the part of a Content-Type that matters here.
type mediaType uint8

const (
	other      mediaType = iota
	plainJSON            // application/json in UTF-8 or ASCII
	plainText            // text/plain
	undeclared           // no Content-Type
)

const jsonType = "application/json"

func mediaTypeOf(contentType string) mediaType {
	switch contentType {
	case jsonType, "application/json; charset=utf-8", "application/json; charset=UTF-8", "application/json;charset=UTF-8":
		return plainJSON
	}
	name, _, _ := strings.Cut(contentType, ";")
	switch name = strings.TrimSpace(name); {
	case strings.EqualFold(name, "application/json"):
		if isUTF8(contentType) {
			return plainJSON
		}
	case strings.EqualFold(name, "text/plain"):
		return plainText
	}
	return other
}

// isUTF8 reports whether text of this media type may be read as UTF-8, which the shape adds
// around it.
func isUTF8(contentType string) bool {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return !strings.Contains(strings.ToLower(contentType), "charset")
	}
	switch strings.ToLower(params["charset"]) {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		return true
	}
	return false
}

// reshape adapts the header to the body that the client will get.
func (t *transaction) reshape(h http.Header, status int, body *description) {
	t.length = -1
	if body.stale {
		t.length = declaredLength(h)
		dropStale(h)
	}
	if !slices.Equal(body.encoding, t.announced()) {
		t.restoreEncoding(h)
	}
	t.nosniff[0] = "nosniff"
	h["X-Content-Type-Options"] = t.nosniff[:1:1]
	if v := h["Content-Type"]; len(v) > 0 && namesASCII(v[0]) {
		h["Content-Type"] = []string{"application/json"} // the shape may add more than ASCII
	}
	switch {
	case t.phase == replacing:
		t.contentType[0] = t.env.shape.ErrorType
		h["Content-Type"] = t.contentType[:1:1]
	case t.env.shape.Type != jsonType:
		t.contentType[0] = t.env.shape.Type
		h["Content-Type"] = t.contentType[:1:1]
	}
	switch {
	case t.phase == replacing:
		header.MakeError(h, status, new([1]string))
		challenge(h, status)
	case isStrong(body.etag):
		h["Etag"] = []string{t.markTag(body.etag)}
	}
}

// namesASCII reports whether contentType ends with a charset of ASCII characters alone.
func namesASCII(contentType string) bool {
	const charset = "ascii"
	n := len(contentType) - len(charset)
	return n >= 0 && strings.EqualFold(contentType[n:], charset)
}

// challenge ensures that a 401 has a challenge (RFC 9110, section 15.5.2).
func challenge(h http.Header, status int) {
	if status == http.StatusUnauthorized && len(h["Www-Authenticate"]) == 0 {
		h["Www-Authenticate"] = []string{"Bearer"}
	}
}

// declaredLength returns the Content-Length in h as the server parses it, or -1.
func declaredLength(h http.Header) int64 {
	n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// restoreEncoding removes the Content-Encoding that the handler set for its own body.
func (t *transaction) restoreEncoding(h http.Header) {
	if t.encoding == nil {
		delete(h, "Content-Encoding")
	} else {
		h["Content-Encoding"] = *t.encoding
	}
}

// dropStale removes the fields that describe the bytes of the replaced body, or offer
// parts of it.
func dropStale(h http.Header) {
	for name := range h {
		if header.DescribesBytes(name) {
			delete(h, name)
		}
	}
}
