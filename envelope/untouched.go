package envelope

import (
	"net/http"
	"strings"
)

// Untouched returns a handler that exempts what next writes from [Config.Wrap], for
// documents whose form a standard fixes: those under /.well-known, an OpenAPI document,
// the responses of a gateway to gRPC. It has no effect without an [Envelope] around it.
//
//	mux.Handle("/.well-known/", envelope.Untouched(documents))
//
// [usher.Fail] still uses the shape, so a request that is refused inside gets the usual
// error.
func Untouched(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		For(w, r).Untouched()
		next.ServeHTTP(w, r)
	})
}

// leaveUntouched exempts what the handler writes from this envelope and those around it.
func (t *transaction) leaveUntouched() {
	for ; t != nil; t = t.outer {
		t.untouched.Store(true)
	}
}

// exempt reports whether [Config.Untouched] exempts the response.
func (t *transaction) exempt(status int) (exempt bool) {
	r := t.writer.Request()
	if t.env.untouched == nil {
		return status < 300 && isStandardDocument(r)
	}
	t.env.guard(r, func() { exempt = t.env.untouched(r) })
	return exempt
}

// isStandardDocument reports whether r asks for a document whose form a standard fixes.
func isStandardDocument(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.URL == nil {
		return false
	}
	if strings.HasPrefix(r.URL.Path, "/.well-known/") {
		return true
	}
	switch r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] {
	case "openapi.json", "swagger.json", "jwks.json":
		return true
	}
	return false
}
