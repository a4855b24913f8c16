package clientip

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/usher-go/usher"
)

// RequireTLS returns the middleware that refuses every request that its client did
// not send over TLS, with 403 and [usher.CodeTLSRequired]. It stands inside the
// [Resolver], and outside everything that reads a credential. Without a Resolver
// only the connection itself counts.
//
// RequireTLS never redirects: a client that follows a redirect sends its credential
// in plain text first, each time, and nobody notices. Neither 426 nor 421 would do:
// 426 offers to upgrade the same connection, which no client can do to TLS, and 421
// invites the client to send the same request again (RFC 9110, sections 15.5.20 and
// 15.5.22). The request is well-formed, so it is no 400. 403 means that the server
// refuses the request, for reasons that need not concern the credential, and that
// repeating it will not help (RFC 9110, section 15.5.4).
//
// A credential that arrives in plain text may have been read on the way. Let clients
// reach no plain port at all where you can; Strict-Transport-Security is the matter
// of the server that ends TLS.
func RequireTLS() usher.Middleware { return requireTLS{} }

type requireTLS struct{}

func (m requireTLS) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.ServeNext(w, r, next) })
}

func (requireTLS) ServeNext(w http.ResponseWriter, r *http.Request, next http.Handler) {
	secure := r.TLS != nil
	if c := stored(r); c != nil {
		secure = c.TLS
	}
	if !secure {
		usher.Fail(w, r, errTLSRequired)
		return
	}
	next.ServeHTTP(w, r)
}

var errTLSRequired = &usher.Error{
	Status:  http.StatusForbidden,
	Code:    usher.CodeTLSRequired,
	Message: "The request must be sent over TLS.",
}

const forwardedProto = "X-Forwarded-Proto"

// forwards reports whether a proxy states anything about whom it forwards for. If it
// does, the connection is that of the proxy and does not count.
func forwards(h http.Header, field string) bool {
	return len(h[field]) > 0 || len(h[forwardedProto]) > 0 || len(h["Forwarded"]) > 0
}

// sentOverTLS reports whether h, which a trusted proxy at peer has sent, states that
// the client used TLS: in Forwarded if that is the field which the proxies write, in
// X-Forwarded-Proto otherwise, and without a contradiction in the other one. proto is
// what the element of the client in Forwarded states.
func (res *Resolver) sentOverTLS(h http.Header, peer netip.Addr, proto string) bool {
	protos := h[forwardedProto]
	if res.format == forwarded {
		return isSecure(proto) && (len(protos) == 0 || allSecure(protos))
	}
	_, proto = res.walk(forwarded, peer, h["Forwarded"])
	return allSecure(protos) && (proto == "" || isSecure(proto))
}

// allSecure reports whether lines hold at least one scheme, and none without TLS. No
// position in the list is known to be that of the client's connection: some proxies
// append to the field, others replace it.
func allSecure(lines []string) bool {
	for _, line := range lines {
		for more := true; more; {
			var proto string
			if proto, line, more = strings.Cut(line, ","); !isSecure(trim(proto)) {
				return false
			}
		}
	}
	return len(lines) > 0
}

// isSecure reports whether a scheme implies TLS. Some proxies write that of a
// WebSocket.
func isSecure(proto string) bool {
	// The length leaves only ASCII: EqualFold takes U+017F for an s.
	return len(proto) == len("https") && strings.EqualFold(proto, "https") ||
		len(proto) == len("wss") && strings.EqualFold(proto, "wss")
}
