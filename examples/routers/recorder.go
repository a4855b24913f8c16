package routers

import "net/http"

// A recorder takes the pattern of a route in place of a response.
type recorder struct {
	pattern string
	header  http.Header
}

// record is for the handlers of a router that has nothing but patterns.
func record(w http.ResponseWriter, pattern string) {
	if found, ok := w.(*recorder); ok {
		found.pattern = pattern
	}
}

// Header is for the redirects of a router.
func (f *recorder) Header() http.Header {
	if f.header == nil {
		f.header = make(http.Header)
	}
	return f.header
}

func (*recorder) WriteHeader(int) {}

func (*recorder) Write(p []byte) (int, error) { return len(p), nil }
