package envelope

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/header"
)

// wrappedTag ends the entity tag of a wrapped response that has a strong tag without the
// envelope, as servers that compress do with "-gzip". The two have different bytes: if a
// client resumed one with a part of the other, the result would be broken under a valid
// tag.
const wrappedTag = "-wrapped"

// markTag returns the tag of the wrapped form of a response with this strong tag.
func (t *transaction) markTag(etag string) string {
	if t.env.shape.Constant {
		return marked(etag)
	}
	return "W/" + marked(etag) // a strong tag promises the same bytes (RFC 9110, section 8.8.1)
}

// marked returns the strong tag etag with wrappedTag at its end.
func marked(etag string) string { return etag[:len(etag)-1] + wrappedTag + `"` }

// isStrong reports whether etag is a strong entity tag.
func isStrong(etag string) bool { return len(etag) >= 2 && etag[0] == '"' && etag[len(etag)-1] == '"' }

// isMarked reports whether field has an entity tag of markTag.
func isMarked(field string) bool { return strings.Contains(field, wrappedTag+`"`) }

// unmarkTags returns field, a list of entity tags, with the tags of the handler in place
// of those of markTag.
func unmarkTags(field string) string {
	parts := strings.Split(field, `"`)
	for i := 1; i < len(parts)-1; i += 2 { // the tags, between quotes
		if tag, ok := strings.CutSuffix(parts[i], wrappedTag); ok {
			parts[i-1], parts[i] = strings.TrimSuffix(parts[i-1], "W/"), tag
		}
	}
	return strings.Join(parts, `"`)
}

// conditional returns r, the request for the handler, with the conditions of the client as
// they apply to what the handler writes. If-Range stays: the tag of a wrapped response
// never matches, and so the handler sends all of it again.
func (t *transaction) conditional(r *http.Request) *http.Request {
	if !t.env.wrap || t.env.shape.Before == nil {
		return r
	}
	var h http.Header // of the handler, if it differs
	change := func() http.Header {
		if h == nil {
			h = maps.Clone(r.Header)
		}
		return h
	}
	for _, name := range [...]string{"If-None-Match", "If-Match"} {
		if values := r.Header[name]; len(values) > 0 && slices.ContainsFunc(values, isMarked) {
			own := make([]string, len(values))
			for i, v := range values {
				own[i] = unmarkTags(v)
			}
			change()[name] = own
		}
	}
	if hasUnsafeRange(r) {
		// A server may always send the whole (RFC 9110, section 14.2).
		delete(change(), "Range")
		delete(h, "If-Range")
	}
	if h == nil {
		return r
	}
	if r == t.request {
		r = r.WithContext(r.Context())
	}
	r.Header = h
	return r
}

// hasUnsafeRange reports whether r asks for a range of a file of JSON, or for several ranges of
// bytes: their response does not state in its header that it has parts of JSON.
func hasUnsafeRange(r *http.Request) bool {
	ranges := r.Header["Range"]
	if len(ranges) == 0 {
		return false
	}
	return strings.HasPrefix(ranges[0], "bytes=") && strings.Contains(ranges[0], ",") ||
		r.URL != nil && strings.HasSuffix(strings.ToLower(r.URL.Path), ".json")
}

// markNotModified gives a 304 the tag of the wrapped response that the client has.
func (t *transaction) markNotModified(h http.Header, etag string) {
	if !isStrong(etag) {
		return
	}
	own := marked(etag)
	if slices.ContainsFunc(t.request.Header["If-None-Match"], func(asked string) bool { return strings.Contains(asked, own) }) {
		h["Etag"] = []string{t.markTag(etag)}
	}
}

// isPart reports whether the handler sends some bytes of JSON that is wrapped as a whole.
func (t *transaction) isPart(body *description) bool {
	return body.mediaType == plainJSON &&
		strings.HasPrefix(body.contentRange, "bytes ") && len(t.request.Header["Range"]) > 0
}

// The status is not 416, from which curl and wget conclude that they have all of the body.
var errPart = &usher.Error{
	Status:  http.StatusBadRequest,
	Message: "This resource has no ranges of bytes. Request all of it.",
}

// refusePart responds to a request for some of the bytes of wrapped JSON.
func (t *transaction) refusePart(w http.ResponseWriter) {
	header.MakeError(w.Header(), errPart.Status, new([1]string))
	t.writeError(w, 0, errPart)
}
