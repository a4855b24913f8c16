package clientip

import (
	"net/http"
	"strings"

	"github.com/usher-go/usher"
)

// RequireTLS returns a middleware that refuses every request that its client did not send
// over TLS, with 403 and [usher.CodeTLSRequired]. Put it inside the [Resolver], and
// outside everything that reads a credential. Without a Resolver only the connection
// itself counts. If RequireTLS refuses clients that reached a proxy over TLS, the proxy
// is not among the TrustedProxies or does not state the scheme. For nginx:
//
//	proxy_set_header X-Forwarded-Proto $scheme;
//	proxy_set_header X-Forwarded-For   $proxy_add_x_forwarded_for;
//
// Use [usher.Unless] to exempt health checks that reach the server directly, without TLS.
// In a test, httptest.NewRequest makes a request over TLS if its target begins with
// https://.
//
// RequireTLS never redirects: a client that follows a redirect would send its credential
// in plain text before each redirect, and nobody would notice. 403 means that the server
// understood the request and refuses it, for a reason that need not be the credential
// (RFC 9110, section 15.5.4). Other statuses promise more: 426 offers to upgrade the same
// connection, which is not how clients start TLS (section 15.5.22); 421 lets the client
// send the same request again (section 15.5.20); and 400 is for malformed requests.
//
// A credential that arrives in plain text may have been read on the way. Where possible,
// do not let clients reach a plain port at all. RequireTLS does not send
// Strict-Transport-Security; that is up to the server that terminates TLS.
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

// allSecure reports whether lines hold at least one scheme and every scheme implies TLS.
// Some proxies append to the field and others replace it, so no fixed position in it
// describes the connection of the client.
func allSecure(lines []string) bool {
	elements := 0
	for _, line := range lines {
		if len(line) > maxElement {
			return false
		}
		for more := true; more; {
			if elements++; elements > maxElements {
				return false
			}
			var proto string
			if proto, line, more = strings.Cut(line, ","); !isSecure(trim(proto)) {
				return false
			}
		}
	}
	return elements > 0
}

// isSecure reports whether a scheme implies TLS. Some proxies write wss for a WebSocket.
func isSecure(proto string) bool {
	// The length excludes non-ASCII letters: EqualFold equates U+017F with s.
	return len(proto) == len("https") && strings.EqualFold(proto, "https") ||
		len(proto) == len("wss") && strings.EqualFold(proto, "wss")
}
