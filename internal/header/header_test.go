package header_test

import (
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/usher-go/usher/internal/header"
)

func TestAnErrorHasNoFieldOfASuccess(t *testing.T) {
	kept := []string{
		"Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Allow", "Content-Encoding", "Content-Type",
		"Deprecation", "Link", "Proxy-Authenticate", "Ratelimit", "Ratelimit-Policy", "Retry-After", "Set-Cookie",
		"Strict-Transport-Security", "Sunset", "Vary", "Www-Authenticate", "X-Content-Type-Options", "X-Request-Id",
	}
	gone := []string{
		"Accept-Ranges", "Cdn-Cache-Control", "Cloudflare-Cdn-Cache-Control", "Content-Digest", "Content-Disposition",
		"Content-Language", "Content-Length", "Content-Location", "Content-Md5", "Content-Range", "Digest", "Edge-Control",
		"Etag", "Expires", "Last-Modified", "Location", "Repr-Digest", "Surrogate-Control", "X-Accel-Expires",
		"X-Accel-Redirect", "X-Sendfile",
	}
	h := make(http.Header)
	for _, name := range slices.Concat(kept, gone) {
		h.Set(name, "x")
	}
	h.Set("Cache-Control", "public, max-age=3600")
	header.MakeError(h, http.StatusNotFound, new([1]string))
	if got := h["Cache-Control"]; !slices.Equal(got, []string{"no-store"}) {
		t.Errorf("Cache-Control is %q", got)
	}
	delete(h, "Cache-Control")
	if got := slices.Sorted(maps.Keys(h)); !slices.Equal(got, kept) {
		t.Errorf("left are %q, want %q", got, kept)
	}
}

// A 416 has the length of the whole in Content-Range (RFC 9110, section 15.5.17).
func TestTheRangeOfA416Stays(t *testing.T) {
	h := http.Header{"Content-Range": {"bytes */7"}}
	header.MakeError(h, http.StatusRequestedRangeNotSatisfiable, new([1]string))
	if h.Get("Content-Range") != "bytes */7" {
		t.Errorf("header %v", h)
	}
}
